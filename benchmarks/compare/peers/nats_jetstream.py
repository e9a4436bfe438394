"""NATS JetStream: a stream in files, written and read through nats-py; key and value joined."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from benchmarks.compare.measure import Measured, Place, Stopwatch
from benchmarks.compare.peers import servers
from benchmarks.sample import KEY_BYTES, WrongResultError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from benchmarks.sample import Sample

STREAM = "records"
MESSAGES_PER_FETCH = 1_000


@contextmanager
def _connected(directory: Path, *, sync: bool) -> Iterator[tuple[asyncio.Runner, Any, servers.Server]]:
    import nats

    directory.mkdir(parents=True, exist_ok=True)
    with servers.nats(directory, sync=sync) as server, asyncio.Runner() as runner:

        async def connect() -> Any:
            return await nats.connect(server.address)

        client = runner.run(connect())
        try:
            yield runner, client, server
        finally:
            runner.run(client.close())


async def _recreate(client: Any) -> None:
    context = client.jetstream()
    await context.delete_stream(STREAM) if await _exists(context) else None
    await context.add_stream(name=STREAM, subjects=[STREAM], storage="file", allow_direct=True)


async def _exists(context: Any) -> bool:
    return STREAM in [info.config.name for info in await context.streams_info()]


async def _publish(client: Any, payloads: list[bytes], in_flight: int) -> None:
    """Publish with at most so many not acknowledged yet; every acknowledgement is looked at."""
    inbox = client.new_inbox()
    acknowledged = 0
    refused: list[bytes] = []
    progress = asyncio.Event()

    async def on_acknowledgement(message: Any) -> None:
        nonlocal acknowledged
        acknowledged += 1
        if b'"error"' in message.data:
            refused.append(message.data)
        progress.set()

    subscription = await client.subscribe(inbox, cb=on_acknowledgement)
    publish = client.publish
    for sent, payload in enumerate(payloads, start=1):
        await publish(STREAM, payload, reply=inbox)
        while sent - acknowledged >= in_flight:
            progress.clear()
            await progress.wait()
    while acknowledged < len(payloads):
        progress.clear()
        await progress.wait()
    await subscription.unsubscribe()
    if refused:
        raise WrongResultError(f"NATS refused {len(refused)} records: {refused[0]!r}")


async def _publish_each(client: Any, payloads: list[bytes]) -> None:
    publish = client.jetstream().publish
    for payload in payloads:
        await publish(STREAM, payload)


async def _read(client: Any, count: int) -> list[bytes]:
    from nats.js.api import AckPolicy, ConsumerConfig

    context = client.jetstream()
    subscription = await context.pull_subscribe(
        STREAM, config=ConsumerConfig(ack_policy=AckPolicy.NONE), pending_msgs_limit=-1, pending_bytes_limit=-1
    )
    found: list[bytes] = []
    while len(found) < count:
        found += [message.data for message in await subscription.fetch(min(MESSAGES_PER_FETCH, count - len(found)))]
    await subscription.unsubscribe()
    return found


def _payloads(sample: Sample) -> list[bytes]:
    return [key + value for key, value in zip(sample.keys, sample.values, strict=True)]


def _check(sample: Sample, found: list[bytes]) -> None:
    sample.check(((item[:KEY_BYTES], item[KEY_BYTES:]) for item in found), source="NATS")


def append(*, in_flight: int, sync: bool = False) -> Callable[[Place], Any]:
    """One publish a record, so many not acknowledged yet at most; an acknowledgement says that it is in the page cache,
    or with `sync` on disk."""

    @contextmanager
    def start(place: Place) -> Iterator[Callable[[], Measured]]:
        sample = place.sample
        payloads = _payloads(sample)
        with _connected(place.kept / "server", sync=sync) as (runner, client, server):

            def one_round() -> Measured:
                runner.run(_recreate(client))
                write = _publish_each(client, payloads) if in_flight == 1 else _publish(client, payloads, in_flight)
                with Stopwatch(server.cpu_nanoseconds) as watch:
                    runner.run(write)
                _check(sample, runner.run(_read(client, len(sample))))
                return watch.measured(len(sample))

            yield one_round

    return start


@contextmanager
def iterate(place: Place) -> Iterator[Callable[[], Measured]]:
    """A pull consumer without acknowledgements, 1,000 messages a fetch; each payload sliced into key and value."""
    sample = place.sample
    with _connected(place.kept / "server", sync=False) as (runner, client, server):
        runner.run(_recreate(client))
        runner.run(_publish(client, _payloads(sample), MESSAGES_PER_FETCH))

        def one_round() -> Measured:
            with Stopwatch(server.cpu_nanoseconds) as watch:
                found = runner.run(_read(client, len(sample)))
                for item in found:
                    item[:KEY_BYTES]
                    item[KEY_BYTES:]
            _check(sample, found)
            return watch.measured(len(sample))

        yield one_round


def store_records(directory: Path, sample: Sample) -> None:
    """All records in a stream's files, for measuring what is on disk then."""
    with _connected(directory, sync=False) as (runner, client, _server):
        runner.run(_recreate(client))
        runner.run(_publish(client, _payloads(sample), MESSAGES_PER_FETCH))
