"""LevelDB through plyvel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.compare.peers.key_value import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

__all__ = ["LevelDb"]

MEMORY_BYTES = 256 << 20


class LevelDb(Store):
    """No compression, a memory table and a cache that hold the whole run."""

    name = "LevelDB"

    def __init__(self, directory: Path) -> None:
        import plyvel

        self._db: Any = plyvel.DB(
            str(directory / "leveldb"),
            create_if_missing=True,
            compression=None,
            write_buffer_size=MEMORY_BYTES,
            lru_cache_size=MEMORY_BYTES,
        )
        self.put = self._db.put
        self.get = self._db.get

    def batch(self) -> tuple[Callable[[bytes, bytes], Any], Callable[[], Any]]:
        batch = self._db.write_batch()
        return batch.put, batch.write

    def write(self, items: Iterable[tuple[bytes, bytes]], *, sync: bool) -> None:
        batch = self._db.write_batch(sync=sync)
        put = batch.put
        for key, value in items:
            put(key, value)
        batch.write()

    def values(self) -> Iterable[bytes]:
        values: Iterable[bytes] = self._db.iterator(include_key=False)
        return values

    def seek(self, key: bytes) -> bytes | None:
        with self._db.raw_iterator() as iterator:
            iterator.seek(key)
            return bytes(iterator.value()) if iterator.valid() else None

    def settle(self) -> None:
        self._db.compact_range()

    def close(self) -> None:
        self._db.close()
