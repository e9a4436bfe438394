"""Servers that a benchmark starts for itself, on a socket or port of their own, and stops."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.compare.measure import NotMeasuredError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Server", "nats", "redis"]

START_SECONDS = 20.0
STOP_SECONDS = 10.0


class Server:
    """A running server: where it is reached, and how long it has computed."""

    def __init__(self, process: subprocess.Popen[bytes], address: str) -> None:
        self.process = process
        self.address = address

    def cpu_nanoseconds(self) -> int:
        """Processor time of all its threads so far; 0 where the system does not tell."""
        total = 0
        for task in Path(f"/proc/{self.process.pid}/task").glob("*/schedstat"):
            with contextlib.suppress(OSError):  # the thread has ended
                total += int(task.read_text().split()[0])
        return total


@contextmanager
def redis(directory: Path, *, append_fsync: str) -> Iterator[Server]:
    """redis-server with an append-only file in `directory`, on a Unix socket."""
    # A path of a socket is short: 107 characters at most.
    with tempfile.TemporaryDirectory(prefix="logstore-redis-") as sockets:
        socket = Path(sockets) / "redis.sock"
        settings = {
            "port": "0",
            "unixsocket": str(socket),
            "dir": str(directory),
            "save": "",
            "appendonly": "yes",
            "appendfsync": append_fsync,
            "auto-aof-rewrite-percentage": "0",
            "daemonize": "no",
        }
        command = [part for name, value in settings.items() for part in (f"--{name}", value)]
        program = _program("redis-server", "REDIS_SERVER", "apt-get install redis-server")
        with _running([program, *command], directory) as process:
            _wait_for(socket.exists, process, directory)
            yield Server(process, str(socket))


@contextmanager
def nats(directory: Path, *, sync: bool) -> Iterator[Server]:
    """nats-server with JetStream's files in `directory`, on a free port of the loopback; `sync`: flushed before each
    acknowledgement."""
    program = _program(
        "nats-server",
        "NATS_SERVER",
        "apt-get install nats-server, or go install github.com/nats-io/nats-server/v2@latest",
    )
    interval = "always" if sync else "10m"
    settings = directory / "nats.conf"
    settings.write_text(
        f'host: "127.0.0.1"\nport: -1\nports_file_dir: "{directory.resolve()}"\n'
        f'jetstream {{ store_dir: "{directory.resolve()}", sync_interval: {interval} }}\n',
        encoding="utf-8",
    )
    with _running([program, "-c", str(settings)], directory) as process:
        ports = directory / f"{Path(program).name}_{process.pid}.ports"
        _wait_for(lambda: ports.exists() and bool(ports.read_text().strip()), process, directory)
        yield Server(process, json.loads(ports.read_text())["nats"][0])


def _program(name: str, variable: str, install: str) -> str:
    program = os.environ.get(variable) or shutil.which(name)
    if not program:
        raise NotMeasuredError(f"{name} is not here ({install}; or name it in ${variable})")
    return program


@contextmanager
def _running(command: list[str], directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    with open(directory / "server.log", "wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(ready: Callable[[], bool], process: subprocess.Popen[bytes], directory: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            said = (directory / "server.log").read_text(errors="replace").strip().splitlines() or ["nothing"]
            raise NotMeasuredError(f"{process.args[0]} does not start; its last line: {said[-1]}")  # type: ignore[index]
        time.sleep(0.01)
