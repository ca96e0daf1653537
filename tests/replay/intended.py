"""Where our guestServer differs from the recorded one on purpose: the one table of reasons.

A difference without a row fails, and so does a row that no recording needs. Reasons name the
document that they follow; "decision" is one of decisions.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from tests.replay.compare import Difference


class Intended(NamedTuple):
    """In which recordings (`server-` left out), of which side, what (part of its text), and why.

    `times` is how many differences it explains, over all recordings: one more is unintended.
    """

    recording: str
    side: str
    text: str
    times: int
    reason: str

    def is_about(self, recording: str) -> bool:
        return re.fullmatch(self.recording, recording.partition("-")[2]) is not None

    def explains(self, recording: str, difference: Difference) -> bool:
        return (
            self.is_about(recording)
            and re.fullmatch(self.side, difference.side) is not None
            and re.search(self.text, difference.text) is not None
        )


def because(reason: str, *rows: tuple[str, str, str, int]) -> list[Intended]:
    """Return rows of the table that have one reason."""
    return [Intended(*row, reason) for row in rows]


ANY = r".*"
BEFORE = r"(cold-migrate-begin|live-migrate-begin|pause|reboot|resize-begin|stop)"
AFTER = r"(cold-migrate-end|live-migrate-end|resize-end|resume|unpause)"
NOT_HEARTBEATING = r'"reason":"not heartbeating"}'
CONSENT = r'^401 VOTE_NOTIFY .*"irrevocable".*"vote":"complete","reason":""}$'

INTENDED = [
    # READY
    *because(
        "datagrams.md, Events: 2 s after start at the latest, and not only once the agent "
        "has spoken",
        # Less than its second where a process was noticed late to have started.
        (ANY, "time", r"^MONITOR_READY .*: \d+\.\d\d → (0\.\d|1\.[0-3])\d$", 64),
    ),
    *because(
        "datagrams.md, Events: repeated after 5 s until the agent has spoken",
        (r"monitor-ready|start-existing-socket", "extra", r"^MONITOR_READY", 2),
    ),
    *because(
        "behaviour.md, What the old daemons got wrong: events lost before the agent speaks",
        ("heartbeat-no-agent", "extra", r"RUNNING", 1),
    ),
    # Connecting
    *because(
        "protocol.md, Connecting: first attempt immediately when a file appears",
        (ANY, "time", r"^40\d connect: 1\.[01]\d → 0\.[01]\d$", 57),
    ),
    *because(
        "protocol.md, Connecting: the end of file is seen at once, the gap after it is 200 ms",
        (
            r"auto-reconnect-120s|guest-closes-(heartbeating|idle)|inotify-two-at-once",
            "time",
            r"^401 connect: (1|120)\.\d\d → 0\.[2-5]\d$",
            5,
        ),
        (r"two-instances", "extra", r"^402 connect$", 1),
    ),
    *because(
        "protocol.md, Connecting: a fresh inotify event resets the backoff",
        (r"reconnect-backoff", "time", r"^401 connect: 4\d\.\d\d → 0\.00$", 1),
    ),
    *because(
        "protocol.md, Connecting: STOPPED at once",
        (
            r"guest-closes-heartbeating|reconnect-backoff",
            "extra",
            r"^401 STOPPED .*\"heartbeating\":\"disabled\"",
            2,
        ),
    ),
    *because(
        "protocol.md, Connecting: without heartbeating reconnected each 120 s, however found",
        (
            r"auto-reconnect-startup|guest-closes-idle|search-audit-180s|inotify-two-at-once",
            "extra",
            r"^40[12] (closed|connect)$",
            10,
        ),
    ),
    # Discovery
    *because(
        "protocol.md, Discovery: a read returns many events; every one is handled; so "
        "the second is known 180 s earlier",
        (r"inotify-two-at-once", "time", r"^402 connect: 179\.\d\d → 0\.0\d$", 1),
        (r"inotify-two-at-once", "extra", r"^402 QRY_INST", 1),
    ),
    *because(
        "protocol.md, Discovery: moved in is as good as created; by then it reconnects",
        (r"search-audit-180s", "time", r"^401 connect: 179\.\d\d → 0\.20$", 1),
    ),
    *because(
        "protocol.md, Discovery: the older file name is recognised too",
        (r"inotify-socket", "extra", r"^402 (connect|QRY_INST)", 2),
    ),
    *because(
        "protocol.md, Discovery: moved in: add and connect",
        (r"inotify-socket", "extra", r"^404 (connect|QRY_INST)", 2),
    ),
    # Heartbeat
    *because(
        "behaviour.md, Heartbeat: an init is served at once in any state",
        (
            r"reinit-while-heartbeating",
            "extra",
            r"^401 (init_ack .*\"invocation_id\":77}|challenge 2\.[012])$",
            4,
        ),
    ),
    *because(
        "behaviour.md, What the old daemons got wrong: no 60 s timer stops it, misses decide",
        (r"init-timer-60s", "extra", r"^401 challenge 1\.6\d$", 8),
    ),
    *because(
        "behaviour.md, Illness: ILLHEALTH at most once in 10 s per action",
        (r"unhealthy-(first|invalid-health|log|reboot|stop)", "missing", r"^401 ILLHEALTH", 15),
    ),
    *because(
        "behaviour.md, Illness: ILLHEALTH only while reporting",
        (r"unhealthy-not-reporting", "missing", r"^401 ILLHEALTH .*\"reporting\":\"disabled\"", 4),
    ),
    # Votes and notifications
    *because(
        "behaviour.md, Vote: the timer rings: VOTE_NOTIFY with `complete`; the old "
        "one reported silence only of a guest that did not heartbeat",
        (rf"notify-({BEFORE}|{AFTER})", "extra", CONSENT, 11),
    ),
    *because(
        "decision 13: without an init there is nobody to ask; this one says why it is complete",
        (
            rf"notify-{BEFORE}",
            "missing",
            r'^401 action_notify .*"event_type":"(\w+_begin|stop|reboot|pause)"',
            6,
        ),
        (rf"notify-{BEFORE}", "missing", CONSENT, 6),
    ),
    *because(
        "behaviour.md, Vote: the timer is that of the event, here longer than the "
        "recording; the old one ran vote_secs",
        (rf"notify-{AFTER}", "missing", CONSENT, 5),
    ),
    *because(
        "decision 13: closed at once",
        (
            rf"notify-({BEFORE}|suspend)",
            "extra",
            rf'^401 VOTE_NOTIFY .*"irrevocable".*"vote":"complete",{NOT_HEARTBEATING}',
            8,
        ),
    ),
    *because(
        "decision 6: held until the guest has initialised and answered",
        (rf"notify-{AFTER}", "missing", r"^401 action_notify .*(_end|unpause)", 4),
    ),
    *because(
        "behaviour.md, Vote: reconnects for it only if it is not connected",
        (r"notify-resume|vote-not-heartbeating", "missing", r"^401 (closed|connect)$", 4),
    ),
    *because(
        "decision 7: a pause that nobody answers has ended, too: no challenges after it",
        (
            r"notify-pause",
            "missing|unfed",
            r"^401 challenge 2\.8$|\"sequence\":13,.*\"heartbeat_response\"",
            2,
        ),
    ),
    *because(
        "behaviour.md, Vote: suspend complete disconnects, without a delay",
        (r"notify-suspend", "time", r"^401 closed: 1\.03 → 0\.00$", 1),
    ),
    *because(
        "decision 7: reconnected after 10 s, which the recording does not wait for",
        (r"notify-suspend", "missing|unfed", r".", 29),
    ),
    *because(
        "decision 13: not connected or without init: closed at once; the guest is not asked",
        (
            r"vote-(fd0|not-heartbeating)",
            "extra",
            rf"^40[12] VOTE_NOTIFY .*\"vote\":\"(accept|complete)\",{NOT_HEARTBEATING}",
            4,
        ),
        (r"vote-not-heartbeating", "missing", r'^401 action_notify .*"invocation_id":0,', 2),
    ),
    *because(
        "decision 13: every vote ends; a held one is closed by its timer, not lost in descriptor 0",
        (
            r"vote-fd0",
            "extra",
            CONSENT.replace("irrevocable", r'irrevocable","event-type":"resume'),
            1,
        ),
    ),
    *because(
        "behaviour.md, What the old daemons got wrong: guest text pasted into JSON unescaped",
        (r"vote-revocable", "missing", r'"reason": "busy: "quoted" reason"}$', 1),
    ),
    *because(
        "datagrams.md, Events: `reason` is JSON-escaped",
        (r"vote-revocable", "extra", r'"reason":"busy: \\"quoted\\" reason"}$', 1),
    ),
    *because(
        "decision 13: only an answer to what is pending, of that type, in a word of the vocabulary",
        (
            r"vote-revocable",
            "missing",
            r'"vote":"gibberish"|"reason":"late"|"live_migrate_begin"|"irrevocable"',
            4,
        ),
    ),
    *because(
        "behaviour.md, Vote: the timer rings: VOTE_NOTIFY with `accept`; the old one "
        "comes of an answer to another event, ours of the timer",
        (
            r"vote-revocable",
            "extra",
            r'"revocable","event-type":"stop","vote":"accept","reason":""}$',
            2,
        ),
        (
            r"vote-revocable",
            "time",
            r'"event-type":"reboot","vote":"accept","reason":""}: 0\.00 → 2\.50$',
            1,
        ),
    ),
    *because(
        "behaviour.md, What the old daemons got wrong: typed validation at the border",
        (r"vote-revocable", "missing", r"^401 action_notify .*\"event_type\":\"frobnicate\"", 1),
    ),
    *because(
        "decision 7: silence is expected after an irrevocable pause, not after a vote",
        (r"vote-revocable", "extra", r"^401 challenge 1\.5$", 1),
    ),
    # Bad input of guests
    *because(
        "behaviour.md, What the old daemons got wrong: a float crashes the host daemon; "
        "ours lives and goes on",
        (r"crash-float-version|malformed", "missing", r"^401 closed$", 2),
        (r"crash-float-version|malformed", "extra", r"^401 challenge 1\.[145]$", 3),
    ),
    *because(
        "protocol.md, Bad input: non-integer `version`; no minimum of 32 bytes",
        (r"crash-float-version|malformed", "extra", r'^401 nack .*"failed to parse version"}$', 2),
    ),
    *because(
        "protocol.md, Bad input: what is not an object is dropped",
        (r"malformed", "missing", r'^401 nack .*"failed to parse version"}$', 1),
    ),
    *because(
        "protocol.md, Bad input: no minimum of 32 bytes",
        (r"malformed", "extra", r'^401 nack .*"failed to parse msg_type"}$', 1),
    ),
    *because(
        "protocol.md, Bad input: all keys are checked before any is applied, the id "
        "included; no id is known before a good init",
        (
            r"missing-key",
            "missing",
            r'^401 nack .*"invocation_id":1804289383,"log_msg":"(failed|Bad|unsupported)',
            16,
        ),
        (
            r"missing-key",
            "extra",
            r'^401 nack .*"invocation_id":0,"log_msg":"(failed|Bad|unsupported)',
            15,
        ),
    ),
    *because(
        "protocol.md, Bad input: a missing body key; exit has log_msg; without it, no exit",
        (r"missing-key", "extra", r'^401 nack .*"failed to parse log_msg"}$', 1),
        (r"missing-key", "missing", r"^401 STOPPED", 1),
    ),
    # Framing
    *because(
        "protocol.md, Framing: a message is whole however it is split; the next newline "
        "ends an init, so that two are answered",
        (r"split-join", "extra", r"^401 (init_ack .*|challenge [03]\.[0123])$", 8),
        (r"split-join", "time", r"^401 challenge 3\.1: 1\.00 → 0\.00$", 1),
    ),
    *because(
        "behaviour.md, Whose silence?: what has arrived is read in one turn, not one each 30 ms",
        (r"split-join", "time", r'"unsupported message type: [uv]\d\d"}: 0\.\d\d → 0\.00$', 27),
    ),
    *because(
        "protocol.md, Bad input: up to 500 messages in a second; the old queue held 17",
        (r"split-join", "extra", r'"unsupported message type: v[123]\d"}$', 23),
    ),
    *because(
        "protocol.md, Framing: longer than 1056 bytes: discarded without a nack",
        (r"split-join", "missing", r'"unsupported message type: big"}$', 1),
    ),
    # Bad input of the agent
    *because(
        "datagrams.md, The datagram: what is not JSON is dropped, not read as `disabled`; "
        "a stranger's query is not answered; reporting stays on",
        (r"commands", "missing", r"^401 QRY_INST .*\"reporting\":\"disabled\"", 3),
        (r"commands", "extra", r"^401 QRY_INST .*\"reporting\":\"enabled\"", 2),
    ),
    *because(
        "datagrams.md, Commands: `state` is enabled or disabled; another word changes nothing",
        (r"commands", "missing|extra", r"^402 QRY_INST .*\"reporting\":\"(disabled|enabled)\"", 2),
    ),
]


def unexplained(recording: str, differences: Iterable[Difference]) -> list[Difference]:
    """Return the differences that no row of the table explains."""
    return [
        difference
        for difference in differences
        if not any(row.explains(recording, difference) for row in INTENDED)
    ]
