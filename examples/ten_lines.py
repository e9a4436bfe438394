"""Three orders into a log, back again, and from a moment on. Leaves nothing behind."""

from datetime import UTC, datetime
from tempfile import TemporaryDirectory

import logstore

noon = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
with TemporaryDirectory() as directory, logstore.open(directory) as broker:
    orders = broker.create_topic("orders", partitions=1)
    for minute, (key, value) in enumerate([(b"ann", b"tea"), (b"bob", b"rice"), (b"ann", b"milk")]):
        orders.append(value, key=key, timestamp=int(noon.timestamp() + 60 * minute) * 1000)

    for record in orders.read():
        print("all:        ", record.offset, record.key, record.value)
    for record in orders.read(start=noon.replace(minute=1)):
        print("from 12:01: ", record.offset, record.key, record.value)
