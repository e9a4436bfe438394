from collections.abc import Mapping

from logstore._native.segment import Segment

def learn_facts(segments: tuple[Segment, ...], directory: str, digests: Mapping[int, object]) -> None: ...
