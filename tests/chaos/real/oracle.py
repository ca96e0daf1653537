"""Compares what truly happened in a real run with what the VIM heard, and says what is wrong.

What is judged, and when it is not, so that a finding is always a fault:

* A loss is told once; twice only if guestAgent died meanwhile (it may have died between writing
  the request and acknowledging the order). One that lasted 40 s is told whatever else happened;
  another if for 8 s of it nothing was in its way: no daemon, network, VIM or hosts file, nor what
  these need to come back (`AFTERWARDS`). An illness has 4 s for that, the answer to a vote 5 s.
  What was said four times, and lost each time, is not judged, but counted. A guestServer that dies
  within 3.5 s never knew of the loss: the fresh one meets a guest that has not spoken to it. Then
  `disabled` must be told.
* No alarm of a guest that was not lost, or ill: not before a second after it fell silent (two
  intervals must pass), and not when the controller could know it well: 2 s after a RUNNING of it
  had come through the network to a guestAgent that was running and had believed that guestServer
  for 20 s.
* A vote or notification is answered once, in its window; never when nobody asked. What is asked
  again has an answer of its own.
* A guest without any trouble is never told `disabled`, but when a daemon died in the 25 s before:
  its channel was closed then, or a fresh guestAgent told what it did not know yet.
* At the end everybody believes what is true, each daemon holds what it held at the beginning, none
  has ended by itself, and no log has a traceback.

When this process was late by half a second, its guests were late too, and so they were lost, or
ill for longer: what is told within 8 s after that is not judged, but counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from tests.chaos.real.ledger import Line, Span
from tests.chaos.real.orders import FAILED
from tests.chaos.real.plan import LONG_SECS, TROUBLED
from tests.chaos.real.site import ENDED, Level, Site

TOLD_SECS = {"hang": 8.0, "ill": 4.0, "vote": 5.0}
# The orders that it takes to tell of it.
ORDERS = {
    "hang": ["LOSS"],
    "ill": ["ILLHEALTH"],
    "vote": ["VOTE_INST", "NOTIFY_INST", "VOTE_NOTIFY"],
}
LONG_LOSS_SECS = LONG_SECS - 2.0
EARLIEST_SECS = 1.0
KNOWN_SECS = 2.0
BELIEVED_SECS = 20.0
FORGIVEN_SECS = 25.0
LATE_FOR_SECS = 8.0
NOTICED_SECS = 3.5
SERVER_DEATHS = ("server killed", ENDED)
DEATHS = ("agent killed", *SERVER_DEATHS)
# What can be in the way of an order, and how long after its end, in seconds: a fresh guestAgent
# asks first what there is; a loss that outlived a guestServer waits 15 s for the guest's init;
# the VIM is tried again after 1, 2, 4 s; a guest that moves is not reported, and that guest only.
AFTERWARDS = {
    **dict.fromkeys(DEATHS, 18.0),
    "agent stopped": 2.0,
    "server stopped": 2.0,
    "cut": 3.0,
    "vim away": 5.0,
    "hosts file empty": 2.0,
    "migrate": 2.0,
}
# What a process may hold more than at its beginning: a connection to the VIM and one from it,
# and what its histories and the allocator keep.
MORE_DESCRIPTORS = 4
MORE_KIB = 12 * 1024
# What an event says, by its kind: these members of its data.
WORDS = {
    "alarm": ["state", "repair-action"],
    "service": ["status"],
    "action": ["action", "guest-response"],
}
# The guests want to be rebooted if they are lost, and an illness to be logged.
LOST_WORD, ILL_WORD = "failed reboot", "unhealthy log"


class Alarm(NamedTuple):
    """An alarm that the VIM heard, or another event of a guest."""

    at: float
    who: str
    word: str


class Verdict(NamedTuple):
    """What is wrong, a sentence each; what was not judged; how much there was of what."""

    findings: list[str]
    unjudged: int
    counts: Counter[str]


class Oracle:
    """Judges one run. `levels` is what the daemons hold at its end, `wrong` what is believed."""

    def __init__(self, site: Site, levels: dict[str, Level], wrong: list[str]) -> None:
        self._site = site
        self._ledger = site.ledger
        self._levels = levels
        self._wrong = wrong
        self._unjudged = 0
        self._now = max(line.at for line in site.ledger.story)

    def verdict(self) -> Verdict:
        """Judge it all."""
        found = [*self._wrong]
        for judge in (
            self._losses_told,
            self._illnesses_told,
            self._alarms_true,
            self._votes_answered,
            self._answers_asked,
            self._nobody_else_disabled,
            self._levels_back,
            self._nothing_broken,
        ):
            found.extend(judge())
        counts = Counter(span.kind for span in self._ledger.spans)
        counts["alarms"] = len(self._events("alarm"))
        return Verdict(found, self._unjudged, counts)

    def _events(self, kind: str) -> list[Alarm]:
        """Return what the VIM heard since the beginning."""
        return [
            Alarm(
                each.at,
                self._site.names[each.uuid],
                " ".join(each.data.get(key, "") for key in WORDS[kind]),
            )
            for each in self._site.vim.events(kind)
            if each.at >= self._ledger.began and each.uuid in self._site.names
        ]

    def _alarms(self, word: str) -> list[Alarm]:
        return [each for each in self._events("alarm") if each.word == word]

    def _is_judged(self, at: float) -> bool:
        late = self._ledger.any(("harness late",), at - LATE_FOR_SECS, at)
        self._unjudged += late
        return not late

    def _had_time(self, span: Span) -> bool:
        """Whether long enough a part of it had nothing in the way of what it should cause."""
        end = min(span.end, self._now)
        obstacles = sorted(
            (each.begin, each.end + AFTERWARDS[each.kind])
            for each in self._ledger.spans
            if each.kind in AFTERWARDS and (each.kind != "migrate" or each.who == span.who)
        )
        free_from, longest = span.begin, 0.0
        for begins, ends in (*obstacles, (end, end)):
            longest = max(longest, min(begins, end) - free_from)
            free_from = max(free_from, ends)
        return longest >= TOLD_SECS[span.kind]

    def _came(self, span: Span) -> bool:
        """Whether what it should cause came through, or was not said often enough to tell."""
        end = min(span.end, self._now)
        lost = any(
            self._site.lost_on_the_way(name, span.who, span.begin, end)
            for name in ORDERS[span.kind]
        )
        self._unjudged += lost
        return not lost

    def _losses_told(self) -> Iterator[str]:
        alarms = self._alarms(LOST_WORD)
        disabled = [each for each in self._events("service") if each.word == "disabled"]
        for loss in self._ledger.of("hang"):
            told = [each.at for each in alarms if each.who == loss.who and _of(loss, each.at)]
            lasted = min(loss.end, self._now) - loss.begin
            must = lasted >= LONG_LOSS_SECS or self._had_time(loss)
            unseen = self._ledger.any(SERVER_DEATHS, loss.begin, loss.begin + NOTICED_SECS)
            heard = told or (
                unseen and any(e.who == loss.who and _of(loss, e.at) for e in disabled)
            )
            if must and not heard and self._is_judged(loss.end) and self._came(loss):
                yield f"{loss.who} was lost for {lasted:.1f} s at {self._t(loss.begin)}: never told"
            died = self._ledger.any(("agent killed",), loss.begin, loss.end)
            if len(told) > 1 and not died and self._is_judged(told[-1]):
                yield f"{loss.who} was lost once, and told at {[*map(self._t, told)]}"

    def _illnesses_told(self) -> Iterator[str]:
        alarms = self._alarms(ILL_WORD)
        for illness in self._ledger.of("ill"):
            told = [e.at for e in alarms if e.who == illness.who and _of(illness, e.at)]
            judged = self._had_time(illness) and self._is_judged(illness.end)
            if not told and judged and self._came(illness):
                yield f"{illness.who} was ill at {self._t(illness.begin)}: never told"

    def _alarms_true(self) -> Iterator[str]:
        for at, who, word in self._events("alarm"):
            if word not in (LOST_WORD, ILL_WORD):
                yield f"{who} was told {word} at {self._t(at)}, and wants something else"
        for word, kind in ((LOST_WORD, "hang"), (ILL_WORD, "ill")):
            for at, who, _word in self._alarms(word):
                begun = [each for each in self._ledger.of(kind, who) if each.begin <= at]
                early = EARLIEST_SECS if kind == "hang" else 0.0
                if not begun or at < begun[-1].begin + early:
                    if self._is_judged(at):
                        yield f"{who} was told {word} at {self._t(at)}, and was not"
                elif self._was_known_well(who, begun[-1].end, at) and self._is_judged(at):
                    yield f"{who} was told {word} at {self._t(at)}, and was known to be well"

    def _was_known_well(self, who: str, end: float, at: float) -> bool:
        """Whether guestAgent had taken a RUNNING of that guest since its trouble had ended."""
        unsettling = (*DEATHS, "agent stopped", "server stopped")
        settled = not self._ledger.any(unsettling, at - BELIEVED_SECS, at)
        moved = any(each.meets(at - BELIEVED_SECS, at) for each in self._ledger.of("migrate", who))
        return settled and not moved and self._site.arrived("RUNNING", who, end, at - KNOWN_SECS)

    def _votes_answered(self) -> Iterator[str]:
        answers = self._events("action")
        for vote in self._ledger.of("vote"):
            told = [each.at for each in answers if self._asked(each) is vote]
            judged = self._had_time(vote) and self._is_judged(vote.end)
            if not told and judged and self._came(vote):
                yield f"{vote.who} was asked at {self._t(vote.begin)}: no {vote.about}"
            died = self._ledger.any(("agent killed",), vote.begin, vote.end)
            if len(told) > 1 and not died:
                yield f"{vote.who} answered {len(told)} times: {[*map(self._t, told)]}"

    def _answers_asked(self) -> Iterator[str]:
        for answer in self._events("action"):
            if self._asked(answer) is None:
                at, who, word = answer
                yield f"{who} answered {word} at {self._t(at)} what nobody asked then"

    def _asked(self, answer: Alarm) -> Span | None:
        """Return what it answers: of the same questions, in their windows, the newest."""
        votes = [
            vote
            for vote in self._ledger.of("vote", answer.who)
            if vote.about == answer.word and vote.meets(answer.at, answer.at)
        ]
        return max(votes, key=lambda vote: vote.begin, default=None)

    def _nobody_else_disabled(self) -> Iterator[str]:
        for at, who, word in self._events("service"):
            member = self._site.members[who]
            if word == "enabled" or member.behaviour in (*TROUBLED, "flapping", "endless"):
                continue
            if not self._ledger.any(DEATHS, at - FORGIVEN_SECS, at) and self._is_judged(at):
                yield f"{who} was told {word} at {self._t(at)}, and had no trouble"

    def _levels_back(self) -> Iterator[str]:
        began = {self._role(host): level for host, level in self._site.levels.items()}
        for host, level in self._levels.items():
            before = began[self._role(host)]
            if level.descriptors > before.descriptors + MORE_DESCRIPTORS:
                yield f"{host} holds {level.descriptors} descriptors, {before.descriptors} before"
            if level.kib > before.kib + MORE_KIB:
                yield f"{host} holds {level.kib} KiB, {before.kib} before"

    def _role(self, host: str) -> str:
        return "controller" if host.startswith("controller") else host

    def _nothing_broken(self) -> Iterator[str]:
        for span in self._ledger.of(FAILED):
            yield f"this test itself failed at {self._t(span.begin)}: {span.about}"
        for span in self._ledger.of(ENDED):
            yield f"the daemon of {span.who} ended by itself at {self._t(span.begin)}"
        for path in self._site.tracebacks():
            yield f"a traceback in {path}"
        if len(self._site.vim.unreadable):
            yield f"the VIM could not read {self._site.vim.unreadable[0]}"

    def _t(self, at: float) -> str:
        return f"{at - self._ledger.began:.2f}"


def _of(span: Span, at: float) -> bool:
    """Whether an alarm is of this trouble: told while it lasted, or what was on its way then."""
    return span.begin <= at <= span.end + KNOWN_SECS


def timeline(site: Site, findings: Sequence[str] = ()) -> str:
    """Return what happened and what the VIM heard, in order, for a person to read.

    One for each guest that `findings` begin with, with all that was in everybody's way; without
    such, one of everything.
    """
    told = {finding.split(" ", 1)[0] for finding in findings}
    guests = [name for name in site.members if name in told]
    lines = sorted([*site.ledger.story, *_heard(site)])
    if not guests:
        return _printed(lines, site.ledger.began, with_names=True)
    parts: list[str] = []
    for name in guests:
        parts.extend(finding for finding in findings if finding.split(" ", 1)[0] == name)
        its = [line for line in lines if line.who == name or line.who not in site.members]
        parts.append(_printed(its, site.ledger.began))
    return "\n".join(parts)


def _heard(site: Site) -> Iterator[Line]:
    for kind in WORDS:
        for each in site.vim.events(kind):
            said = " ".join(str(value) for value in each.data.values())
            yield Line(
                each.at, site.names.get(each.uuid, each.uuid), f"    VIM hears: {kind} {said}"
            )


def _printed(lines: Iterable[Line], began: float, *, with_names: bool = False) -> str:
    """What befalls others than the guest stands behind a bar."""
    printed = []
    for at, who, text in lines:
        other = "" if with_names or who.startswith("vm-") else "| "
        printed.append(
            f"{at - began:8.2f}  {other}{who + ' ' if with_names or other else ''}{text}"
        )
    return "\n".join(printed)
