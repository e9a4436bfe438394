from collections.abc import Iterable

from logstore._native.log_state import LogState

ROWS_MAX: int
BYTES_MAX: int

def stream_capsule(
    parts: Iterable[tuple[LogState, int, int]],
    requested_schema: object = None,
    *,
    rows_max: int = ...,
    bytes_max: int = ...,
    committed: bool = ...,
) -> object: ...
