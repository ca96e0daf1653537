"""guestctl against both daemons as processes: what it prints is what its schemas say, and `why`
tells each kind of trouble, on the worker and on the controller, after a restart of both too."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from guestmtce.ctl.commands import COMMANDS
from tests.functional.test_end_to_end import Platform
from tests.peers.journal import wait_until
from tests.schema import Schema

GUESTCTL = Path(__file__).parents[2] / "bin" / "guestctl"
COMPUTE_0 = "compute-0"
PAUSE = {"event_type": "pause", "notification_type": "revocable"}


def guestctl(root, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(GUESTCTL), "--root", str(root.path), *arguments]
    return subprocess.run(command, check=False, timeout=30, capture_output=True, text=True)


def shown(root, *arguments: str) -> Any:
    return json.loads(guestctl(root, "--json", *arguments).stdout)


class Trouble:
    """What becomes of one guest, and what is told of it on its worker and on the controller."""

    def __init__(self, act: Any, worker: list[str], controller: list[str]) -> None:
        self.act = act
        self.worker = worker
        self.controller = controller


def vote(platform: Platform, uuid: str) -> None:
    assert platform.vim.command.vote(uuid, COMPUTE_0, "pause").status == 200


def decide(word: str, reason: str) -> Any:
    def act(platform: Platform, uuid: str) -> None:
        platform.guests[uuid].votes["pause"] = (word, reason)
        vote(platform, uuid)
        platform.vim.wait_event("action", uuid)

    return act


def hang(**habits: Any) -> Any:
    def act(platform: Platform, uuid: str) -> None:
        for name, value in habits.items():
            setattr(platform.guests[uuid], name, value)
        platform.vim.wait_event("alarm", uuid)

    return act


def status(platform: Platform, uuid: str) -> str:
    """Whether the guest heartbeats, as guestAgent says."""
    answer = platform.vim.command.query_instance(uuid)
    return str(answer.body["services"][0]["status"])


def close_channel(platform: Platform, uuid: str) -> None:
    platform.guests[uuid].crash()
    wait_until(lambda: status(platform, uuid) == "disabled", 5)


def fall_ill(platform: Platform, uuid: str) -> None:
    guest = platform.guests[uuid]
    guest.log_msg, guest.corrective_action, guest.health = "fan broken", "stop", "unhealthy"
    platform.vim.wait_event("alarm", uuid, state="unhealthy")


def ask_in_vain(platform: Platform, uuid: str) -> None:
    platform.guests[uuid].auto_vote = False
    vote(platform, uuid)
    platform.guests[uuid].wait_for("action_notify", **PAUSE)


def expire(platform: Platform, uuid: str) -> None:
    ask_in_vain(platform, uuid)
    platform.vim.wait_event("action", uuid)


def supersede(platform: Platform, uuid: str) -> None:
    ask_in_vain(platform, uuid)
    assert platform.vim.command.notify(uuid, COMPUTE_0, "stop").status == 200
    platform.guests[uuid].wait_for("action_notify", event_type="stop")


def leave(platform: Platform, uuid: str) -> None:
    platform.guests[uuid].auto_init = False
    platform.guests[uuid].send("exit", log_msg="shutting down")
    wait_until(lambda: status(platform, uuid) == "disabled", 5)


def leave_while_asked(platform: Platform, uuid: str) -> None:
    ask_in_vain(platform, uuid)
    leave(platform, uuid)
    platform.vim.wait_event("action", uuid)


def ask_nobody(platform: Platform, uuid: str) -> None:
    leave(platform, uuid)
    vote(platform, uuid)


def delete_while_asked(platform: Platform, uuid: str) -> None:
    ask_in_vain(platform, uuid)
    assert platform.vim.command.delete_instance(uuid).status == 204


LOST = ["heard: LOSS", "for the VIM: alarm failed, action reboot",
        "told the VIM: alarm failed, action reboot: taken"]  # fmt: skip
ASKED = "asked: revocable pause, 2 s"
TROUBLES = {
    "no-answer": Trouble(
        hang(auto_answer=False),
        ["challenge unanswered: 1 of 2; last good answer", "LOST: no answer for",
         "2 misses; reported, action reboot",
         "guestAgent: loss held for the VIM by 127.0.0.1", "guestAgent: loss settled by 127.0.0.1"],
        LOST,
    ),
    "wrong-answer": Trouble(hang(wrong_number=True), ["LOST: wrong answers only for"], LOST),
    "late-answer": Trouble(hang(delay=0.7), ["LOST: late answers only for"], LOST),
    "channel-closed": Trouble(
        close_channel, ["channel closed", "heartbeat ended: its channel closed"], ["heard: STOPPED"]
    ),
    "ill": Trouble(
        fall_ill,
        ["ILL: fan broken, action stop", "guestAgent: illness settled by"],
        ["heard: ILLHEALTH, action stop", "told the VIM: alarm unhealthy, action stop: taken"],
    ),
    "accepted": Trouble(
        decide("accept", ""),
        [ASKED, "answered: revocable pause: accept", "guestAgent: answer settled by"],
        [ASKED, "answered: revocable pause: accept", "told the VIM: answer to pause: allow: taken"],
    ),
    "rejected": Trouble(
        decide("reject", "busy"),
        [ASKED, "answered: revocable pause: reject, busy"],
        [ASKED, "answered: revocable pause: reject, busy",
         "told the VIM: answer to pause: reject (busy): taken"],
    ),
    "expired": Trouble(
        expire,
        [ASKED, "ask ended: revocable pause: no answer in time, taken as accept"],
        [ASKED, "told the VIM: answer to pause: allow: taken"],
    ),
    "superseded": Trouble(
        supersede,
        [ASKED, "ask ended: revocable pause: superseded by irrevocable stop"],
        [ASKED, "ask ended: revocable pause: superseded by irrevocable stop"],
    ),
    "guest-gone": Trouble(
        leave_while_asked,
        [ASKED, "the guest's client exits: shutting down", "heartbeat ended: its client exits",
         "ask ended: revocable pause: no answer in time, its client is gone, taken as accept"],
        [ASKED, "heard: STOPPED", "told the VIM: answer to pause: allow: taken"],
    ),
    "no-client": Trouble(
        ask_nobody,
        ["the guest's client exits: shutting down"],
        ["ask ended: revocable pause: not heartbeating, nobody waits"],
    ),
    "deleted": Trouble(
        delete_while_asked,
        [ASKED, "ask ended: revocable pause: its instance is deleted"],
        [ASKED, "ask ended: revocable pause: its instance is deleted"],
    ),
}  # fmt: skip


class Day:
    """A platform on which each of TROUBLES has come to a guest of that name."""

    def __init__(self) -> None:
        self.platform = Platform()
        self.worker = self.platform.add_worker(COMPUTE_0)
        self.uuids = {
            name: self.platform.add_guest(
                number, name=name, vote_secs=2, corrective_action="reboot"
            )
            for number, name in enumerate(TROUBLES)
        }
        for name, trouble in TROUBLES.items():
            trouble.act(self.platform, self.uuids[name])

    def restart(self) -> None:
        """Both daemons die and start again; no guest is there any more."""
        for root in (self.worker, self.platform.root):
            for daemon in list(root.daemons):
                daemon.kill()
                root.daemons.remove(daemon)
        for guest in self.platform.guests.values():
            guest.remove()
        self.worker.start_server()
        self.platform.root.start_agent()
        wait_until(lambda: guestctl(self.platform.root, "hosts").returncode == 0, 10)


@pytest.fixture(scope="module")
def day() -> Iterator[Day]:
    made = Day()
    yield made
    made.platform.close()


def why(day: Day, name: str) -> tuple[str, str]:
    """Return the story of a guest on its worker, and on the controller."""
    worker = guestctl(day.worker, "why", name)
    controller = guestctl(day.platform.root, "why", name)
    assert (worker.returncode, controller.returncode) == (0, 0), worker.stderr + controller.stderr
    return worker.stdout, controller.stdout


def is_told(day: Day, name: str) -> bool:
    told = why(day, name)
    wanted = (TROUBLES[name].worker, TROUBLES[name].controller)
    return all(word in story for words, story in zip(wanted, told) for word in words)


# What guestctl --json prints. These come first: they want both daemons with all that they know.


@pytest.mark.parametrize("command", sorted(set(COMMANDS) - {"watch", "why", "try-guest", "events"}))
def test_json_is_what_its_schema_says(day: Day, command: str) -> None:
    for root in (day.worker, day.platform.root):
        for name in TROUBLES if command == "show" else (None,):
            arguments = {"show": [day.uuids.get(name or "")], "log-level": ["0"]}.get(command, [])
            value = shown(root, command, *arguments)
            assert value or command == "hosts", "only the controller knows hosts"
            assert Schema("guestctl", command).faults(value) == []


def test_events_are_what_their_schema_says(day: Day) -> None:
    for root, daemon in ((day.worker, "guestServer"), (day.platform.root, "guestAgent")):
        lines = guestctl(root, "events", "--json").stdout.splitlines()
        assert len(lines) > len(TROUBLES)
        for line in lines:
            assert Schema("guestctl", "event").faults(json.loads(line)) == []
        path = root.path / f"var/log/mtce-guest/{daemon}.events.jsonl"
        for line in path.read_text("ascii").splitlines():
            assert Schema("event").faults(json.loads(line)) == []


def spoiled(value: Any) -> Iterator[Any]:
    """Yield the value with one thing wrong each time, in any of its parts."""
    if isinstance(value, dict):
        yield {**value, "more": 1}
        for key, part in value.items():
            yield {name: each for name, each in value.items() if name != key}
            yield from ({**value, key: each} for each in spoiled(part))
    elif isinstance(value, list):
        yield from ([each, *value[1:]] for each in spoiled(value[0]) if value)
    else:
        yield {}


def test_a_schema_can_fail(day: Day) -> None:
    """A member more, a member less, or one of another type, wherever it is."""
    value = shown(day.worker, "show", day.uuids["no-answer"])
    schema = Schema("guestctl", "show")
    assert schema.faults(value) == []
    wrong = [each for each in spoiled(copy.deepcopy(value)) if not schema.faults(each)]
    assert wrong == [{}], "no daemon at all is right as well"


# The stories.


@pytest.mark.parametrize("name", TROUBLES)
def test_why(day: Day, name: str) -> None:
    wait_until(lambda: is_told(day, name), 10, str(why(day, name)))


def test_a_loss_has_its_last_messages_in_the_log(day: Day) -> None:
    log = day.worker.daemons[0].log
    told = [
        line.count("ago < challenge_response, wrong number")
        for line in log.splitlines()
        if "lost; the last messages: " in line and day.uuids["wrong-answer"] in line
    ]
    assert max(told) >= 2


@pytest.fixture(scope="module")
def day_after(day: Day) -> Day:
    """When both daemons were killed and started again."""
    for name in TROUBLES:
        wait_until(lambda name=name: is_told(day, name), 10)
    day.restart()
    return day


@pytest.mark.parametrize("name", TROUBLES)
def test_why_after_a_restart(day_after: Day, name: str) -> None:
    """By its name, though its guest says nothing any more."""
    wait_until(lambda: is_told(day_after, name), 10, str(why(day_after, name)))
    for told in why(day_after, name):
        assert told.startswith(f"{name} ({day_after.uuids[name]})")
        assert "started anew: " in told
    assert Schema("guestctl", "show").faults(shown(day_after.worker, "why", name)) == []
