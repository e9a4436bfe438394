"""aiokafka and kafka-python read what we write, and we read what they write: every codec."""

from __future__ import annotations

import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder as AiokafkaBuilder
from aiokafka.record.memory_records import MemoryRecords as AiokafkaRecords
from kafka.record.default_records import DefaultRecordBatchBuilder as KafkaPythonBuilder
from kafka.record.memory_records import MemoryRecords as KafkaPythonRecords

from logstore.storage.config import TopicConfig
from logstore.storage.log import Log

CODECS = {"uncompressed": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
READERS = {"aiokafka": AiokafkaRecords, "kafka-python": KafkaPythonRecords}
START_MS = 1_700_000_000_000

RECORDS = [
    (START_MS, b"key", b"value", []),
    (START_MS + 5, None, b"", [("trace", b"a1"), ("trace", None)]),
    (START_MS - 7, b"", None, [("", b"")]),
    *[(START_MS + i, b"key-%d" % (i % 7), b"value-%d " % i * 20, [("n", b"%d" % i)]) for i in range(200)],
]


def open_log(tmp_path, **config):
    return Log(tmp_path / "orders-0", TopicConfig(config), durability="appended")


def rows(log):
    return [(r.offset, r.timestamp, r.key, r.value, r.headers) for r in log.read()]


def expected(start=0):
    return [(start + i, *record) for i, record in enumerate(RECORDS)]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("codec", CODECS)
def test_peer_reads_our_segment(tmp_path, codec, reader):
    with open_log(tmp_path, compression_type=codec, logstore_batch_bytes=3000) as log:
        for timestamp, key, value, headers in RECORDS:
            log.append(value, key, headers=headers, timestamp=timestamp, durability="buffered")
    data = (tmp_path / "orders-0" / f"{0:020d}.log").read_bytes()
    batches = READERS[reader](data)
    read = []
    codecs_seen = set()
    while (batch := batches.next_batch()) is not None:
        assert batch.validate_crc()
        codecs_seen.add(batch.compression_type)
        read += [(r.offset, r.timestamp, r.key, r.value, [(name, value) for name, value in r.headers]) for r in batch]
    assert read == expected()
    assert CODECS[codec] in codecs_seen


def built_by_aiokafka(codec, records):
    builder = AiokafkaBuilder(
        magic=2, compression_type=codec, is_transactional=0, producer_id=-1, producer_epoch=-1,
        base_sequence=-1, batch_size=1 << 20,
    )  # fmt: skip
    for i, (timestamp, key, value, headers) in enumerate(records):
        assert builder.append(i, timestamp, key, value, headers) is not None
    return bytes(builder.build())


def built_by_kafka_python(codec, records):
    builder = KafkaPythonBuilder(
        magic=2, compression_type=codec, is_transactional=0, producer_id=-1, producer_epoch=-1,
        base_sequence=-1, batch_size=1 << 20,
    )  # fmt: skip
    for i, (timestamp, key, value, headers) in enumerate(records):
        assert builder.append(i, timestamp, key, value, headers) is not None
    return bytes(builder.build())


@pytest.mark.parametrize("build", [built_by_aiokafka, built_by_kafka_python])
@pytest.mark.parametrize("codec", CODECS)
def test_we_read_a_peers_batch(tmp_path, codec, build):
    with open_log(tmp_path) as log:
        log.append(b"first", timestamp=START_MS)
        batch = build(CODECS[codec], RECORDS)
        assert log.append_as_leader(batch) == range(1, 1 + len(RECORDS))
        assert rows(log)[1:] == expected(start=1)


def test_uncompressed_bytes_are_those_of_both_peers(tmp_path):
    with open_log(tmp_path) as log:
        log.append_many(
            [value for _, _, value, _ in RECORDS],
            [key for _, key, _, _ in RECORDS],
            timestamps=[timestamp for timestamp, *_ in RECORDS],
        )
        (batch,) = log.fetch(0)
    plain = [(timestamp, key, value, []) for timestamp, key, value, _ in RECORDS]
    ours = bytearray(bytes(batch))
    for theirs in (built_by_aiokafka(0, plain), built_by_kafka_python(0, plain)):
        ours[12:16] = theirs[12:16]  # the leader's epoch: -1 from one, 0 from the other
        assert bytes(ours) == theirs
