"""logstore: Kafka's log as a Python library.

>>> import logstore
>>> with logstore.open("data") as broker:
...     orders = broker.create_topic("orders", partitions=3, exist_ok=True)
...     offset = orders.append(b'{"total": 12}', key=b"sarah")
...     for record in orders.read(start="-1h"):
...         print(record.partition, record.offset, record.value)

The guide starts in README.md; what an acknowledgement means is in docs/durability.md.
"""

from __future__ import annotations

from logstore._version import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Mapping
    from typing import Any

    from logstore._native.checksum import partition_for_key
    from logstore._native.record_batch import Record, RecordBatch
    from logstore.broker import Topic
    from logstore.clients.consumer import Consumer
    from logstore.clients.producer import Producer
    from logstore.embedded import Broker
    from logstore.errors import (
        ClosedError,
        CommitFailedError,
        CorruptDataError,
        DataDirLockedError,
        DeliveryFailedError,
        DiskFullError,
        FencedInstanceIdError,
        GroupError,
        GroupIdNotFoundError,
        GroupMaxSizeReachedError,
        GroupSubscribedToTopicError,
        IllegalGenerationError,
        InconsistentGroupProtocolError,
        InvalidConfigError,
        InvalidGroupIdError,
        InvalidProducerEpochError,
        InvalidRecordError,
        InvalidRequestError,
        InvalidSessionTimeoutError,
        InvalidTimestampError,
        InvalidTxnStateError,
        LogstoreError,
        LogTruncatedError,
        MissingDependencyError,
        NonEmptyGroupError,
        NoOffsetForPartitionError,
        OffsetMetadataTooLargeError,
        OffsetOutOfRangeError,
        OutOfOrderSequenceError,
        ProducerFencedError,
        ReadOnlyError,
        RebalanceInProgressError,
        RecordTooLargeError,
        RequestTimeoutError,
        StorageFailureError,
        TopicAlreadyExistsError,
        TransactionCoordinatorFencedError,
        UnexpectedOffsetError,
        UnknownMemberIdError,
        UnknownTopicOrPartitionError,
        UnsupportedFormatError,
    )
    from logstore.model import (
        Durability,
        Lag,
        OffsetAndMetadata,
        OffsetAndTimestamp,
        RecordMetadata,
        RecoveryReport,
        TopicPartition,
    )

__all__ = [
    "Broker",
    "ClosedError",
    "CommitFailedError",
    "Consumer",
    "CorruptDataError",
    "DataDirLockedError",
    "DeliveryFailedError",
    "DiskFullError",
    "FencedInstanceIdError",
    "GroupError",
    "GroupIdNotFoundError",
    "GroupMaxSizeReachedError",
    "GroupSubscribedToTopicError",
    "IllegalGenerationError",
    "InconsistentGroupProtocolError",
    "InvalidConfigError",
    "InvalidGroupIdError",
    "InvalidProducerEpochError",
    "InvalidRecordError",
    "InvalidRequestError",
    "InvalidSessionTimeoutError",
    "InvalidTimestampError",
    "InvalidTxnStateError",
    "Lag",
    "LogTruncatedError",
    "LogstoreError",
    "MissingDependencyError",
    "NoOffsetForPartitionError",
    "NonEmptyGroupError",
    "OffsetAndMetadata",
    "OffsetAndTimestamp",
    "OffsetMetadataTooLargeError",
    "OffsetOutOfRangeError",
    "OutOfOrderSequenceError",
    "Producer",
    "ProducerFencedError",
    "ReadOnlyError",
    "RebalanceInProgressError",
    "Record",
    "RecordBatch",
    "RecordMetadata",
    "RecordTooLargeError",
    "RecoveryReport",
    "RequestTimeoutError",
    "StorageFailureError",
    "Topic",
    "TopicAlreadyExistsError",
    "TopicPartition",
    "TransactionCoordinatorFencedError",
    "UnexpectedOffsetError",
    "UnknownMemberIdError",
    "UnknownTopicOrPartitionError",
    "UnsupportedFormatError",
    "__version__",
    "native_info",
    "open",
    "partition_for_key",
]


def open(
    path: str | os.PathLike[str],
    *,
    durability: Durability = "flushed",
    read_only: bool = False,
    housekeeping: bool = True,
    config: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Broker:
    """Opens a data directory.

    Parameters
    ----------
    path : str or path-like
        The directory; made if missing, unless ``read_only``.
    durability : {"flushed", "appended", "buffered"}
        When a record counts as acknowledged, where neither its topic nor the call says: on disk (the default), in the
        page cache, or in the open batch in memory. See docs/durability.md.
    read_only : bool
        Opens beside a broker of another process, and follows what it writes.
    housekeeping : bool
        Whether retention and compaction run in the background; see `Broker.housekeeping` and docs/guide/retention.md.
    config : mapping, optional
        Settings of the broker under Kafka's names: ``{"offsets.retention.minutes": 1440}``; see docs/guide/settings.md.
    **settings
        The same in snake_case: ``offsets_retention_minutes=1440``.

    Returns
    -------
    Broker
        A context manager; closing it flushes everything.

    Raises
    ------
    DataDirLockedError
        Another broker writes this directory; the message names it.
    StorageFailureError
        The directory can't be made, read or written.
    InvalidRequestError
        An unknown durability, or a setting (an unknown one is answered with the nearest).
    """
    from importlib import import_module

    opened: Broker = import_module("logstore.embedded").Broker(
        path, durability=durability, read_only=read_only, housekeeping=housekeeping, config=config, **settings
    )
    return opened


def native_info() -> dict[str, object]:
    """What the native core is, and which of its implementations are in use here.

    Returns
    -------
    dict[str, object]
        ``version``, ``crc32c`` (in use), ``crc32c_available`` (fastest last).
    """
    from importlib import import_module

    checksum = import_module("logstore._native.checksum")
    return {
        "version": __version__,
        "crc32c": checksum.crc32c_implementation(),
        "crc32c_available": checksum.crc32c_implementations(),
    }


# Where the other public names come from. They load when first used, so that `import logstore` costs next to nothing.
_HOMES = {
    "Broker": "logstore.embedded",
    "Topic": "logstore.broker",
    "Consumer": "logstore.clients.consumer",
    "Producer": "logstore.clients.producer",
    "Record": "logstore._native.record_batch",
    "RecordBatch": "logstore._native.record_batch",
    "Lag": "logstore.model",
    "OffsetAndMetadata": "logstore.model",
    "OffsetAndTimestamp": "logstore.model",
    "RecordMetadata": "logstore.model",
    "RecoveryReport": "logstore.model",
    "TopicPartition": "logstore.model",
    "partition_for_key": "logstore._native.checksum",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'logstore' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOMES.get(name, "logstore.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
