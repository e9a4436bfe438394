"""What a log knows of the producers that write to it: last sequences, epochs, open transactions (log-format, section 10).

Entries are immutable: a change is a `Plan`, made before the write and taken over after it in one step that no signal
handler can come between (`ProducerPlans`), so that state and log never disagree.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from logstore.errors import (
    InvalidProducerEpochError,
    InvalidTxnStateError,
    OutOfOrderSequenceError,
    ProducerFencedError,
    TransactionCoordinatorFencedError,
)

__all__ = [
    "BATCHES_KEPT",
    "NONE_OPEN",
    "PRODUCER_ID_EXPIRATION_MS",
    "AbortedTransaction",
    "OpenTransaction",
    "Plan",
    "Producer",
    "ProducerBatch",
    "ProducerState",
    "next_sequence",
    "sequence_after",
]

BATCHES_KEPT = 5
PRODUCER_ID_EXPIRATION_MS = 86_400_000  # producer.id.expiration.ms
SEQUENCE_MAX = 2**31 - 1
NONE_OPEN = 2**63 - 1  # the first unstable offset where no transaction is open


_new: Any = tuple.__new__


def next_sequence(sequence: int) -> int:
    """The sequence after one; after 2^31-1 comes 0."""
    return 0 if sequence == SEQUENCE_MAX else sequence + 1


def sequence_after(sequence: int, delta: int) -> int:
    """A sequence some steps on, wrapping to 0 after 2^31-1."""
    return (sequence + delta) & SEQUENCE_MAX


class ProducerBatch(NamedTuple):
    """One of a producer's last batches.

    Attributes
    ----------
    last_sequence, last_offset : int
    offset_delta : int
        Last offset less the first.
    timestamp : int
        Its largest, in ms.
    """

    last_sequence: int
    last_offset: int
    offset_delta: int
    timestamp: int

    @property
    def first_sequence(self) -> int:
        return (self.last_sequence - self.offset_delta) & SEQUENCE_MAX

    @property
    def first_offset(self) -> int:
        return self.last_offset - self.offset_delta


class Producer(NamedTuple):
    """What is known of one producer id.

    Attributes
    ----------
    producer_id, epoch : int
    coordinator_epoch : int
        Of its last transaction marker; -1 for none.
    last_timestamp : int
        Of its last batch or marker, in ms.
    transaction_offset : int
        First offset of its open transaction; -1 for none.
    batches : tuple[ProducerBatch, ...]
        The last ones of this epoch, oldest first.
    """

    producer_id: int
    epoch: int
    coordinator_epoch: int = -1
    last_timestamp: int = -1
    transaction_offset: int = -1
    batches: tuple[ProducerBatch, ...] = ()

    @property
    def last_sequence(self) -> int:
        """-1 where no batch of this epoch is known."""
        return self.batches[-1].last_sequence if self.batches else -1


class OpenTransaction(NamedTuple):
    """A transaction that has neither been committed nor aborted.

    Attributes
    ----------
    producer_id, producer_epoch : int
    first_offset : int
    start_timestamp : int
        Timestamp of its first record in ms; -1 where that is gone.
    """

    producer_id: int
    producer_epoch: int
    first_offset: int
    start_timestamp: int


class AbortedTransaction(NamedTuple):
    """An entry of a transaction index.

    Attributes
    ----------
    producer_id : int
    first_offset, last_offset : int
        From its first record to its marker.
    last_stable_offset : int
        As the log stood when it ended: no later abort reaches back below it.
    """

    producer_id: int
    first_offset: int
    last_offset: int
    last_stable_offset: int


class Plan(NamedTuple):
    """What appending one batch changes.

    Attributes
    ----------
    producer : Producer
        Takes the place of the one known.
    opens : int
        First offset of the transaction that the batch begins; -1 for none.
    closes : bool
        Whether it ends the producer's open transaction.
    aborted : AbortedTransaction or None
        The entry for the transaction index, where that transaction was aborted.
    first_unstable_offset : int
        Afterwards.
    repeats : ProducerBatch or None
        What the batch repeats: it is answered with that one's offsets, and nothing is appended or changed.
    """

    producer: Producer
    opens: int = -1
    closes: bool = False
    aborted: AbortedTransaction | None = None
    first_unstable_offset: int = NONE_OPEN
    repeats: ProducerBatch | None = None


class ProducerState:
    """The producers of one log. Not thread-safe: the log's lock is held.

    Attributes
    ----------
    producers : dict[int, Producer]
        By producer id.
    open_transactions : dict[int, int]
        First offset by producer id, in order of offsets.
    """

    __slots__ = ("open_transactions", "producers", "where")

    def __init__(self, where: str):
        self.where = where
        self.producers: dict[int, Producer] = {}
        self.open_transactions: dict[int, int] = {}

    @property
    def first_unstable_offset(self) -> int:
        """First offset of the oldest open transaction; `NONE_OPEN` where there is none."""
        for offset in self.open_transactions.values():
            return offset
        return NONE_OPEN

    def restore(self, producers: list[Producer]) -> None:
        """Takes over what a snapshot says."""
        self.producers = {producer.producer_id: producer for producer in producers}
        begun = [producer for producer in producers if producer.transaction_offset >= 0]
        begun.sort(key=lambda producer: producer.transaction_offset)
        self.open_transactions = {producer.producer_id: producer.transaction_offset for producer in begun}

    def plan_batch(
        self, producer_id: int, epoch: int, base_sequence: int, first_offset: int, last_offset: int, timestamp: int,
        transactional: bool, checked: bool,
    ) -> Plan:
        """What a data batch changes.

        Parameters
        ----------
        base_sequence : int
        first_offset, last_offset : int
            Where it is about to be appended.
        timestamp : int
            Its largest, in ms.
        checked : bool
            False for batches of another log, which are taken as they are.

        Raises
        ------
        OutOfOrderSequenceError, InvalidProducerEpochError, ProducerFencedError, InvalidTxnStateError
        """
        delta = last_offset - first_offset
        known = self.producers.get(producer_id)
        batches: tuple[ProducerBatch, ...] = ()
        begun = coordinator_epoch = -1
        if known is not None:
            _, known_epoch, coordinator_epoch, _, begun, batches = known
            if checked:
                last_sequence = batches[-1].last_sequence if batches else -1
                if epoch != known_epoch or base_sequence != last_sequence + 1:
                    repeated = self._check(known, epoch, base_sequence, delta, transactional)
                    if repeated is not None:
                        return Plan(known, repeats=repeated)
                if begun >= 0 and not transactional:
                    raise InvalidTxnStateError(
                        f"producer {producer_id} has a transaction open in {self.where} since offset {begun}; a batch "
                        "outside of it may come after its end"
                    )
            if epoch != known_epoch:
                batches = ()
        last_sequence = (base_sequence + delta) & SEQUENCE_MAX if base_sequence >= 0 else -1
        opens = -1
        if transactional and begun < 0:
            opens = begun = first_offset
        unstable = NONE_OPEN
        if self.open_transactions:
            unstable = self.first_unstable_offset
        elif opens >= 0:
            unstable = first_offset
        # By the plain constructor: once a batch, this is most of what an idempotent producer costs.
        appended = _new(ProducerBatch, (last_sequence, last_offset, delta, timestamp))
        batches = (*batches[-(BATCHES_KEPT - 1) :], appended)
        producer = _new(Producer, (producer_id, epoch, coordinator_epoch, timestamp, begun, batches))
        plan: Plan = _new(Plan, (producer, opens, False, None, unstable, None))
        return plan

    def _check(
        self, known: Producer, epoch: int, base_sequence: int, delta: int, transactional: bool
    ) -> ProducerBatch | None:
        """The batch that one repeats; None where it may be appended."""
        if epoch < known.epoch:
            kind = ProducerFencedError if transactional else InvalidProducerEpochError
            raise kind(
                f"producer {known.producer_id} with epoch {epoch} was replaced: {self.where} knows epoch {known.epoch}; "
                "only the newest instance may go on",
                producer_id=known.producer_id, producer_epoch=epoch, current_epoch=known.epoch,
            )
        expected = 0
        if epoch == known.epoch:
            for batch in known.batches:
                if batch.offset_delta == delta and batch.first_sequence == base_sequence:
                    return batch
            expected = next_sequence(known.last_sequence)
        if base_sequence != expected:
            raise OutOfOrderSequenceError(
                f"producer {known.producer_id} with epoch {epoch} sent sequence {base_sequence} to {self.where}, where "
                f"{expected} comes next; batches between are missing, or this one was sent twice long ago",
                producer_id=known.producer_id, expected_sequence=expected, sequence=base_sequence,
            )
        return None

    def plan_marker(
        self, producer_id: int, epoch: int, commit: bool, coordinator_epoch: int, offset: int, timestamp: int,
        checked: bool,
    ) -> Plan:
        """What a transaction marker changes.

        Parameters
        ----------
        commit : bool
            Or abort.
        offset : int
            The marker's.

        Raises
        ------
        InvalidProducerEpochError, TransactionCoordinatorFencedError
        """
        known = self.producers.get(producer_id)
        batches: tuple[ProducerBatch, ...] = ()
        begun = -1
        if known is not None:
            if checked and epoch < known.epoch:
                raise InvalidProducerEpochError(
                    f"a transaction marker of producer {producer_id} has epoch {epoch}; {self.where} knows epoch "
                    f"{known.epoch}, so that the transaction it ends is over",
                    producer_id=producer_id, producer_epoch=epoch, current_epoch=known.epoch,
                )
            if checked and coordinator_epoch < known.coordinator_epoch:
                raise TransactionCoordinatorFencedError(
                    f"a transaction marker for {self.where} has coordinator epoch {coordinator_epoch}; "
                    f"{known.coordinator_epoch} was seen already, so that another coordinator has taken over"
                )
            begun = known.transaction_offset
            batches = known.batches if epoch == known.epoch else ()
        producer = Producer(producer_id, epoch, coordinator_epoch, timestamp, -1, batches)
        if begun < 0:
            return Plan(producer, first_unstable_offset=self.first_unstable_offset)
        # In order of offsets, hence the first that is another's.
        others = next((first for other, first in self.open_transactions.items() if other != producer_id), NONE_OPEN)
        aborted = None
        if not commit:
            last_stable_offset = offset + 1 if others == NONE_OPEN else others
            aborted = AbortedTransaction(producer_id, begun, offset, last_stable_offset)
        return Plan(producer, closes=True, aborted=aborted, first_unstable_offset=others)

    def apply(self, plan: Plan) -> None:
        """Takes a plan over; for replays. While appending, `ProducerPlans` does it."""
        producer = plan.producer
        self.producers[producer.producer_id] = producer
        if plan.opens >= 0:
            self.open_transactions[producer.producer_id] = plan.opens
        elif plan.closes:
            del self.open_transactions[producer.producer_id]

    def expired(self, now_ms: int, expiration_ms: int) -> list[int]:
        """Ids of producers that may be forgotten: idle for long, and with no transaction open."""
        return [
            producer.producer_id for producer in self.producers.values()
            if producer.transaction_offset < 0 and now_ms - producer.last_timestamp >= expiration_ms
        ]
