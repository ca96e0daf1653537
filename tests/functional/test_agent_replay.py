"""Conformance: each recorded exchange of the old guestAgent, and where ours differs on purpose.

A difference that is not in the table fails; so does a row of the table that no recording needs.
"""

from __future__ import annotations

import json
import re
from typing import NamedTuple

import pytest

from guestmtce.core.agent.vim_messages import action_body, guest_answer
from guestmtce.core.shared.mtc_message import MtcMessage, VoteAnswer
from guestmtce.core.shared.vocabulary import Command
from tests.functional import agent_replay
from tests.functional.agent_replay import Difference, Recording, compare, play


class Intended(NamedTuple):
    """A difference on purpose: in which scenarios, of which side, what, and why."""

    scenario: str
    side: str
    text: str
    reason: str


ANY = r"agent-.*"
STATE = r'"state":"(en|dis)abled"'

INTENDED = [
    # What is asked of the VIM, and when
    Intended(ANY, "time", r"^vim GET ", "asked as soon as a host is known, not 2 s later"),
    Intended(
        r"agent-(host-state-answers|vim-.*|crash-.*|add-host-ip-none|mtc-commands|instance-moved)",
        "extra",
        r"^vim GET ",
        "asked at once, and again at each audit until there is an answer with a state; "
        "hosts that the old agent lost or crashed at are asked about too",
    ),
    Intended("agent-mtc-commands", "missing", r'"hostname":"none"', "a missing key is not a name"),
    # Host-level reporting
    Intended(ANY, "extra", r"^compute-\d MOD_HOST", "decision 2: when learned, and at READY"),
    Intended(
        r"agent-(host-state-answers|mtc-commands|vim-hang)",
        "answer",
        r'"state":"disabled"} → 404 {"status":"fail","reason":"entity not found"}',
        "404 until learned: `disabled` makes the VIM evacuate the host",
    ),
    Intended(
        r"agent-(keepalive|mtc-commands)",
        "answer",
        r'"state":"disabled"} → 200 .*"state":"enabled"}',
        "learned earlier, because it was asked at once",
    ),
    Intended("agent-rest-errors", "answer", r"→ 200 <!DOCTYPE html>", "GET / is the status page"),
    # Instances and queries
    Intended(
        r"agent-add-host(-state-disabled)?", "time", r"ADD_INST", "learned earlier, told earlier"
    ),
    Intended(
        r"agent-(add-host|query-response)",
        "time",
        r"QRY_INST",
        "audits keep to their turns from the start on, whatever is learned in between",
    ),
    Intended(
        r"agent-(add-host|vim-hang)", "extra", r"QRY_INST", "queried when learned, and in turn"
    ),
    Intended(
        "agent-add-host-ip-none",
        "extra",
        r"^compute-0 (ADD|MOD)_INST",
        "decision 17: without `ip` the hostname's address serves",
    ),
    Intended(
        r"agent-(instance-moved|loss-answers|rest-success)",
        "extra",
        r"ADD_INST 208 .*\"state\":\"enabled\"",
        "decision 17: POST of an instance already there sends ADD_INST",
    ),
    Intended(
        r"agent-(instance-moved|rest-errors)",
        "missing",
        r"(DEL|ADD)_INST 209",
        "a move to an unknown host is refused and changes nothing; the old agent deleted the "
        "instance, and added it anew with the next command",
    ),
    Intended(
        r"agent-(instance-moved|rest-errors)",
        "answer",
        r'^answers 404 .*"entity not found"} → 200 .*"services"',
        "the same: the instance is still there",
    ),
    Intended(
        "agent-rest-errors",
        "answer",
        r'^answers 200 {"status":"pass"} → 411 {"status":"fail","reason":"no buffer"}',
        "decision 36: a chunked body is answered 411",
    ),
    Intended(ANY, "missing", r'"uuid":"none"', "a missing key is not an instance called `none`"),
    Intended(
        r"agent-mtc-commands|agent-rest-errors",
        "answer",
        r'^answers (200 {"uuid":"none"|404).*→ 400 {"status":"fail","reason":"invalid data"}',
        "`none` and short UUIDs are not UUIDs: 400",
    ),
    Intended(
        "agent-mtc-commands",
        "answer",
        r'"hostname":"none".* → 404',
        "ADD_HOST without hostname adds nothing",
    ),
    Intended(
        r"agent-(mtc-commands|rest-errors)",
        "missing",
        r"^mtc MONITOR_READY",
        "asked at most once in 5 s",
    ),
    # Events
    Intended(
        r"agent-(events|vim-.*)",
        "missing",
        rf"^vim PATCH .*\"service\",\"event-data\".*{STATE},\"status\":\"enabled\"",
        "reporting is never taken from an event, which must be whole and from the instance's host",
    ),
    Intended(
        r"agent-(vim-.*)",
        "extra",
        rf"^vim PATCH .*\"service\",\"event-data\".*{STATE},\"status\":\"enabled\"",
        "the same: told with our reporting",
    ),
    Intended(
        "agent-events",
        "time",
        r"^vim PATCH .*\"status\":\"enabled\"",
        "the same: told of the one RUNNING, not of another",
    ),
    Intended(
        r"agent-(events|vim-.*|loss-answers)",
        "answer",
        rf"^answers 200 .*{STATE}.*\"enabled\"}}]}} → 200 .*{STATE}.*\"status\":\"enabled\"",
        "the same: the state that the VIM has set",
    ),
    Intended(
        "agent-events",
        "missing",
        r'"failed","repair-action":"log"',
        "decision 8: the action of an ILLHEALTH serves that alarm only",
    ),
    Intended(
        r"agent-(events|loss-answers)",
        "missing",
        r'"failed","repair-action":"reboot"',
        "decisions 27, 38: one `failed` alarm in 10 s, however often a LOSS is said",
    ),
    Intended(
        "agent-events", "time", r'"failed","repair-action":"reboot"', "the same: of another LOSS"
    ),
    Intended(
        "agent-events",
        "missing",
        r'"event-type":"action"',
        "an answer is passed on only while a vote waits for it (their bodies: see below)",
    ),
    Intended(
        r"agent-(events|loss-answers)",
        "missing",
        r"^compute-0 (MOD|ADD)_INST 20[89] ",
        "the VIM's answer to an alarm is ignored",
    ),
    Intended(
        "agent-loss-answers",
        "answer",
        r"→ 404",
        "the same: no instance is added by it",
    ),
    # Commands
    Intended("agent-rest-errors", "answer", r"→ 200 <!DOCTYPE html>", "GET / is the status page"),
    Intended(
        "agent-keepalive",
        "answer",
        r"^answers nothing → 200",
        "an error does not close the connection under the next request",
    ),
    Intended(
        "agent-rest-errors",
        "answer",
        r"→ 400 {\"status\":\"fail\",\"reason\":\"command parse error\"}",
        "not JSON, a missing key: 400",
    ),
    Intended(
        "agent-rest-errors", "answer", r'"pass"} → 400', "the body is about another UUID: 400"
    ),
    Intended(
        "agent-rest-errors", "answer", r"→ 405 ", "not supported there, with a clean 405 and Allow"
    ),
    Intended(
        "agent-rest-errors",
        "missing",
        r"MOD_HOST",
        "PUT /frob is not /disable",
    ),
    Intended(
        "agent-rest-errors",
        "answer",
        r'"state":"disabled"} → 200 .*"state":"enabled"}',
        "the same: it has not disabled the host",
    ),
    Intended(
        "agent-rest-errors",
        "time",
        r"MOD_HOST",
        "a body about another UUID is refused; the like was sent when the state was learned",
    ),
    Intended("agent-rest-errors", "answer", r"^answers 501 → 200", "HEAD is GET without its body"),
    Intended(
        "agent-rest-errors",
        "answer",
        r'^answers 403 .*→ 403 .*"unsupported http command"',
        "the reason fits",
    ),
    Intended(
        "agent-rest-errors", "answer", r"^answers 403 .*→ 200 {\"instances\"", "a new resource"
    ),
    Intended(
        "agent-rest-errors",
        "answer",
        r"^answers 200 .*→ 403",
        "a path that only contains /v1/instances/ is outside of it",
    ),
    Intended(
        "agent-rest-errors",
        "answer",
        r"^answers (200 .*|204) → 404",
        "POST /frob has not created the instance",
    ),
    Intended(
        "agent-rest-success",
        "answer",
        r'"action":"(unknown|bogus)".* → 400',
        "an unknown action is refused",
    ),
    Intended(
        "agent-rest-success", "missing", r'"event":"(unknown|bogus)"', "and not sent to a guest"
    ),
    Intended(
        "agent-rest-success",
        "answer",
        r'"action":"resize_(begin|end)","timeout":"0"} → .*"timeout":"[67]"',
        "resize has the suspend and resume timeouts",
    ),
    Intended(
        "agent-rest-success",
        "extra",
        r'NOTIFY_INST .*"event":"(unpause|resume|resize_end|live_migrate_end|cold_migrate_end)"',
        "decision 6: what has happened is told to a guest that does not heartbeat, too",
    ),
]


def explains(row: Intended, scenario: str, difference: Difference) -> bool:
    return (
        row.side == difference.side
        and re.fullmatch(row.scenario, scenario) is not None
        and re.search(row.text, f"{difference.channel} {difference.text}") is not None
    )


@pytest.fixture(scope="module")
def differences() -> dict[str, list[Difference]]:
    """Every scenario's differences: played once, looked at by each test."""
    found = {}
    for scenario in agent_replay.scenarios():
        recording = Recording(scenario)
        found[scenario] = compare(recording.outputs, play(scenario, recording))
    return found


def test_there_are_recordings():
    assert len(agent_replay.scenarios()) >= 20


@pytest.mark.parametrize("scenario", agent_replay.scenarios())
def test_replay(scenario, differences):
    unexplained = [
        difference
        for difference in differences[scenario]
        if not any(explains(row, scenario, difference) for row in INTENDED)
    ]
    assert unexplained == []


@pytest.mark.parametrize("row", INTENDED, ids=lambda row: f"{row.side}: {row.reason[:40]}")
def test_every_row_of_the_table_is_needed(row, differences):
    assert any(
        explains(row, scenario, difference)
        for scenario, found in differences.items()
        for difference in found
    )


def recorded_votes() -> list[tuple[dict, dict]]:
    """Pair each recorded VOTE_NOTIFY with the body of the event that it caused."""
    pairs: list[tuple[dict, dict]] = []
    steps = agent_replay.load("agent-events")["steps"]
    for index, step in enumerate(steps[:-1]):
        after = steps[index + 1]
        if step.get("cmd_name") == "VOTE_NOTIFY" and "PATCH" in after.get("raw", ""):
            pairs.append(
                (json.loads(step["buf"]), json.loads(after["raw"].partition("\r\n\r\n")[2]))
            )
    return pairs


def test_there_are_recorded_votes():
    assert len(recorded_votes()) >= 10


@pytest.mark.parametrize(("said", "recorded"), recorded_votes())
def test_action_events_are_as_recorded(said, recorded):
    """Differs: no empty response, no control characters, no `none` for a missing reason."""
    answer = guest_answer(VoteAnswer.of(MtcMessage(Command.VOTE_NOTIFY, members=said)))
    ours = json.loads(action_body(said["uuid"], answer))
    assert list(ours) == list(recorded)
    assert list(ours["event-data"]) == list(recorded["event-data"])
    data = recorded["event-data"]
    if not data["guest-response"]:
        data["guest-response"] = "allow"
        data["reason"] = ": ".join(filter(None, [said["vote"], data["reason"]]))
    data["reason"] = data["reason"].replace("\n", "").replace("\t", "")
    if "reason" not in said:
        data["reason"] = ""
    assert ours == recorded
