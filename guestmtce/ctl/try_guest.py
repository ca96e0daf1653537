"""`guestctl try-guest`: plays a host against any guest client, and says what it does right.

Each row is a rule of docs/protocol.md that a client has to keep. What the daemons understand all
the same, since clients in the field do it, is `tolerated`. What is said is read by the daemons'
own code, so a client that passes here is understood there.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TypeVar

from guestmtce.core.server.guest_protocol import (
    ActionResponse,
    ChallengeResponse,
    Exit,
    GuestMessage,
    Init,
    Writer,
)
from guestmtce.core.shared.vocabulary import CorrectiveAction, Event, Notification, VoteResult
from guestmtce.ctl.guest_link import Link, LinkError
from guestmtce.ctl.guest_wire import NOT_TRIED, RIGHT, TOLERATED, WRONG, RuleFinding, Wire
from guestmtce.ctl.table import Style, cell

_FIRST_INIT_SECS = 15.0
_INIT_AGAIN_SECS = 8.0
_ACKNOWLEDGED_SECS = 6.0
_LEAST_PATIENCE_SECS = 5.0
_PATIENCE_SLACK_SECS = 5.0
_LEAST_INTERVAL_SECS = 0.4
_NOTIFY_MS = 4000
_EXIT_SECS = 5.0
_LARGEST = 2**31 - 1

M = TypeVar("M", bound=GuestMessage)


class BrokenError(Exception):
    """The client broke the rule of the row; the text says how."""


class ToleratedError(Exception):
    """It broke it in a way that the daemons understand all the same."""


class ImpossibleError(Exception):
    """The row cannot be tried over this channel."""


class Guest:
    """The client, as the rows use it: messages in and out, under timeouts."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.wire = Wire()
        self.writer = Writer()
        self.init: Init | None = None
        self._waiting: deque[GuestMessage] = deque()
        self._number = 0

    @property
    def interval(self) -> float:
        """Seconds that an answer may take."""
        wanted = self.init.terms.interval_ms / 1000 if self.init else 0.0
        return max(_LEAST_INTERVAL_SECS, wanted)

    def next(self, timeout: float) -> GuestMessage | None:
        """Return the next message, or None if none comes in time."""
        until = time.monotonic() + timeout
        while not self._waiting:
            left = until - time.monotonic()
            if left <= 0:
                return None
            self._waiting += self.wire.feed(self.link.receive(left))
        return self._waiting.popleft()

    def expect(self, kind: type[M], timeout: float) -> M:
        """Return the next message, which must be of that kind."""
        found = self.next(timeout)
        if found is None:
            raise BrokenError(f"no {_name(kind)} in {timeout:g} s")
        if not isinstance(found, kind):
            raise BrokenError(f"{_name(type(found))} in place of {_name(kind)}")
        return found

    def acknowledge(self, init: Init) -> None:
        """Answer an init."""
        self.init = init
        self.writer.invocation_id = init.invocation_id
        self.link.send(self.writer.init_ack())

    def challenge(self, number: int | None = None) -> ChallengeResponse:
        """Challenge the client; it must answer with the same number, within the interval."""
        self._number += 1
        wanted = self._number if number is None else number
        self.link.send(self.writer.challenge(wanted))
        return self.answer(wanted)

    def answer(self, number: int) -> ChallengeResponse:
        """Return the answer to a challenge that was sent."""
        response = self.expect(ChallengeResponse, self.interval)
        if response.number != number:
            raise BrokenError(f"{response.number} is no answer to {number}")
        return response

    def ask(self, event: Event, kind: Notification) -> ActionResponse:
        """Ask for a vote, or notify; return the answer to it."""
        self.link.send(self.writer.action_notify(event, kind, _NOTIFY_MS))
        response = self.expect(ActionResponse, _NOTIFY_MS / 1000)
        self.check(response, event, kind)
        return response

    def check(self, response: ActionResponse, event: Event, kind: Notification) -> None:
        """Raise BrokenError unless it is an answer to that question."""
        asked = (self.writer.invocation_id, event, kind)
        if (response.invocation_id, response.event, response.notification) != asked:
            raise BrokenError(f"it is for {response.event}, {response.notification}")
        if response.vote is None:
            raise BrokenError("its vote is no word of the protocol")


def _name(kind: type) -> str:
    return {Init: "init", ChallengeResponse: "challenge_response", Exit: "exit"}.get(
        kind, "action_response"
    )


def _first_init(guest: Guest) -> str:
    init = guest.init = guest.expect(Init, _FIRST_INIT_SECS)
    return f"{init.terms.name!r} asks for a challenge each {init.terms.interval_ms} ms"


def _init_again(guest: Guest) -> str:
    first, again = guest.init, guest.expect(Init, _INIT_AGAIN_SECS)
    guest.acknowledge(again)
    if first is not None and again.terms != first.terms:
        raise BrokenError("with other terms")
    if first is not None and again.invocation_id != first.invocation_id:
        raise ToleratedError("with another invocation_id")
    return ""


def _acknowledged(guest: Guest) -> str:
    until = time.monotonic() + _ACKNOWLEDGED_SECS
    while time.monotonic() < until:
        guest.challenge()
        found = guest.next(min(1.0, guest.interval))
        if found is not None:
            raise BrokenError(f"{_name(type(found))} unasked")
    return ""


def _challenge(guest: Guest) -> str:
    began = time.monotonic()
    response = guest.challenge()
    return f"{response.health} after {(time.monotonic() - began) * 1000:.0f} ms"


def _numbers(guest: Guest) -> str:
    for number in (0, _LARGEST):
        guest.challenge(number)
    return ""


def _pieces(guest: Guest) -> str:
    for byte in guest.writer.challenge(4711):
        guest.link.send(bytes([byte]))
        time.sleep(0.001)
    guest.answer(4711)
    return ""


def _two_at_once(guest: Guest) -> str:
    guest.link.send(guest.writer.challenge(1) + guest.writer.challenge(2))
    for number in (1, 2):
        guest.answer(number)
    return ""


def _newer(guest: Guest) -> str:
    line = guest.writer.challenge(815).replace(b'"version":3', b'"version":4,"later":[{}]')
    guest.link.send(b"\n\n" + line)
    guest.answer(815)
    return ""


def _rubbish(guest: Guest) -> str:
    overlong = b'\n{"version":3,"log_msg":"' + b"x" * 5000 + b'"}\n'
    guest.link.send(b"\n\xff\x00{]\n" + b"\n{}\n\n[]\n\n7\n" + overlong)
    guest.link.send(guest.writer.nack("failed to parse heartbeat_health"))
    guest.challenge()
    return ""


def _healthy_names_nothing(guest: Guest) -> str:
    response = guest.challenge()
    if response.health.value != "healthy":
        raise ImpossibleError(f"it is {response.health}: {response.log_msg}")
    if response.corrective_action is not CorrectiveAction.NONE:
        raise ToleratedError(f"it names {response.corrective_action}")
    return ""


def _vote(guest: Guest) -> str:
    response = guest.ask(Event.PAUSE, Notification.REVOCABLE)
    said = f"{response.vote} {response.log_msg!r}" if response.log_msg else str(response.vote)
    if response.vote not in (VoteResult.ACCEPT, VoteResult.REJECT):
        raise ToleratedError(f"{said} counts as consent")
    return said


def _notification(guest: Guest) -> str:
    response = guest.ask(Event.UNPAUSE, Notification.IRREVOCABLE)
    if response.vote is not VoteResult.COMPLETE:
        raise ToleratedError(f"{response.vote} is taken for the same")
    return ""


def _challenge_beside_a_vote(guest: Guest) -> str:
    guest.link.send(guest.writer.action_notify(Event.STOP, Notification.REVOCABLE, _NOTIFY_MS))
    guest.link.send(guest.writer.challenge(99))
    until = time.monotonic() + guest.interval
    left = {ActionResponse, ChallengeResponse}
    while ChallengeResponse in left:
        found = guest.next(until - time.monotonic())
        if found is None:
            raise BrokenError(f"no challenge_response in {guest.interval:g} s")
        left.discard(type(found))
    if ActionResponse in left:
        guest.expect(ActionResponse, _NOTIFY_MS / 1000)
    return ""


def _superseded(guest: Guest) -> str:
    events = (Event.PAUSE, Event.STOP)
    for event in events:
        guest.link.send(guest.writer.action_notify(event, Notification.REVOCABLE, _NOTIFY_MS))
    answers: list[tuple[float, ActionResponse]] = []
    began = time.monotonic()
    until = began + _NOTIFY_MS / 1000
    while time.monotonic() < until:
        found = guest.next(until - time.monotonic())
        if isinstance(found, ActionResponse):
            answers.append((time.monotonic() - began, found))
    last = [answer for _, answer in answers if answer.event is Event.STOP]
    late = [answer for when, answer in answers if answer.event is not Event.STOP and when > 1]
    if not last:
        raise BrokenError("no answer to the second one")
    if len(last) > 1 or late:
        raise ToleratedError("another answer came, for the superseded one")
    return ""


def _silence(guest: Guest) -> str:
    patience = max(_LEAST_PATIENCE_SECS, 2 * guest.interval)
    guest.challenge()
    began = time.monotonic()
    init = guest.expect(Init, patience + _PATIENCE_SLACK_SECS)
    took = time.monotonic() - began
    guest.acknowledge(init)
    guest.challenge()
    if took < patience / 2:
        raise ToleratedError(f"after {took:.1f} s already")
    return f"after {took:.1f} s"


def _hang_up(guest: Guest) -> str:
    if not guest.link.can_hang_up:
        raise ImpossibleError("needs a socket")
    guest.link.close()
    time.sleep(0.3)
    guest.link.open()
    guest.wire.begin()
    guest.acknowledge(guest.expect(Init, _FIRST_INIT_SECS))
    guest.challenge()
    return ""


def _exit(guest: Guest) -> str:
    if guest.link.pid is None:
        raise ImpossibleError("needs a client that was started here")
    guest.link.terminate()
    return repr(guest.expect(Exit, _EXIT_SECS).log_msg)


ROWS: tuple[tuple[str, Callable[[Guest], str]], ...] = (
    ("says init by itself", _first_init),
    ("repeats its init until it is acknowledged", _init_again),
    ("once acknowledged, says nothing unasked", _acknowledged),
    ("answers a challenge with its number, within the interval", _challenge),
    ("answers the numbers 0 and 2147483647", _numbers),
    ("reads a message however its bytes are cut", _pieces),
    ("answers two challenges of one write, in order", _two_at_once),
    ("passes over empty lines, unknown keys and a newer version", _newer),
    ("survives rubbish, an endless line and a nack", _rubbish),
    ("names no action while it is healthy", _healthy_names_nothing),
    ("answers a vote once, with its id, event and type", _vote),
    ("answers a notification with complete", _notification),
    ("answers a challenge at once while a vote is open", _challenge_beside_a_vote),
    ("answers only the newer of two votes", _superseded),
    ("starts over with init when challenges stop", _silence),
    ("starts over with init when the host comes back", _hang_up),
    ("says exit before it ends on purpose", _exit),
)


def findings(link: Link) -> Iterator[RuleFinding]:
    """Go through the rows with the client at the other end of `link`, which is opened here.

    Ends early if the client is gone; that is a finding, too.
    """
    guest = Guest(link)
    try:
        link.open()
        for rule, play in ROWS:
            try:
                yield RuleFinding(rule, RIGHT, play(guest))
            except BrokenError as error:
                yield RuleFinding(rule, WRONG, str(error))
            except ToleratedError as error:
                yield RuleFinding(rule, TOLERATED, str(error))
            except ImpossibleError as error:
                yield RuleFinding(rule, NOT_TRIED, str(error))
    except LinkError as error:
        yield RuleFinding("stays at the other end", WRONG, str(error))
    yield from guest.wire.findings()


def line(finding: RuleFinding, style: Style) -> str:
    """Return a finding as one line of text, safe for a terminal."""
    colour = {RIGHT: "healthy", WRONG: "down"}.get(finding.mark, "degraded")
    mark = style.mark(colour, f"{finding.mark:<10}")
    return f"{mark} {cell(finding.rule)}" + (f": {cell(finding.note)}" if finding.note else "")
