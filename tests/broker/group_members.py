"""Members of groups, as small as they can be: they write down what they are told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from logstore.broker_api import JoinGroupRequest, SyncGroupRequest
from logstore.consumer_protocol import Subscription, encode_subscription

if TYPE_CHECKING:
    from logstore.broker.group_coordinator import GroupCoordinator
    from logstore.broker_api import JoinGroupResponse, SyncGroupResponse

SESSION_MS = 10_000
REBALANCE_MS = 60_000


class TestMember:
    """One member; `joined` and `synced` are the answers so far, `wakes` how often it was woken."""

    __test__ = False

    def __init__(
        self,
        coordinator: GroupCoordinator,
        group: str = "g",
        *,
        topics: tuple[str, ...] = ("orders",),
        instance: str | None = None,
        assignors: tuple[str, ...] = ("range",),
        client: str = "client",
        is_local: bool = True,
        session_ms: int = SESSION_MS,
        rebalance_ms: int = REBALANCE_MS,
    ):
        self.coordinator = coordinator
        self.group = group
        self.topics = topics
        self.instance = instance
        self.assignors = assignors
        self.client = client
        self.is_local = is_local
        self.session_ms = session_ms
        self.rebalance_ms = rebalance_ms
        self.member_id = ""
        self.generation = -1
        self.joined: list[JoinGroupResponse] = []
        self.synced: list[SyncGroupResponse] = []
        self.wakes = 0

    def notify(self) -> None:
        self.wakes += 1

    def request(self, **changes) -> JoinGroupRequest:
        metadata = encode_subscription(Subscription(self.topics))
        return JoinGroupRequest(
            self.group, self.member_id, self.instance, self.client, "/127.0.0.1", self.session_ms, self.rebalance_ms,
            "consumer", tuple((name, metadata) for name in self.assignors), wakeable=self if self.is_local else None,
        )._replace(**changes)

    def join(self, **changes) -> JoinGroupResponse | None:
        """Asks to join; the answer, if there is one yet."""
        count = len(self.joined)
        self.coordinator.join_group(self.request(**changes), self._has_joined)
        return self.joined[-1] if len(self.joined) > count else None

    def _has_joined(self, response: JoinGroupResponse) -> None:
        self.joined.append(response)
        self.member_id = response.member_id or self.member_id
        if response.error is None:
            self.generation = response.generation

    def sync(self, assignments: dict[str, bytes] | None = None) -> SyncGroupResponse | None:
        """Asks for its assignment; the leader gives everyone's."""
        count = len(self.synced)
        self.coordinator.sync_group(
            SyncGroupRequest(self.group, self.generation, self.member_id, self.instance, assignments or {}),
            self.synced.append,
        )
        return self.synced[-1] if len(self.synced) > count else None

    def heartbeat(self) -> None:
        self.coordinator.heartbeat(self.group, self.generation, self.member_id, self.instance)

    def leave(self) -> None:
        self.coordinator.leave_group(self.group, self.member_id, self.instance)

    def commit(self, offsets) -> None:
        self.coordinator.commit_offsets(
            self.group, offsets, generation=self.generation, member_id=self.member_id, group_instance_id=self.instance
        )

    @property
    def is_leader(self) -> bool:
        return bool(self.joined) and self.joined[-1].error is None and self.joined[-1].leader == self.member_id


def settle(*members: TestMember) -> None:
    """Has members that all have an answer to their join get assignments: each its own id."""
    leader = next(member for member in members if member.is_leader)
    for member in members:
        if member is not leader:
            assert member.sync() is None
    leader.sync({each.member_id: each.member_id.encode() for each in leader.joined[-1].members})
    for member in members:
        assert member.synced[-1].error is None
        assert member.synced[-1].assignment == member.member_id.encode()


def stable(coordinator: GroupCoordinator, count: int, **kinds) -> list[TestMember]:
    """A stable group of so many members."""
    members: list[TestMember] = []
    for number in range(count):
        members.append(TestMember(coordinator, client=f"client{number}", **kinds))
        members[-1].join()
        for other in members[:-1]:
            other.join()
    assert {member.generation for member in members} == {members[0].generation}
    settle(*members)
    return members
