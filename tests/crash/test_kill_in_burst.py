"""A process is killed at a random moment of a burst of appended records: nothing that it had acknowledged is lost.

The writer stores each acknowledged offset into a mapped page of its own, which outlives it as the records have to.
"""

from __future__ import annotations

import mmap
import os
import random
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

import logstore

ROUNDS = int(os.environ.get("LOGSTORE_CRASH_KILLS", "8"))
SEED = int(os.environ.get("LOGSTORE_CRASH_SEED", "1"))

WRITER = """
import mmap, os, struct, sys, threading
import logstore

directory, page, mode = sys.argv[1:]
with open(page, "r+b") as file:
    acknowledged = mmap.mmap(file.fileno(), 4096)
broker = logstore.open(directory, durability="appended")
settings = {"segment_bytes": 1 << 20, "logstore_open_batch_mapped": mode != "written"}
topic = broker.topic("t") if "t" in broker else broker.create_topic("t", **settings)
log = topic.partition(0)
number = log.log_end_offset
if mode == "reader":
    def follow():
        for record in log.read(follow=True):
            pass
    threading.Thread(target=follow, daemon=True).start()
if mode == "looks":
    def look():
        while True:
            assert log.log_end_offset >= 0
    threading.Thread(target=look, daemon=True).start()
while True:
    durability = "buffered" if mode == "mixed" and number % 3 == 1 else "appended"
    offset = log.append(b"value %d " % number + b"." * (number % 300), b"key %d" % number, durability=durability)
    assert offset == number
    if durability == "appended":
        struct.pack_into("<q", acknowledged, 0, offset + 1)
    if mode == "truncates" and number % 5000 == 4999:
        struct.pack_into("<q", acknowledged, 0, number - 100)
        log.truncate_to(number - 100)
        number -= 101
    number += 1
"""


@pytest.mark.parametrize("mode", ["plain", "written", "mixed", "reader", "looks", "truncates"])
def test_killed_in_a_burst(mode: str, tmp_path: Path) -> None:
    chance = random.Random(f"{SEED} {mode}")
    directory = tmp_path / "data"
    page = tmp_path / "acknowledged"
    page.write_bytes(bytes(4096))
    found_in_file = 0
    before = 0
    for round_number in range(max(ROUNDS // 4, 2)):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, directory, page, mode],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        with open(page, "r+b") as file, mmap.mmap(file.fileno(), 4096) as acknowledged:
            deadline = time.monotonic() + 120
            while struct.unpack_from("<q", acknowledged)[0] <= before:
                assert writer.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.005)
            time.sleep(chance.random() * 0.2)
            writer.send_signal(signal.SIGKILL)
            writer.wait()
            promised = struct.unpack_from("<q", acknowledged)[0]
        files = list(directory.rglob("logstore.open-batch"))
        found_in_file += bool(files and files[0].read_bytes()[128:136] != bytes(8))
        for _ in range(2):
            with logstore.open(directory) as broker:
                assert not broker.damages
                log = broker.topic("t").partition(0)
                records = [(record.offset, record.key) for record in log.read()]
                lost = promised - log.log_end_offset
                assert lost <= 0, f"round {round_number}: {lost} records are lost"
                assert records == [(number, b"key %d" % number) for number in range(log.log_end_offset)]
        before = log.log_end_offset if mode != "truncates" else 0
        with open(page, "r+b") as file:
            file.write(struct.pack("<q", 0 if mode == "truncates" else before))
    print(f"{mode}: {found_in_file} kills with records in the open batch")
