"""What clients ask of a broker: the waist between them.

`logstore.broker.Broker` implements it in the same process. Clients (`logstore.clients`) hold nothing else of a broker, so
that a connection to one in another process can take its place.

Shapes follow Kafka's requests. What may have to wait for other members of a group (joining, syncing) answers through a
callback, so that threads, asyncio tasks and a server's connections can all wait in their own way.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from logstore.model import Durability, IsolationLevel, OffsetAndMetadata, OffsetAndTimestamp, TopicPartition

if TYPE_CHECKING:
    from logstore._native.columns import ColumnBatch
    from logstore._native.record_batch import RecordBatch
    from logstore.errors import GroupError, LogstoreError

__all__ = [
    "BatchCursor",
    "BrokerApi",
    "ColumnBatchCursor",
    "GroupCoordinatorApi",
    "GroupDescription",
    "GroupListing",
    "JoinGroupRequest",
    "JoinGroupResponse",
    "JoinedMember",
    "MemberDescription",
    "SyncGroupRequest",
    "SyncGroupResponse",
    "TopicLimits",
    "TransactionCoordinatorApi",
    "TransactionDescription",
    "TransactionListing",
    "Wakeable",
]


class Wakeable(Protocol):
    """Something that waits for records, members or metadata. `notify` may be called from any thread, at any time."""

    def notify(self) -> None: ...


class TopicLimits(NamedTuple):
    """What a producer has to know of a topic to refuse a record before it is batched.

    Attributes
    ----------
    partitions : int
    message_bytes_max : int
        Largest batch, header included (``max.message.bytes``, and what fits a segment).
    keys_required : bool
        The topic is compacted.
    durability : {"flushed", "appended", "buffered"}
        What an acknowledgement means where the producer does not say.
    is_append_time : bool
        Records get the time of their append (``message.timestamp.type``).
    codec : int
        Number of the codec the topic asks for; a producer that has one of its own goes by that.
    codec_level : int or None
    timestamp_before_max_ms, timestamp_after_max_ms : int
        How far from now a record's timestamp may be.
    """

    partitions: int
    message_bytes_max: int
    keys_required: bool
    durability: Durability
    is_append_time: bool
    codec: int
    codec_level: int | None
    timestamp_before_max_ms: int = 2**63 - 1
    timestamp_after_max_ms: int = 2**63 - 1


class BatchCursor(Protocol):
    """Walks the batches of one partition. One thread at a time."""

    next_offset: int

    def next_batch(self) -> RecordBatch | None:
        """The next whole batch; the first may begin before the offset asked for. None at the log end offset."""


class ColumnBatchCursor(Protocol):
    """Walks the records of one partition as columns. One thread at a time."""

    @property
    def next_offset(self) -> int: ...

    def next_columns(self) -> ColumnBatch | None:
        """The next columns, exact to the record asked for. None at the log end offset."""


class JoinedMember(NamedTuple):
    """A member as the leader sees it: its subscription, in bytes that only members read."""

    member_id: str
    group_instance_id: str | None
    metadata: bytes


class JoinGroupRequest(NamedTuple):
    """A member asks to be in the next generation (wire-protocol: JoinGroup)."""

    group: str
    member_id: str  # "" for a new member
    group_instance_id: str | None
    client_id: str
    client_host: str
    session_timeout_ms: int
    rebalance_timeout_ms: int
    protocol_type: str
    protocols: tuple[tuple[str, bytes], ...]  # assignors by preference, each with the member's subscription
    must_know_member_id: bool = False  # answer a new member with MemberIdRequiredError first (KIP-394)
    # Notified when the member has to act: a rebalance has begun, or it was removed. A member that gives one lives in the
    # broker's process, and is not waited for when that has been started again.
    wakeable: Wakeable | None = None


class JoinGroupResponse(NamedTuple):
    """Who leads the new generation, and which of the assignors all members have was chosen; or an error."""

    error: GroupError | LogstoreError | None = None
    member_id: str = ""
    generation: int = -1
    protocol_type: str = ""
    protocol: str = ""
    leader: str = ""
    members: tuple[JoinedMember, ...] = ()  # for the leader alone
    skip_assignment: bool = False


class SyncGroupRequest(NamedTuple):
    """A member asks for its assignment; the leader brings everyone's (wire-protocol: SyncGroup)."""

    group: str
    generation: int
    member_id: str
    group_instance_id: str | None = None
    assignments: Mapping[str, bytes] = {}


class SyncGroupResponse(NamedTuple):
    """A member's assignment, as its leader wrote it; or an error."""

    error: GroupError | LogstoreError | None = None
    assignment: bytes = b""


GroupState = Literal["Empty", "PreparingRebalance", "CompletingRebalance", "Stable", "Dead"]


class GroupListing(NamedTuple):
    """One group, in a listing."""

    group: str
    protocol_type: str
    state: GroupState


class MemberDescription(NamedTuple):
    """One member, with its subscription and assignment as bytes of the consumer protocol."""

    member_id: str
    group_instance_id: str | None
    client_id: str
    client_host: str
    metadata: bytes
    assignment: bytes


class GroupDescription(NamedTuple):
    """A group as its coordinator sees it; metadata and assignments only while it is stable."""

    group: str
    state: GroupState
    protocol_type: str
    protocol: str
    generation: int
    members: tuple[MemberDescription, ...]


class GroupCoordinatorApi(Protocol):
    """Consumer groups: membership and committed offsets. Thread-safe; no call waits for another member."""

    def join_group(self, request: JoinGroupRequest, done: Callable[[JoinGroupResponse], None]) -> None:
        """Joins, or joins again. ``done`` is called once, from any thread, perhaps before this returns."""

    def sync_group(self, request: SyncGroupRequest, done: Callable[[SyncGroupResponse], None]) -> None:
        """Asks for the assignment of a generation. ``done`` as in `join_group`."""

    def heartbeat(self, group: str, generation: int, member_id: str, group_instance_id: str | None = None) -> None:
        """Keeps a member's session alive.

        Raises
        ------
        RebalanceInProgressError
            The session is alive; the member has to join again.
        UnknownMemberIdError, IllegalGenerationError, FencedInstanceIdError
        """

    def leave_group(self, group: str, member_id: str, group_instance_id: str | None = None) -> None:
        """Removes a member at once; with an empty member id, the static member of that instance id.

        Raises
        ------
        UnknownMemberIdError, FencedInstanceIdError
        """

    def commit_offsets(
        self,
        group: str,
        offsets: Mapping[TopicPartition, OffsetAndMetadata],
        *,
        generation: int = -1,
        member_id: str = "",
        group_instance_id: str | None = None,
    ) -> None:
        """Commits offsets, durably as the broker is; without a generation only while the group has no members.

        Raises
        ------
        UnknownMemberIdError, IllegalGenerationError, RebalanceInProgressError, FencedInstanceIdError
        UnknownTopicOrPartitionError, OffsetMetadataTooLargeError
            Nothing was committed.
        """

    def commit_transactional_offsets(
        self,
        group: str,
        offsets: Mapping[TopicPartition, OffsetAndMetadata],
        *,
        producer_id: int,
        producer_epoch: int,
        generation: int = -1,
        member_id: str = "",
        group_instance_id: str | None = None,
    ) -> None:
        """Commits offsets as part of a transaction, to which `TransactionCoordinatorApi.add_offsets` has added the group.

        Raises
        ------
        As `commit_offsets`.
        """

    def committed_offsets(
        self, group: str, partitions: Iterable[TopicPartition] | None = None, *, require_stable: bool = False
    ) -> dict[TopicPartition, OffsetAndMetadata]:
        """Committed offsets; partitions without one are left out. None: all of the group's.

        Raises
        ------
        UnstableOffsetCommitError
            With ``require_stable``: a transaction that has not ended yet has committed some of them.
        """

    def notify_when_stable(self, group: str, waiter: Wakeable) -> None:
        """Has ``waiter.notify()`` called once, when the next transaction ends that commits offsets of a group; at once where
        there is none."""

    def delete_offsets(self, group: str, partitions: Iterable[TopicPartition]) -> None:
        """Forgets committed offsets of partitions that no member is subscribed to.

        Raises
        ------
        GroupIdNotFoundError, GroupSubscribedToTopicError
        """

    def list_groups(self, states: Collection[GroupState] | None = None) -> list[GroupListing]: ...

    def describe_group(self, group: str) -> GroupDescription:
        """A group that does not exist is described as Dead."""

    def delete_group(self, group: str) -> None:
        """Deletes a group without members, and its offsets.

        Raises
        ------
        GroupIdNotFoundError, NonEmptyGroupError
        """


class TransactionListing(NamedTuple):
    """One transactional id, in a listing."""

    transactional_id: str
    producer_id: int
    state: str


class TransactionDescription(NamedTuple):
    """A transactional id as its coordinator sees it; times in ms, -1 where there is none."""

    transactional_id: str
    state: str
    producer_id: int
    producer_epoch: int
    timeout_ms: int
    start_timestamp: int
    update_timestamp: int
    partitions: tuple[TopicPartition, ...]


class TransactionCoordinatorApi(Protocol):
    """Producer ids and transactions. Thread-safe."""

    def init_producer_id(
        self,
        transactional_id: str | None = None,
        timeout_ms: int = 60_000,
        *,
        producer_id: int = -1,
        producer_epoch: int = -1,
    ) -> tuple[int, int]:
        """A producer id and epoch to write with; whoever had the transactional id before is shut out.

        Raises
        ------
        InvalidRequestError, ProducerFencedError, ConcurrentTransactionsError, StorageFailureError, ReadOnlyError
        """

    def add_offsets(self, producer_id: int, producer_epoch: int, group: str) -> None:
        """Has a group's committed offsets take part in a producer's transaction. Partitions take part by themselves, with
        the first batch that `BrokerApi.produce` gets for them.

        Raises
        ------
        ProducerFencedError, InvalidProducerEpochError, InvalidTxnStateError, ConcurrentTransactionsError
        """

    def end_transaction(
        self, transactional_id: str, producer_id: int, producer_epoch: int, commit: bool
    ) -> tuple[int, int]:
        """Commits or aborts; gives the producer id and epoch of the next transaction. Can be repeated.

        Raises
        ------
        ProducerFencedError, InvalidProducerEpochError, InvalidTxnStateError, StorageFailureError
        """

    def list_transactions(self, states: Collection[str] | None = None) -> list[TransactionListing]: ...

    def describe_transaction(self, transactional_id: str) -> TransactionDescription:
        """What is known of a transactional id.

        Raises
        ------
        TransactionalIdNotFoundError
        """

    def abort_transaction(self, transactional_id: str) -> bool:
        """Aborts what is open, if anything is, and shuts its producer out.

        Raises
        ------
        TransactionalIdNotFoundError
        """


class BrokerApi(Protocol):
    """Topics, records and groups, as clients see them. Thread-safe."""

    @property
    def coordinator(self) -> GroupCoordinatorApi:
        """Consumer groups."""

    @property
    def transaction_coordinator(self) -> TransactionCoordinatorApi:
        """Producer ids and transactions."""

    @property
    def metadata_version(self) -> int:
        """Rises whenever a topic comes, goes, or gains partitions."""

    def add_metadata_waiter(self, waiter: Wakeable) -> None:
        """Has ``waiter.notify()`` called when `metadata_version` has risen, until `remove_metadata_waiter`."""

    def remove_metadata_waiter(self, waiter: Wakeable) -> None: ...

    def partition_counts(self, topics: Iterable[str] | None = None) -> dict[str, int]:
        """Number of partitions by topic; unknown topics are left out. None: all topics that are not internal."""

    def topic_limits(self, topic: str) -> TopicLimits:
        """What a producer has to know.

        Raises
        ------
        UnknownTopicOrPartitionError
        """

    def produce(
        self,
        topic: str,
        partition: int,
        batch: RecordBatch,
        *,
        durability: Durability = "appended",
        expected_offset: int | None = None,
    ) -> tuple[int, int]:
        """Appends one batch a client has built.

        Parameters
        ----------
        batch : RecordBatch
            With base offset 0. One that this process has built is taken over: its base offset is stamped in place.
        durability : {"appended", "flushed"}
        expected_offset : int, optional
            Refuses the batch unless the partition ends here.

        Returns
        -------
        tuple[int, int]
            Base offset; and the time of append in ms where records get that, otherwise -1.

        Raises
        ------
        UnexpectedOffsetError, UnknownTopicOrPartitionError, InvalidRecordError, RecordTooLargeError
        StorageFailureError, ClosedError
        """

    def flush_partition(self, topic: str, partition: int, offset: int) -> None:
        """Returns once all records of a partition below an offset are on disk.

        Raises
        ------
        StorageFailureError, ClosedError
        """

    def cursor(
        self,
        topic: str,
        partition: int,
        offset: int,
        *,
        read_bytes: int = 0,
        isolation_level: IsolationLevel = "read_uncommitted",
    ) -> BatchCursor:
        """A cursor over whole batches from the one that holds an offset on.

        Parameters
        ----------
        read_bytes : int
            Largest read, unless one batch is larger; 0 leaves that to the broker.
        isolation_level : {"read_uncommitted", "read_committed"}
            With ``"read_committed"`` it ends at the last stable offset and passes over batches of aborted transactions.
            Control batches are handed out at both levels; clients show none of their records.

        Raises
        ------
        UnknownTopicOrPartitionError
        """

    def column_cursor(
        self,
        topic: str,
        partition: int,
        offset: int,
        *,
        read_bytes: int = 0,
        isolation_level: IsolationLevel = "read_uncommitted",
    ) -> ColumnBatchCursor:
        """A cursor over columns from an offset on; parameters and errors as for `cursor`."""

    def partition_offsets(
        self, topic: str, partition: int, *, isolation_level: IsolationLevel = "read_uncommitted"
    ) -> tuple[int, int]:
        """Log start offset, and log end offset; with ``"read_committed"``, the last stable offset.

        Raises
        ------
        UnknownTopicOrPartitionError
        """

    def offset_for_timestamp(self, topic: str, partition: int, timestamp: int) -> OffsetAndTimestamp | None:
        """The first record at or after a time in ms; None where there is none.

        Raises
        ------
        UnknownTopicOrPartitionError
        """

    def add_waiter(self, topic: str, partition: int, waiter: Wakeable) -> None:
        """Has ``waiter.notify()`` called after each append to a partition, and when it is closed or deleted."""

    def remove_waiter(self, topic: str, partition: int, waiter: Wakeable) -> None: ...
