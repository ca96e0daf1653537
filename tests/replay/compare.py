"""Compares two traces: what only one has, what is another, what comes at another time.

Decision 20: spacing to ±5 % + 50 ms. It is measured from the cause: a challenge from the one
before, a report from what is reported, so that the old daemon's drift of 1 to 2 % adds up to
no difference.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import NamedTuple

from tests.replay.recording import ChallengeCounter, Place, Recording
from tests.replay.trace import Event

SHARE = 0.05
SLACK = 0.05

_FILE = frozenset({"start", "listen", "rename"})
_ASKED = frozenset({"VOTE_INST", "NOTIFY_INST"})
_PROVISIONED = frozenset({"ADD_INST", "MOD_INST"})
_GUEST = frozenset({"init", "challenge_response", "action_response", "exit", "rubbish"})

# What an output can follow from: the latest of these before it, of the same instance.
CAUSES: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    # output: (inputs, outputs)
    "connect": (_FILE | _PROVISIONED | _ASKED, frozenset({"closed"})),
    "closed": (
        frozenset({"hang_up", "DEL_INST", "action_response", "terminate", "listen"}) | _ASKED,
        frozenset({"connect", "VOTE_NOTIFY"}),
    ),
    "init_ack": (frozenset({"init"}), frozenset()),
    "challenge": (frozenset({"init"}), frozenset({"challenge"})),
    "nack": (_GUEST, frozenset()),
    "action_notify": (_ASKED, frozenset()),
    "RUNNING": (frozenset({"challenge_response"}), frozenset()),
    "ILLHEALTH": (frozenset({"challenge_response"}), frozenset()),
    "STOPPED": (
        frozenset({"exit", "hang_up", "action_response", "init"}) | _PROVISIONED,
        frozenset({"challenge"}),
    ),
    "LOSS": (frozenset(), frozenset({"challenge"})),
    "VOTE_NOTIFY": (frozenset({"action_response"}) | _ASKED, frozenset()),
    "QRY_INST": (frozenset({"QRY_INST"}), frozenset()),
    "MONITOR_READY": (frozenset({"start"}), frozenset({"MONITOR_READY"})),
}
# What can keep the old daemon from its next challenge.
_STOPS = frozenset(
    {*_ASKED, *_PROVISIONED, "init", "action_response", "exit", "DEL_INST", "hang_up", "terminate"}
)


class Difference(NamedTuple):
    """`side`: missing (only the old said it), extra (only ours), time, unfed."""

    side: str
    text: str


class _Timed(NamedTuple):
    """An output, and how long after its cause it came."""

    event: Event
    gap: float


def compare(
    recording: Recording, own: Sequence[Event], unfed: Sequence[str], slack: float = SLACK
) -> list[Difference]:
    """Return every difference of our trace from the recorded one; `slack` is in seconds."""
    return _Comparison(recording, own, slack).differences(unfed)


class _Comparison:
    """One recording, one trace of ours, and how exact their times must be."""

    def __init__(self, recording: Recording, own: Sequence[Event], slack: float) -> None:
        self._recording = recording
        self._own = own
        self._slack = slack

    def differences(self, unfed: Sequence[str]) -> list[Difference]:
        found = [Difference("unfed", text) for text in unfed]
        theirs, ours = _channels(self._recording.events), _channels(self._own)
        for channel in sorted({*theirs, *ours}):
            found += self._compare_channel(theirs[channel], ours[channel])
        return found + self._compare_challenges()

    def _compare_channel(self, theirs: list[_Timed], ours: list[_Timed]) -> list[Difference]:
        """Messages in their order: what is in both, and when it came; what is in one."""
        found = []
        old = [str(timed.event) for timed in theirs]
        new = [str(timed.event) for timed in ours]
        matcher = SequenceMatcher(None, old, new, autojunk=False)
        for tag, i1, i2, j1, j2 in matcher.get_opcodes():
            if tag == "equal":
                for text, a, b in zip(old[i1:i2], theirs[i1:i2], ours[j1:j2]):
                    found += self._compare_times(text, a, b)
            else:
                found += [Difference("missing", text) for text in old[i1:i2]]
                found += [Difference("extra", text) for text in new[j1:j2]]
        return found

    def _compare_times(self, text: str, old: _Timed, new: _Timed) -> list[Difference]:
        if abs(old.gap - new.gap) <= self._slack + SHARE * old.gap:
            return []
        return [Difference("time", f"{text}: {old.gap:.2f} → {new.gap:.2f}")]

    def _compare_challenges(self) -> list[Difference]:
        """Challenges by their place, because they drift against all else."""
        theirs, ours = _challenges(self._recording.events), _challenges(self._own)
        found = []
        for place in sorted({*theirs, *ours}):
            text = f"{place.who} challenge {place.init}.{place.number}"
            if place not in ours:
                found.append(Difference("missing", text))
            elif place in theirs:
                found += self._compare_times(text, theirs[place], ours[place])
            elif not self._is_drift(place, theirs, ours):
                found.append(Difference("extra", text))
        return found

    def _is_drift(
        self, place: Place, theirs: dict[Place, _Timed], ours: dict[Place, _Timed]
    ) -> bool:
        """Whether the old daemon, with its longer periods, was stopped just before this one.

        Its next challenge was due at most an interval after its last; something stopped it
        before that; ours came before that something, and is early by no more than the tolerance.
        """
        last = max((each for each in theirs if each[:2] == place[:2]), default=None)
        if last is None:
            return False
        last_at = theirs[last].event.at
        event, interval = ours[place]
        due_at = last_at + interval * (1 + SHARE)
        stopped_at = self._stopped_at(place.who, last_at)
        since_init = event.at - ours[place._replace(number=0)].event.at + interval
        tolerated = self._slack + SHARE * since_init
        return event.at < stopped_at <= due_at and due_at - event.at <= tolerated

    def _stopped_at(self, instance: str, after: float) -> float:
        stops = (
            event.at
            for event in self._recording.events
            if event.at > after
            and not event.said
            and event.name in _STOPS
            and event.who in ("", instance)
        )
        return min(stops, default=self._recording.end)


def _channels(events: Sequence[Event]) -> dict[tuple[str, str], list[_Timed]]:
    """What each guest was told, challenges apart, and what guestAgent was told of it."""
    found: dict[tuple[str, str], list[_Timed]] = defaultdict(list)
    for index, event in enumerate(events):
        if event.said and event.name != "challenge":
            channel = "agent" if event.name.isupper() else "guest"
            found[event.who, channel].append(
                _Timed(event, event.at - _cause(events[:index], event))
            )
    return found


def _challenges(events: Sequence[Event]) -> dict[Place, _Timed]:
    counter, found = ChallengeCounter(), {}
    for index, event in enumerate(events):
        if event.name == "challenge" and event.said:
            gap = event.at - _cause(events[:index], event)
            found[counter.challenge(event.who)] = _Timed(event, gap)
        elif event.name == "init" and not event.said:
            counter.init(event.who)
    return found


def _cause(before: Sequence[Event], output: Event) -> float:
    """When that happened which the output follows from; 0 if it is the daemon's own idea."""
    inputs, outputs = CAUSES[output.name]
    for event in reversed(before):
        if event.who in ("", output.who) and event.name in (outputs if event.said else inputs):
            return event.at
    return 0.0
