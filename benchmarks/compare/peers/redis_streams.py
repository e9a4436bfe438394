"""Redis Streams: XADD through redis-py with its compiled parser, over a Unix socket, into an append-only file."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from benchmarks.compare.measure import Measured, Place, Stopwatch
from benchmarks.compare.peers import servers
from benchmarks.sample import WrongResultError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from benchmarks.sample import Sample

STREAM = "records"
COMMANDS_PER_PIPELINE = 1_000
RECORDS_PER_RANGE = 10_000


@contextmanager
def _connected(directory: Path, *, sync: bool) -> Iterator[tuple[Any, servers.Server]]:
    import redis

    directory.mkdir(parents=True, exist_ok=True)
    with servers.redis(directory, append_fsync="always" if sync else "no") as server:
        client = redis.Redis(unix_socket_path=server.address)
        try:
            yield client, server
        finally:
            client.close()


def _pairs(client: Any) -> Iterator[tuple[bytes, bytes]]:
    start = "-"
    while entries := client.xrange(STREAM, min=start, count=RECORDS_PER_RANGE):
        for _entry, fields in entries:
            yield next(iter(fields.items()))
        start = f"({entries[-1][0].decode()}"


def append(*, records_per_call: int, sync: bool = False) -> Callable[[Place], Any]:
    """XADD, one or so many a round trip; acknowledged when it is in the page cache, or with `sync` on disk."""

    @contextmanager
    def start(place: Place) -> Iterator[Callable[[], Measured]]:
        sample = place.sample
        pairs = [{key: value} for key, value in zip(sample.keys, sample.values, strict=True)]
        with _connected(place.kept / "server", sync=sync) as (client, server):

            def one_round() -> Measured:
                client.delete(STREAM)
                with Stopwatch(server.cpu_nanoseconds) as watch:
                    if records_per_call == 1:
                        for pair in pairs:
                            client.xadd(STREAM, pair)
                    else:
                        _add_in_pipelines(client, pairs, records_per_call)
                sample.check(_pairs(client), source="Redis")
                return watch.measured(len(sample))

            yield one_round

    return start


def _add_in_pipelines(client: Any, pairs: list[dict[bytes, bytes]], records_per_call: int) -> None:
    for start in range(0, len(pairs), records_per_call):
        pipeline = client.pipeline(transaction=False)
        for pair in pairs[start : start + records_per_call]:
            pipeline.xadd(STREAM, pair)
        pipeline.execute()


@contextmanager
def _filled(place: Place) -> Iterator[tuple[Any, servers.Server]]:
    sample = place.sample
    with _connected(place.kept / "server", sync=False) as (client, server):
        pipeline = client.pipeline(transaction=False)
        for offset, (key, value) in enumerate(zip(sample.keys, sample.values, strict=True), start=1):
            pipeline.xadd(STREAM, {key: value}, id=f"0-{offset}")
            if offset % COMMANDS_PER_PIPELINE == 0:
                pipeline.execute()
        pipeline.execute()
        sample.check(_pairs(client), source="Redis")
        yield client, server


@contextmanager
def iterate(place: Place) -> Iterator[Callable[[], Measured]]:
    """XRANGE of 10,000 entries at a time; key and value of each."""
    with _filled(place) as (client, server):

        def one_round() -> Measured:
            count = 0
            with Stopwatch(server.cpu_nanoseconds) as watch:
                for _key, _value in _pairs(client):
                    count += 1
            if count != len(place.sample):
                raise WrongResultError(f"Redis: {count} records of {len(place.sample)}")
            return watch.measured(count)

        yield one_round


@contextmanager
def look_up_offset(place: Place) -> Iterator[Callable[[], Measured]]:
    """XRANGE of one id, at random."""
    sample = place.sample
    wanted = sample.some_offsets(2_000)
    with _filled(place) as (client, server):

        def one_round() -> Measured:
            with Stopwatch(server.cpu_nanoseconds) as watch:
                found = [client.xrange(STREAM, f"0-{offset + 1}", f"0-{offset + 1}") for offset in wanted]
            for offset, entries in zip(wanted, found, strict=True):
                if entries[0][1] != {sample.keys[offset]: sample.values[offset]}:
                    raise WrongResultError(f"Redis: offset {offset} holds another record")
            return watch.measured(len(wanted))

        yield one_round


def store_records(directory: Path, sample: Sample) -> None:
    """All records in an append-only file, for measuring what is on disk then."""
    with _connected(directory, sync=False) as (client, _server):
        _add_in_pipelines(
            client, [{key: value} for key, value in zip(sample.keys, sample.values, strict=True)], COMMANDS_PER_PIPELINE
        )
