"""Membership of consumer groups: joining, syncing, heartbeats, leaving, and the rebalances that follow from them.

Source: wire-protocol, section 8.3. One lock covers all groups: each step under it is short. What a step has to tell others
(answers, wake-ups) is done when the lock is free again.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from logstore.broker.group_state import Group, JoinDone, Member, SyncDone
from logstore.broker_api import JoinGroupRequest, JoinGroupResponse, SyncGroupRequest, SyncGroupResponse
from logstore.consumer_protocol import decode_subscription
from logstore.errors import (
    CorruptDataError,
    FencedInstanceIdError,
    GroupMaxSizeReachedError,
    InvalidGroupIdError,
    InvalidRequestError,
    InvalidSessionTimeoutError,
    LogstoreError,
    MemberIdRequiredError,
    RebalanceInProgressError,
    UnknownMemberIdError,
)

__all__ = ["GroupRebalancing", "check_group_id", "check_text", "run_all"]

# A member that has never been in a generation may have gone while it waits; it is dropped after this time.
NEW_MEMBER_JOIN_TIMEOUT_MS = 300_000
# Room for what a member id adds to a client id.
TEXT_BYTES_MAX = 32_000


class GroupRebalancing:
    """The membership half of a group coordinator. `logstore.broker.group_coordinator.GroupCoordinator` is what is used."""

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
    def _locked(self) -> Iterator[None]:
        """Holds the lock over a step; then does what the step has left in `_after`."""
        after: list[Callable[[], None]] = []
        try:
            with self._lock:
                self._make_ready()
                self._after = after
                yield
        finally:
            run_all(after)

    # ---- what members ask for ---------------------------------------------------------------------

    def join_group(self, request: JoinGroupRequest, done: JoinDone) -> None:
        """Joins, or joins again. ``done`` is called once, from any thread, perhaps before this returns."""
        try:
            self._check_writable()
            check_group_id(request.group)
            for what, text in (
                ("a client id", request.client_id), ("a host", request.client_host),
                ("a group_instance_id", request.group_instance_id or ""), ("a protocol type", request.protocol_type),
                *(("an assignor's name", name) for name, _ in request.protocols),
            ):
                check_text(text, what)
            least, most = self._config["group.min.session.timeout.ms"], self._config["group.max.session.timeout.ms"]
            if not least <= request.session_timeout_ms <= most:
                raise InvalidSessionTimeoutError(
                    f"a session timeout must be {least} to {most} ms, not {request.session_timeout_ms}; "
                    "group.min.session.timeout.ms and group.max.session.timeout.ms of the broker set the bounds"
                )
            with self._locked():
                self._join(request, done)
        except LogstoreError as error:
            done(JoinGroupResponse(error, request.member_id))

    def sync_group(self, request: SyncGroupRequest, done: SyncDone) -> None:
        """Asks for the assignment of a generation. ``done`` as in `join_group`."""
        try:
            self._check_writable()
            with self._locked():
                self._sync(request, done)
        except LogstoreError as error:
            done(SyncGroupResponse(error))

    def heartbeat(self, group: str, generation: int, member_id: str, group_instance_id: str | None = None) -> None:
        """Keeps a member's session alive.

        Raises
        ------
        RebalanceInProgressError
            The session is alive; the member has to join again.
        UnknownMemberIdError, IllegalGenerationError, FencedInstanceIdError
        """
        self._check_writable()
        with self._lock:
            self._make_ready()
            found = self._group_of(group, member_id)
            member = found.member(member_id, group_instance_id)
            found.check_generation(generation)
            self._extend_session(found, member)
            if found.state == "PreparingRebalance":
                raise _rebalance_in_progress(group)

    def leave_group(self, group: str, member_id: str, group_instance_id: str | None = None) -> None:
        """Removes a member at once; with an empty member id, the static member of that instance id.

        Raises
        ------
        UnknownMemberIdError, FencedInstanceIdError
        """
        self._check_writable()
        with self._locked():
            found = self._group_of(group, member_id)
            if member_id in found.pending_members:
                found.pending_members.discard(member_id)
                self._complete_join_if_all(found)
                return
            if not member_id and group_instance_id is not None:
                member_id = found.static_members.get(group_instance_id, "")
            self._remove(found, found.member(member_id, group_instance_id))

    def _group_of(self, group: str, member_id: str) -> Group:
        found = self._groups.get(group)
        if found is None:
            raise UnknownMemberIdError(f"there is no group {group!r}, so no member {member_id!r} of it; join again")
        return found

    # ---- joining ------------------------------------------------------------------------------------

    def _join(self, request: JoinGroupRequest, done: JoinDone) -> None:
        group = self._groups.get(request.group)
        if group is None:
            if request.member_id:
                self._group_of(request.group, request.member_id)
            group = Group(request.group, self._wall_clock_ms())
        is_member = request.member_id in group.members or (
            request.group_instance_id is not None and request.group_instance_id in group.static_members
        )
        size = len(group.members) + len(group.pending_members - {request.member_id})
        if not is_member and size >= self._config["group.max.size"]:
            raise GroupMaxSizeReachedError(
                f"group {request.group!r} has {size} members; group.max.size of the broker sets the limit"
            )
        group.check_protocols(request.protocol_type, request.protocols)
        if not request.member_id:
            self._join_anew(group, request, done)
        elif request.member_id in group.pending_members:
            self._add_and_rebalance(group, Member(request.member_id, request), request, done)
        else:
            self._join_again(group, request, done)

    def _join_anew(self, group: Group, request: JoinGroupRequest, done: JoinDone) -> None:
        prefix = request.group_instance_id if request.group_instance_id is not None else request.client_id
        member_id = f"{prefix}-{_unique_text()}"
        if request.group_instance_id is None:
            if not request.must_know_member_id:
                self._add_and_rebalance(group, Member(member_id, request), request, done)
                return
            self._groups[group.group_id] = group
            group.pending_members.add(member_id)
            self._schedule(request.session_timeout_ms, partial(self._pending_timed_out, group, member_id))
            self._after.append(partial(done, JoinGroupResponse(
                MemberIdRequiredError(f"join group {group.group_id!r} again with member id {member_id!r}"), member_id
            )))
            return
        known = group.static_members.get(request.group_instance_id)
        if known is None:
            self._add_and_rebalance(group, Member(member_id, request), request, done)
        else:
            self._replace_static(group, group.members[known], member_id, request, done)

    def _replace_static(
        self, group: Group, member: Member, member_id: str, request: JoinGroupRequest, done: JoinDone
    ) -> None:
        """A static member has come back, or a second one has the same instance id: the newer one goes on."""
        fenced = FencedInstanceIdError(
            f"a newer member of group {group.group_id!r} has joined with group_instance_id {request.group_instance_id!r}"
        )
        old_id, old_protocols, old_topics = member.member_id, member.protocols, _topics_of(member, group.protocol)
        self._answer_join(member, JoinGroupResponse(fenced, old_id))
        self._answer_sync(member, SyncGroupResponse(fenced))
        self._notify(member)
        was_leader = group.leader == old_id
        group.rename(member, member_id)
        group.update(member, request)
        self._extend_session(group, member)
        if group.state == "PreparingRebalance":
            self._park_join(group, member, done)
            self._complete_join_if_all(group)
        elif (
            group.state == "Stable"
            and group.voted_protocol() == group.protocol
            # Kafka leaves other topics unread until the next rebalance.
            and _topics_of(member, group.protocol) == old_topics
        ):
            try:
                wait = self._append_group(group, {each.member_id: each.assignment for each in group.members.values()})
            except BaseException:
                group.rename(member, old_id)
                group.update(member, request._replace(protocols=old_protocols))
                raise
            response = group.join_response(member, with_members=was_leader)._replace(skip_assignment=was_leader)
            self._after.append(partial(self._answer_when_durable, wait, done, response))
        else:
            member.join_done = done
            self._prepare_rebalance(group)

    def _answer_when_durable(self, wait: Callable[[], None], done: JoinDone, response: JoinGroupResponse) -> None:
        try:
            wait()
        except LogstoreError as error:
            response = JoinGroupResponse(error, response.member_id)
        done(response)

    def _join_again(self, group: Group, request: JoinGroupRequest, done: JoinDone) -> None:
        member = group.member(request.member_id, request.group_instance_id)
        if group.state == "PreparingRebalance":
            group.update(member, request)
            self._park_join(group, member, done)
            self._complete_join_if_all(group)
            return
        is_leader = group.leader == member.member_id
        if member.protocols == request.protocols and (group.state == "CompletingRebalance" or not is_leader):
            # Its answer was lost, or it has nothing new to say.
            self._extend_session(group, member)
            with_members = is_leader and group.state == "CompletingRebalance"
            self._after.append(partial(done, group.join_response(member, with_members=with_members)))
            return
        group.update(member, request)
        self._park_join(group, member, done)
        self._prepare_rebalance(group)

    def _add_and_rebalance(self, group: Group, member: Member, request: JoinGroupRequest, done: JoinDone) -> None:
        self._groups[group.group_id] = group
        if group.state == "PreparingRebalance" and group.previous_state == "Empty":
            group.new_member_added = True
        group.add(member, request.protocol_type)
        member.join_done = done
        self._set_session(group, member, NEW_MEMBER_JOIN_TIMEOUT_MS)
        if group.can_rebalance:
            self._prepare_rebalance(group)
        else:
            self._complete_join_if_all(group)

    def _park_join(self, group: Group, member: Member, done: JoinDone) -> None:
        # It asks twice: whoever waits for the first answer will not use it.
        self._answer_join(member, JoinGroupResponse(_rebalance_in_progress(group.group_id), member.member_id))
        member.join_done = done

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
            self._fail_assignment(group, _rebalance_in_progress(group.group_id))
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

    def _pending_timed_out(self, group: Group, member_id: str) -> None:
        with self._step(group) as is_current:
            if is_current and member_id in group.pending_members:
                group.pending_members.discard(member_id)
                self._complete_join_if_all(group)

    @contextlib.contextmanager
    def _step(self, group: Group, number: int | None = None) -> Iterator[bool]:
        """What a timer does, under the lock; gives whether the group, and the rebalance it was set for, are still there."""
        after: list[Callable[[], None]] = []
        try:
            with self._lock:
                try:
                    self._make_ready()
                    is_current = self._groups.get(group.group_id) is group
                except LogstoreError:  # closed: everybody was told
                    is_current = False
                self._after = after
                yield is_current and number in (None, group.rebalance_number)
        finally:
            run_all(after)

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

    # ---- syncing --------------------------------------------------------------------------------------

    def _sync(self, request: SyncGroupRequest, done: SyncDone) -> None:
        group = self._group_of(request.group, request.member_id)
        member = group.member(request.member_id, request.group_instance_id)
        group.check_generation(request.generation)
        if group.state == "PreparingRebalance":
            raise _rebalance_in_progress(request.group)
        group.pending_sync.discard(member.member_id)
        if group.state == "Stable":
            self._extend_session(group, member)
            self._after.append(partial(done, SyncGroupResponse(None, member.assignment)))
            return
        self._answer_sync(member, SyncGroupResponse(_rebalance_in_progress(request.group)))  # it asks twice
        member.sync_done = done
        if group.leader == member.member_id:
            assignments = {each: bytes(request.assignments.get(each, b"")) for each in group.members}
            try:
                wait = self._append_group(group, assignments)
            except LogstoreError as error:
                self._fail_assignment(group, error)
                self._prepare_rebalance(group)
                return
            self._after.append(partial(self._assign_when_durable, group, group.rebalance_number, assignments, wait))

    def _assign_when_durable(
        self, group: Group, number: int, assignments: Mapping[str, bytes], wait: Callable[[], None]
    ) -> None:
        failure: BaseException | None = None
        try:
            wait()
        except BaseException as error:
            failure = error
        with self._step(group, number) as is_current:
            if is_current and group.state == "CompletingRebalance":
                if failure is not None:
                    known = failure if isinstance(failure, LogstoreError) else _rebalance_in_progress(group.group_id)
                    self._fail_assignment(group, known)
                    self._prepare_rebalance(group)
                else:
                    self._assign(group, assignments)
        if failure is not None and not isinstance(failure, LogstoreError):
            raise failure

    def _assign(self, group: Group, assignments: Mapping[str, bytes]) -> None:
        group.move_to("Stable", self._wall_clock_ms())
        for member in group.members.values():
            member.assignment = assignments.get(member.member_id, b"")
            if member.sync_done is not None:
                self._extend_session(group, member)
                self._answer_sync(member, SyncGroupResponse(None, member.assignment))

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


def check_group_id(group: str) -> None:
    """Refuses what is no group id.

    Raises
    ------
    InvalidGroupIdError
    """
    if not isinstance(group, str) or not group:
        raise InvalidGroupIdError(f"a group id is a string of at least one character, not {group!r}")
    check_text(group, "a group id", InvalidGroupIdError)


def check_text(text: str, what: str, error: type[InvalidRequestError] = InvalidRequestError) -> None:
    """Refuses text that can't be written down.

    Raises
    ------
    InvalidRequestError
    """
    try:
        size_bytes = len(text.encode())
    except UnicodeEncodeError:
        raise error(f"{what} must be text that can be encoded, which {text[:40]!r} can't") from None
    if size_bytes > TEXT_BYTES_MAX:
        raise error(f"{what} has up to {TEXT_BYTES_MAX} bytes; this one has {size_bytes}: {text[:40]!r}...")


def _topics_of(member: Member, protocol: str) -> tuple[str, ...] | None:
    try:
        return tuple(sorted(decode_subscription(member.metadata(protocol)).topics))
    except CorruptDataError:
        return None


def _unique_text() -> str:
    digits = os.urandom(16).hex()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def _rebalance_in_progress(group: str) -> RebalanceInProgressError:
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
