"""One consumer group: its members, its generation, and the rules that need no clock, no log and no lock.

Source: wire-protocol, section 8.3.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping

from logstore.broker.committed_offsets import GroupOffsets, group_logger
from logstore.broker.offsets_schema import GroupValue, MemberValue
from logstore.broker_api import (
    GroupDescription,
    GroupListing,
    GroupState,
    JoinedMember,
    JoinGroupRequest,
    JoinGroupResponse,
    MemberDescription,
    SyncGroupResponse,
    Wakeable,
)
from logstore.consumer_protocol import PROTOCOL_TYPE, decode_subscription
from logstore.errors import (
    CorruptDataError,
    FencedInstanceIdError,
    IllegalGenerationError,
    InconsistentGroupProtocolError,
    UnknownMemberIdError,
)

__all__ = ["IN_PROCESS_HOST", "Group", "Member"]

IN_PROCESS_HOST = "in-process"
"""The client host of members that live in the broker's process, and end with it."""

JoinDone = Callable[[JoinGroupResponse], None]
SyncDone = Callable[[SyncGroupResponse], None]


class Member:
    """One member of a group."""

    __slots__ = (
        "assigned_generation",
        "assignment",
        "client_host",
        "client_id",
        "deadline_ms",
        "group_instance_id",
        "is_new",
        "join_done",
        "member_id",
        "protocols",
        "rebalance_timeout_ms",
        "session_timeout_ms",
        "sync_done",
        "timer_ms",
        "wakeable",
    )

    def __init__(self, member_id: str, request: JoinGroupRequest):
        self.member_id = member_id
        self.group_instance_id = request.group_instance_id
        self.assignment = b""
        self.assigned_generation = -1  # the latest one that it was given an assignment in
        self.join_done: JoinDone | None = None
        self.sync_done: SyncDone | None = None
        self.is_new = True  # until the first generation it is part of
        self.deadline_ms = 0.0  # when its session ends, unless it says something before
        self.timer_ms = math.inf  # when that is looked at
        self.take_over(request)

    def take_over(self, request: JoinGroupRequest) -> None:
        """What a member says of itself whenever it joins."""
        self.client_id = request.client_id
        self.client_host = IN_PROCESS_HOST if request.wakeable is not None else request.client_host
        self.session_timeout_ms = request.session_timeout_ms
        self.rebalance_timeout_ms = (
            request.session_timeout_ms if request.rebalance_timeout_ms < 0 else request.rebalance_timeout_ms
        )
        self.protocols = request.protocols
        self.wakeable: Wakeable | None = request.wakeable

    def metadata(self, protocol: str) -> bytes:
        """Its subscription for an assignor."""
        return next((metadata for name, metadata in self.protocols if name == protocol), b"")

    @property
    def is_parked(self) -> bool:
        """Whether it waits for an answer; its session does not end then."""
        return self.join_done is not None or self.sync_done is not None


class Group:
    """A group as its coordinator holds it."""

    def __init__(self, group_id: str, now_ms: int):
        self.group_id = group_id
        self.state: GroupState = "Empty"
        self.previous_state: GroupState = "Empty"
        self.state_timestamp = now_ms
        self.generation = 0
        self.protocol_type = ""
        self.protocol = ""
        self.leader = ""
        self.members: dict[str, Member] = {}
        self.static_members: dict[str, str] = {}
        # Ids handed out to members that have yet to join with them.
        self.pending_members: set[str] = set()
        self.pending_sync: set[str] = set()
        self.new_member_added = False
        # Rises with each rebalance and each generation: a timer of an older one does nothing.
        self.rebalance_number = 0
        self.is_delayed = False  # the first members wait for more to come
        self.offsets = GroupOffsets()
        # How many members have an assignor.
        self._protocol_counts: Counter[str] = Counter()
        self._subscribed: tuple[int, frozenset[str] | None] = (-1, None)

    # ---- states -----------------------------------------------------------------------------------

    def move_to(self, state: GroupState, now_ms: int) -> None:
        """Changes the state."""
        self.previous_state, self.state = self.state, state
        self.state_timestamp = now_ms

    @property
    def can_rebalance(self) -> bool:
        """Whether a rebalance can start."""
        return self.state in ("Empty", "CompletingRebalance", "Stable")

    @property
    def rebalance_timeout_ms(self) -> int:
        """How long the slowest member may take to join again."""
        return max((member.rebalance_timeout_ms for member in self.members.values()), default=0)

    @property
    def has_all_joined(self) -> bool:
        """Whether a rebalance has nobody left to wait for."""
        return not self.pending_members and all(member.join_done is not None for member in self.members.values())

    # ---- members ----------------------------------------------------------------------------------

    def add(self, member: Member, protocol_type: str) -> None:
        """Takes a member in; the first one sets the protocol type and leads."""
        if not self.members:
            self.protocol_type = protocol_type
        self.pending_members.discard(member.member_id)
        self.members[member.member_id] = member
        self._protocol_counts.update(name for name, _ in member.protocols)
        if member.group_instance_id is not None:
            self.static_members[member.group_instance_id] = member.member_id
        if not self.leader:
            self.leader = member.member_id

    def remove(self, member: Member) -> None:
        """Lets a member go; another one leads, if it did."""
        del self.members[member.member_id]
        self._protocol_counts.subtract(name for name, _ in member.protocols)
        self.pending_sync.discard(member.member_id)
        if member.group_instance_id is not None and self.static_members.get(member.group_instance_id) == member.member_id:
            del self.static_members[member.group_instance_id]
        if self.leader == member.member_id:
            self.leader = next(iter(self.members), "")

    def update(self, member: Member, request: JoinGroupRequest) -> None:
        """A member has joined again, perhaps with other assignors or another subscription."""
        self._protocol_counts.subtract(name for name, _ in member.protocols)
        member.take_over(request)
        self._protocol_counts.update(name for name, _ in member.protocols)

    def rename(self, member: Member, member_id: str) -> None:
        """A static member has come back: it goes on under another id, in the same place."""
        old_id = member.member_id
        assert member.group_instance_id is not None
        self.members = {
            (member_id if known == old_id else known): other for known, other in self.members.items()
        }
        member.member_id = member_id
        self.static_members[member.group_instance_id] = member_id
        if old_id in self.pending_sync:
            self.pending_sync.discard(old_id)
            self.pending_sync.add(member_id)
        if self.leader == old_id:
            self.leader = member_id

    def elect_joined_leader(self) -> bool:
        """Has a member lead that has joined this generation; False where none has."""
        leader = self.members.get(self.leader)
        if leader is not None and leader.join_done is not None:
            return True
        joined = next((member for member in self.members.values() if member.join_done is not None), None)
        if joined is None:
            return False
        self.leader = joined.member_id
        return True

    def member(self, member_id: str, group_instance_id: str | None) -> Member:
        """A member that identifies itself.

        Raises
        ------
        UnknownMemberIdError, FencedInstanceIdError
        """
        if group_instance_id is not None:
            known = self.static_members.get(group_instance_id)
            if known is None:
                raise self.unknown_member(member_id)
            if known != member_id:
                raise FencedInstanceIdError(
                    f"another member of group {self.group_id!r} has joined with group_instance_id {group_instance_id!r}; "
                    "each replica needs one of its own"
                )
        member = self.members.get(member_id)
        if member is None:
            raise self.unknown_member(member_id)
        return member

    def unknown_member(self, member_id: str) -> UnknownMemberIdError:
        """The error that says so."""
        return UnknownMemberIdError(
            f"group {self.group_id!r} has no member {member_id!r}: its session has ended, or it has left; join again"
        )

    def check_generation(self, generation: int) -> None:
        """Refuses a member of another generation.

        Raises
        ------
        IllegalGenerationError
        """
        if generation != self.generation:
            raise IllegalGenerationError(
                f"group {self.group_id!r} is in generation {self.generation}, not {generation}; join again"
            )

    # ---- protocols --------------------------------------------------------------------------------

    def check_protocols(self, protocol_type: str, protocols: tuple[tuple[str, bytes], ...]) -> None:
        """Refuses a member that has no assignor in common with all others.

        Raises
        ------
        InconsistentGroupProtocolError
        """
        if not protocol_type or not protocols:
            raise InconsistentGroupProtocolError(
                f"a member of group {self.group_id!r} needs a protocol type and at least one assignor"
            )
        if not self.members:
            return
        if protocol_type != self.protocol_type:
            raise InconsistentGroupProtocolError(
                f"group {self.group_id!r} is of type {self.protocol_type!r}, not {protocol_type!r}; use another group id"
            )
        common = self._common_protocols()
        if not any(name in common for name, _ in protocols):
            raise InconsistentGroupProtocolError(
                f"group {self.group_id!r} has the assignors {', '.join(sorted(common))} in common, and the new member only "
                f"{', '.join(name for name, _ in protocols)}; give all members the same"
            )

    def _common_protocols(self) -> set[str]:
        count = len(self.members)
        return {name for name, members in self._protocol_counts.items() if members == count}

    def voted_protocol(self) -> str:
        """The assignor that most members prefer, among those that all have."""
        candidates = self._common_protocols()
        votes = Counter(
            next(name for name, _ in member.protocols if name in candidates) for member in self.members.values()
        )
        return votes.most_common(1)[0][0]

    def next_generation(self, now_ms: int) -> None:
        """Closes the join: those who are members now are this generation."""
        self.generation += 1
        if self.members:
            self.protocol = self.voted_protocol()
            self.move_to("CompletingRebalance", now_ms)
        else:
            self.protocol = ""
            self.move_to("Empty", now_ms)

    def join_response(self, member: Member, *, with_members: bool) -> JoinGroupResponse:
        """What a member is told of the current generation."""
        return JoinGroupResponse(
            None, member.member_id, self.generation, self.protocol_type, self.protocol, self.leader,
            tuple(
                JoinedMember(each.member_id, each.group_instance_id, each.metadata(self.protocol))
                for each in self.members.values()
            ) if with_members else (),
        )

    def subscribed_topics(self) -> frozenset[str] | None:
        """Topics that members of the current generation read; None where that is not known.

        Bytes that are no subscription (Kafka Connect has its own) leave it unknown.
        """
        if self.state != "Stable" or self.protocol_type != PROTOCOL_TYPE:
            return None
        if self._subscribed[0] != self.rebalance_number:
            topics: set[str] | None = set()
            for member in self.members.values():
                try:
                    topics.update(decode_subscription(member.metadata(self.protocol)).topics)  # type: ignore[union-attr]
                except CorruptDataError as error:
                    group_logger().warning("group %r: member %r: %s", self.group_id, member.member_id, error)
                    topics = None
                    break
            self._subscribed = (self.rebalance_number, None if topics is None else frozenset(topics))
        return self._subscribed[1]

    # ---- as others see it -------------------------------------------------------------------------

    def listing(self) -> GroupListing:
        """A line in a list of groups."""
        return GroupListing(self.group_id, self.protocol_type, self.state)

    def description(self) -> GroupDescription:
        """The whole group."""
        is_stable = self.state == "Stable"
        return GroupDescription(
            self.group_id, self.state, self.protocol_type, self.protocol if is_stable else "", self.generation,
            tuple(
                MemberDescription(
                    member.member_id, member.group_instance_id, member.client_id, member.client_host,
                    member.metadata(self.protocol) if is_stable else b"", member.assignment if is_stable else b"",
                )
                for member in self.members.values()
            ),
        )

    # ---- as the log has it ------------------------------------------------------------------------

    def value(self, assignments: Mapping[str, bytes]) -> GroupValue:
        """The record of this generation."""
        return GroupValue(
            self.protocol_type, self.generation, self.protocol or None, self.leader or None, self.state_timestamp,
            tuple(
                MemberValue(
                    member.member_id, member.group_instance_id, member.client_id, member.client_host,
                    member.rebalance_timeout_ms, member.session_timeout_ms, member.metadata(self.protocol),
                    assignments.get(member.member_id, b""),
                )
                for member in self.members.values()
            ),
        )

    def restore(self, value: GroupValue, now_ms: int, *, without_in_process: bool) -> bool:
        """Takes over what the log says of the group.

        Parameters
        ----------
        without_in_process : bool
            Leaves out members that ended with the process that wrote this. A static member may come back.

        Returns
        -------
        bool
            Whether members were left out.
        """
        self.protocol_type = value.protocol_type
        self.generation = value.generation
        self.protocol = value.protocol or ""
        self.leader = ""
        self.members = {}
        self.static_members = {}
        self._protocol_counts.clear()
        for stored in value.members:
            if without_in_process and stored.client_host == IN_PROCESS_HOST and stored.group_instance_id is None:
                continue
            member = Member(
                stored.member_id,
                JoinGroupRequest(
                    self.group_id, stored.member_id, stored.group_instance_id, stored.client_id, stored.client_host,
                    stored.session_timeout_ms, stored.rebalance_timeout_ms, value.protocol_type,
                    ((self.protocol, stored.subscription),),
                ),
            )
            member.is_new = False
            member.assignment = stored.assignment
            member.assigned_generation = self.generation
            self.add(member, value.protocol_type)
        if value.leader in self.members:
            self.leader = value.leader
        self.rebalance_number += 1
        self.state = "Stable" if self.members else "Empty"
        has_emptied = bool(value.members) and not self.members
        self.state_timestamp = now_ms if has_emptied or value.state_timestamp < 0 else value.state_timestamp
        return len(self.members) < len(value.members)
