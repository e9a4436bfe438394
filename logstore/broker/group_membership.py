"""Membership of consumer groups: what members ask for, and what they are answered.

Source: wire-protocol, section 8.3.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial

from logstore.broker.group_rebalance import NEW_MEMBER_JOIN_TIMEOUT_MS, GroupRebalance, rebalance_in_progress
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
    UnknownMemberIdError,
)

__all__ = ["GroupMembership", "check_group_id", "check_text"]

# Room for what a member id adds to a client id.
TEXT_BYTES_MAX = 32_000


class GroupMembership(GroupRebalance):
    """The membership side of a group coordinator. `logstore.broker.group_coordinator.GroupCoordinator` is what is used."""

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
                raise rebalance_in_progress(group)

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
        self._answer_join(member, JoinGroupResponse(rebalance_in_progress(group.group_id), member.member_id))
        member.join_done = done

    def _pending_timed_out(self, group: Group, member_id: str) -> None:
        with self._step(group) as is_current:
            if is_current and member_id in group.pending_members:
                group.pending_members.discard(member_id)
                self._complete_join_if_all(group)

    # ---- syncing --------------------------------------------------------------------------------------

    def _sync(self, request: SyncGroupRequest, done: SyncDone) -> None:
        group = self._group_of(request.group, request.member_id)
        member = group.member(request.member_id, request.group_instance_id)
        group.check_generation(request.generation)
        if group.state == "PreparingRebalance":
            raise rebalance_in_progress(request.group)
        group.pending_sync.discard(member.member_id)
        if group.state == "Stable":
            self._extend_session(group, member)
            self._after.append(partial(done, SyncGroupResponse(None, member.assignment)))
            return
        self._answer_sync(member, SyncGroupResponse(rebalance_in_progress(request.group)))  # it asks twice
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
                    known = failure if isinstance(failure, LogstoreError) else rebalance_in_progress(group.group_id)
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
            member.assigned_generation = group.generation
            if member.sync_done is not None:
                self._extend_session(group, member)
                self._answer_sync(member, SyncGroupResponse(None, member.assignment))


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
