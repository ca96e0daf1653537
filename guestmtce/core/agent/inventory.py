"""Hosts and their instances as the agent sees them; every look-up is O(1) (behaviour.md).

Replaces guestClass. Holds facts only: what follows from a change is decided in `agent`.
Attributes that end in `_at`, and `until`, are seconds of the loop's clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from guestmtce.core.agent.vim_messages import InstanceFacts
from guestmtce.core.shared.condition import Condition, Diagnosis
from guestmtce.core.shared.delivery import Role
from guestmtce.core.shared.history import History
from guestmtce.core.shared.limits import Gap, RateLimit
from guestmtce.core.shared.owed import QUEUED_SECS, Key
from guestmtce.core.shared.text import printable
from guestmtce.core.shared.vocabulary import (
    CorrectiveAction,
    Event,
    Notification,
    Switch,
    Timeouts,
)

_STORAGE = "storage"
# A guest that comes and goes all the time may take so many `service` events of the VIM's time in
# so many seconds; what it is then, the next audit of its host tells.
SERVICE_SHARE = (20, 10.0)
READY_GAP_SECS = 2.0
# How often a host is told its reporting though nothing has changed (decision 45).
REPORTING_SECS = 60.0
# What the VIM may be told of one instance: one `failed` alarm, and one `unhealthy` alarm of each
# corrective action, in so many seconds (decision 38).
ALARM_GAP_SECS = 10.0
# Two LOSSes within this are one, said twice by the network (decision 27).
LOSS_GAP_SECS = 1.0
# A guestServer limits illnesses to one in 10 s too: so much earlier one may seem to arrive.
ILL_GAP_SECS = ALARM_GAP_SECS - 1.0

# A host that left so many audits unanswered is warned of, and degrades the agent (decision 31).
UNANSWERED_TO_WARN = 3
# A guestServer says an order that waits here again each 10 s: one not heard for longer may be void.
DEFERRED_SECS = QUEUED_SECS + 2.0

UNTOLD = Timeouts()
UNHEARD = Diagnosis(Condition.UNKNOWN, None, "nothing was heard of it yet")


class Deferral(NamedTuple):
    """An order of a guestServer that could not be judged at `came`; `again(now)` does so anew."""

    came: float
    again: Callable[[float], object]

    def judge(self, now: float) -> None:
        """Judge it now, unless it is so old that its guestServer would have said it again."""
        if now - self.came <= DEFERRED_SECS:
            self.again(now)


class PendingAsk(NamedTuple):
    """A vote or notify whose answer the VIM waits for until a time of the loop's clock."""

    event: Event
    notification: Notification
    until: float


@dataclass(eq=False)
class Round:
    """The answers to query number `query`: whose came, and how many there are (decision 28)."""

    query: int
    of: int | None = None
    uuids: set[str] = field(default_factory=set)

    @property
    def complete(self) -> bool:
        """Whether every answer has come."""
        return self.of is not None and len(self.uuids) >= self.of


@dataclass(eq=False)
class Host:
    """One worker. `reporting` is None until the VIM has said (decision 2).

    `queried`, `answered`, `unanswered_audits` and `round` belong to the audit, `readies` to the
    limit on answers to READY, `reporting_told` to that on repeats of MOD_HOST. `role` is its
    guestServer, whatever process that is; None while nothing was said to it, and where
    acknowledging is off. `deferred` are its orders that wait until we know more, by instance and
    topic. `last_heard` is when it last said anything, `known_since` when we learned of it, both
    by the wall clock.
    """

    hostname: str
    uuid: str
    ip: str | None = None
    personality: str = ""
    reporting: bool | None = None
    got_instances: bool = False
    instances: dict[str, Instance] = field(default_factory=dict)
    queried: bool = False
    answered: bool = False
    unanswered_audits: int = 0
    last_heard: float | None = None
    known_since: float = 0.0
    round: Round | None = None
    role: Role | None = None
    deferred: dict[Key, Deferral] = field(default_factory=dict)
    readies: Gap = field(default_factory=lambda: Gap(READY_GAP_SECS))
    reporting_told: Gap = field(default_factory=lambda: Gap(REPORTING_SECS))

    @property
    def silent(self) -> bool:
        """True if so many audits were left unanswered that its instances' state is unknown."""
        return self.unanswered_audits >= UNANSWERED_TO_WARN

    def silence(self, wall: float) -> float:
        """Return the seconds since its last word, or since it is known; `wall` is the time now."""
        heard = self.known_since if self.last_heard is None else self.last_heard
        return max(0.0, wall - heard)

    @property
    def acknowledges(self) -> bool | None:
        """Whether its guestServer acknowledges; None while that is not known, or we do not."""
        return self.role.acknowledges if self.role is not None else None

    @property
    def version(self) -> str:
        """The version of its guestServer, "" if it does not say."""
        return self.role.peer_version if self.role is not None else ""

    @property
    def short_name(self) -> str:
        """The name up to its first dot."""
        return self.hostname.partition(".")[0]

    @property
    def key(self) -> str:
        """The lane of the VIM's queue for questions about this host."""
        return f"host {self.uuid}"

    @property
    def runs_instances(self) -> bool:
        """False for what cannot be a worker.

        mtcAgent names those that it wants heartbeated; a controller that is a worker too
        comes as `controller`. Only storage hosts are certain to have no instance.
        """
        return self.personality != _STORAGE

    def for_operator(self) -> dict[str, object]:
        """Return what lists and the state dump show."""
        state = "unknown" if self.reporting is None else str(Switch.of(self.reporting))
        conditions = Counter(each.now().condition for each in self.instances.values())
        return {
            "hostname": self.hostname,
            "uuid": self.uuid,
            "ip": self.ip or "",
            "personality": self.personality,
            "reporting": state,
            "got_instances": self.got_instances,
            "instances": len(self.instances),
            "lost": conditions[Condition.LOST],
            "ill": conditions[Condition.ILL],
            "unanswered_audits": self.unanswered_audits,
            "version": self.version,
            "acknowledges": self.acknowledges,
            "silent": self.silent,
            "last_heard": None if self.last_heard is None else round(self.last_heard, 3),
        }


@dataclass(eq=False)
class Instance:
    """One instance. `reporting` is ours and the VIM's to set, the rest is its guestServer's.

    `history` remembers what was heard of it and what the VIM was told; `diagnosis` is how it is
    in an operator's words; `name` is what its guest calls itself, as a new guestServer tells.

    `told_at` is when the VIM last said where it is or whether it reports; `seen` and `absences`
    belong to the audit. `losses` and `illnesses` (by corrective action) limit what is taken from
    an old guestServer, `alarms` (by what they say) and `service_share` what is told to the VIM;
    `service_owed` says that the latter put an event off.

    `heartbeating` is None until something was learned of it (decision 25). `informed` says that its
    guestServer has told what it wants: before that, `timeouts` and `action` mean nothing.
    """

    uuid: str
    host: Host
    history: History
    reporting: bool = False
    name: str = ""
    heartbeating: bool | None = None
    informed: bool = False
    timeouts: Timeouts = UNTOLD
    action: CorrectiveAction = CorrectiveAction.UNKNOWN
    told_at: float = 0.0
    seen: bool = True
    absences: int = 0
    pending: PendingAsk | None = None
    losses: Gap = field(default_factory=lambda: Gap(LOSS_GAP_SECS))
    illnesses: Gap = field(default_factory=lambda: Gap(ILL_GAP_SECS))
    alarms: Gap = field(default_factory=lambda: Gap(ALARM_GAP_SECS))
    service_share: RateLimit = field(default_factory=lambda: RateLimit(*SERVICE_SHARE))
    service_owed: bool = False
    diagnosis: Diagnosis = UNHEARD

    def now(self) -> Diagnosis:
        """Return how it is: unknown while its worker is silent."""
        if self.host.silent:
            return Diagnosis(Condition.UNKNOWN, self.host.last_heard, "its worker is silent")
        return self.diagnosis

    def for_vim(self) -> InstanceFacts:
        """Return what the VIM is told of it."""
        return InstanceFacts(
            self.uuid,
            self.host.hostname,
            self.reporting,
            bool(self.heartbeating),
            self.timeouts.restart if self.heartbeating else 0,
        )

    def for_operator(self) -> dict[str, object]:
        """Return what lists and the state dump show."""
        return {
            "uuid": self.uuid,
            "name": printable(self.name),
            "host": self.host.hostname,
            **self.now().for_operator(),
            "reporting": self.reporting,
            "heartbeating": bool(self.heartbeating),
            "corrective_action": str(self.action),
            "timeouts": self.timeouts._asdict(),
            "pending": str(self.pending.event) if self.pending else None,
        }


class Inventory:
    """The tables. An instance is always on exactly one known host."""

    def __init__(self) -> None:
        self.hosts: dict[str, Host] = {}
        self.instances: dict[str, Instance] = {}
        self._by_name: dict[str, Host] = {}

    def host_named(self, hostname: str) -> Host | None:
        """Return the host of that name."""
        return self._by_name.get(hostname)

    def add_host(self, host: Host) -> None:
        """Enter a host; neither its name nor its UUID may be known yet."""
        self.hosts[host.uuid] = host
        self._by_name[host.hostname] = host

    def remove_host(self, host: Host) -> None:
        """Forget a host without instances."""
        del self.hosts[host.uuid]
        del self._by_name[host.hostname]

    def rename_host(self, host: Host, hostname: str, uuid: str) -> None:
        """Know a host by another name or UUID; its instances stay."""
        self.remove_host(host)
        host.hostname, host.uuid = hostname, uuid
        self.add_host(host)

    def clear(self) -> None:
        """Forget every host and instance."""
        self.hosts.clear()
        self.instances.clear()
        self._by_name.clear()

    def add_instance(self, instance: Instance) -> None:
        """Enter an instance that is not known yet."""
        self.instances[instance.uuid] = instance
        instance.host.instances[instance.uuid] = instance

    def remove_instance(self, instance: Instance) -> None:
        """Forget an instance."""
        del self.instances[instance.uuid]
        del instance.host.instances[instance.uuid]

    def move_instance(self, instance: Instance, host: Host) -> None:
        """Put an instance on another host: nothing that its guest said there holds any more."""
        del instance.host.instances[instance.uuid]
        instance.host = host
        host.instances[instance.uuid] = instance
        instance.heartbeating = False
        instance.informed = False
        instance.timeouts = UNTOLD
        instance.action = CorrectiveAction.UNKNOWN
        instance.pending = None
        instance.diagnosis = UNHEARD
        instance.seen = True
        instance.absences = 0


def count_heartbeating(instances: Iterable[Instance]) -> int:
    """Return how many of `instances` heartbeat."""
    return sum(1 for instance in instances if instance.heartbeating)
