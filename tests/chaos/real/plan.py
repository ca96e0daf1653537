"""What happens when, to whom, and for how long: a function of the seed alone."""

from __future__ import annotations

import random
from typing import NamedTuple

WORKERS = ("compute-0", "compute-1")
# How many guests behave how. The first six of these have no trouble but their own.
BEHAVIOURS = {
    "healthy": 5,
    "dribbling": 1,
    "slow": 3,
    "flapping": 3,
    "rubbish": 2,
    "endless": 1,
    "ordinary": 10,
    "rough": 3,
    "client": 2,
}
TROUBLED = frozenset({"ordinary", "rough", "client"})
# A guest is left alone for so long after its trouble: an illness is told once in 10 s.
LEFT_ALONE_SECS = 13.0
# A loss that lasts so long must be told whatever else happens.
LONG_SECS = 42.0
# What happens first, and to whom.
OPENING_SECS = 11.0
LOST_AND_WELL = "vm-15"


class Member(NamedTuple):
    """A guest: its name, how it behaves, and the worker on which it begins."""

    name: str
    behaviour: str
    worker: str


class Happening(NamedTuple):
    """At `at` seconds from the beginning `what` happens to `who`, for `seconds`."""

    at: float
    what: str
    who: str = ""
    seconds: float = 0.0


def members() -> list[Member]:
    """Return the thirty guests."""
    behaviours = [name for name, count in BEHAVIOURS.items() for _ in range(count)]
    return [
        Member(f"vm-{number}", behaviour, WORKERS[number % len(WORKERS)])
        for number, behaviour in enumerate(behaviours)
    ]


def plan(seed: int, seconds: float) -> list[Happening]:
    """Return what happens in a run of `seconds`, in order."""
    chance = random.Random(seed)
    tracks = (_opening, _guests, _outside, _processes)
    return sorted(each for track in tracks for each in track(chance, seconds))


def _opening(_chance: random.Random, _seconds: float) -> list[Happening]:
    """A guest is lost and well again while the VIM is away: it must not hear of that.

    Nothing else is in the way then, so the oracle can judge it in every run.
    """
    return [
        Happening(1.0, "vim refuses", "", OPENING_SECS - 2.0),
        Happening(1.5, "hang", LOST_AND_WELL, 5.0),
    ]


def _guests(chance: random.Random, seconds: float) -> list[Happening]:
    """A guest hangs, falls ill, is asked, is started anew by QEMU, or moves to the other worker."""
    idle_at = {each.name: 0.0 for each in members() if each.behaviour in TROUBLED}
    idle_at[LOST_AND_WELL] = OPENING_SECS + LEFT_ALONE_SECS
    stays = {each.name for each in members() if each.behaviour == "client"}
    happenings = []
    now = chance.expovariate(1.0)
    while now < seconds:
        idle = [name for name, at in idle_at.items() if at <= now]
        if idle:
            name = chance.choice(idle)
            what = chance.choices(
                ("hang", "ill", "vote", "restart", "migrate"), (30, 25, 25, 12, 8)
            )[0]
            if what == "migrate" and name in stays:
                what = "restart"
            lasts = _lasts(chance, what, now)
            happenings.append(Happening(now, what, name, lasts))
            idle_at[name] = now + lasts + LEFT_ALONE_SECS
        now += chance.expovariate(1.0)
    return happenings


def _lasts(chance: random.Random, what: str, now: float) -> float:
    if what == "hang":
        long = now < 15 and chance.random() < 0.3
        return LONG_SECS if long else chance.uniform(8.0, 18.0)
    limits = {"ill": (5.0, 9.0), "vote": (0.0, 0.0), "restart": (0.2, 3.0), "migrate": (8.0, 8.0)}
    return chance.uniform(*limits[what])


def _outside(chance: random.Random, seconds: float) -> list[Happening]:
    """The network is cut, the VIM misbehaves, or the hosts file is written anew."""
    kinds = {
        "cut": (1.0, 9.0),
        "vim refuses": (2.0, 9.0),
        "vim hangs": (2.0, 9.0),
        "vim is silent": (2.0, 9.0),
        "vim is slow": (2.0, 9.0),
        "vim resets": (2.0, 6.0),
        "vim cuts answers": (2.0, 6.0),
        "vim talks garbage": (2.0, 6.0),
        "vim says 500": (2.0, 6.0),
        "hosts file empty": (0.3, 2.0),
    }
    return _one_after_another(chance, seconds, kinds, (6.0, 14.0), OPENING_SECS)


def _processes(chance: random.Random, seconds: float) -> list[Happening]:
    """A daemon is killed and started again, stopped for a while, or guestAgent moves."""
    kinds = {
        "agent killed": (0.5, 2.0),
        "swact": (0.3, 1.0),
        "agent stopped": (0.5, 5.0),
        "server killed": (0.5, 2.0),
        "server stopped": (0.5, 4.0),
    }
    return _one_after_another(chance, seconds, kinds, (9.0, 18.0), OPENING_SECS - 6.0)


def _one_after_another(
    chance: random.Random,
    seconds: float,
    kinds: dict[str, tuple[float, float]],
    pause: tuple[float, float],
    begin: float,
) -> list[Happening]:
    happenings = []
    now = begin + chance.uniform(*pause)
    while now < seconds:
        what = chance.choice(sorted(kinds))
        lasts = chance.uniform(*kinds[what])
        who = chance.choice(WORKERS) if what.startswith("server") else ""
        happenings.append(Happening(now, what, who, lasts))
        now += lasts + chance.uniform(*pause)
    return happenings
