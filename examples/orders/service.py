"""A service that handles orders: any number of replicas share the partitions as one consumer group."""

from __future__ import annotations

import json
import threading

import logstore

from .orders import Order

SESSION_SECONDS = 2.0  # after which a dead replica's partitions go to the others


class Replica(threading.Thread):
    """One replica of a service, in a thread of its own.

    What it does to an order is written to the topic ``<service>.done``, and only then is the order's offset committed. So an
    order may be handled twice, after a crash, and never not at all.
    """

    def __init__(self, broker: logstore.Broker, topic: str, service: str, number: int):
        super().__init__(name=f"{service}-{number}")
        self.broker = broker
        self.topic = topic
        self.service = service
        self.state = "starting"
        self.handled = 0
        self.owned: tuple[int, ...] = ()
        self.stopped = threading.Event()
        self.killed = threading.Event()

    def run(self) -> None:
        consumer = self.broker.consumer(
            self.topic,
            group=self.service,
            client_id=self.name,
            enable_auto_commit=False,
            session_timeout=SESSION_SECONDS,
            heartbeat_interval=SESSION_SECONDS / 4,
            partition_assignment_strategy=("cooperative-sticky",),
        )
        with self.broker.producer() as producer:
            while not self.stopped.is_set():
                records = consumer.poll(timeout=0.2)
                self.owned = tuple(sorted(partition for _, partition in consumer.assignment()))
                self.state = "running"
                for record in records:
                    if self.killed.is_set():
                        # As a process that is killed: no goodbye to the group, and a batch half done.
                        self.state = "killed"
                        self.owned = ()
                        return
                    self.handle(record, producer)
                if records:
                    producer.flush()  # what was done is on disk
                    consumer.commit()  # and only now is it said to be done
        consumer.close()
        self.state = "stopped"
        self.owned = ()

    def handle(self, record: logstore.Record, producer: logstore.Producer) -> None:
        """The work. Here it is a note of what was done, where the real one would take money or send e-mail."""
        order = Order.from_value(record.value)
        done = {"number": order.number, "replica": self.name, "partition": record.partition, "offset": record.offset}
        producer.send(f"{self.service}.done", json.dumps(done).encode(), key=record.key)
        self.handled += 1

    def stop(self) -> None:
        """Finishes the batch at hand and leaves the group."""
        self.stopped.set()
        self.join()

    def kill(self) -> None:
        """Dies in the middle of the next batch, without leaving the group."""
        self.killed.set()
