"""The states a disk may be in after a power cut, from a record of all file operations.

The model: a file's bytes reach the disk by 512-byte sectors or 4096-byte pages, each at any version since the file was
synced last, in any order, and its size likewise, so that it may run ahead of the data, with zeros or garbage there; names
(of files made, renamed, removed) reach it when their directory is synced, before that each or not, in order for each name.
A rename is atomic.
"""

from __future__ import annotations

import hashlib
import os
import random
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from logstore._native.checksum import crc32c

# Each is tried once at every moment; then come random ones.
POLICIES = ("nothing", "everything", "sizes", "names", "data", "garbage")


class Call(NamedTuple):
    """One file operation, or (``n``) a line of the ledger."""

    kind: str
    position: int
    size: int
    path: str
    other: str
    content: bytes


def read_calls(path: Path) -> list[Call]:
    calls = []
    data = path.read_bytes()
    at = 0
    while at < len(data):
        end = data.index(b"\n", at)
        kind, position, size, name, other = data[at:end].decode().split(" ")
        at = end + 1
        content = b""
        if kind in "wn":
            content = data[at : at + int(size)]
            at += int(size)
        calls.append(Call(kind, int(position), int(size), name.removeprefix("."), other.removeprefix("."), content))
    return calls


class _File:
    """Content as the process sees it, as it is on disk for sure, and what happened between."""

    def __init__(self, content: bytes = b""):
        self.durable = bytearray(content)
        self.pending: list[Call] = []

    def versions(self) -> list[bytes]:
        """From the durable one to that of now."""
        content = bytearray(self.durable)
        found = [bytes(content)]
        for call in self.pending:
            _apply(content, call)
            found.append(bytes(content))
        return found


def _apply(content: bytearray, call: Call) -> None:
    if call.kind == "t":
        del content[call.size :]
        content.extend(bytes(call.size - len(content)))
    else:
        content.extend(bytes(max(call.position - len(content), 0)))
        content[call.position : call.position + call.size] = call.content


class Disk:
    """What the operations so far leave possible."""

    def __init__(self, start: Path):
        self.names: dict[str, _File | None] = {"": None}  # None: a directory
        for place, directories, files in os.walk(start):
            relative = os.path.relpath(place, start)
            prefix = "" if relative == "." else f"/{relative}"
            for name in directories:
                self.names[f"{prefix}/{name}"] = None
            for name in files:
                self.names[f"{prefix}/{name}"] = _File((Path(place) / name).read_bytes())
        self.durable_names = dict(self.names)
        self.pending_names: list[tuple[Call, _File | None]] = []

    def take(self, call: Call) -> None:
        if call.kind in "wt":
            if isinstance(file := self.names.get(call.path), _File):
                file.pending.append(call)
        elif call.kind == "s":
            self._sync(call.path)
        elif call.kind in "cmru":
            made = _File() if call.kind == "c" else None
            self.pending_names.append((call, made))
            _apply_name(self.names, call, made)

    def _sync(self, path: str) -> None:
        file = self.names.get(path)
        if isinstance(file, _File):
            file.durable = bytearray(file.versions()[-1])
            file.pending = []
            return
        kept = []
        for call, made in self.pending_names:
            if path in (_parent(call.path), _parent(call.other) if call.other else None):
                _apply_name(self.durable_names, call, made)
            else:
                kept.append((call, made))
        self.pending_names = kept

    def states(self, chance: random.Random, count: int) -> Iterator[tuple[str, dict[str, bytes | None]]]:
        """Description and content of directories (None) and files."""
        for number in range(count):
            policy = POLICIES[number] if number < len(POLICIES) else "random"
            names = dict(self.durable_names)
            for call, made in self.pending_names:
                if policy in ("everything", "names", "garbage") or (policy == "random" and chance.random() < 0.6):
                    _apply_name(names, call, made)
            unit = chance.choice((512, 4096))
            state: dict[str, bytes | None] = {}
            for name, file in sorted(names.items(), key=lambda item: item[0]):
                if name and _parent(name) not in state and _parent(name) != "":
                    continue  # its directory is not there
                state[name] = None if file is None else _content(file, policy, unit, chance)
                if state[name] and name.endswith("/logstore.open-batch"):
                    state[name] = _open_batch(len(state[name]), unit, chance)
            yield f"{policy}, units of {unit}", state


def _parent(path: str) -> str:
    parent = str(PurePosixPath(path).parent)
    return "" if parent in (".", "/") else parent


def _apply_name(names: dict[str, _File | None], call: Call, made: _File | None) -> None:
    if call.kind in "cm":
        names[call.path] = made
    elif call.kind == "u":
        names.pop(call.path, None)
    elif call.path in names:
        for name in [name for name in names if name == call.path or name.startswith(call.path + "/")]:
            names[call.other + name[len(call.path) :]] = names.pop(name)


def _open_batch(size: int, unit: int, chance: random.Random) -> bytes:
    """What the next run of the system may find in the file that was mapped: each unit as it was made, of another run, or
    whatever the disk had there. That nobody writes it is all that the record of calls says of it."""
    content = bytearray(size)
    struct.pack_into(">4sHH24s16sqq", content, 0, b"LSOB", 1, 0, b"A" * 22, chance.randbytes(16), 20, 1_700_000_000_000)
    struct.pack_into(">I", content, 64, crc32c(content[:64]))
    content[72:88] = chance.randbytes(16)
    content[128:136] = struct.pack(">II", 10, chance.getrandbits(32))
    for start in range(0, size, unit):
        if chance.random() < 0.5:
            content[start : start + unit] = chance.choice((bytes(unit), chance.randbytes(unit)))
    return bytes(content[:size])


def _content(file: _File, policy: str, unit: int, chance: random.Random) -> bytes:
    versions = file.versions()
    if policy in ("nothing", "names") or len(versions) == 1:
        return versions[0]
    if policy in ("everything", "data"):
        return versions[-1]
    if policy == "sizes":  # the length came, the data did not
        return versions[0][: len(versions[-1])].ljust(len(versions[-1]), b"\0")
    if policy == "garbage":  # from somewhere behind what was synced, the disk has what was there before
        whole = len(versions[-1])
        cut = chance.randint(min(len(versions[0]), whole), whole)
        return versions[-1][:cut] + chance.randbytes(whole - cut)
    if chance.random() < 0.4:  # in order
        return chance.choice(versions)
    size = len(chance.choice(versions))
    content = bytearray()
    for start in range(0, size, unit):
        piece = chance.choice(versions)[start : min(start + unit, size)]
        content += piece.ljust(min(unit, size - start), b"\0")
    return bytes(content)


def write_state(folder: Path, state: dict[str, bytes | None]) -> None:
    folder.mkdir(parents=True)
    for name, content in state.items():
        path = Path(f"{folder}{name}")
        if content is None:
            path.mkdir(exist_ok=True)
        else:
            path.write_bytes(content)


class Moment(NamedTuple):
    """A state that a power cut leaves possible, and what had been said by then."""

    description: str
    state: dict[str, bytes | None]
    lines: tuple[str, ...]
    identity: bytes  # equal for equal states with equal promises


def moments(
    start: Path, calls: list[Call], lines: Iterable[str], chance: random.Random, per_call: int
) -> Iterator[Moment]:
    """After each call that changes something: one state of each policy, and random ones."""
    said = tuple(lines)
    disk = Disk(start)
    for number, call in enumerate(calls):
        disk.take(call)
        if call.kind == "n":
            said = (*said, call.content.decode())
        if call.kind not in "cwtrum":
            continue
        for policy, state in disk.states(chance, per_call + len(POLICIES)):
            # Many policies come to the same state where nothing is pending.
            identity = hashlib.blake2b(repr((sorted(state.items()), said)).encode(), digest_size=16).digest()
            yield Moment(f"cut after call {number} ({call[:5]}); {policy}", state, said, identity)
