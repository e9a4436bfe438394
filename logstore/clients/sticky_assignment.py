"""The even assignment that moves least.

Members keep the partitions they claim. What nobody holds goes to the member that has least; then partitions move, one
chain at a time, from a member that has most to one that has at least two fewer, until no chain evens anything out any
more. Where all members subscribe alike a chain is one move, and no assignment as even needs fewer.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from logstore.model import TopicPartition

__all__ = ["Claim", "assign_sticky"]

Claim: TypeAlias = tuple[Sequence[TopicPartition], int]
"""What a member says it holds, and since which generation."""


def assign_sticky(
    partition_counts: Mapping[str, int], topics: Mapping[str, Sequence[str]], claims: Mapping[str, Claim]
) -> dict[str, list[TopicPartition]]:
    """Every partition of a subscribed topic, assigned to exactly one subscriber, as evenly as subscriptions allow.

    Parameters
    ----------
    partition_counts : mapping
        Number of partitions by topic.
    topics : mapping
        Subscribed topics by member id; the order of members decides among equals.
    claims : mapping
        What members hold. Of two who claim a partition the one of the later generation keeps it; of the same, neither.
    """
    return _Sticky(partition_counts, topics, claims).run()


class _Sticky:
    """One assignment in the making. Members are numbers; topics with the same subscribers form one class."""

    def __init__(
        self, partition_counts: Mapping[str, int], topics: Mapping[str, Sequence[str]], claims: Mapping[str, Claim]
    ):
        self.members = list(topics)
        readers: dict[str, list[int]] = {}
        for index, member in enumerate(self.members):
            for topic in set(topics[member]):
                if partition_counts.get(topic, 0) > 0:
                    readers.setdefault(topic, []).append(index)
        numbers: dict[tuple[int, ...], int] = {}
        self.class_of = {topic: numbers.setdefault(tuple(who), len(numbers)) for topic, who in sorted(readers.items())}
        self.readers = list(numbers)  # of each class
        self.counts = {topic: partition_counts[topic] for topic in self.class_of}
        self.loads = [0] * len(self.members)
        # By member and class: partitions it had before, and partitions that are new to it and cost nothing to move on.
        self.kept: list[dict[int, list[TopicPartition]]] = [{} for _ in self.members]
        self.gained: list[dict[int, list[TopicPartition]]] = [{} for _ in self.members]
        self._keep(claims)

    def run(self) -> dict[str, list[TopicPartition]]:
        self._fill()
        self._level()
        return {
            member: sorted(
                place for held in (self.kept[index], self.gained[index]) for places in held.values() for place in places
            )
            for index, member in enumerate(self.members)
        }

    def _keep(self, claims: Mapping[str, Claim]) -> None:
        owners: dict[TopicPartition, tuple[int, int]] = {}  # generation, and member; -1 for two of one generation
        for index, member in enumerate(self.members):
            places, generation = claims.get(member, ((), -1))
            for place in dict.fromkeys(places):
                other = owners.get(place)
                if other is None or generation > other[0]:
                    owners[place] = (generation, index)
                elif generation == other[0]:
                    owners[place] = (generation, -1)
        readers = [frozenset(who) for who in self.readers]
        self.owned: set[TopicPartition] = set()
        for place, (_, index) in sorted(owners.items()):
            number = self.class_of.get(place.topic, -1)
            if index < 0 or number < 0 or not 0 <= place.partition < self.counts[place.topic]:
                continue
            if index in readers[number]:
                self.kept[index].setdefault(number, []).append(place)
                self.loads[index] += 1
                self.owned.add(place)

    def _fill(self) -> None:
        """Gives what nobody holds to the least loaded, topics with the fewest subscribers first."""
        loads = self.loads
        topics: list[list[str]] = [[] for _ in self.readers]
        for topic, number in self.class_of.items():
            topics[number].append(topic)
        for number in sorted(range(len(self.readers)), key=lambda number: (len(self.readers[number]), number)):
            heap = [(loads[index], index) for index in self.readers[number]]
            heapq.heapify(heap)
            for topic in topics[number]:
                for partition in range(self.counts[topic]):
                    place = TopicPartition(topic, partition)
                    if place not in self.owned:
                        index = heap[0][1]
                        self.gained[index].setdefault(number, []).append(place)
                        loads[index] += 1
                        heapq.heapreplace(heap, (loads[index], index))

    def _level(self) -> None:
        """Moves partitions along chains from the most loaded until that levels nothing any more."""
        heap = [(-load, index) for index, load in enumerate(self.loads)]
        heapq.heapify(heap)
        done = [False] * len(self.members)
        while heap:
            load, index = heapq.heappop(heap)
            if done[index] or -load != self.loads[index]:
                continue
            end = self._chain(index, done)
            if end >= 0:
                heapq.heappush(heap, (-self.loads[index], index))
                heapq.heappush(heap, (-self.loads[end], end))

    def _chain(self, start: int, done: list[bool]) -> int:
        """Moves one partition off a member, by the shortest chain to one with two fewer; -1 where there is none.

        Without one, no member that can be reached from here can give anything to anybody either: all are done, and
        chains from elsewhere need not pass through them.
        """
        loads = self.loads
        enough = loads[start] - 2
        came: dict[int, tuple[int, int]] = {start: (-1, -1)}  # member, and the class the partition is of
        seen_classes: set[int] = set()
        level = [start]
        while level:
            following: list[int] = []
            end = -1
            for index in level:
                for held in (self.gained[index], self.kept[index]):
                    for number, places in held.items():
                        if not places or number in seen_classes:
                            continue
                        seen_classes.add(number)
                        for other in self.readers[number]:
                            if other not in came and not done[other]:
                                came[other] = (index, number)
                                following.append(other)
                                if loads[other] <= enough and (end < 0 or loads[other] < loads[end]):
                                    end = other
            if end >= 0:
                self._move(end, came)
                return end
            level = following
        for index in came:
            done[index] = True
        return -1

    def _move(self, end: int, came: dict[int, tuple[int, int]]) -> None:
        to = end
        while True:
            index, number = came[to]
            if index < 0:
                self.loads[to] -= 1
                break
            # What is new to a member anyway moves on first; the last of what it had goes next.
            place = (self.gained[index].get(number) or self.kept[index][number]).pop()
            self.gained[to].setdefault(number, []).append(place)
            to = index
        self.loads[end] += 1
