"""Decoders in Python, of bytes that were changed: each says what is wrong in its own words, or gives a value that can be
written and read again; nothing else comes out.

The seeds are sound bytes; KEPT and KEPT_FILES have what was once answered wrongly. LOGSTORE_MUTATIONS makes the run longer.
"""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from logstore._native.checksum import crc32c
from logstore._native.open_batch import sealed_open_batch
from logstore.broker.housekeeping_record import read_record
from logstore.broker.metadata import TopicMetadata, read_topics, write_topics
from logstore.broker.offsets_schema import (
    GroupValue,
    MalformedRecordError,
    MemberValue,
    OffsetValue,
    decode_group_value,
    decode_key,
    decode_offset_value,
    encode_group_key,
    encode_group_value,
    encode_offset_key,
    encode_offset_value,
)
from logstore.broker.transaction_state import (
    Status,
    TransactionValue,
    decode_ends,
    decode_transaction_key,
    decode_transaction_value,
    encode_ends,
    encode_transaction_key,
    encode_transaction_value,
)
from logstore.consumer_protocol import (
    Assignment,
    Subscription,
    decode_assignment,
    decode_sticky_user_data,
    decode_subscription,
    encode_assignment,
    encode_sticky_user_data,
    encode_subscription,
)
from logstore.errors import CorruptDataError, UnsupportedFormatError
from logstore.model import TopicPartition
from logstore.storage.checkpoint import Checkpoint, CheckpointFile
from logstore.storage.config import TopicConfig
from logstore.storage.open_batch import open_batch_path, read_open_batch
from logstore.storage.producer_snapshot import decode_snapshot, encode_snapshot
from logstore.storage.producer_state import AbortedTransaction, Producer, ProducerBatch
from logstore.storage.segment_digests import SegmentDigest, SegmentDigests
from logstore.storage.text_checkpoints import read_offsets, read_topic_id
from logstore.storage.transaction_index import decode_entries, encode_entries

MUTATIONS = int(os.environ.get("LOGSTORE_MUTATIONS", "200"))
PLACES = [TopicPartition("orders", 0), TopicPartition("orders", 7), TopicPartition("é", 2**31 - 1)]
MEMBER = MemberValue("m-1", "instance", "client", "/127.0.0.1", 60_000, 10_000, b"\0\1sub", b"")
GROUP = GroupValue("consumer", 3, "range", "m-1", 1_700_000_000_000, (MEMBER, MEMBER._replace(group_instance_id=None)))
STATE = TransactionValue(7, 2, 60_000, Status.PREPARE_COMMIT, tuple(PLACES), 1_700_000_000_000, 1_700_000_000_000)
PRODUCERS = [Producer(4, 1, 3, 1_700_000_000_000, 17, (ProducerBatch(9, 20, 3, 1_700_000_000_000),)), Producer(5, 0)]


class Decoder(NamedTuple):
    """With ``encode``, what is read can be written, and reads the same again."""

    decode: Callable[[bytes], Any]
    seeds: list[bytes]
    encode: Callable[[Any], bytes] | None = None
    refusals: tuple[type[Exception], ...] = (CorruptDataError,)


def encode_key(key: Any) -> bytes:
    if key is None:
        return b"\0\3"
    return encode_group_key(key.group) if len(key) == 1 else encode_offset_key(*key)


RECORDS = (MalformedRecordError,)
DECODERS = {
    "offset key": Decoder(decode_key, [encode_offset_key("g", "orders", 3), encode_group_key("g")], encode_key, RECORDS),
    "offset value": Decoder(
        decode_offset_value,
        [
            encode_offset_value(OffsetValue(42, 5, "note", 1_700_000_000_000)),
            struct.pack(">hqh2sqq", 1, 42, 2, b"ab", 1, 2),
            struct.pack(">hqib", 4, 42, 5, 1) + struct.pack(">qb", 9, 0),
        ],
        lambda value: encode_offset_value(value._replace(expire_timestamp=-1)), RECORDS,
    ),
    "group value": Decoder(decode_group_value, [encode_group_value(GROUP)], encode_group_value, RECORDS),
    "transaction key": Decoder(decode_transaction_key, [encode_transaction_key("x")], encode_transaction_key, RECORDS),
    "transaction value": Decoder(
        decode_transaction_value, [encode_transaction_value(STATE)], encode_transaction_value, RECORDS
    ),
    "ends": Decoder(decode_ends, [encode_ends(dict.fromkeys(PLACES, 77))], encode_ends, RECORDS),
    "subscription": Decoder(
        decode_subscription, [encode_subscription(Subscription(("a", "é"), b"data", tuple(PLACES), 4, "rack"))],
        encode_subscription,
    ),
    "assignment": Decoder(decode_assignment, [encode_assignment(Assignment(tuple(PLACES), b"data"))], encode_assignment),
    "sticky user data": Decoder(
        decode_sticky_user_data, [encode_sticky_user_data(PLACES, 4)], lambda value: encode_sticky_user_data(*value)
    ),
    "producer snapshot": Decoder(decode_snapshot, [encode_snapshot(PRODUCERS)], encode_snapshot),
    "transaction index": Decoder(
        decode_entries, [encode_entries([AbortedTransaction(1, 5, 9, 5), AbortedTransaction(2, 6, 12, 6)])], encode_entries
    ),
}
KEPT: dict[str, list[bytes]] = {}


def mutated(chance: random.Random, data: bytes) -> bytes:
    """One to three changes: a bit, a byte, an extreme number, a piece gone, twice, or of another place."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(changed) + 1)
        kind = chance.randrange(7)
        if kind == 0 and at < len(changed):
            changed[at] ^= 1 << chance.randrange(8)
        elif kind == 1 and at < len(changed):
            changed[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF))
        elif kind == 2:
            size = chance.choice((2, 4, 8))
            changed[at : at + size] = chance.choice((b"\x7f" + b"\xff" * 7, b"\x80" + bytes(7), b"\xff" * 8))[:size]
        elif kind == 3:
            del changed[at:]
        elif kind == 4:
            del changed[at : at + chance.randint(1, 8)]
        elif kind == 5:
            end = at + chance.randint(1, 8)
            changed[at:at] = changed[at:end]
        else:
            changed[at:at] = chance.randbytes(chance.randint(1, 8))
    return bytes(changed)


@pytest.mark.parametrize("name", DECODERS)
def test_seeds_read_as_they_were_written(name):
    decoder = DECODERS[name]
    for seed in decoder.seeds:
        assert decoder.encode is not None
        value = decoder.decode(seed)
        assert decoder.decode(decoder.encode(value)) == value or name == "offset value"


@pytest.mark.parametrize("name", DECODERS)
def test_changed_bytes_are_refused_or_read(name):
    decoder = DECODERS[name]
    chance = random.Random(name)
    for data in KEPT.get(name, []):
        answer(decoder, data)
    answers = [answer(decoder, mutated(chance, chance.choice(decoder.seeds))) for _ in range(MUTATIONS)]
    assert "refused" in answers


def answer(decoder: Decoder, data: bytes) -> str:
    try:
        value = decoder.decode(data)
    except decoder.refusals as error:
        assert str(error), data.hex()
        return "refused"
    except Exception as error:
        raise AssertionError(f"{error!r} for {data.hex()}") from error
    assert decoder.encode is not None
    try:
        again = decoder.encode(value)
    except UnicodeEncodeError as error:
        raise AssertionError(f"{value!r} can't be written, from {data.hex()}") from error
    once = decoder.decode(again)
    assert decoder.encode(once) == again, data.hex()
    return "read"


# ---- whole files ---------------------------------------------------------------------------------------


TOPIC_ID, BOOT_ID = b"bbNboY0oR1-iaFZ_87LUnA", bytes(range(16))
RECORDS_AT = 4096


def open_batch() -> bytes:
    """As docs/format/open-batch.md has it: three records from offset 1000 on."""
    records = b"".join(bytes([18, 0, 2 * delta, 2 * delta, 2]) + b"k\x04v%d\0" % delta for delta in range(3))
    block = struct.pack(">4sHH24s16sqq", b"LSOB", 1, 0, TOPIC_ID, BOOT_ID, 1000, 1_700_000_000_000)
    block += struct.pack(">I", crc32c(block))
    word = struct.pack(">II", len(records), crc32c(records) ^ crc32c(block[:64]))
    return (block.ljust(128, b"\0") + word).ljust(RECORDS_AT, b"\0") + records


def read_left(where: str) -> bytes | None:
    content = read_open_batch(where)
    return content and sealed_open_batch(
        content, open_batch_path(where), TOPIC_ID, BOOT_ID, base_offset=1000, leader_epoch=3, append_time=False
    )


@pytest.mark.parametrize("changes", ["one bit", "several"])
def test_an_open_batch_is_given_as_it_was_stored_or_not_at_all(tmp_path, changes):
    where = str(tmp_path)
    path = tmp_path / "logstore.open-batch"
    sound = open_batch()
    path.write_bytes(sound)
    batch = read_left(where)
    assert batch is not None
    assert batch[:8] == (1000).to_bytes(8)
    assert sound[RECORDS_AT:] in batch
    told = [*range(136), *range(RECORDS_AT, len(sound))]
    chance = random.Random(changes)
    if changes == "one bit":
        tried = [sound[:at] + bytes([sound[at] ^ 1 << bit]) + sound[at + 1 :] for at in told for bit in range(8)]
    else:
        tried = [
            mutated(chance, sound[:136]).ljust(RECORDS_AT, b"\0")[:RECORDS_AT] + mutated(chance, sound[RECORDS_AT:])
            for _ in range(MUTATIONS)
        ]
    answers = {"as stored": 0, "nothing": 0, "refused": 0}
    for data in tried:
        path.write_bytes(data)
        try:
            found = read_left(where)
        except CorruptDataError as error:
            assert "logstore.open-batch" in str(error)
            answers["refused"] += 1
            continue
        assert found in (batch, None), data.hex()
        answers["nothing" if found is None else "as stored"] += 1
    assert answers["refused"] > 20
    if changes == "one bit":
        assert answers["as stored"] == 8 * 60  # between the block and the word


def write_files(directory: Path) -> dict[str, Callable[[], Any]]:
    """Sound files, and what reads them."""
    where = str(directory)
    write_topics(where, {"orders": TopicMetadata("orders", "bbNboY0oR1-iaFZ_87LUnA", 3, TopicConfig())})
    checkpoint = CheckpointFile(os.path.join(where, "logstore.checkpoint"))
    checkpoint.replace(Checkpoint(0, 1000, 512, 40960, 1000))
    SegmentDigests(where).record([SegmentDigest(512, 1000, 40960, 1, bytes(16), (80, 1), (120, 2), 3)])
    (directory / "offsets").write_text("0\n2\norders 0 1000\norders 1 5\n")
    (directory / "partition.metadata").write_text("version: 0\ntopic_id: bbNboY0oR1-iaFZ_87LUnA\n")
    (directory / "logstore.housekeeping").write_text(
        '{"version": 1, "last_retention_ms": 5, "last_compaction_ms": -1, "bytes_freed": 0, "results": [], "failures": []}'
    )
    (directory / "logstore.open-batch").write_bytes(open_batch())
    return {
        "logstore.open-batch": lambda: read_left(where),
        "logstore.topics": lambda: read_topics(where),
        "logstore.checkpoint": lambda: CheckpointFile(os.path.join(where, "logstore.checkpoint")).read(),
        "logstore.digests": lambda: SegmentDigests(where).entries(),
        "offsets": lambda: read_offsets(os.path.join(where, "offsets")),
        "partition.metadata": lambda: read_topic_id(where),
        "logstore.housekeeping": lambda: read_record(where),
    }


TOPICS = b"logstore.topics "
KEPT_FILES = {"logstore.topics": [TOPICS + "\u00b2 00000000\n{}\n".encode(), TOPICS + b"9" * 5000 + b" 00000000\n{}"]}


@pytest.mark.parametrize(
    "name",
    [
        "logstore.topics", "logstore.checkpoint", "logstore.digests", "logstore.open-batch", "offsets", "partition.metadata",
        "logstore.housekeeping",
    ],
)
def test_changed_files_are_refused_or_read(tmp_path, name):
    read = write_files(tmp_path)[name]
    path = tmp_path / name
    sound = path.read_bytes()
    assert read()
    chance = random.Random(name)
    for data in [*KEPT_FILES.get(name, []), *(mutated(chance, sound) for _ in range(MUTATIONS // 2))]:
        path.write_bytes(data)
        try:
            read()
        except (CorruptDataError, UnsupportedFormatError) as error:
            assert name in str(error)
        except Exception as error:
            raise AssertionError(f"{error!r} for {data!r}") from error
