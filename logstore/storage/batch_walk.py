"""From batch to batch through a ``.log`` file alone, over damage, with little memory."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from logstore._native.checksum import crc32c
from logstore._native.record_batch import RecordBatch
from logstore.errors import CorruptDataError, UnsupportedFormatError
from logstore.storage.files import refusals
from logstore.storage.layout import segment_offset

__all__ = ["Damage", "LogFile", "Passed", "PlacedBatch"]

_PIECE_BYTES = 4 << 20
_LARGE_BYTES = 64 << 20  # a batch of more is only read as a whole once its CRC is known to be right
_HEADER = struct.Struct(">qiibI")
_HEADER_BYTES = 61
_OVERHEAD_BYTES = 12
_LEAST_LENGTH = 49
_CRC_COVERS_FROM = 21
_MAGIC_AT = 16
_INT32_MAX = 2**31 - 1
_TRIED_BYTES_MAX = 1 << 30  # of CRCs, in one search for the next sound batch: hostile bytes can't make it endless
_WRITER_PATIENCE_SECONDS = (0.01, 0.05, 0.2)


class PlacedBatch(NamedTuple):
    """A sound batch and where it stands."""

    position: int
    batch: RecordBatch


@dataclass(frozen=True)
class Damage:
    """A range of a file that is not sound.

    Attributes
    ----------
    path : str
    position, end_position : int
        The bytes.
    first_offset : int
        The first offset that is lost.
    end_offset : int or None
        The first one behind; None where nothing sound follows in the file.
    reason : str
    expected, actual : int, str or None
        What the broken rule asks for, and what is there.
    torn : bool
        Whether it is what a write that did not finish leaves: at the end of the file, cut short or zeros.
    """

    path: str
    position: int
    end_position: int
    first_offset: int
    end_offset: int | None
    reason: str
    expected: int | str | None = None
    actual: int | str | None = None
    torn: bool = False


class Passed(NamedTuple):
    """What the last batch leaves for the next one to fit: where it stands, its end, its leader epoch, and how many offsets
    it takes."""

    position: int
    next_offset: int
    epoch: int
    offsets_count: int = 0


class LogFile:
    """A ``.log`` file, open for reading; a context manager.

    Parameters
    ----------
    path : str
    base_offset : int, optional
        The segment's; else from the file's name. A file of another name can have any.
    end_offset_max : int
        All offsets are below this: the next segment's base offset.
    contiguous : bool
        No offsets are missing: a gap is damage of no bytes, before a batch that is sound.
    patient : bool
        A writer may be in the middle of the last batch: give it a moment.

    Raises
    ------
    StorageFailureError
    """

    def __init__(
        self,
        path: str,
        *,
        base_offset: int | None = None,
        end_offset_max: int = 2**63 - 1,
        contiguous: bool = False,
        patient: bool = True,
    ):
        self.path = path
        self.contiguous = contiguous
        self.patient = patient
        named = segment_offset(os.path.basename(path))
        self.base_offset = named if base_offset is None else base_offset
        self.end_offset_max = end_offset_max
        self.is_active = end_offset_max == 2**63 - 1
        with refusals(path, "open"):
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.size_bytes = os.fstat(self._descriptor).st_size
        self._piece = b""
        self._piece_position = 0

    def __enter__(self) -> LogFile:
        return self

    def __exit__(self, *exception: object) -> None:
        os.close(self._descriptor)

    def walk(self, position: int = 0, passed: Passed | None = None) -> Iterator[PlacedBatch | Damage]:
        """Every batch up to the size at opening, in order, and every range that holds none.

        A batch's CRC does not cover its base offset and leader epoch: those must fit those of the batches before it.

        Parameters
        ----------
        position : int
            Of the batch to start with.
        passed : Passed, optional
            What is known of the one before.
        """
        is_exact = self.contiguous  # whether the next batch begins just where the last one ends
        passed = passed or Passed(0, self.base_offset or 0, -1)
        before = passed  # the same, one batch earlier
        while position < self.size_bytes:
            found = self._sound_batch(position)
            if isinstance(found, Damage):
                if self.is_active and self._only_zeros(position):
                    self.size_bytes = position  # filled ahead of its end
                    return
                damage = self._bounded(found, passed.next_offset)
                is_last = damage.end_position == self.size_bytes
                if self.patient and (damage.torn or (is_last and self.is_active)) and self._completed(position):
                    continue
                yield damage
                position = damage.end_position
                is_exact = False
                continue
            end = position + found.size_bytes
            misfit = self._misfit(found, passed.next_offset, passed.epoch)
            if is_exact and misfit is None and found.base_offset > passed.next_offset:
                if self._is_off(end, found):
                    yield Damage(
                        self.path, position, end, passed.next_offset, self._offset_behind(end, passed.next_offset),
                        "base offset is not the end of the batch before", passed.next_offset, found.base_offset,
                    )  # fmt: skip
                    position = end
                    is_exact = False
                    continue
                yield Damage(
                    self.path, position, position, passed.next_offset, found.base_offset,
                    "records are missing before this batch", passed.next_offset, found.base_offset,
                )  # fmt: skip
            # The batch before is only to blame if it fits, wherever it belongs, between its own predecessor and this one.
            room = found.base_offset - before.next_offset
            if misfit is not None and (
                before is passed
                or room < passed.offsets_count
                or self._misfit(found, before.next_offset, before.epoch) is not None
            ):
                behind = self._offset_behind(end, passed.next_offset)
                yield Damage(self.path, position, end, passed.next_offset, behind, *misfit)
                position = end
                is_exact = False
                continue
            if misfit is not None:
                # It fits what stands before its predecessor: the predecessor is the wrong one.
                yield Damage(
                    self.path, passed.position, position, before.next_offset, found.base_offset,
                    f"the next batch does not fit it: {misfit[0]}", misfit[1], misfit[2],
                )  # fmt: skip
            yield PlacedBatch(position, found)
            before = passed
            offsets_count = found.last_offset + 1 - found.base_offset
            passed = Passed(position, found.last_offset + 1, found.partition_leader_epoch, offsets_count)
            position = end
            is_exact = self.contiguous

    def _is_off(self, end: int, batch: RecordBatch) -> bool:
        """Whether what follows a batch does not go on where it ends: then its own base offset is the wrong one."""
        if end >= self.size_bytes:
            return self.end_offset_max < 2**63 - 1 and batch.last_offset + 1 != self.end_offset_max
        following = self._sound_batch(end)
        return isinstance(following, RecordBatch) and following.base_offset <= batch.last_offset

    def _completed(self, position: int) -> bool:
        """Whether a writer was in the middle of the last batch, and has now written it all."""
        for seconds in _WRITER_PATIENCE_SECONDS:
            time.sleep(seconds)
            size_bytes, self.size_bytes = self.size_bytes, os.fstat(self._descriptor).st_size
            self._piece = b""
            found = self._sound_batch(position)
            if isinstance(found, RecordBatch):
                self.size_bytes = position + found.size_bytes
                return True
            self.size_bytes = size_bytes
        return False

    def _misfit(self, batch: RecordBatch, next_offset: int, epoch: int) -> tuple[str, str, int] | None:
        if batch.base_offset < next_offset:
            return (
                "base offset is below the end of the batch before",
                f"at least {next_offset}",
                batch.base_offset,
            )
        if batch.last_offset >= self.end_offset_max:
            return (
                "last offset belongs to the next segment",
                f"below {self.end_offset_max}",
                batch.last_offset,
            )
        if self.base_offset is not None and batch.last_offset - self.base_offset > _INT32_MAX:
            most = self.base_offset + _INT32_MAX
            return (
                "last offset is too far from the segment's base offset",
                f"at most {most}",
                batch.last_offset,
            )
        if batch.partition_leader_epoch < epoch:
            return "leader epoch falls", f"at least {epoch}", batch.partition_leader_epoch
        return None

    def _read(self, position: int, size: int) -> bytes:
        with refusals(self.path, "read"):
            parts = []
            while size > 0:
                part = os.pread(self._descriptor, size, position)
                if not part:
                    break
                parts.append(part)
                position += len(part)
                size -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _window(self, position: int, size: int) -> int:
        """Makes ``_piece`` hold the bytes [position, position + size); where they start in it."""
        at = position - self._piece_position
        if at < 0 or at + size > len(self._piece):
            wanted = min(max(size, _PIECE_BYTES), self.size_bytes - position)
            self._piece = self._read(position, wanted)
            self._piece_position = position
            at = 0
        return at

    def _sound_batch(self, position: int) -> RecordBatch | Damage:
        """The batch at a position, or what is wrong there (its end is not known yet)."""
        left = self.size_bytes - position
        if left < _HEADER_BYTES:
            return self._damage(position, "the file ends inside a batch header", _HEADER_BYTES, left, torn=True)
        at = self._window(position, _HEADER_BYTES)
        _, length, _, magic, crc = _HEADER.unpack_from(self._piece, at)
        size = length + _OVERHEAD_BYTES
        if length >= _LEAST_LENGTH and magic == 2:
            if size > left:
                return self._damage(position, "the file ends inside a batch", size, left, torn=True)
            if size > _LARGE_BYTES:
                actual = self._crc(position + _CRC_COVERS_FROM, size - _CRC_COVERS_FROM)
                if actual != crc:
                    return self._damage(position, "CRC", crc, actual)
            at = self._window(position, size)
        try:
            return RecordBatch.validated(self._piece, position=at, path=self.path)
        except CorruptDataError as error:
            return self._damage(position, error.reason, error.expected, error.actual)
        except UnsupportedFormatError:
            return self._damage(position, "no batch of magic 2", 2, magic)

    def _crc(self, position: int, size: int) -> int:
        crc = 0
        while size > 0:
            part = self._read(position, min(size, _PIECE_BYTES))
            if not part:
                break
            crc = crc32c(part, crc)
            position += len(part)
            size -= len(part)
        return crc

    def _damage(
        self,
        position: int,
        reason: str,
        expected: int | str | None,
        actual: int | str | None,
        *,
        torn: bool = False,
    ) -> Damage:
        return Damage(self.path, position, self.size_bytes, -1, None, reason, expected, actual, torn)

    # ---- over damage -----------------------------------------------------------------------------

    def _bounded(self, damage: Damage, next_offset: int) -> Damage:
        """The damage with its end: where the next sound batch starts, or the end of the file."""
        position = damage.position
        end = self._resume_position(position, next_offset)
        torn = end is None and (damage.torn or self._only_zeros(position))
        if torn and not damage.torn:
            damage = self._damage(position, "zeros to the end of the file", None, None, torn=True)
        return Damage(
            self.path,
            position,
            self.size_bytes if end is None else end,
            next_offset,
            None if end is None else self._offset_behind(end, next_offset),
            damage.reason,
            damage.expected,
            damage.actual,
            torn,
        )

    def _resume_position(self, position: int, next_offset: int) -> int | None:
        """Where the next sound batch stands; None where there is none."""
        at = self._window(position, min(_HEADER_BYTES, self.size_bytes - position))
        if self.size_bytes - position >= _HEADER_BYTES:
            # What the length says is tried first: a value that holds a batch must not be taken for one of the log's.
            _, length, _, _, _ = _HEADER.unpack_from(self._piece, at)
            behind: int = position + length + _OVERHEAD_BYTES
            if length >= _LEAST_LENGTH and behind < self.size_bytes and self._fits(behind, next_offset):
                return behind
        piece_position = position + 1
        tried_bytes = 0
        while piece_position + _HEADER_BYTES <= self.size_bytes:
            piece = self._read(piece_position, min(_PIECE_BYTES, self.size_bytes - piece_position))
            magic_at = piece.find(b"\x02", _MAGIC_AT)
            while magic_at >= 0:
                start = magic_at - _MAGIC_AT
                if start + _HEADER_BYTES <= len(piece) and self._plausible(piece, start, next_offset):
                    candidate = piece_position + start
                    tried_bytes += self._claimed_bytes(piece, start, candidate)
                    if tried_bytes > _TRIED_BYTES_MAX:
                        return None
                    if self._fits(candidate, next_offset):
                        return candidate
                magic_at = piece.find(b"\x02", magic_at + 1)
            if piece_position + len(piece) >= self.size_bytes:
                return None
            piece_position += len(piece) - _HEADER_BYTES + 1
        return None

    def _plausible(self, piece: bytes, start: int, next_offset: int) -> bool:
        base_offset, length, epoch, _, _ = _HEADER.unpack_from(piece, start)
        return bool(next_offset <= base_offset < self.end_offset_max and length >= _LEAST_LENGTH and epoch >= -1)

    def _claimed_bytes(self, piece: bytes, start: int, position: int) -> int:
        """How much there is to check of a batch, if one starts here; nothing where it would not fit into the file."""
        _, length, _, _, _ = _HEADER.unpack_from(piece, start)
        return length if position + length + _OVERHEAD_BYTES <= self.size_bytes else 0

    def _fits(self, position: int, next_offset: int) -> bool:
        found = self._sound_batch(position)
        return isinstance(found, RecordBatch) and self._misfit(found, next_offset, -1) is None

    def _offset_behind(self, position: int, next_offset: int) -> int | None:
        if position >= self.size_bytes:
            return None
        found = self._sound_batch(position)
        return found.base_offset if isinstance(found, RecordBatch) and found.base_offset >= next_offset else None

    def _only_zeros(self, position: int) -> bool:
        while position < self.size_bytes:
            piece = self._read(position, _PIECE_BYTES)
            if not piece or piece.count(0) != len(piece):
                return not piece
            position += len(piece)
        return True
