"""What keeps a member's place in its group while its consumer is busy, and gives it up once the consumer is gone.

A `GroupSession` is the small part of a membership that the coordinator and the timer hold. It refers to the consumer's side
weakly: a consumer that nobody refers to any more is collected, and leaves its group.
"""

from __future__ import annotations

import _thread
import heapq
import itertools
import os
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from logstore.broker_api import BrokerApi, GroupCoordinatorApi, JoinGroupResponse, SyncGroupResponse, Wakeable
from logstore.errors import GroupError, InvalidConfigError, LogstoreError

__all__ = ["TIMER", "Failed", "GroupSession", "HeartbeatTimer", "Identity", "Joined", "Removed", "Synced", "check_intervals"]


class Identity(NamedTuple):
    """A member in one generation."""

    generation: int
    member_id: str


class Joined(NamedTuple):
    """The answer to a request to join, with the request's number."""

    request: int
    response: JoinGroupResponse


class Synced(NamedTuple):
    """The answer to a request to sync, with the request's number."""

    request: int
    response: SyncGroupResponse


class Failed(NamedTuple):
    """A heartbeat or a commit was refused."""

    identity: Identity
    error: LogstoreError


class Removed(NamedTuple):
    """The session has left the group, because the consumer did not come back."""

    identity: Identity
    reason: str


Event: TypeAlias = Joined | Synced | Failed | Removed


class GroupSession:
    """One member's session. Its methods may be called from any thread; what they find out lies in ``events``.

    Attributes
    ----------
    events : collections.deque
        For the membership, which takes them out when its consumer polls.
    identity : Identity or None
        What heartbeats are sent for; None while there is nothing to keep alive.
    is_notified : bool
        Something may have changed: the group, or the topics.
    """

    def __init__(
        self,
        broker: BrokerApi,
        group: str,
        group_instance_id: str | None,
        wakeable: Wakeable,
        *,
        session_timeout: float,
        heartbeat_interval: float,
        max_poll_interval: float,
    ):
        self.broker = broker
        self.coordinator: GroupCoordinatorApi = broker.coordinator
        self.group = group
        self.group_instance_id = group_instance_id
        self.session_timeout = session_timeout
        self.heartbeat_interval = heartbeat_interval
        self.max_poll_interval = max_poll_interval
        self.events: deque[Event] = deque()
        self.identity: Identity | None = None
        self.is_notified = False
        self.is_closed = False
        self.polling_thread = 0  # the thread inside of the membership's poll, which needs no waking
        self.last_poll = 0.0
        self.last_heartbeat = 0.0
        self._next_heartbeat = 0.0
        self._nudged_at = -1.0
        self._wakeable = wakeable
        self._request = 0
        self._membership: weakref.ref[object] | None = None
        self._thread: threading.Thread | None = None

    # ---- the consumer's side ------------------------------------------------------------------------

    def watch(self, membership: object, timer: HeartbeatTimer | None) -> None:
        """Has the timer's next tick leave the group once the membership is collected, and come at once."""

        def gone(_: object) -> None:
            if timer is not None and not self.is_closed and not sys.is_finalizing():
                timer.schedule(0.0, self.tick)

        self._membership = weakref.ref(membership, gone)

    def polled(self, now: float) -> None:
        """The consumer is alive, on the thread that calls."""
        self.last_poll = now
        self._thread = threading.current_thread()

    def next_request(self) -> int:
        """A number for a request; answers to earlier ones count no more, and heartbeats pause until it is answered."""
        self.identity = None
        self._request += 1
        return self._request

    def close(self) -> None:
        """Ends the session; the coordinator is not told."""
        self.is_closed = True
        self.identity = None

    # ---- the coordinator's side ---------------------------------------------------------------------

    def notify(self) -> None:
        """Something has happened to the group or to the topics."""
        self.is_notified = True
        self._wake()

    def joined(self, request: int, response: JoinGroupResponse) -> None:
        """Takes the answer to a request to join. The session lives from here on, whenever the consumer polls."""
        if self.is_closed or self._is_abandoned():
            if response.error is None and self.group_instance_id is None:
                self._leave(response.member_id)  # joined in vain: the consumer has gone in the meantime
            return
        if request == self._request and response.error is None:
            self.identity = Identity(response.generation, response.member_id)
        self._tell(Joined(request, response))

    def synced(self, request: int, response: SyncGroupResponse) -> None:
        """Takes the answer to a request to sync."""
        self._tell(Synced(request, response))

    # ---- heartbeats ---------------------------------------------------------------------------------

    def beat(self, now: float) -> None:
        """Sends a heartbeat; a refusal is an event."""
        identity = self.identity
        if identity is None:
            return
        self._next_heartbeat = now + self.heartbeat_interval
        try:
            self.coordinator.heartbeat(self.group, identity.generation, identity.member_id, self.group_instance_id)
        except GroupError as error:
            self._tell(Failed(identity, error))
        except LogstoreError:  # the broker has failed or was closed: whoever polls next is told by it
            self._wakeable.notify()
        else:
            self.last_heartbeat = now

    def tick(self, now: float) -> float | None:
        """Does what is due; returns when to call again. None once the session has ended."""
        if self.is_closed:
            return None
        if self._is_abandoned():
            self._abandon()
            return None
        identity = self.identity
        if identity is None:
            return min(now + self.heartbeat_interval, now + self.max_poll_interval / 2)
        gone_at = self.last_poll + self.max_poll_interval
        if now >= gone_at:
            self._give_up(identity)
            return now + self.heartbeat_interval
        nudge_at = self.last_poll + self.max_poll_interval / 2
        if now >= nudge_at and self._nudged_at != self.last_poll:
            # A consumer that sleeps because there are no records has not died. It wakes, polls, and sleeps on.
            self._nudged_at = self.last_poll
            self._wakeable.notify()
        is_alive = self._thread is None or self._thread.is_alive()
        if now >= self._next_heartbeat and is_alive:
            self.beat(now)
        following = (self._next_heartbeat, gone_at, nudge_at)
        return min((at for at in following if at > now), default=now + self.heartbeat_interval)

    def _give_up(self, identity: Identity) -> None:
        """The consumer has not polled for too long. A static member just falls silent: it may restart in time."""
        self.identity = None
        if self.group_instance_id is None:
            self._leave(identity.member_id)
        self._tell(
            Removed(
                identity,
                f"it has not polled for {self.max_poll_interval:g} s; poll more often, take fewer records at a time, or "
                "raise max_poll_interval",
            )
        )

    def _is_abandoned(self) -> bool:
        return self._membership is not None and self._membership() is None

    def _abandon(self) -> None:
        identity = self.identity
        self.close()
        self.broker.remove_metadata_waiter(self)
        if identity is not None and self.group_instance_id is None:
            self._leave(identity.member_id)

    def _leave(self, member_id: str) -> None:
        try:
            self.coordinator.leave_group(self.group, member_id, self.group_instance_id)
        except LogstoreError:  # it has been removed already, or the broker is closed
            return

    def _tell(self, event: Event) -> None:
        self.events.append(event)
        self._wake()

    def _wake(self) -> None:
        if self.polling_thread != threading.get_ident():
            self._wakeable.notify()


Ticking: TypeAlias = Callable[[float], float | None]


class HeartbeatTimer:
    """One thread for the heartbeats of a process. It starts with the first session and ends after the last. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # reentrant: a collection in the middle of `schedule` may come back here
        self._bell = threading.Lock()
        self._bell.acquire()
        self._incoming: deque[tuple[float, Ticking]] = deque()
        self._is_running = False

    def schedule(self, at: float, tick: Ticking) -> None:
        """Has ``tick(now)`` called at a time (``time.monotonic``), then again at each time it returns, until None."""
        with self._lock:
            self._incoming.append((at, tick))
            if not self._is_running:
                # Not a threading.Thread: a signal handler that raises in its start() would leave it half made.
                _thread.start_new_thread(self._run, ())
                self._is_running = True
        self._ring()

    def forget(self) -> None:
        """In a forked child, where the thread does not exist."""
        self.__init__()  # type: ignore[misc]

    def _ring(self) -> None:
        try:
            self._bell.release()
        except RuntimeError:  # it rings already
            return

    def _run(self) -> None:
        due: list[tuple[float, int, Ticking]] = []
        order = itertools.count()
        scheduled: dict[Ticking, int] = {}  # the entry that counts; an earlier one of the same session is passed over
        while True:
            while self._incoming:
                at, tick = self._incoming.popleft()
                number = scheduled[tick] = next(order)
                heapq.heappush(due, (at, number, tick))
            while due and scheduled.get(due[0][2]) != due[0][1]:
                heapq.heappop(due)
            if not due:
                with self._lock:
                    if not self._incoming:
                        self._is_running = False
                        return
                continue
            wait = due[0][0] - time.monotonic()
            if wait > 0:
                self._bell.acquire(timeout=min(wait, threading.TIMEOUT_MAX))
                continue
            tick = heapq.heappop(due)[2]
            following = self._tick(tick)
            if following is None:
                del scheduled[tick]
            else:
                number = scheduled[tick] = next(order)
                heapq.heappush(due, (following, number, tick))
            del tick

    def _tick(self, tick: Ticking) -> float | None:
        now = time.monotonic()
        try:
            return tick(now)
        except Exception as error:
            # One session must not end the others' heartbeats; it goes on itself, and its consumer finds out by polling.
            import logging

            logging.getLogger("logstore.clients").error("a heartbeat failed: %r", error)
            return now + 1.0


TIMER = HeartbeatTimer()
"""The process's timer."""
os.register_at_fork(after_in_child=TIMER.forget)


def check_intervals(session_timeout: float, heartbeat_interval: float, max_poll_interval: float) -> None:
    """Refuses intervals that contradict each other.

    Raises
    ------
    InvalidConfigError
    """
    for name, seconds in (
        ("session_timeout", session_timeout),
        ("heartbeat_interval", heartbeat_interval),
        ("max_poll_interval", max_poll_interval),
    ):
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds <= 2**31 / 1000:
            raise InvalidConfigError(f"{name} is a number of seconds above 0, not {seconds!r}")
    if heartbeat_interval >= session_timeout:
        raise InvalidConfigError(
            f"heartbeat_interval={heartbeat_interval} must be below session_timeout={session_timeout}; a third of it is "
            "usual"
        )
