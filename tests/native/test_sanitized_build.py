"""Under ``.ci/sanitizers``: that the sanitizers are really there. And in any build: what they were made to look for."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

import logstore
from logstore._native import checksum


@pytest.mark.skipif("LOGSTORE_SANITIZED" not in os.environ, reason="meant for .ci/sanitizers")
def test_the_sanitized_build_is_what_runs() -> None:
    with open("/proc/self/maps") as maps:
        libraries = maps.read()
    assert "libasan" in libraries
    assert "libubsan" in libraries
    symbols = Path(checksum.__file__).read_bytes()
    assert b"__asan_report_load" in symbols, f"{checksum.__file__} is not instrumented"
    assert b"__ubsan_handle" in symbols


def test_every_prefix_of_a_batch_is_read_within_its_bounds(tmp_path: Path) -> None:
    """In memory of exactly its size, so that a read past the end is one past the allocation."""
    with logstore.open(tmp_path / "data") as broker:
        log = broker.create_topic("t").partition(0)
        log.append_many([b"v" * number for number in range(20)], keys=[None, b"k"] * 10, headers=[("h", b"x"), ("", None)])
        whole = bytes(log.fetch(0)[0])
        for size in range(len(whole)):
            with pytest.raises((logstore.LogstoreError, ValueError)):
                log.append_as_leader(bytearray(whole[:size]))
        assert log.append_as_leader(bytearray(whole)) == range(20, 40)


def test_buffers_that_change_while_they_are_appended(tmp_path: Path) -> None:
    """Another thread writes into the bytes that are appended: the record may hold either, the batch is sound."""
    with logstore.open(tmp_path / "data", durability="appended") as broker:
        log = broker.create_topic("t").partition(0)
        value = bytearray(b"a" * 4096)
        stop = threading.Event()

        def change() -> None:
            while not stop.is_set():
                value[:] = b"b" * 4096
                value[:] = b"a" * 4096

        thread = threading.Thread(target=change)
        thread.start()
        try:
            for _ in range(300):
                log.append_many([value] * 4)
        finally:
            stop.set()
            thread.join()
        assert all(set(record.value) <= set(b"ab") for record in log.read())


def test_a_buffer_can_not_be_resized_under_an_append(tmp_path: Path) -> None:
    with logstore.open(tmp_path / "data", durability="appended") as broker:
        log = broker.create_topic("t").partition(0)
        value = bytearray(b"x" * 100)
        stop = threading.Event()

        def resize() -> None:
            while not stop.is_set():
                try:
                    value.extend(b"y" * 1000)
                    del value[100:]
                except BufferError:
                    pass

        thread = threading.Thread(target=resize)
        thread.start()
        try:
            for _ in range(500):
                log.append_many([value, value])
        finally:
            stop.set()
            thread.join()
        assert sum(1 for _ in log.read()) == 1000
