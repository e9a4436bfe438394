"""One real Kafka broker (KRaft, broker and controller in one process) on free loopback ports."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import time
from typing import TYPE_CHECKING

import kafka_jars

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Self

START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 60

_SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "auto.create.topics.enable": "false",
    # One copy of everything, and small internal topics.
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "1",
    "group.initial.rebalance.delay.ms": "0",
    # A cleaner that looks often and needs little memory.
    "log.cleaner.backoff.ms": "200",
    "log.cleaner.dedupe.buffer.size": "2097152",
    "log.cleaner.io.buffer.size": "65536",
    # Index files are preallocated at this size while a segment is active.
    "log.index.size.max.bytes": "1024",
    # The records here are years old.
    "log.retention.ms": "-1",
    # One voter has nobody to wait for.
    "controller.quorum.election.timeout.ms": "100",
    "controller.quorum.election.backoff.max.ms": "50",
    "broker.heartbeat.interval.ms": "500",
    "broker.session.timeout.ms": "3000",
}


class KafkaBroker:
    """A broker over `data_dir`; formats the directory on first use. A context manager.

    Parameters
    ----------
    work_dir
        Where the properties file and the broker's own log go.
    data_dir
        The log directory: the broker's only one, so its metadata log lives there too.
    """

    def __init__(self, work_dir: Path, data_dir: Path, settings: Mapping[str, str] | None = None) -> None:
        self.data_dir = data_dir
        self._properties = work_dir / "server.properties"
        self._log = work_dir / "broker.log"
        self._settings = {**_SETTINGS, **(settings or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self.bootstrap = ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self.stop()

    def start(self) -> None:
        """Start the broker and wait until it says that it serves."""
        broker_port, controller_port = _free_ports(2)
        self.bootstrap = f"127.0.0.1:{broker_port}"
        self._properties.write_text(
            "".join(
                f"{key}={value}\n"
                for key, value in {
                    **self._settings,
                    "listeners": f"PLAINTEXT://{self.bootstrap},CONTROLLER://127.0.0.1:{controller_port}",
                    "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
                    "log.dirs": str(self.data_dir),
                }.items()
            )
        )
        if not (self.data_dir / "meta.properties").exists():
            self._format()
        with self._log.open("ab") as log:
            begin = log.tell()
            self._process = subprocess.Popen(
                kafka_jars.java_command("kafka.Kafka", str(self._properties), heap="384m"),
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while b"Kafka Server started" not in self._log.read_bytes()[begin:]:
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"the broker did not start: {self.log_text()[-3000:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop cleanly: the broker flushes, trims its indexes and leaves its clean marker."""
        process = self._running()
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise RuntimeError(f"the broker did not stop: {self.log_text()[-3000:]}") from None
        self._process = None

    def kill(self) -> None:
        """Kill the broker's process (SIGKILL): nothing is flushed, trimmed or marked."""
        process = self._running()
        process.kill()
        process.wait()
        self._process = None

    def log_text(self) -> str:
        """Return what all runs of this broker have logged so far."""
        return self._log.read_text(errors="replace")

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("the broker is not running")
        return self._process

    def _format(self) -> None:
        cluster_id = "logstore-interop-test0"  # 22 characters, as in a base64 UUID
        arguments = ("format", "-t", cluster_id, "-c", str(self._properties))
        done = subprocess.run(
            kafka_jars.java_command("kafka.tools.StorageTool", *arguments),
            capture_output=True,
            text=True,
            timeout=60,
        )
        if done.returncode != 0:
            raise RuntimeError(f"StorageTool failed: {done.stderr[-3000:]}")


def recovered_partitions(log_text: str) -> set[str]:
    """Return the partitions for which the broker said that it ran a recovery."""
    return set(re.findall(r"partition=([^,\]]+)[^\n]*Recovering unflushed segment", log_text))


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
