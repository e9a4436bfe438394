from collections.abc import Callable

PARTITIONERS: tuple[str, ...]

class Partitioner:
    count: int
    def __init__(self, partitioner: str | Callable[[bytes | None, int], int], count: int): ...
    def partition_for(self, key: bytes | None) -> int: ...
