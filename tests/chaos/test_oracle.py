"""The oracle of the simulated chaos: each kind of untruth is found, and named."""

from __future__ import annotations

import contextlib

import pytest

from tests.chaos.evidence import Evidence, Passage
from tests.chaos.oracle import CERTAIN_SECS, findings, timeline
from tests.chaos.world import World
from tests.peers import wire
from tests.unit.agent_rig import Seen


@pytest.fixture(scope="module")
def true():
    """A guest is lost, one is ill, one is asked, one is well: and the VIM hears so."""
    with contextlib.closing(World(1, 4)) as made:
        made.start()
        lost, ill, asked, _well = made.uuids
        made.hang(lost, 12.0)
        made.fall_ill(ill, 5.0)
        made.ask(asked)
        made.advance(40.0)
        yield made


@pytest.fixture
def heard(true):
    """What the VIM has heard, for the test to change."""
    requests = true.rig.vim.requests
    before = list(requests)
    yield requests
    requests[:] = before


def about(heard, kind, uuid):
    """The events of a kind about an instance."""
    return [
        seen
        for seen in heard
        if seen.what.method == "PATCH"
        and (seen.what.members["event-type"], seen.what.members["uuid"]) == (kind, uuid)
    ]


def texts(world):
    return [str(finding) for finding in findings(world)]


def test_a_late_answer_of_a_life_that_was_given_up_is_not_believed():
    """The daemon does not believe it, so the evidence must not: or all that follows seems lost."""
    evidence = Evidence()

    def arrives(epoch: int, at: float, **more: int) -> bool:
        members = {"epoch": epoch, **more}
        name = "LOOPBACK" if "of" in more else "MOD_INST"
        datagram = wire.unpack(wire.pack(name, {"source": "x", "uuid": "u", **members}))
        passage = evidence.sent(datagram, "server", at)
        evidence.arrived(datagram, "server", passage, at)
        return passage.taken is not None

    probe = wire.unpack(wire.pack("LOOPBACK", {"hostname": "x", "epoch": 7, "seq": 0}))
    evidence.sent(probe, "agent", 0.0)
    for epoch in (1, 2):
        arrives(epoch, 1.0, of=7, ack=0)
        assert arrives(epoch, 2.0, seq=1)
    arrives(1, 3.0, of=7, ack=0)
    assert arrives(2, 4.0, seq=2), "the first life was given up for this one"
    arrives(1, 10.0, of=7, ack=0)
    assert arrives(1, 10.0, seq=2), "and this one is silent"


def test_the_truth_is_no_finding(true, heard):
    assert texts(true) == []


@pytest.mark.parametrize(
    ("guest", "kind", "text"),
    [
        (0, "alarm", "never told, but LOSS was taken in"),
        (1, "alarm", "never told, but ILLHEALTH was taken in"),
        (2, "action", "did not answer, but VOTE_NOTIFY was taken in"),
    ],
)
def test_what_is_not_told(true, heard, guest, kind, text):
    for seen in about(heard, kind, true.uuids[guest]):
        heard.remove(seen)
    (found,) = texts(true)
    assert text in found


@pytest.mark.parametrize(("guest", "kind"), [(0, "alarm"), (1, "alarm"), (2, "action")])
def test_what_is_told_twice(true, heard, guest, kind):
    seen = about(heard, kind, true.uuids[guest])[0]
    heard.append(Seen(seen.at + 1.0, seen.what))
    twice, unacknowledged = texts(true)
    assert "and told at" in twice
    assert "acknowledged 1 times" in unacknowledged


def test_an_alarm_of_a_guest_that_is_well_again(true, heard):
    seen = about(heard, "alarm", true.uuids[0])[0]
    heard[heard.index(seen)] = Seen(true.now - 1.0, seen.what)
    (found,) = texts(true)
    assert "and that it was well at" in found


def test_what_never_was(true, heard):
    alarm = about(heard, "alarm", true.uuids[0])[0]
    disabled = about(heard, "service", true.uuids[0])[0]
    well = true.uuids[3].encode()
    for seen in (alarm, disabled):
        body = seen.what.body.replace(true.uuids[0].encode(), well)
        heard.append(Seen(seen.at, seen.what._replace(body=body)))
    never, was_well, at_the_end, unacknowledged = texts(true)
    assert "and never was" in never
    assert "acknowledged 0 times" in unacknowledged
    assert "and was well" in was_well
    assert "at the end" in at_the_end


def test_an_answer_that_comes_too_late(true, heard):
    seen = about(heard, "action", true.uuids[2])[0]
    heard[heard.index(seen)] = Seen(true.now, seen.what)
    found = texts(true)
    assert any("what nobody asked, or too late" in text for text in found)


@pytest.mark.parametrize(
    ("guest", "words", "text"),
    [
        (0, ("alarm", b'"reboot"', b'"log"'), "and wants reboot"),
        (1, ("alarm", b'"log"', b'"reboot"'), "and wants log"),
        (2, ("action", b'"allow"', b'"reject"'), "answered reject at"),
    ],
)
def test_what_is_told_wrongly(true, heard, guest, words, text):
    kind, right, wrong = words
    seen = about(heard, kind, true.uuids[guest])[0]
    body = seen.what.body.replace(right, wrong)
    heard[heard.index(seen)] = Seen(seen.at, seen.what._replace(body=body))
    (found,) = texts(true)
    assert text in found


@pytest.fixture
def say(true):
    """Say something (again), a second before the end."""
    passages = true.evidence.passages

    def said(name, uuid, first):
        passages[name, uuid].append(Passage(true.now - 1.0, first))
        said.keys.append((name, uuid))

    said.keys = []
    yield said
    for key in said.keys:
        passages[key].pop()


@pytest.mark.parametrize(("guest", "name"), [(0, "LOSS"), (1, "ILLHEALTH")])
def test_what_is_said_though_it_is_over(true, say, guest, name):
    say(name, true.uuids[guest], true.now - 1.0)
    (found,) = texts(true)
    assert f"{name} was said at" in found


def test_a_guest_that_was_told_enabled_by_who_knew_better(true, heard):
    enabled, disabled = (
        next(seen for seen in about(heard, "service", true.uuids[0]) if status in seen.what.body)
        for status in (b'"status":"enabled"', b'"status":"disabled"')
    )
    late = Seen(disabled.at + 1.0, enabled.what)
    heard.insert(heard.index(disabled) + 1, late)
    (found,) = texts(true)
    assert f"was told enabled at {late.at:.2f}, and that it stopped" in found


def test_what_is_said_without_end(true, say):
    say("VOTE_NOTIFY", true.uuids[2], 21.0)
    (found,) = texts(true)
    assert found.endswith("VOTE_NOTIFY of 21.00 is said without end")


def test_a_new_agent_that_does_not_tell_how_the_guests_are(true, heard):
    """It told of the one that was lost after it had come."""
    true.truth.agent_deaths.append(true.now - CERTAIN_SECS)
    try:
        found = texts(true)
    finally:
        true.truth.agent_deaths.clear()
    assert [text[:4] for text in found] == [uuid[-4:] for uuid in true.uuids[1:]]
    assert all("not told how it is" in text for text in found)


def test_a_sender_that_does_not_try(true, heard):
    """A loss that no datagram tells of is as bad as one that was taken in."""
    lost = true.uuids[0]
    passages = true.evidence.passages
    kept = passages.pop(("LOSS", lost))
    for seen in about(heard, "alarm", lost):
        heard.remove(seen)
    try:
        (found,) = texts(true)
    finally:
        passages["LOSS", lost] = kept
    assert "LOSS was not said" in found


def test_a_timeline_is_about_the_guest_of_the_finding(true, heard):
    for seen in about(heard, "alarm", true.uuids[0]):
        heard.remove(seen)
    lines = timeline(true, findings(true)).splitlines()
    assert any("0000 hangs" in line for line in lines)
    assert any("0000 LOSS taken in" in line for line in lines)
    assert not any("0001" in line for line in lines)


@contextlib.contextmanager
def told_by_a_new_agent(true, heard, order, first, death, *, outlives):
    """An alarm is told again 1 s after an agent's death; a copy of its order outlives that, or not.

    Yields the findings.
    """
    again = Seen(death + 1.0, first.what)
    heard.insert(heard.index(first) + 1, again)
    passage = true.evidence.passages[order, first.what.members["uuid"]][0]
    before, passage.last = passage.last, again.at if outlives else passage.last
    true.truth.agent_deaths.append(death)
    try:
        yield texts(true)
    finally:
        true.truth.agent_deaths.clear()
        passage.last = before


@pytest.mark.parametrize("outlives", [True, False])
def test_an_illness_told_when_it_was_over_by_a_new_agent(true, heard, outlives, monkeypatch):
    """It may: the one that knew is dead, and a copy of the order was under way all the time."""
    ill = true.uuids[1]
    first = about(heard, "alarm", ill)[0]
    known = true.truth.illnesses[0].seen + 1.0
    running = Passage(known, known, known, known)
    monkeypatch.setitem(true.evidence.passages, ("RUNNING", ill), [running])
    death = known + 1.0
    with told_by_a_new_agent(true, heard, "ILLHEALTH", first, death, outlives=outlives) as found:
        wrong = [text for text in found if "and that it was well" in text]
    assert len(wrong) == (not outlives)


@pytest.mark.parametrize("outlives", [True, False])
def test_a_loss_told_again_by_a_new_agent(true, heard, outlives):
    """It may, if a copy of the LOSS was under way when the agent died that had told of it."""
    lost = true.uuids[0]
    first = about(heard, "alarm", lost)[0]
    death = first.at + 1.0
    assert min(true.evidence.finals["LOSS", lost]) < death, "it was settled"
    with told_by_a_new_agent(true, heard, "LOSS", first, death, outlives=outlives) as found:
        told_twice = [text for text in found if "was failed once" in text]
    assert len(told_twice) == (not outlives)
