"""Compares what truly happened with what the VIM heard, and says what is wrong.

The rules of delivery leave little to judgement. An alarm or an answer must be told once its order
was taken in by a guestAgent that lives on, with a VIM that takes requests, while it is still true.
Where nothing was taken in, the sender must have tried at its times, and the network must have lost
each of these tries; the evidence has every copy of every datagram. What must not be told is an
alarm of a guest that was never so, one that the agent knew to be over, or one for the second time,
unless an agent died before it could say that the first was told. What a guest wants, and how it
votes, must be told as well; and no order is said any more once its sender could know that it is
over, nor for ever once it is told.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from tests.chaos.world import Affair, World

# The contract's times (datagrams.md): taken from the product they would always be right.
REPEATS_AFTER = (0.25, 0.5, 1.0, 2.0)
REPEAT_SECS = 5.0
QUEUED_SECS = 10.0
FINAL_AFTER = (0.0, 0.3, 1.0)
# Between the arrival of a datagram and the request that it causes: nothing takes time here but
# what waits for a turn of the loop.
SOON = 0.1
# A new agent has to learn its hosts and instances first; what it cannot judge is said again.
SETTLED_SECS = 15.0
# What a guest can make the VIM do is limited to one alarm of a kind in this time.
GAP_SECS = 10.0
# A lost guest must be known to the VIM when nothing else has gone wrong for so long.
CERTAIN_SECS = 35.0


class Finding(NamedTuple):
    """What is wrong, with which instance, and when."""

    uuid: str
    at: float
    text: str

    def __str__(self) -> str:
        return f"{self.uuid[-4:]} {self.text}"


class Kind(NamedTuple):
    """An affair of a guest that the VIM is told of: by which order, as which state."""

    order: str
    state: str
    # How many intervals a guest may take to show it.
    intervals: int


LOST = Kind("LOSS", "failed", 3)
ILL = Kind("ILLHEALTH", "unhealthy", 1)
ANSWERED = Kind("VOTE_NOTIFY", "asked", 0)
_ORDERS = ("LOSS", "ILLHEALTH", "VOTE_NOTIFY", "VOTE_INST", "NOTIFY_INST")


def findings(world: World) -> list[Finding]:
    """Return what is wrong; [] if the VIM heard the truth, all of it, and nothing else."""
    found = [
        *_affairs(world, LOST, world.truth.silences),
        *_affairs(world, ILL, world.truth.illnesses),
        *_answers(world),
        *_states(world),
        *_first_states(world),
        *_not_acknowledged(world),
        *_said_for_ever(world),
    ]
    if world.loop.errors:
        found.append(Finding("", world.now, f"{world.loop.errors} internal errors"))
    return found


def _affairs(world: World, kind: Kind, affairs: list[Affair]) -> list[Finding]:
    """Each loss (illness) is told once, or could not be; and nothing else is told as one."""
    found = []
    of_each: dict[str, list[Affair]] = {}
    for affair in affairs:
        of_each.setdefault(affair.uuid, []).append(affair)
    told: dict[int, list[float]] = {}
    for at, uuid, data in world.heard("alarm"):
        if data["services"][0]["state"] != kind.state:
            continue
        wanted = world.wanted[uuid] if kind is LOST else "log"
        action = data["services"][0]["repair-action"]
        if action != wanted and not (kind is LOST and _unheard_of(world, uuid, at)):
            found.append(Finding(uuid, at, f"was told {data} at {at:.2f}, and wants {wanted}"))
        begun = [each for each in of_each.get(uuid, []) if each.begin <= at]
        if not begun:
            found.append(Finding(uuid, at, f"was told {kind.state} at {at:.2f}, and never was"))
            continue
        told.setdefault(id(begun[-1]), []).append(at)
        known = min(world.evidence.taken("RUNNING", uuid, begun[-1].seen, at - SOON), default=None)
        if known is not None and not _known_to_another(world, kind, begun[-1], known, at):
            text = f"was told {kind.state} at {at:.2f}, and that it was well at {known:.2f}"
            found.append(Finding(uuid, at, text))
    for ordered in of_each.values():
        found += _said_when_over(world, kind, ordered)
        last_told = float("-inf")
        for affair in ordered:
            times = told.get(id(affair), [])
            if times:
                found += _told_again(world, kind, affair, times)
            else:
                found += _untold(world, kind, affair, last_told)
            last_told = max([last_told, *times])
    return found


def _unheard_of(world: World, uuid: str, at: float) -> bool:
    """Whether it was lost before the agent heard from a fresh guestServer what it wants then.

    LOSS does not say so. A loss that outlived a guestServer is another matter: that was saved.
    """
    begun = (each.begin for each in world.truth.silences if each.uuid == uuid)
    begin = max((each for each in begun if each <= at), default=at)
    died = max((death for death in world.truth.server_deaths if death <= begin), default=None)
    return died is not None and not any(world.evidence.taken("RUNNING", uuid, died, at - SOON))


def _said_when_over(world: World, kind: Kind, ordered: list[Affair]) -> Iterator[Finding]:
    """Say so if guestServer told of what it had seen to be over."""
    for affair, following in itertools.zip_longest(ordered, ordered[1:]):
        end = following.begin if following is not None else world.now
        for passage in world.evidence.said((kind.order, affair.uuid), affair.seen + SOON, end):
            text = f"{kind.order} was said at {passage.sent:.2f}, over since {affair.seen:.2f}"
            yield Finding(affair.uuid, passage.sent, text)


def _told_again(world: World, kind: Kind, affair: Affair, times: list[float]) -> list[Finding]:
    """Twice is right if an agent died that had not made known yet that it was told.

    Each answer of an ill guest that names an action is an order, told at most once in 10 s by the
    same processes.
    """
    for first, second in zip(times, times[1:]):
        done = min(
            (at for at in world.evidence.finals.get((kind.order, affair.uuid), ()) if at >= first),
            default=float("inf"),
        )
        deaths = [at for at in world.truth.agent_deaths if first <= at <= second]
        if any(death <= done or _outlived(world, kind, affair, death) for death in deaths):
            continue
        if kind is ILL and (
            _said_anew(world, affair.uuid, first, second) or _all_new(world, first, second)
        ):
            continue
        text = f"was {kind.state} once from {affair.begin:.2f}, and told at {times}"
        return [Finding(affair.uuid, second, text)]
    return []


def _known_to_another(world: World, kind: Kind, affair: Affair, known: float, told: float) -> bool:
    """Whether the agent that knew it to be over died, and a copy of the order came after it."""
    deaths = [at for at in world.truth.agent_deaths if known <= at <= told]
    return any(_outlived(world, kind, affair, death) for death in deaths)


def _outlived(world: World, kind: Kind, affair: Affair, death: float) -> bool:
    """Whether a copy of the order was under way when the agent died that had told of it."""
    said = world.evidence.said((kind.order, affair.uuid), affair.begin, death)
    return any(each.last is not None and each.last >= death for each in said)


def _said_anew(world: World, uuid: str, first: float, second: float) -> bool:
    """Whether what was told the second time is another order, said or told late enough."""
    before, after = (
        max(each.said for each in world.evidence.passages["ILLHEALTH", uuid] if each.taken_by(at))
        for at in (first, second)
    )
    return after > before and max(after - before, second - first) >= GAP_SECS - SOON


def _all_new(world: World, begin: float, end: float) -> bool:
    """Whether both daemons died in that time, so that neither remembers the first telling."""
    deaths = world.truth.agent_deaths, world.truth.server_deaths
    return all(any(begin <= at <= end for at in each) for each in deaths)


def _untold(world: World, kind: Kind, affair: Affair, last_told: float) -> list[Finding]:
    """Say why an affair had to be told, if it had to be."""
    uuid, end = affair.uuid, min(affair.end, world.now) - SOON
    shown = affair.begin + kind.intervals * world.intervals[uuid] + SOON
    if end <= shown:
        return []
    why = ""
    taken = list(world.evidence.taken(kind.order, uuid, affair.begin, end))
    for at in taken:
        when = _could_be_told(world, max(at, last_told + GAP_SECS))
        if when < end and not _died(world.truth.agent_deaths, at, when):
            why = f"{kind.order} was taken in at {at:.2f} and could be told at {when:.2f}"
            break
    if not taken and _server_knew(world, affair):
        why = _too_few_tries(world, affair, kind.order, role="server", shown=shown, end=end)
    if not why and kind is LOST and _longest_quiet(world, affair, end) > CERTAIN_SECS:
        why = f"nothing was wrong for {CERTAIN_SECS:.0f} s"
    if not why:
        return []
    text = f"was {kind.state} from {affair.begin:.2f} to {affair.end:.2f}, never told, but {why}"
    return [Finding(uuid, affair.end, text)]


def _could_be_told(world: World, at: float) -> float:
    """Return when the VIM takes requests from that time on: at once, or once it is tried again."""
    for down in sorted(world.truth.vim_down, key=lambda each: each.begin):
        if down.begin - SOON <= at < down.tried_again:
            at = down.tried_again
    return at


def _died(deaths: Iterable[float], begin: float, end: float) -> bool:
    """Whether a process that had to be settled died, or was new, in that time."""
    return any(begin - SETTLED_SECS <= at <= end + SOON for at in deaths)


def _server_knew(world: World, affair: Affair) -> bool:
    """Whether one guestServer lived all the time, and knew before that it had to report."""
    deaths = [at for at in world.truth.server_deaths if at <= affair.end]
    if not deaths:
        return True
    told = (
        at
        for name in ("ADD_INST", "MOD_INST")
        for at in world.evidence.taken(name, affair.uuid, 0.0, affair.begin)
    )
    return any(at > deaths[-1] for at in told)


def _too_few_tries(
    world: World, affair: Affair, name: str, *, role: str, shown: float, end: float
) -> str:
    """Say so if a process did not say an order by `shown`, or not as often as it has to."""
    if not world.all_new:
        return ""  # an old daemon tries once
    order = name, affair.uuid
    said = world.evidence.said(order, affair.begin, end)
    first = min((each.sent for each in said), default=None)
    if first is None:
        return f"{name} was not said" if shown < end else ""
    wanted = 0
    while first + _repeat_after(wanted) + SOON < end:
        wanted += 1
    tries = world.evidence.tries(order, role, first, end) - 1
    return "" if tries >= wanted else f"{name} was repeated {tries} times, not {wanted}"


def _repeat_after(times: int) -> float:
    """Return how long after the first saying the next is due, `times` repeats being done."""
    late = times + 1 - len(REPEATS_AFTER)
    return REPEATS_AFTER[times] if late <= 0 else REPEATS_AFTER[-1] + REPEAT_SECS * late


def _longest_quiet(world: World, affair: Affair, end: float) -> float:
    """Return for how long nothing was in the way of a loss that a guestServer had seen."""
    truth = world.truth
    said = world.evidence.said(("LOSS", affair.uuid), affair.begin, end)
    free_from, longest = min((each.sent for each in said), default=end), 0.0
    obstacles = [(at, at) for at in (*truth.agent_deaths, *truth.server_deaths, end)]
    obstacles += [(cut.begin, cut.end) for cut in truth.cuts]
    obstacles += [(down.begin, down.tried_again) for down in truth.vim_down]
    for begins, ends in sorted(obstacles):
        longest = max(longest, min(begins, end) - free_from)
        free_from = max(free_from, ends)
    return longest


# How the VIM is told a guest's vote.
_RESPONSES = {"accept": "allow", "reject": "reject"}


def _answers(world: World) -> list[Finding]:
    """A vote is answered once in its window, unless the network lost each try."""
    found = []
    told: dict[int, list[float]] = {}
    asked: dict[str, list[Affair]] = {}
    for question in world.truth.questions:
        asked.setdefault(question.uuid, []).append(question)
    for at, uuid, data in world.heard("action"):
        response = _RESPONSES[world.votes[uuid]]
        if data["guest-response"] != response:
            text = f"answered {data['guest-response']} at {at:.2f}, and says {response}"
            found.append(Finding(uuid, at, text))
        begun = [each for each in asked.get(uuid, []) if each.begin <= at <= each.end]
        if begun:
            told.setdefault(id(begun[-1]), []).append(at)
        else:
            found.append(Finding(uuid, at, f"answered at {at:.2f} what nobody asked, or too late"))
    for question in world.truth.questions:
        times = told.get(id(question), [])
        if times:
            found += _told_again(world, ANSWERED, question, times)
        else:
            why = _had_to_answer(world, question)
            if why:
                text = f"was asked at {question.begin:.2f} and did not answer, but {why}"
                found.append(Finding(question.uuid, question.end, text))
    return found


def _had_to_answer(world: World, question: Affair) -> str:
    """Say why an answer had to be told; "" if it had not."""
    uuid, begin, end = question.uuid, question.begin, min(question.end, world.now) - SOON
    truth, evidence = world.truth, world.evidence
    if _died(truth.server_deaths, begin, end) or _died(truth.agent_deaths, begin, end):
        return ""
    asked = min(evidence.taken("VOTE_INST", uuid, begin, end), default=None)
    if asked is None:
        return _too_few_tries(world, question, "VOTE_INST", role="agent", shown=begin, end=end)
    answered = min(evidence.taken("VOTE_NOTIFY", uuid, begin, end), default=None)
    if answered is None:
        return _too_few_tries(world, question, "VOTE_NOTIFY", role="server", shown=asked, end=end)
    when = _could_be_told(world, answered)
    if when < end:
        return f"VOTE_NOTIFY was taken in at {answered:.2f} and could be told at {when:.2f}"
    return ""


def _states(world: World) -> list[Finding]:
    """No guest is told disabled that is well, and at the end the VIM believes what is true."""
    found = []
    for at, uuid, data in world.heard("service"):
        if data["services"][0]["status"] == "enabled":
            found += _enabled_too_late(world, at, uuid)
            continue
        if any(at - CERTAIN_SECS <= death <= at for death in world.truth.server_deaths):
            continue  # it has begun anew, and so has the guest's heartbeat
        begun = [each for each in world.truth.silences if each.uuid == uuid and each.begin <= at]
        if not begun:
            found.append(Finding(uuid, at, f"was told disabled at {at:.2f}, and was well"))
        elif any(world.evidence.taken("RUNNING", uuid, begun[-1].seen, at - SOON)):
            found.append(Finding(uuid, at, f"was told disabled at {at:.2f}, and was well again"))
    for uuid, told in world.vim_believes().items():
        truth = "disabled" if world.guests[uuid].hung else "enabled"
        if told != truth:
            text = f"is {truth} at the end, and the VIM believes otherwise"
            found.append(Finding(uuid, world.now, text))
    return found


def _enabled_too_late(world: World, at: float, uuid: str) -> Iterator[Finding]:
    """Say so if the agent that told a guest enabled had heard since that it stopped."""
    if not world.all_new:
        return
    lived = max((death for death in world.truth.agent_deaths if death <= at), default=0.0)
    for silence in world.truth.silences:
        if silence.uuid == uuid and silence.begin <= at < silence.seen:
            taken = world.evidence.taken("STOPPED", uuid, silence.begin, at - SOON)
            known = min((each for each in taken if each >= lived), default=None)
            if known is not None:
                text = f"was told enabled at {at:.2f}, and that it stopped at {known:.2f}"
                yield Finding(uuid, at, text)


def _first_states(world: World) -> Iterator[Finding]:
    """The VIM may believe what an earlier agent told it: each tells it all (decision 25)."""
    died = max(world.truth.agent_deaths, default=float("inf"))
    if not world.vim_is_up_since(died + CERTAIN_SECS):
        return
    told = {uuid for at, uuid, _data in world.heard("service") if at >= died}
    for uuid in sorted(world.guests.keys() - told):
        yield Finding(uuid, world.now, f"has a new guestAgent since {died:.2f}: not told how it is")


def _not_acknowledged(world: World) -> Iterator[Finding]:
    """What the VIM was told is acknowledged for good, three times in a second."""
    if not world.all_new:
        return
    for kind, orders in (("alarm", (LOST.order, ILL.order)), ("action", (ANSWERED.order,))):
        for at, uuid, _data in world.heard(kind):
            end = at + FINAL_AFTER[-1] + SOON
            if end > world.now or any(at <= death <= end for death in world.truth.agent_deaths):
                continue
            said = [each for order in orders for each in world.evidence.finals_said[order, uuid]]
            times = sum(at - SOON <= each <= end for each in said)
            if times < len(FINAL_AFTER):
                yield Finding(uuid, at, f"{kind} of {at:.2f}: acknowledged {times} times")


def _said_for_ever(world: World) -> Iterator[Finding]:
    """What was told, or void, is not said any more: its sender has heard so."""
    since = world.now - CERTAIN_SECS
    deaths = [*world.truth.agent_deaths, *world.truth.server_deaths]
    if not world.all_new or not world.vim_is_up_since(since) or max(deaths, default=0.0) > since:
        return
    if any(cut.end > since for cut in world.truth.cuts):
        return
    for (name, uuid), passages in world.evidence.passages.items():
        last = max(passages, key=lambda each: each.sent)
        if name in _ORDERS and last.said < since and last.sent > world.now - QUEUED_SECS:
            yield Finding(uuid, world.now, f"{name} of {last.said:.2f} is said without end")


# How long before a finding its timeline begins, in seconds.
BEFORE = 90.0


def timeline(world: World, found: Iterable[Finding]) -> str:
    """Return what happened to the instances of these findings, and to all, for a person to read.

    With it stands what the VIM heard, and what became of each datagram about them.
    """
    lines: list[tuple[float, str]] = []
    for finding in found:
        window = range(int(finding.at - BEFORE), int(finding.at) + 5)
        tail = finding.uuid[-4:]
        lines += [
            (at, text)
            for at, text in world.truth.story
            if int(at) in window and (text[:4] == tail or not text[:4].isdigit())
        ]
        lines += [each for each in _heard(world, finding.uuid) if int(each[0]) in window]
        for (name, uuid), passages in world.evidence.passages.items():
            if uuid and uuid == finding.uuid:
                lines += [
                    (each.sent, f"    {tail} {name} {_fate(each.taken)}")
                    for each in passages
                    if int(each.sent) in window
                ]
    return "\n".join(f"{at:8.2f}  {text}" for at, text in sorted(set(lines)))


def _fate(taken: float | None) -> str:
    return "lost or not believed" if taken is None else f"taken in at {taken:.2f}"


def _heard(world: World, uuid: str) -> list[tuple[float, str]]:
    lines = []
    for kind in ("alarm", "action", "service"):
        for at, whose, data in world.heard(kind):
            if whose == uuid:
                what = data["services"][0] if "services" in data else data
                said = what.get("state", "") if kind == "alarm" else what.get("status", "")
                lines.append((at, f"        VIM hears: {uuid[-4:]} {kind} {said}"))
    return lines
