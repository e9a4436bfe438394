from collections.abc import Callable

from logstore.model import BytesLike

def set_codecs(
    compress: Callable[[int, BytesLike, int | None], bytes],
    decompress: Callable[[int, BytesLike, int, str, int], bytes],
) -> None: ...
