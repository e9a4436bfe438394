"""``logstore doctor``: what about this machine and this directory would bite, before it does."""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import click

from logstore.cli.exit_codes import CHECK_FAILED
from logstore.cli.invocation import Command, Invocation, pass_invocation
from logstore.cli.output import format_count, format_time, say, write_json
from logstore.cli.partition_targets import PartitionDirectory, partition_directories
from logstore.errors import LogstoreError
from logstore.quantities import format_bytes
from logstore.storage import layout

__all__ = ["Finding", "command", "examine"]

# Sealed segments that a process keeps open, segments that wait for the disk, and what an interpreter has open anyway.
_OPEN_FILES = 256 + 32 + 64
_SHARING_FILES = 210  # partitions; beyond, they share descriptors
_NETWORK = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "fuse.sshfs", "fuse.glusterfs"}
)
_VOLATILE = ("tmpfs", "ramfs")
_LIVES_IN_MEMORY_SECONDS = 20e-6


class Finding(NamedTuple):
    """One thing that was looked at.

    Attributes
    ----------
    check : str
    is_fine : bool
    text : str
        What is the case.
    advice : str
        What to do about it; empty where it is fine.
    """

    check: str
    is_fine: bool
    text: str
    advice: str = ""


@click.command("doctor", cls=Command)
@pass_invocation
def command(invocation: Invocation) -> None:
    """Look at the machine and the directory: what would bite here, a line each, with advice.

    Looks at open files, disk space and inodes, the file system, how long a flush takes, the clock, the kernel's
    write-back, who has the directory open, and what of it was verified when. The exit code is 1 if there is a warning.
    """
    directory = invocation.require_directory()
    findings = list(examine(directory))
    for finding in findings:
        if invocation.json:
            write_json(finding._asdict())
            continue
        verdict = click.style("OK  ", fg="green") if finding.is_fine else click.style("WARN", fg="yellow")
        click.echo(f"{verdict}  {finding.check}: {finding.text}" + (f"; {finding.advice}" if finding.advice else ""))
    warnings = sum(not finding.is_fine for finding in findings)
    if warnings:
        say(f"{warnings} {'warning' if warnings == 1 else 'warnings'}")
        raise click.exceptions.Exit(CHECK_FAILED)


def examine(directory: str) -> Iterator[Finding]:
    """All findings about a data directory."""
    places = partition_directories(directory, ())
    checks: list[Callable[[], Finding | None]] = [
        lambda: _owner(directory),
        lambda: _permissions(directory, places),
        lambda: _open_files(places),
        lambda: _space(directory),
        lambda: _inodes(directory, places),
        lambda: _file_system(directory),
        lambda: _flushes(directory),
        lambda: _clock(places),
        _write_back,
        _checksums,
        lambda: _verified(places),
        lambda: _repairs(places),
    ]
    for check in checks:
        finding = check()
        if finding is not None:
            yield finding


def _owner(directory: str) -> Finding:
    from logstore.storage.directory_lock import lock_owner

    owner = lock_owner(directory)
    if owner is None:
        return Finding("writer", True, "nobody has the directory open for writing")
    return Finding("writer", True, f"{owner} has the directory open for writing; others can read")


def _permissions(directory: str, places: list[PartitionDirectory]) -> Finding:
    for path in [directory, *(place.path for place in places)]:
        if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
            return Finding(
                "permissions", False, f"{path} can't be written by this user",
                "give it to the user that runs the program (chown -R), or open it with read_only=True",
            )  # fmt: skip
    return Finding("permissions", True, "this user may read and write all of it")


def _open_files(places: list[PartitionDirectory]) -> Finding | None:
    if sys.platform == "win32":
        return None
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = _OPEN_FILES + 3 * min(len(places), _SHARING_FILES)
    text = f"the limit is {format_count(soft)}, {format_count(len(places))} partitions need up to {format_count(needed)}"
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return Finding("open files", True, text)
    more = f"up to {format_count(hard)} by yourself" if hard >= needed else "with the help of an administrator"
    return Finding("open files", False, text, f"raise it (ulimit -n {needed}), {more}")


def _space(directory: str) -> Finding:
    found = os.statvfs(directory)
    free, total = found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
    text = f"{format_bytes(free)} of {format_bytes(total)} free ({100 * free // max(total, 1)} %)"
    if free >= min(total // 10, 20 << 30):
        return Finding("disk space", True, text)
    return Finding(
        "disk space", False, text,
        "appends are refused when it is used up: see `logstore retention plan`, and logstore.retention.disk.free.percent",
    )  # fmt: skip


def _inodes(directory: str, places: list[PartitionDirectory]) -> Finding | None:
    found = os.statvfs(directory)
    if found.f_files == 0:  # made when they are needed
        return None
    text = f"{format_count(found.f_favail)} of {format_count(found.f_files)} free"
    needed = max(found.f_files // 50, 64 * len(places))
    if found.f_favail >= min(needed, 100_000):
        return Finding("inodes", True, text)
    return Finding("inodes", False, text, "each segment is three files: use larger ones (segment.bytes), or free some")


def _file_system(directory: str) -> Finding | None:
    mount = _mount_of(directory)
    if mount is None:
        return None
    kind, point, options = mount
    text = f"{kind} at {point} ({','.join(options)})"
    if kind in _NETWORK:
        return Finding(
            "file system", False, text, "network file systems do not keep what locks and fsync promise: use a local one"
        )
    if kind in _VOLATILE:
        return Finding("file system", False, text, "it lives in memory: everything is gone when the machine stops")
    if "ro" in options:
        return Finding("file system", False, text, "it is read-only: remount it, or open with read_only=True")
    if {"nobarrier", "barrier=0"} & set(options):
        return Finding("file system", False, text, "without barriers a flush proves nothing: remount with barriers")
    return Finding("file system", True, text)


def _mount_of(directory: str) -> tuple[str, str, list[str]] | None:
    """Type, mount point and options of the file system; None where the system does not say."""
    path = os.path.realpath(directory)
    best: tuple[str, str, list[str]] | None = None
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                before, _, behind = line.partition(" - ")
                fields, kind = before.split(), behind.split()
                point = fields[4].encode().decode("unicode_escape")
                if (path + "/").startswith(point.rstrip("/") + "/") and (best is None or len(point) >= len(best[1])):
                    best = kind[0], point, sorted({*fields[5].split(","), *kind[2].split(",")})
    except (OSError, IndexError):
        return None
    return best


def _flushes(directory: str) -> Finding | None:
    """How long one takes, by doing a few with a file that has no name; and whether directories can be synced."""
    if not hasattr(os, "O_TMPFILE") or not os.access(directory, os.W_OK):
        return None
    took = []
    try:
        names = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(names)
        finally:
            os.close(names)
        descriptor = os.open(directory, os.O_TMPFILE | os.O_WRONLY, 0o600)
        try:
            for number in range(9):
                os.pwrite(descriptor, b"x" * 4096, 4096 * number)
                started = time.perf_counter()
                os.fdatasync(descriptor)
                took.append(time.perf_counter() - started)
        finally:
            os.close(descriptor)
    except OSError as error:
        return Finding(
            "flush", False, f"it fails: {error.strerror}", "durability=\"flushed\" can't be kept on this file system"
        )
    median = statistics.median(took)
    text = f"{1000 * median:.2f} ms for 4 KiB; directories can be synced"
    if median < _LIVES_IN_MEMORY_SECONDS:
        return Finding(
            "flush", False, text, "no disk is that fast: flushes may not reach one, and a power cut may lose records"
        )
    if median > 0.05:
        return Finding(
            "flush", False, text, "each `flushed` append waits for one: append in batches, or set durability=\"appended\""
        )
    return Finding("flush", True, text)


def _clock(places: list[PartitionDirectory]) -> Finding:
    now = time.time()
    text = f"{format_time(int(now * 1000), 'seconds')} UTC"
    newest = max((os.stat(place.path).st_mtime for place in places), default=0.0)
    if now < 1_700_000_000 or newest > now + 60:
        return Finding(
            "clock", False, f"{text}, but files here are from {format_time(int(newest * 1000), 'seconds')}",
            "set it (NTP): retention and searches by time go by it",
        )  # fmt: skip
    return Finding("clock", True, text)


def _write_back() -> Finding | None:
    try:
        values = {}
        for name in ("dirty_expire_centisecs", "dirty_ratio", "dirty_bytes"):
            with open(f"/proc/sys/vm/{name}", encoding="ascii") as file:
                values[name] = int(file.read())
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None
    most = values["dirty_bytes"] or memory * values["dirty_ratio"] // 100
    text = f"the kernel keeps up to {format_bytes(most)} unwritten, for {values['dirty_expire_centisecs'] / 100:g} s"
    if most > 8 << 30:
        return Finding(
            "write-back", False, text,
            "a flush may have to wait for other programs' data: lower vm.dirty_bytes (sysctl -w vm.dirty_bytes=1073741824)",
        )  # fmt: skip
    return Finding("write-back", True, text + "; flush.ms says how much of a log that may be")


def _checksums() -> Finding:
    from logstore._native.checksum import crc32c_implementation

    name = crc32c_implementation()
    if name == "portable":
        return Finding(
            "CRC-32C", False, "this processor has no instruction for it that is used", "writing and reading are slower"
        )
    return Finding("CRC-32C", True, f"by the processor ({name})")


def _verified(places: list[PartitionDirectory]) -> Finding | None:
    from logstore.storage.recovery import list_segments
    from logstore.storage.segment_digests import SegmentDigests

    oldest, never = -1, 0
    try:
        for place in places:
            known = SegmentDigests(place.path).entries()
            for base in list_segments(place.path)[:-1]:
                verified_ms = known[base].verified_ms if base in known else 0
                never += verified_ms == 0
                oldest = verified_ms if oldest < 0 else min(oldest, verified_ms)
    except LogstoreError as error:
        return Finding("verified", False, " ".join(str(error).split()), "see `logstore verify`")
    if oldest < 0:
        return Finding("verified", True, "there are no sealed segments yet")
    if never:
        return Finding(
            "verified", True, f"{format_count(never)} sealed segments not yet; `logstore verify --deep` does it now"
        )
    text = f"every sealed segment since {format_time(oldest, 'minutes')}"
    if time.time() * 1000 - oldest > 90 * 86_400_000:
        return Finding("verified", False, text, "run `logstore verify --deep`, or keep a broker open: its scrub does it")
    return Finding("verified", True, text)


def _repairs(places: list[PartitionDirectory]) -> Finding | None:
    from logstore.storage.repair import EVIDENCE_DIRECTORY

    unfinished = [place.name for place in places if os.path.exists(os.path.join(place.path, layout.REPAIR_FILE))]
    if unfinished:
        return Finding(
            "repairs", False, f"of {', '.join(unfinished)} was cut short", "the next open for writing completes it"
        )
    kept = [os.path.join(place.path, EVIDENCE_DIRECTORY) for place in places]
    kept = [path for path in kept if os.path.isdir(path)]
    if not kept:
        return None
    size = sum(
        os.path.getsize(os.path.join(folder, name)) for path in kept for folder, _, names in os.walk(path) for name in names
    )
    return Finding("repairs", True, f"{format_bytes(size)} of evidence of earlier ones, in {', '.join(kept)}")
