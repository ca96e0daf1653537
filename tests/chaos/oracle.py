"""Compares what truly happened with what the VIM heard, and says what is wrong."""

from __future__ import annotations

from tests.chaos.world import INTERVAL, Silence, World

# A guest is lost by its second miss in a row, after the interval that was running.
LOST_AFTER = 3 * INTERVAL + 0.5
# A loss that lasted so long must have been told, whatever the network did.
TOLD_AFTER = 35.0
# How long after its end a loss may still be told: what was on its way to the VIM.
LATE = 1.0
# How long the agent may take to tell the VIM what arrived.
SOON = 0.5


def findings(world: World, *, told_after: float = TOLD_AFTER) -> list[str]:
    """Return what is wrong, one sentence each; [] if the VIM heard the truth."""
    found = [
        *_losses(world, told_after),
        *_false_alarms(world),
        *_answers(world),
        *_final_states(world),
    ]
    if world.loop.errors:
        found.append(f"{world.loop.errors} internal errors")
    return found


def _alarms(world: World, state: str) -> list[tuple[float, str]]:
    return [
        (at, uuid)
        for at, uuid, data in world.heard("alarm")
        if data["services"][0]["state"] == state
    ]


def _losses(world: World, told_after: float) -> list[str]:
    """Every loss that lasted is told, and once unless an agent died meanwhile.

    One that was over before any datagram of it came through was void.
    """
    found = []
    alarms = _alarms(world, "failed")
    for silence in world.truth.silences:
        told = [at for at, uuid in alarms if uuid == silence.uuid and _within(at, silence)]
        lasted = min(silence.end, world.now) - silence.begin
        heard = world.arrived("LOSS", silence.uuid, silence.begin, silence.end - SOON)
        if not told and lasted >= told_after and (heard or lasted >= TOLD_AFTER):
            found.append(f"{_name(silence)} was lost for {lasted:.1f} s, and it was never told")
        died = any(_within(at, silence) for at in world.truth.agent_deaths)
        if len(told) > 1 and not died:
            found.append(f"{_name(silence)} was lost once and told {len(told)} times: {told}")
    return found


def _within(at: float, silence: Silence) -> bool:
    return silence.begin <= at <= silence.end + LATE


def _false_alarms(world: World) -> list[str]:
    """No alarm of a guest that was not lost, or ill; none after the agent could know it well."""
    found = []
    for state, truths in (
        ("failed", world.truth.silences),
        ("unhealthy", world.truth.illnesses),
    ):
        for at, uuid in _alarms(world, state):
            begun = [each for each in truths if each.uuid == uuid and each.begin <= at]
            if not begun:
                found.append(f"{uuid[-4:]} was told {state} at {at:.2f}, and never was")
                continue
            end = begun[-1].end
            if end + LATE < at and world.arrived("RUNNING", uuid, end, at - SOON):
                found.append(f"{uuid[-4:]} was told {state} at {at:.2f}, and was well by then")
    return found


def _answers(world: World) -> list[str]:
    """A vote is answered in its window, unless it was over before any datagram came through."""
    found = []
    actions = world.heard("action")
    for question in world.truth.questions:
        told = [at for at, uuid, _ in actions if uuid == question.uuid and at >= question.at]
        inside = [at for at in told if at <= question.until]
        heard = all(
            world.arrived(name, question.uuid, question.at, question.until)
            for name in ("VOTE_INST", "VOTE_NOTIFY")
        )
        if not inside and heard and not _disturbed(world, question.at, question.until):
            found.append(f"{question.uuid[-4:]} was asked at {question.at:.2f}: no answer")
    for at, uuid, _data in actions:
        if not any(
            each.uuid == uuid and each.at <= at <= each.until for each in world.truth.questions
        ):
            found.append(f"{uuid[-4:]} answered at {at:.2f} what nobody asked")
    return found


def _disturbed(world: World, begin: float, end: float) -> bool:
    """Whether a process died, or the VIM or the network was away, in that time."""
    deaths = (*world.truth.agent_deaths, *world.truth.server_deaths)
    if any(begin - 15 <= at <= end for at in deaths):
        return True
    away = (*world.truth.vim_down, *world.truth.cuts)
    return any(each.begin - 5 <= end and each.end + 35 >= begin for each in away)


def _final_states(world: World) -> list[str]:
    """At the end the VIM believes what is true."""
    believes = world.vim_believes()
    found = []
    for uuid, guest in world.guests.items():
        truth = "disabled" if guest.hung else "enabled"
        if believes.get(uuid, truth) != truth:
            found.append(f"{uuid[-4:]} is {truth} at the end, and the VIM believes otherwise")
    return found


def _name(silence: Silence) -> str:
    return f"{silence.uuid[-4:]}, silent from {silence.begin:.1f} to {silence.end:.1f},"


def timeline(world: World) -> str:
    """Return all that happened and all that the VIM heard, in order, for a person to read."""
    lines = [(at, text) for at, text in world.truth.story]
    for kind in ("alarm", "action", "service"):
        for at, uuid, data in world.heard(kind):
            what = data["services"][0] if "services" in data else data
            said = what.get("state", "") if kind == "alarm" else what.get("status", "")
            lines.append((at, f"    VIM hears: {uuid[-4:]} {kind} {said}"))
    return "\n".join(f"{at:8.2f}  {text}" for at, text in sorted(lines))
