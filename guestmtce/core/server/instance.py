"""One instance as guestServer sees it, what all instances of a worker share, and their table.

Replaces guestInstClass. Data only: the state machines (heartbeat, vote, connect) change it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from guestmtce.core.server.guest_protocol import MESSAGES_PER_SECOND, Terms
from guestmtce.core.shared.limits import RateLimit
from guestmtce.core.shared.vocabulary import CorrectiveAction, Switch

RECENT_CHALLENGES = 6


@dataclass
class Stats:
    """What a guestServer counts since its start (operations.md, Metrics).

    `on_response` and `on_lateness` take seconds: the edge feeds them to its histograms.
    """

    heartbeats: int = 0
    misses: int = 0
    losses: int = 0
    unhealthy: int = 0
    late_responses: int = 0
    wrong_responses: int = 0
    unexpected_responses: int = 0
    host_stalls: int = 0
    votes: Counter[str] = field(default_factory=Counter)
    bad_messages: Counter[str] = field(default_factory=Counter)
    on_response: Callable[[float], object] = lambda _seconds: None
    on_lateness: Callable[[float], object] = lambda _seconds: None


@dataclass
class Worker:
    """What the instances of one host share.

    `clock` returns monotonic seconds and `random_number` 0 … 2**31 - 1 from a cryptographic
    source: both are passed in, the core has neither. `reporting` is host-level reporting, on
    until guestAgent says otherwise (decision 2).
    """

    hostname: str
    clock: Callable[[], float]
    random_number: Callable[[], int]
    failure_threshold: int = 1
    pulse_period_ms: int = 400
    reporting: bool = True
    stats: Stats = field(default_factory=Stats)


class Instance:
    """An instance: what its guest asked for, what guestAgent set, and how it does.

    `reporting` is instance-level reporting; `provisioned` says that ADD_INST or MOD_INST named
    it, so that it outlives its socket file; `initialized` that an init came on this connection.
    """

    __slots__ = (
        "challenge_sent_at",
        "challenges",
        "connected",
        "corrective_actions_sent",
        "failed",
        "failures",
        "heartbeating",
        "initialized",
        "invocation_id",
        "last_message_at",
        "misses",
        "provisioned",
        "rate",
        "reporting",
        "sequence",
        "terms",
        "uuid",
    )

    def __init__(self, uuid: str) -> None:
        self.uuid = uuid
        self.terms = Terms()
        self.invocation_id = 0
        self.initialized = False
        self.provisioned = False
        self.reporting = False
        self.connected = False
        self.heartbeating = False
        self.failed = False
        self.misses = 0
        self.failures = 0
        self.sequence = 0
        self.last_message_at = 0.0
        self.challenges: deque[int] = deque(maxlen=RECENT_CHALLENGES)
        self.challenge_sent_at = 0.0
        # When each action was last passed on as ILLHEALTH.
        self.corrective_actions_sent: dict[CorrectiveAction, float] = {}
        self.rate = RateLimit(MESSAGES_PER_SECOND)

    @property
    def interval(self) -> float:
        """The heartbeat interval in seconds."""
        return self.terms.interval_ms / 1000

    def information(self, hostname: str, action: CorrectiveAction | None = None) -> dict[str, Any]:
        """Return the members of RUNNING, STOPPED, ILLHEALTH and QRY_INST (server-agent.md).

        `action` replaces the one from init: in ILLHEALTH it is the unhealthy response's.
        """
        terms = self.terms
        return {
            "hostname": hostname,
            "uuid": self.uuid,
            "reporting": str(Switch.of(self.reporting)),
            "heartbeating": str(Switch.of(self.heartbeating)),
            "repair-action": str(action or terms.corrective_action),
            "restart-to": str(terms.restart_secs),
            "shutdown-to": str(terms.shutdown_notice_secs),
            "suspend-to": str(terms.suspend_notice_secs),
            "resume-to": str(terms.resume_notice_secs),
            "vote-to": str(terms.vote_secs),
        }


class Ignored:
    """Instances that guestAgent deleted: their files are passed over until asked for again.

    Decision 11: a scan does not revive them; ADD/MOD_INST or a new create or move event does,
    and so does the file's going. Bounded by the files in the channel directory.
    """

    def __init__(self) -> None:
        self._uuids: set[str] = set()

    def __contains__(self, uuid: str) -> bool:
        return uuid in self._uuids

    def __iter__(self) -> Iterator[str]:
        return iter(self._uuids)

    def add(self, uuid: str) -> None:
        """Pass over this instance's file from now on."""
        self._uuids.add(uuid)

    def discard(self, uuid: str) -> None:
        """Heed this instance's file again."""
        self._uuids.discard(uuid)
