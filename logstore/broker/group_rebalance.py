"""Rebalances of consumer groups: who is waited for, who is dropped, and when a generation begins.

Source: wire-protocol, section 8.3. One lock covers all groups: each step under it is short. What a step has to tell others
(answers, wake-ups) is done when the lock is free again.
"""

from __future__ import annotations

import contextlib
import math
import threading
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from logstore.broker.group_state import Group, Member
from logstore.broker_api import JoinGroupResponse, SyncGroupResponse
from logstore.errors import LogstoreError, RebalanceInProgressError

__all__ = ["NEW_MEMBER_JOIN_TIMEOUT_MS", "GroupRebalance", "rebalance_in_progress", "run_all"]

# A member that has never been in a generation may have gone while it waits; it is dropped after this time.
NEW_MEMBER_JOIN_TIMEOUT_MS = 300_000


class GroupRebalance:
    """What follows from what members do. `logstore.broker.group_coordinator.GroupCoordinator` is what is used."""

    def __init__(
        self,
        config: Mapping[str, Any],
        clock_ms: Callable[[], float],
        wall_clock_ms: Callable[[], int],
        schedule: Callable[[float, Callable[[], None]], None],
    ):
        self._config = config
        self._clock_ms = clock_ms
        self._wall_clock_ms = wall_clock_ms
        self._schedule = schedule
        self._lock = threading.Lock()
        self._after: list[Callable[[], None]] = []
        self._groups: dict[str, Group] = {}
        self._is_closed = False

    @abstractmethod
    def _make_ready(self) -> None:
        """Raises if the coordinator is closed; loads what is not loaded. The lock is held."""

    @abstractmethod
    def _append_group(self, group: Group, assignments: Mapping[str, bytes]) -> Callable[[], None]:
        """Writes the record of a generation; what it returns waits until that is durable. The lock is held."""

    @abstractmethod
    def _check_writable(self) -> None:
        """Raises in a process that only reads."""

    @contextlib.contextmanager
    def _locked(self, *, must_be_open: bool = True) -> Iterator[None]:
        """Holds the lock over a step; then does what the step has left in `_after`."""
        after: list[Callable[[], None]] = []
        try:
            with self._lock:
                self._after = after
                if must_be_open:
                    self._make_ready()
                try:
                    yield
                except (KeyboardInterrupt, SystemExit):
                    self._start_over()
                    raise
        finally:
            run_all(after)

    def _start_over(self) -> None:
        """A signal handler has come between two halves of a step: all members join again, which mends any of them."""
        for group in self._groups.values():
            if group.members:
                group.is_delayed = False
                group.state = "Stable"
                self._prepare_rebalance(group)

    @contextlib.contextmanager
    def _step(self, group: Group, number: int | None = None) -> Iterator[bool]:
        """What a timer does, under the lock; gives whether the group, and the rebalance it was set for, are still there."""
        with self._locked(must_be_open=False):
            is_current = not self._is_closed and self._groups.get(group.group_id) is group
            yield is_current and number in (None, group.rebalance_number)

    def _answer_join(self, member: Member, response: JoinGroupResponse) -> None:
        done, member.join_done = member.join_done, None
        if done is not None:
            self._after.append(partial(done, response))

    def _answer_sync(self, member: Member, response: SyncGroupResponse) -> None:
        done, member.sync_done = member.sync_done, None
        if done is not None:
            self._after.append(partial(done, response))

    def _notify(self, member: Member) -> None:
        if member.wakeable is not None:
            self._after.append(member.wakeable.notify)

    # ---- rebalancing --------------------------------------------------------------------------------

    def _prepare_rebalance(self, group: Group) -> None:
        """Has all members join again."""
        was_empty = group.state == "Empty"
        if group.state == "CompletingRebalance":
            self._fail_assignment(group, rebalance_in_progress(group.group_id))
        group.rebalance_number += 1
        group.move_to("PreparingRebalance", self._wall_clock_ms())
        for member in group.members.values():
            if member.join_done is None:
                self._notify(member)
        delay_ms = self._config["group.initial.rebalance.delay.ms"]
        if was_empty and delay_ms:
            group.is_delayed = True
            group.new_member_added = False
            left_ms = max(group.rebalance_timeout_ms - delay_ms, 0)
            self._schedule(delay_ms, partial(self._delay_is_over, group, group.rebalance_number, left_ms))
            return
        self._schedule(group.rebalance_timeout_ms, partial(self._join_timed_out, group, group.rebalance_number))
        self._complete_join_if_all(group)

    def _delay_is_over(self, group: Group, number: int, left_ms: int) -> None:
        with self._step(group, number) as is_current:
            if not is_current:
                return
            if group.new_member_added and left_ms:
                group.new_member_added = False
                delay_ms = min(self._config["group.initial.rebalance.delay.ms"], left_ms)
                self._schedule(delay_ms, partial(self._delay_is_over, group, number, left_ms - delay_ms))
            else:
                self._complete_join(group)

    def _join_timed_out(self, group: Group, number: int) -> None:
        with self._step(group, number) as is_current:
            if is_current:
                self._complete_join(group)

    def _complete_join_if_all(self, group: Group) -> None:
        if group.state == "PreparingRebalance" and not group.is_delayed and group.has_all_joined:
            self._complete_join(group)

    def _complete_join(self, group: Group) -> None:
        """Closes the join: those who are there are the next generation. Static members have their session to come back."""
        group.is_delayed = False
        for member in [each for each in group.members.values() if each.join_done is None]:
            if member.group_instance_id is None:
                group.remove(member)
                self._notify(member)
        if group.members and not group.elect_joined_leader():
            self._schedule(group.rebalance_timeout_ms, partial(self._join_timed_out, group, group.rebalance_number))
            return
        group.next_generation(self._wall_clock_ms())
        group.rebalance_number += 1
        group.pending_sync = set(group.members)
        if not group.members:
            self._write_empty(group)
            return
        for member in group.members.values():
            member.is_new = False
            member.assignment = b""
            self._set_session(group, member, member.session_timeout_ms)
            self._answer_join(member, group.join_response(member, with_members=member.member_id == group.leader))
        self._schedule(group.rebalance_timeout_ms, partial(self._sync_timed_out, group, group.rebalance_number))

    def _write_empty(self, group: Group) -> None:
        try:
            self._append_group(group, {})
        except LogstoreError as error:
            # Known again at the next start: the members are gone then as well.
            self._after.append(
                partial(_log_warning, "group %r is empty, which could not be written: %s", group.group_id, error)
            )

    def _remove(self, group: Group, member: Member) -> None:
        """A member has left, or its session has ended."""
        gone = group.unknown_member(member.member_id)
        self._answer_join(member, JoinGroupResponse(gone, member.member_id))
        self._answer_sync(member, SyncGroupResponse(gone))
        self._notify(member)
        group.remove(member)
        if group.state in ("CompletingRebalance", "Stable"):
            self._prepare_rebalance(group)
        else:
            self._complete_join_if_all(group)

    def _fail_assignment(self, group: Group, error: LogstoreError) -> None:
        for member in group.members.values():
            member.assignment = b""
            if member.sync_done is not None:
                self._extend_session(group, member)
                self._answer_sync(member, SyncGroupResponse(error))

    def _sync_timed_out(self, group: Group, number: int) -> None:
        """Members that have not asked for their assignment in time keep the partitions from being read: they go."""
        with self._step(group, number) as is_current:
            if not is_current or not group.pending_sync:
                return
            for member_id in list(group.pending_sync):
                member = group.members[member_id]
                self._notify(member)
                group.remove(member)
            self._prepare_rebalance(group)

    # ---- sessions -------------------------------------------------------------------------------------

    def _extend_session(self, group: Group, member: Member) -> None:
        """The member has said something."""
        self._set_session(group, member, NEW_MEMBER_JOIN_TIMEOUT_MS if member.is_new else member.session_timeout_ms)

    def _set_session(self, group: Group, member: Member, timeout_ms: float) -> None:
        member.deadline_ms = self._clock_ms() + timeout_ms
        self._watch_session(group, member)

    def _watch_session(self, group: Group, member: Member) -> None:
        """There is one timer a member: it goes off at a deadline, finds that it has moved, and is set again."""
        if member.deadline_ms < member.timer_ms:
            member.timer_ms = member.deadline_ms
            delay_ms = max(member.deadline_ms - self._clock_ms(), 0)
            self._schedule(delay_ms, partial(self._session_timer, group, member, member.timer_ms))

    def _session_timer(self, group: Group, member: Member, timer_ms: float) -> None:
        with self._step(group) as is_current:
            if not is_current or member.timer_ms != timer_ms or group.members.get(member.member_id) is not member:
                return
            member.timer_ms = math.inf
            if member.is_parked and not member.is_new:
                self._extend_session(group, member)
            elif self._clock_ms() < member.deadline_ms:
                self._watch_session(group, member)
            else:
                self._remove(group, member)



def rebalance_in_progress(group: str) -> RebalanceInProgressError:
    return RebalanceInProgressError(f"group {group!r} is rebalancing; join it again")


def _log_warning(text: str, *values: object) -> None:
    import logging

    logging.getLogger("logstore.groups").warning(text, *values)


def run_all(steps: list[Callable[[], None]]) -> None:
    """Runs all of them, also where one raises; the first exception that is not a plain error goes on at the end."""
    interrupt: BaseException | None = None
    for step in steps:
        try:
            step()
        except Exception as error:
            _log_warning("an answer to a group's member failed: %r", error)
        except BaseException as error:
            interrupt = interrupt or error
    if interrupt is not None:
        raise interrupt
