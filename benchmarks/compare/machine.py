"""Facts about the machine and the versions measured, so that a table can be judged later."""

from __future__ import annotations

import datetime
import os
import platform
import re
import sqlite3
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.compare.measure import file_system_of

__all__ = ["machine_facts"]

DISTRIBUTIONS = (
    "logstoredb", "aiokafka", "confluent-kafka", "cramjam", "kafka-python", "lmdb", "nats-py", "numpy", "persist-queue",
    "plyvel", "pyarrow", "redis", "rocksdict", "zstandard",
)  # fmt: skip
SERVERS = ("redis-server", "nats-server")


def machine_facts(directory: Path) -> dict[str, Any]:
    """Processor, memory, system, file system of `directory`, and everyone's version."""
    facts: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": _memory_gib(),
        "system": platform.platform(),
        "file_system": file_system_of(directory),
        "python": platform.python_version(),
        "python_compiler": platform.python_compiler(),
        "load_before": os.getloadavg()[0],
        "commit": _commit(),
        "versions": {name: _version(name) for name in DISTRIBUTIONS}
        | {"sqlite": sqlite3.sqlite_version}
        | {name: _server_version(name) for name in SERVERS},
    }
    try:
        import logstore

        facts["logstore"] = dict(logstore.native_info())
    except (ImportError, AttributeError) as error:
        facts["logstore"] = f"not there: {error}"
    return facts


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _memory_gib() -> float:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30), 1)


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _server_version(program: str) -> str | None:
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    numbers = re.search(r"\d+\.\d+\.\d+", done.stdout)
    return numbers.group() if numbers else None


def _commit() -> str | None:
    root = Path(__file__).resolve().parents[2]
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "--short", "HEAD"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
