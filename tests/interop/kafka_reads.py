"""Segment and index files as Kafka's own tools see them, parsed into plain values.

Two judges, one JVM start each for any number of files: `DumpLogSegments`, the tool Kafka ships, and
`ReadRecords`, a few lines of ours on Kafka's record classes, for the header values the tool leaves
out.
"""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import kafka_jars

DUMP_TOOL = "org.apache.kafka.tools.DumpLogSegments"
TIMEOUT_S = 120


@dataclass(frozen=True)
class DumpedRecord:
    """One record line. The tool prints an absent key as size -1 and then no bytes."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    header_keys: tuple[str, ...]


@dataclass
class DumpedBatch:
    """One batch line and the record lines under it."""

    base_offset: int
    last_offset: int
    count: int
    position: int
    size_bytes: int
    timestamp_type: str
    max_timestamp: int
    codec: str
    leader_epoch: int
    crc_valid: bool
    is_control: bool
    records: list[DumpedRecord] = field(default_factory=list)


@dataclass
class DumpedFile:
    """What the tool printed for one file; only the list that fits its kind is filled."""

    path: Path
    batches: list[DumpedBatch] = field(default_factory=list)
    offset_entries: list[tuple[int, int]] = field(default_factory=list)
    time_entries: list[tuple[int, int]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def records(self) -> list[DumpedRecord]:
        """Every record of the file, in order."""
        return [record for batch in self.batches for record in batch.records]


@dataclass
class Dump:
    """One run of the tool. It exits 0 whatever it finds, so the complaints are what counts."""

    files: dict[Path, DumpedFile]
    complaints: list[str]


_BATCH = re.compile(
    r"baseOffset: (?P<base>-?\d+) lastOffset: (?P<last>-?\d+) count: (?P<count>-?\d+) .*"
    r"partitionLeaderEpoch: (?P<epoch>-?\d+) .*isControl: (?P<control>true|false) .*"
    r"position: (?P<position>\d+) (?P<type>\w+): (?P<timestamp>-?\d+) size: (?P<size>\d+) "
    r"magic: 2 compresscodec: (?P<codec>\w+) crc: \d+ isvalid: (?P<valid>true|false)"
)
_RECORD = re.compile(
    r"\| offset: (?P<offset>\d+) \w+: (?P<timestamp>-?\d+) keySize: (?P<key_size>-?\d+) "
    r"valueSize: (?P<value_size>-?\d+) sequence: -?\d+ headerKeys: \[(?P<headers>[^\]]*)\]"
    r"(?: key: 0x(?P<key>[0-9a-f]*))?(?: payload: 0x(?P<value>[0-9a-f]*))?"
)
_CONTROL_RECORD = re.compile(r"\| offset: \d+ .* (endTxnMarker|controlType|\w+): ")
_OFFSET_ENTRY = re.compile(r"offset: (\d+) position: (\d+)")
_TIME_ENTRY = re.compile(r"timestamp: (-?\d+) offset: (\d+)")
_FIRST_OFFSET_COMPLAINT = re.compile(r"-1 is followed by (\d+)")


def dump(paths: list[Path], *options: str) -> Dump:
    """Run DumpLogSegments over `paths` (logs, indexes, time indexes) and parse what it says.

    Raises
    ------
    AssertionError
        If the tool exits with an error or prints a line that is not understood.
    """
    command = kafka_jars.java_command(
        DUMP_TOOL,
        *options,
        *("--key-decoder-class", "HexDecoder", "--value-decoder-class", "HexDecoder"),
        *("--files", ",".join(map(str, paths))),
    )
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=TIMEOUT_S)
    assert done.returncode == 0, f"DumpLogSegments failed: {done.stderr[:3000]}"
    return Dump(parse_dump(done.stdout), real_complaints(done.stderr))


def parse_dump(printed: str) -> dict[Path, DumpedFile]:
    """Parse the tool's standard output; refuse lines it should not contain."""
    files: dict[Path, DumpedFile] = {}
    current = DumpedFile(Path())
    for line in printed.splitlines():
        if line.startswith("Dumping "):
            path = Path(line.removeprefix("Dumping "))
            current = files[path] = DumpedFile(path)
        elif match := _BATCH.fullmatch(line):
            current.batches.append(_batch(match))
        elif match := _RECORD.fullmatch(line):
            current.batches[-1].records.append(_record(match))
        elif match := _OFFSET_ENTRY.fullmatch(line):
            current.offset_entries.append((int(match[1]), int(match[2])))
        elif match := _TIME_ENTRY.fullmatch(line):
            current.time_entries.append((int(match[1]), int(match[2])))
        elif line.startswith("Log starting offset: ") or _CONTROL_RECORD.match(line):
            continue
        else:
            # Among these is "Found N invalid bytes at the end of ..."; sanity checks print a path.
            current.notes.append(line.removeprefix(f"{current.path} "))
    return files


def real_complaints(errors: str) -> list[str]:
    """Return what the tool wrote to standard error, without a false alarm of its own.

    Kafka 4.3 starts its gap check at offset -1, so it reports a gap before the first record of
    every segment that does not begin at offset 0.
    """
    complaints: list[str] = []
    for line in filter(None, map(str.strip, errors.splitlines())):
        if line.startswith("Non-consecutive offsets in "):
            segment = line
        elif _FIRST_OFFSET_COMPLAINT.fullmatch(line):
            continue
        elif " is followed by " in line:
            complaints.append(f"{segment}: {line}")
        else:
            complaints.append(line)
    return complaints


def read_records(paths: list[Path]) -> dict[Path, list[dict]]:
    """Read segment files with Kafka's record classes: every field of every record."""
    command = kafka_jars.java_command("ReadRecords", *map(str, paths))
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=TIMEOUT_S)
    assert done.returncode == 0, f"ReadRecords failed: {done.stderr[:3000]}"
    found: dict[Path, list[dict]] = {path: [] for path in paths}
    for line in done.stdout.splitlines():
        record = json.loads(line)
        record["key"] = _unhex(record["key"])
        record["value"] = _unhex(record["value"])
        record["headers"] = [(bytes.fromhex(key).decode(), _unhex(value)) for key, value in record["headers"]]
        found[Path(record.pop("path"))].append(record)
    return found


def _batch(match: re.Match[str]) -> DumpedBatch:
    return DumpedBatch(
        base_offset=int(match["base"]),
        last_offset=int(match["last"]),
        count=int(match["count"]),
        position=int(match["position"]),
        size_bytes=int(match["size"]),
        timestamp_type=match["type"],
        max_timestamp=int(match["timestamp"]),
        codec=match["codec"],
        leader_epoch=int(match["epoch"]),
        crc_valid=match["valid"] == "true",
        is_control=match["control"] == "true",
    )


def _record(match: re.Match[str]) -> DumpedRecord:
    headers = match["headers"]
    record = DumpedRecord(
        offset=int(match["offset"]),
        timestamp=int(match["timestamp"]),
        key=_unhex(match["key"]),
        value=_unhex(match["value"]),
        header_keys=tuple(headers.split(",")) if headers else (),
    )
    for size, found in ((match["key_size"], record.key), (match["value_size"], record.value)):
        assert int(size) == (-1 if found is None else len(found)), match.string
    return record


def _unhex(text: str | None) -> bytes | None:
    return None if text is None else bytes.fromhex(text)
