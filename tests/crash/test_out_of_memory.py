"""Allocations fail, one after the other, and for good: MemoryError, and the log is what it was."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import shim

EACH_ALLOCATION = textwrap.dedent("""
    import faulthandler, sys
    import _testcapi
    from logstore.storage.log import Log

    class NoThread:
        # Which thread an allocation fails in is not ours to say: there is only one.
        def schedule(self, delay_ms, step): pass
        schedule_urgent = schedule
        def close(self): pass
        def forget(self): pass

    faulthandler.dump_traceback_later(60, exit=True)
    log = Log(sys.argv[1] + "/t-0", durability="appended", scheduler=NoThread(), deletion_scheduler=NoThread())
    values = [b"%d" % number for number in range(50)]

    def append(): return log.append(b"one", b"key", headers=[("h", b"v")])
    def append_many(): return log.append_many(values, values)
    def buffered(): return log.append(b"one", durability="buffered")
    def read(): return [record.value for record in log.read(0, stop=40)]
    def scan(): return [batch.values() for batch in log.scan(0, stop=40)]
    def by_time(): return log.offset_for_timestamp(1)
    def flush(): return log.flush()
    def roll(): return log.roll()

    append_many()
    for step in (append, append_many, buffered, read, scan, by_time, flush, roll):
        step()
    kept = {record.offset: record.value for record in log.read()}
    failures = 0
    for step in (append, append_many, buffered, read, scan, by_time, flush, roll):
        for allocation in range(0, 150):
            before = log.log_end_offset + log.open_batch_records_count
            outcome = None
            _testcapi.set_nomemory(allocation, allocation + 1)
            try:
                outcome = step()
            except MemoryError:
                outcome = MemoryError
            finally:
                _testcapi.remove_mem_hooks()
            failures += outcome is MemoryError
            after = log.log_end_offset + log.open_batch_records_count
            if step in (append, buffered):
                # Refused, or all of it; the error may come when it is in already, while the answer is made.
                assert after - before in ((0, 1) if outcome is MemoryError else (1,)), (step, allocation, before, after)
            elif step is append_many:
                assert after - before in ((0, 50) if outcome is MemoryError else (50,)), (step, allocation, before, after)
            else:
                assert after == before, (step, allocation)
    assert failures > 30, failures
    log.flush()
    records = [(record.offset, record.value) for record in log.read()]
    assert [offset for offset, _ in records] == list(range(log.log_end_offset))
    assert all(dict(records)[offset] == value for offset, value in kept.items())
    assert log.append(b"more") == len(records)
    log.close()
    with Log(sys.argv[1] + "/t-0") as log:
        assert [(record.offset, record.value) for record in log.read()] == [*records, (len(records), b"more")]
        assert log.damage is None and not log.recovery_report.cut_bytes
    print(failures)
""")

NO_ADDRESS_SPACE = textwrap.dedent("""
    import resource, sys
    import logstore

    with logstore.open(sys.argv[1], durability="appended") as broker:
        topic = broker.create_topic("t", max_message_bytes=1 << 29)
        log = topic.partition(0)
        log.append(b"first")
        large = bytes(1 << 27)
        log.append(large)
        with open("/proc/self/statm") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (40 << 20), resource.RLIM_INFINITY))
        refused = 0
        for step in (lambda: log.append(large), lambda: log.append_many([large, b"x"]),
                     lambda: [record.value for record in log.read()], lambda: log.append(large, durability="buffered")):
            try:
                step()
            except MemoryError:
                refused += 1
        assert log.append(b"small") == log.log_end_offset - 1
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert refused, "nothing was refused"
        sizes = [len(record.value) for record in log.read()]
        assert sizes[:2] == [5, 1 << 27]
        assert sizes[-1] == 5
        print(refused)
""")


def run(program: str, folder: Path) -> int:
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", program, folder], timeout=90, env=shim.environment(None), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.fault(37, "out of memory")
def test_each_allocation_of_the_interpreter_fails_once(work: Path) -> None:
    pytest.importorskip("_testcapi", reason="NOT TESTED: failing allocations; this interpreter has no _testcapi")
    assert run(EACH_ALLOCATION, work / "data") > 30


@pytest.mark.skipif(sys.platform != "linux", reason="NOT TESTED: no address space left; the limit is Linux's")
@pytest.mark.fault(37, "out of memory")
def test_no_address_space_left_for_a_large_record(work: Path) -> None:
    assert run(NO_ADDRESS_SPACE, work / "data") > 0
