"""Compression: what logstore makes of a codec, beside the codec alone on the same bytes."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from benchmarks.compare.measure import Measured, Place, Stopwatch
from benchmarks.compare.subject import RECORDS_PER_CALL, created
from benchmarks.sample import WrongResultError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.sample import Sample

Codec = Literal["zstd", "lz4"]
BATCH_BYTES = 64 << 10
HEADER_BYTES = 61


def _payloads(place: Place) -> list[bytes]:
    """The bytes that logstore compresses: records of batches of 64 KiB."""
    broker, topic = created(place.kept / "plain", "appended")
    sample = place.sample
    with broker:
        for at in range(0, len(sample), RECORDS_PER_CALL):
            topic.append_many(sample.values[at : at + RECORDS_PER_CALL], sample.keys[at : at + RECORDS_PER_CALL])
        offset, payloads = 0, []
        while batches := topic.logs[0].fetch(offset, 1 << 20):
            payloads += [bytes(batch)[HEADER_BYTES:] for batch in batches]
            offset = batches[-1].last_offset + 1
    return payloads


def _alone(codec: Codec) -> tuple[Callable[[bytes], Any], Callable[[bytes], Any]]:
    """The library's own functions for one block of known size, one context for all blocks where it has them."""
    if codec == "zstd":
        import zstandard

        return zstandard.ZstdCompressor(level=3).compress, zstandard.ZstdDecompressor().decompress
    import cramjam

    return cramjam.lz4.compress_block, cramjam.lz4.decompress_block


def _ours(codec: Codec) -> tuple[Callable[[bytes], Any], Callable[[bytes], Any]]:
    from logstore.records import codecs

    number = codecs.codec_id(codec)
    limit = 2 * BATCH_BYTES
    return (lambda data: codecs.compress(number, data, None)), (lambda data: codecs.decompress(number, data, limit))


def compress(codec: Codec, *, alone: bool) -> Callable[[Place], Any]:
    """One call a batch: logstore's, or the codec's."""
    return _called(codec, alone=alone, packing=True)


def decompress(codec: Codec, *, alone: bool) -> Callable[[Place], Any]:
    """One call a batch: logstore's, or the codec's."""
    return _called(codec, alone=alone, packing=False)


def _called(codec: Codec, *, alone: bool, packing: bool) -> Callable[[Place], Any]:
    @contextmanager
    def start(place: Place) -> Iterator[Callable[[], Measured]]:
        payloads = _payloads(place)
        pack, unpack = _alone(codec) if alone else _ours(codec)
        packed = [bytes(pack(payload)) for payload in payloads]
        if [bytes(unpack(data)) for data in packed] != payloads:
            raise WrongResultError(f"{codec} does not give back what it was given")
        call, inputs = (pack, payloads) if packing else (unpack, packed)

        def one_round() -> Measured:
            with Stopwatch() as watch:
                for data in inputs:
                    call(data)
            return watch.measured(len(place.sample))

        yield one_round

    return start


def append_many(codec: Codec) -> Callable[[Place], Any]:
    """topic.append_many into a topic with this compression."""

    @contextmanager
    def start(place: Place) -> Iterator[Callable[[], Measured]]:
        sample = place.sample

        def one_round() -> Measured:
            broker, topic = created(place.fresh(), "appended", compression_type=codec)
            topic.append(sample.values[0], sample.keys[0])
            with broker:
                with Stopwatch() as watch:
                    _append(topic, sample)
                sample.check(((record.key, record.value) for record in topic.read(start=1)), source=f"logstore, {codec}")
            return watch.measured(len(sample))

        yield one_round

    return start


def columns(codec: Codec) -> Callable[[Place], Any]:
    """topic.scan of a topic with this compression."""

    @contextmanager
    def start(place: Place) -> Iterator[Callable[[], Measured]]:
        sample = place.sample
        broker, topic = created(place.kept / "log", "appended", compression_type=codec)
        with broker:
            _append(topic, sample)
            sample.check(((record.key, record.value) for record in topic.read()), source=f"logstore, {codec}")

            def one_round() -> Measured:
                with Stopwatch() as watch:
                    count = sum(len(batch.offsets) for batch in topic.scan())
                if count != len(sample):
                    raise WrongResultError(f"logstore, {codec}: {count} records of {len(sample)}")
                return watch.measured(count)

            yield one_round

    return start


def _append(topic: Any, sample: Sample) -> None:
    for at in range(0, len(sample), RECORDS_PER_CALL):
        topic.append_many(sample.values[at : at + RECORDS_PER_CALL], sample.keys[at : at + RECORDS_PER_CALL])
