"""RocksDB through rocksdict, in its raw mode: bytes in, bytes out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.compare.peers.key_value import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

__all__ = ["RocksDb"]

MEMORY_BYTES = 256 << 20


class RocksDb(Store):
    """No compression, a memory table that holds the whole run, no write-ahead log beyond what a level asks for."""

    name = "RocksDB"

    def __init__(self, directory: Path) -> None:
        import rocksdict

        self._module: Any = rocksdict
        options = rocksdict.Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_write_buffer_size(MEMORY_BYTES)
        options.set_compression_type(rocksdict.DBCompressionType.none())
        self._db = rocksdict.Rdict(str(directory / "rocksdb"), options)
        self.put = self._db.put
        self.get = self._db.get
        self._synced = rocksdict.WriteOptions()
        self._synced.sync = True
        self._unsynced = rocksdict.WriteOptions()

    def batch(self) -> tuple[Callable[[bytes, bytes], Any], Callable[[], Any]]:
        batch = self._module.WriteBatch(raw_mode=True)
        return batch.put, lambda: self._db.write(batch, self._unsynced)

    def write(self, items: Iterable[tuple[bytes, bytes]], *, sync: bool) -> None:
        batch = self._module.WriteBatch(raw_mode=True)
        put = batch.put
        for key, value in items:
            put(key, value)
        self._db.write(batch, self._synced if sync else self._unsynced)

    def values(self) -> Iterable[bytes]:
        values: Iterable[bytes] = self._db.values()
        return values

    def seek(self, key: bytes) -> bytes | None:
        found = next(iter(self._db.values(from_key=key)), None)
        return None if found is None else bytes(found)

    def settle(self) -> None:
        self._db.flush()
        self._db.compact_range(None, None)

    def close(self) -> None:
        self._db.close()
