"""The guest client's protocol, framing and settings, without I/O."""

from __future__ import annotations

import json
import logging
import os
import pickle
import selectors
import stat
import time
import tty

import pytest

from guest import guest_client
from guest.guest_client import (
    Actions,
    Channel,
    Framer,
    GuestProtocol,
    LogQueue,
    Notification,
    Outcome,
    SettingError,
    Settings,
    Sink,
    State,
    clean_text,
    encode,
    vote_of,
)
from tests.peers import wire

ID = 1804289383


class FakeActions(Actions):
    """Records what the protocol asks for."""

    def __init__(self):
        self.sent = []
        self.events = []
        self._reader = wire.MessageReader()

    def send(self, message):
        self.sent += self._reader.feed(message)

    def start_event(self, notification):
        self.events.append(notification)

    def take(self):
        taken, self.sent = self.sent, []
        return taken


class Guest:
    """A protocol with its fake surroundings."""

    def __init__(self, **settings):
        self.actions = FakeActions()
        self.ids = iter(range(ID, ID + 100))
        self.protocol = GuestProtocol(
            Settings(name="vm-1")._replace(**settings), self.actions, lambda: next(self.ids)
        )

    def hear(self, msg_type, now=0.0, **body):
        self.protocol.receive(wire.message(msg_type, 1, **body).strip(), now)

    def start(self, now=0.0):
        self.protocol.connected(now)
        self.hear("init_ack", now, invocation_id=ID)
        self.actions.take()

    def notify(self, event="pause", kind="revocable", invocation_id=ID, timeout_ms=9000):
        self.hear(
            "action_notify",
            invocation_id=invocation_id,
            event_type=event,
            notification_type=kind,
            timeout_ms=timeout_ms,
        )


@pytest.fixture
def guest():
    return Guest()


@pytest.fixture
def active(guest):
    guest.start()
    return guest


def test_init_is_the_example_of_the_specification():
    """protocol.md, Messages: keys in order, no spaces, newline before and after."""
    lines = []

    class Raw(FakeActions):
        def send(self, message):
            lines.append(message)

    settings = Settings(
        name="vm-1",
        interval_ms=1000,
        vote_secs=9,
        shutdown_notice_secs=9,
        suspend_notice_secs=9,
        resume_notice_secs=14,
        restart_secs=301,
        corrective_action="reboot",
    )
    GuestProtocol(settings, Raw(), lambda: ID).connected(0.0)
    assert lines == [
        b'\n{"version":3,"revision":1,"msg_type":"init","sequence":1,"invocation_id":1804289383,'
        b'"name":"vm-1","heartbeat_interval_ms":1000,"vote_secs":9,"shutdown_notice_secs":9,'
        b'"suspend_notice_secs":9,"resume_notice_secs":14,"restart_secs":301,'
        b'"corrective_action":"reboot"}\n'
    ]


def test_init_is_repeated_until_acknowledged(guest):
    """protocol.md: init every few seconds, with the same invocation id, until init_ack."""
    guest.protocol.connected(100.0)
    for count in range(1, 4):
        guest.protocol.tick(guest.protocol.deadline - 0.001)
        assert len(guest.actions.sent) == count
        guest.protocol.tick(guest.protocol.deadline)
    assert {message["invocation_id"] for message in guest.actions.sent} == {ID}
    assert [message["sequence"] for message in guest.actions.take()] == [1, 2, 3, 4]

    guest.hear("init_ack", 110.0, invocation_id=ID)
    guest.protocol.tick(114.9)
    assert guest.actions.take() == []
    assert guest.protocol.state is State.ACTIVE


def test_an_acknowledgement_of_another_init_does_not_count(guest):
    guest.protocol.connected(0.0)
    guest.hear("init_ack", invocation_id=ID + 1)
    assert guest.protocol.state is State.WAITING_ACK


@pytest.mark.parametrize(("interval_ms", "patience"), [(400, 5.0), (1000, 5.0), (4000, 8.0)])
def test_starts_again_when_challenges_stop(interval_ms, patience):
    """protocol.md: no challenge for max(2 x interval, 5 s) and the guest says init again."""
    guest = Guest(interval_ms=interval_ms)
    guest.start(now=0.0)
    guest.hear("challenge", 50.0, heartbeat_challenge=7)
    guest.actions.take()

    guest.protocol.tick(50.0 + patience - 0.001)
    assert guest.actions.take() == []
    guest.protocol.tick(50.0 + patience)
    (init,) = guest.actions.take()
    assert init["msg_type"] == "init"
    assert init["invocation_id"] == ID + 1


def test_answers_a_challenge(active):
    active.hear("challenge", heartbeat_challenge=846930886)
    assert active.actions.take() == [
        {
            "version": 3,
            "revision": 1,
            "msg_type": "challenge_response",
            "sequence": 2,
            "heartbeat_response": 846930886,
            "heartbeat_health": "healthy",
            "corrective_action": "none",
            "log_msg": "",
        }
    ]


def test_answers_a_backlog_of_challenges_in_order(active):
    """protocol.md: after resume the guest answers the whole backlog in one burst."""
    for value in (3, 1, 2):
        active.hear("challenge", 60.0, heartbeat_challenge=value)
    assert [sent["heartbeat_response"] for sent in active.actions.take()] == [3, 1, 2]
    active.protocol.tick(60.0)
    assert active.actions.take() == []


def test_a_challenge_before_the_acknowledgement_is_answered_and_init_goes_on(guest):
    guest.protocol.connected(0.0)
    guest.hear("challenge", 1.0, heartbeat_challenge=5)
    guest.protocol.tick(2.0)
    kinds = [sent["msg_type"] for sent in guest.actions.take()]
    assert kinds == ["init", "challenge_response", "init"]


def test_unhealthy_names_its_action_once_in_60_seconds():
    """protocol.md: the first unhealthy response names the action, repeats say none."""
    guest = Guest(unhealthy_corrective_action="reboot")
    guest.start()
    guest.protocol.set_health(False, "disk\tfull")
    for now in (0.0, 1.0, 59.9, 60.0, 61.0):
        guest.hear("challenge", now, heartbeat_challenge=1)
    answers = guest.actions.take()
    assert [answer["corrective_action"] for answer in answers] == [
        "reboot",
        "none",
        "none",
        "reboot",
        "none",
    ]
    assert {answer["heartbeat_health"] for answer in answers} == {"unhealthy"}
    assert {answer["log_msg"] for answer in answers} == {"disk full"}

    guest.protocol.set_health(True, "")
    guest.hear("challenge", 62.0, heartbeat_challenge=1)
    guest.protocol.set_health(False, "again")
    guest.hear("challenge", 63.0, heartbeat_challenge=1)
    answers = guest.actions.take()
    assert [answer["corrective_action"] for answer in answers] == ["none", "reboot"]


def test_a_new_illness_names_its_action_though_no_answer_said_well():
    """It was well, and ill again, between two challenges."""
    guest = Guest(unhealthy_corrective_action="reboot")
    guest.start()
    for now, text in ((0.0, "one"), (0.4, "two")):
        guest.protocol.set_health(True, "")
        guest.protocol.set_health(False, text)
        guest.hear("challenge", now, heartbeat_challenge=1)
        guest.hear("challenge", now + 0.1, heartbeat_challenge=1)
    actions = [answer["corrective_action"] for answer in guest.actions.take()]
    assert actions == ["reboot", "none", "reboot", "none"]


def test_an_illness_may_ask_for_another_action_and_names_it_when_that_changes():
    """A script that cannot be run is a mistake to log, no reason to reboot (decision 35)."""
    guest = Guest(unhealthy_corrective_action="reboot")
    guest.start()
    actions = []
    for action in ("log", "log", None, None, "log"):
        guest.protocol.set_health(False, "ill", action)
        guest.hear("challenge", heartbeat_challenge=1)
        actions.append(guest.actions.take()[0]["corrective_action"])
    assert actions == ["log", "none", "reboot", "none", "log"]


def test_a_lasting_illness_is_logged_once(active, caplog):
    with caplog.at_level(logging.WARNING, logger="guest-client"):
        for text in ("5 % full", "6 % full", "7 % full"):
            active.protocol.set_health(False, text)
    assert [record.getMessage() for record in caplog.records] == [
        "the guest is unhealthy: 5 % full"
    ]


@pytest.mark.parametrize(("kind", "vote"), [("revocable", "accept"), ("irrevocable", "complete")])
def test_without_a_script_consent_is_immediate(active, kind, vote):
    active.notify("stop", kind)
    assert active.actions.take() == [
        {
            "version": 3,
            "revision": 1,
            "msg_type": "action_response",
            "sequence": 2,
            "invocation_id": ID,
            "event_type": "stop",
            "notification_type": kind,
            "vote_result": vote,
            "log_msg": "",
        }
    ]


def test_a_second_notification_cancels_the_first():
    """protocol.md: the second one is answered, once; the first is not."""
    guest = Guest(event_script="/bin/true")
    guest.start()
    guest.notify("pause")
    guest.notify("suspend", "irrevocable")
    assert [event.event for event in guest.actions.events] == ["pause", "suspend"]
    assert guest.actions.take() == []
    guest.protocol.event_answered("complete", "done")
    guest.protocol.event_answered("complete", "again")
    (answer,) = guest.actions.take()
    assert (answer["event_type"], answer["log_msg"]) == ("suspend", "done")


@pytest.mark.parametrize("lose", ["disconnected", "init"])
def test_an_answer_for_an_earlier_session_is_dropped(lose):
    guest = Guest(event_script="/bin/true")
    guest.start()
    guest.notify()
    if lose == "disconnected":
        guest.protocol.disconnected()
    else:
        guest.protocol.tick(guest.protocol.deadline)
        guest.actions.take()
    guest.protocol.event_answered("accept", "")
    assert guest.actions.take() == []


@pytest.mark.parametrize(
    ("timeout_ms", "seconds"), [(9000, 8.0), (2000, 1.0), (1999, 0.9995), (1000, 0.5), (0, 0.0)]
)
def test_the_answer_leaves_before_the_host_stops_waiting(timeout_ms, seconds):
    """One second before timeout_ms; at half time when that is under two seconds."""
    assert Notification(ID, "stop", "revocable", timeout_ms).answer_within() == seconds


@pytest.mark.parametrize(
    ("outcome", "kind", "expected"),
    [
        (Outcome(0, "fine", "", False), "revocable", ("accept", "fine")),
        (Outcome(0, "fine", "", False), "irrevocable", ("complete", "fine")),
        (Outcome(1, "busy", "", False), "revocable", ("reject", "busy")),
        (Outcome(1, "broken", "", False), "irrevocable", ("error", "broken")),
        (Outcome(3, "", "", False), "revocable", ("error", "the event script ended with status 3")),
        (
            Outcome(-9, "", "", False),
            "revocable",
            ("error", "the event script was killed by signal 9"),
        ),
        (Outcome(None, "x", "too slow", True), "revocable", ("timeout", "too slow")),
        (Outcome(None, "", "not found", False), "irrevocable", ("error", "not found")),
    ],
)
def test_the_exit_status_decides(outcome, kind, expected):
    assert vote_of(outcome, Notification(ID, "stop", kind, 9000)) == expected


def test_what_a_lost_host_had_said_is_not_acted_upon():
    guest = Guest(event_script="/bin/true")
    guest.start()
    guest.protocol.disconnected()
    guest.notify()
    assert guest.actions.events == []


def test_exit_is_said_once_and_only_to_a_host(guest):
    guest.protocol.stop("SIGTERM")
    assert guest.actions.take() == []
    guest.start()
    guest.protocol.stop("SIGTERM")
    guest.protocol.stop("SIGTERM")
    (sent,) = guest.actions.take()
    assert (sent["msg_type"], sent["log_msg"]) == ("exit", "SIGTERM")


def test_a_nack_is_logged_and_throttled(active, caplog):
    with caplog.at_level(logging.WARNING, logger="guest-client"):
        for _ in range(150):
            active.hear("nack", invocation_id=ID, log_msg="failed to parse\x1b[2J name")
    assert len(caplog.records) == 2
    assert "failed to parse [2J name" in caplog.text
    assert active.actions.take() == []


GOOD_NOTIFY = {
    "invocation_id": ID,
    "event_type": "stop",
    "notification_type": "revocable",
    "timeout_ms": 9000,
}


@pytest.mark.parametrize(
    "line",
    [
        b"\xff\xfe",
        b"{",
        b"[]",
        b"7",
        b"[" * 1000,
        b'{"msg_type":"challenge","heartbeat_challenge":1}',
        b'{"version":2,"revision":1,"msg_type":"challenge","sequence":1,"heartbeat_challenge":1}',
        b'{"version":3,"revision":1,"msg_type":7,"sequence":1}',
        b'{"version":3,"revision":1,"msg_type":["challenge"],"sequence":1}',
        b'{"version":3,"revision":1,"msg_type":"reboot","sequence":1}',
        wire.message("challenge", 1),
        wire.message("challenge", 1, heartbeat_challenge="1"),
        wire.message("challenge", 1, heartbeat_challenge=True),
        wire.message("challenge", 1, heartbeat_challenge=1.5),
        wire.message("challenge", 1, heartbeat_challenge=-1),
        wire.message("challenge", 1, heartbeat_challenge=2**31),
        wire.message("action_notify", 1),
        *(
            wire.message("action_notify", 1, **{**GOOD_NOTIFY, key: value})
            for key, value in [
                ("event_type", "explode"),
                ("event_type", ["stop"]),
                ("event_type", {}),
                ("notification_type", "maybe"),
                ("timeout_ms", "9000"),
                ("timeout_ms", -1),
                ("invocation_id", ID + 1),
            ]
        ),
    ],
)
def test_bad_input_from_the_host_changes_nothing(active, line):
    before = active.protocol.deadline
    active.protocol.receive(line.strip(), 1.0)
    assert active.actions.take() == []
    assert active.protocol.deadline == before
    active.hear("challenge", heartbeat_challenge=4)
    assert active.actions.take()[0]["heartbeat_response"] == 4


def test_a_newer_protocol_version_is_accepted(active):
    """protocol.md, Bad input: version > 3 is accepted, extra keys are ignored."""
    line = b'{"version":4,"revision":9,"msg_type":"challenge","x":1,"heartbeat_challenge":8}'
    active.protocol.receive(line, 1.0)
    assert active.actions.take()[0]["heartbeat_response"] == 8


STREAM = (
    b"\n"
    + b"a" * 1056
    + b"\n\n"
    + b"b" * 1057
    + b"\nc\r\n"
    + b"d" * 5000
    + b"\n"
    + b"\n\n"
    + b"e\n"
)


@pytest.mark.parametrize("size", [1, 2, 7, 1056, 1057, len(STREAM)])
def test_framing_does_not_depend_on_the_pieces(size):
    """protocol.md, Framing: over 1056 bytes is discarded up to the next newline."""
    framer = Framer()
    found = []
    for start in range(0, len(STREAM), size):
        found += framer.feed(STREAM[start : start + size])
    assert found == [b"a" * 1056, b"c\r", b"e"]
    assert framer.discarded == 2


def test_framing_keeps_at_most_one_message():
    """protocol.md, Framing: a tail that never ends must not grow memory."""
    framer = Framer()
    for _ in range(1000):
        assert framer.feed(b"x" * 1000) == []
        assert len(pickle.dumps(framer)) < 1056 + 200
    assert framer.discarded == 1
    assert framer.feed(b"\nok\n") == [b"ok"]


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("plain", "plain"),
        ("a\tb\x00c\x1b[31m\u2028d", "a b c [31m d"),
        ("é" * 100, "é" * 95),
        ("x" * 190 + "é", "x" * 190),
        ("\ud800oops", "oops"),
        ('"' * 300, '"' * 191),
    ],
)
def test_text_is_printable_and_cut_at_a_character(text, clean):
    assert clean_text(text, 191) == clean


def test_no_message_is_longer_than_the_limit():
    """protocol.md, Framing: 1056 bytes at most, also with all text at its limits."""
    nasty = '\\"' * 200
    guest = Guest(name=clean_text(nasty, 64), interval_ms=86400000, restart_secs=86400)
    guest.start()
    guest.notify("live_migrate_begin", "irrevocable")
    guest.protocol.set_health(False, nasty)
    guest.hear("challenge", heartbeat_challenge=2**31 - 1)
    guest.protocol.stop(nasty)
    line = encode("challenge_response", 2**31 - 1, [("log_msg", clean_text(nasty, 191))])
    # wire.MessageReader, which FakeActions reads with, has refused nothing longer than 1056.
    assert len(guest.actions.take()) == 3
    assert len(line) - 2 < wire.MESSAGE_LIMIT
    assert json.loads(line.decode())["log_msg"] == clean_text(nasty, 191)


@pytest.fixture(autouse=True)
def _no_file_of_this_machine(tmp_path, monkeypatch):
    """What is installed on the machine that runs the tests is not to be read."""
    monkeypatch.setattr(guest_client, "DEFAULT_CONFIG", str(tmp_path / "none.conf"))
    monkeypatch.setattr(guest_client, "SYSLOG_SOCKET", str(tmp_path / "no-syslog"))
    monkeypatch.setattr(guest_client, "LOG_WITHOUT_SYSLOG", str(tmp_path / "no-syslog.log"))


def load(*argv):
    return guest_client.load_settings(guest_client.parse_arguments(argv))


def test_the_command_line_wins_over_the_file(tmp_path):
    path = tmp_path / "guest.conf"
    path.write_text(
        "# a comment\n[guest-client]\nname = from-file ; a comment\nvote_secs = 7\n"
        "interval_ms=500\ncorrective_action = reboot\n"
    )
    settings = load("--config", str(path), "--name", "from-option", "--interval-ms", "600")
    assert settings.name == "from-option"
    assert settings.interval_ms == 600
    assert settings.vote_secs == 7
    assert settings.unhealthy_corrective_action == "reboot"
    assert settings.log == "syslog"
    assert load("--config", str(path), "-f").log == "stderr"


def test_the_sample_configuration_shows_the_defaults(tmp_path):
    """Its settings are comments; uncommented they change nothing."""
    sample = os.path.join(os.path.dirname(guest_client.__file__), "guest-client.conf")
    with open(sample) as file:
        text = file.read()
    assert guest_client.read_config(sample, text) == {}
    path = tmp_path / "guest.conf"
    path.write_text("".join(line.lstrip(";") for line in text.splitlines(True)))
    assert load("--config", str(path)) == load()
    keys = {line[1:].split(" =")[0] for line in text.splitlines() if line.startswith(";")}
    assert keys == set(Settings._fields) - {"socket"}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[guest-client]\nname = x\nvote_secs = soon\n", "guest.conf:3: [guest-client] vote_secs"),
        ("[guest-client]\ninterval_ms = 0\n", "from 1 to 86400000"),
        ("[guest-client]\ncorrective_action = explode\n", "none, reboot, stop, log"),
        ("[guest-client]\nevent_script = a\0b\n", "expected a path"),
        ("[other]\n", "no section [guest-client]"),
        ("name = x\n", "guest.conf"),
        ("[guest-client]\nname = x\nname = y\n", "already exists"),
    ],
)
def test_a_broken_file_is_named_with_its_problem(tmp_path, text, problem):
    path = tmp_path / "guest.conf"
    path.write_text(text)
    with pytest.raises(SettingError) as caught:
        load("--config", str(path))
    assert "guest.conf" in str(caught.value)
    assert problem in str(caught.value)


def test_a_named_file_must_exist_the_default_need_not(tmp_path):
    with pytest.raises(SettingError, match="No such file"):
        load("--config", str(tmp_path / "absent"))
    assert load().device == "/dev/virtio-ports/cgcs.heartbeat"


def test_an_unknown_setting_is_a_warning(tmp_path, caplog):
    path = tmp_path / "guest.conf"
    path.write_text("[guest-client]\ncolour = red\n")
    load("--config", str(path))
    assert "guest.conf:2: [guest-client] colour: unknown setting" in caplog.text


class ChannelUnderTest:
    """A channel on a pseudo-terminal, which hangs up and comes back as a virtio port does."""

    def __init__(self, tmp_path):
        self.selector = selectors.DefaultSelector()
        self.guest_fd, peer = os.openpty()
        self.peer_name = os.ttyname(peer)
        os.set_blocking(self.guest_fd, False)
        tty.setraw(peer)
        os.close(peer)
        self.log = []
        self.opened = 0
        # The path that the channel compares with its descriptor to know the port again.
        self.channel = Channel(
            self.selector,
            f"/proc/self/fd/{self.guest_fd}",
            self.open,
            on_up=lambda: self.log.append("up"),
            on_down=lambda: self.log.append("down"),
            on_message=self.log.append,
        )
        self.channel.deadline = 0.0

    def open(self, _path):
        self.opened += 1
        return self.guest_fd

    def host(self):
        return os.open(self.peer_name, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)

    def turn(self):
        for key, events in self.selector.select(1.0):
            key.data(events)


def test_a_port_without_a_host_is_kept_and_watched_by_timer_only(tmp_path):
    """POLLHUP lasts as long as the host is away: the port must not be polled meanwhile."""
    test = ChannelUnderTest(tmp_path)
    test.channel.tick(1.0)
    assert test.log == []
    assert len(test.selector.get_map()) == 0
    test.channel.tick(1.5)
    assert test.channel.deadline == 2.0

    host = test.host()
    test.channel.tick(2.0)
    assert test.log == ["up"]
    assert test.channel.deadline is None
    os.write(host, b"\nhello\n")
    test.turn()
    test.channel.send(b"\nanswer\n")
    assert os.read(host, 100) == b"\nanswer\n"

    os.close(host)
    test.turn()
    assert test.log == ["up", b"hello", "down"]
    assert test.channel.deadline > time.monotonic() + 0.5
    assert len(test.selector.get_map()) == 0
    test.channel.send(b"nobody hears this")
    assert test.channel.idle

    host = test.host()
    test.channel.tick(test.channel.deadline)
    assert test.log[-1] == "up"
    assert test.opened == 1
    os.close(host)
    test.channel.close()


def test_output_that_the_host_does_not_read_is_bounded_and_whole(tmp_path):
    """protocol.md, Framing: whole messages are dropped, never half a message."""
    test = ChannelUnderTest(tmp_path)
    host = test.host()
    test.channel.tick(1.0)
    message = b"\n" + b"m" * 1000 + b"\n"
    for _ in range(300):
        test.channel.send(message)
    assert not test.channel.idle
    received = b""
    while not test.channel.idle:
        received += os.read(host, 65536)
        test.turn()
    os.set_blocking(host, False)
    while True:
        try:
            received += os.read(host, 65536)
        except BlockingIOError:
            break
    lines = [line for line in received.split(b"\n") if line]
    assert set(lines) == {b"m" * 1000}
    assert 65 <= len(lines) < 300
    os.close(host)
    test.channel.close()


def test_a_path_that_is_no_device_is_refused(tmp_path):
    path = tmp_path / "file"
    path.touch()
    with pytest.raises(OSError, match="is not a device"):
        guest_client.open_device(str(path))
    assert stat.S_ISREG(path.stat().st_mode)


class FakeSink(Sink):
    """A sink that takes `room` lines, or fails for a reason."""

    def __init__(self, name, room=10**6):
        self.name = name
        self.room = room
        self.problem = ""
        self.texts = []

    def write(self, lines, done):
        taken = [] if self.problem else lines[: self.room]
        self.room -= len(taken)
        self.texts += [line.text.split(": ", 2)[2] for line in taken]
        done(len(taken), self.problem)


class Log:
    """A queue, its sinks, and a logger before it; `clock` is its time."""

    def __init__(self, monkeypatch, *sinks):
        self.now = 100.0
        monkeypatch.setattr(guest_client.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(guest_client, "LOG_LINES_A_MINUTE", 10**6)
        self.queue = LogQueue()
        self.queue.open(sinks)
        self._logger = logging.Logger("guest-client")
        self._logger.addHandler(self.queue)

    def say(self, *texts):
        for text in texts:
            self._logger.warning("%s", text)

    def say_otherwise(self, text):
        self._logger.warning("besides: %s", text)

    def pass_time(self, seconds):
        until = self.now + seconds
        while self.queue.deadline is not None and self.queue.deadline <= until:
            self.now = self.queue.deadline
            self.queue.tick(self.now)
        self.now = until


def test_a_stuck_log_is_bounded_and_its_losses_are_counted(monkeypatch):
    sink = FakeSink("syslog", room=2)
    log = Log(monkeypatch, sink)
    log.say(*map(str, range(1000)))
    assert sink.texts == ["0", "1"]
    sink.room = 10**6
    log.pass_time(2)
    kept = len(sink.texts) - 1
    assert sink.texts[:kept] == [str(count) for count in range(kept)]
    assert sink.texts[-1] == f"{1000 - kept} lines of this log were lost here"
    assert 200 < kept < 300
    assert log.queue.idle


def test_of_one_kind_of_line_a_minute_has_a_few(monkeypatch):
    """A host that repeats itself fills no disk, and hides no other line; the rest is counted."""
    sink = FakeSink("syslog")
    log = Log(monkeypatch, sink)
    monkeypatch.setattr(guest_client, "LOG_LINES_A_MINUTE", 3)
    log.say(*"abcdefgh")
    log.say_otherwise("ill")
    assert sink.texts == ["a", "b", "c", "besides: ill", "5 lines of this log were lost here"]
    log.say("i")
    log.pass_time(61)
    assert sink.texts[5:] == ["1 lines of this log were lost here"]
    assert log.queue.deadline is None
    log.say(*"jkl")
    assert sink.texts[6:] == ["j", "k", "l"]


def test_a_log_that_waits_costs_few_wake_ups(monkeypatch):
    log = Log(monkeypatch, FakeSink("syslog", room=0))
    log.say("one")
    ticks = 0
    while log.now < 160:
        log.now = log.queue.deadline
        log.queue.tick(log.now)
        ticks += 1
    assert ticks < 70


def test_a_log_that_fails_is_told_elsewhere_once_and_used_again(monkeypatch):
    disk, syslog = FakeSink("the disk"), FakeSink("syslog")
    log = Log(monkeypatch, disk, syslog)
    disk.problem = "full"
    for text in ("one", "two", "three"):
        log.say(text)
        log.pass_time(6)
    assert disk.texts == []
    assert syslog.texts == ["one", "cannot log to the disk: full", "two", "three"]
    disk.problem = ""
    log.say("four")
    assert disk.texts == ["four", "logging to the disk again"]


def test_a_log_that_fails_everywhere_is_kept(monkeypatch):
    disk, syslog = FakeSink("the disk"), FakeSink("syslog")
    log = Log(monkeypatch, disk, syslog)
    disk.problem = syslog.problem = "broken"
    log.say("one")
    log.pass_time(60)
    syslog.problem = ""
    log.pass_time(10)
    assert syslog.texts[0] == "one"
    assert log.queue.idle


def test_a_line_of_the_log_is_one_line_and_bounded(monkeypatch):
    sink = FakeSink("syslog")
    log = Log(monkeypatch, sink)
    log.say("a\nb\x1b[2Jc", "x" * 10000)
    assert sink.texts[0] == "a | b [2Jc"
    assert len(sink.texts[1]) < 2000


@pytest.mark.parametrize(
    ("outcome", "verdict"),
    [
        (Outcome(0, "well", "", False), (True, "well", None)),
        (Outcome(1, "disk full", "", False), (False, "disk full", None)),
        (Outcome(2, "", "", False), (False, "the health script ended with status 2", None)),
        (Outcome(None, "", "no answer", True), (False, "no answer", None)),
        (
            Outcome(None, "", "Exec format error", False),
            (False, "cannot run /h: Exec format error", "log"),
        ),
    ],
)
def test_what_the_health_script_said_is_the_health(outcome, verdict):
    assert guest_client.judge_health("/h")(outcome) == verdict


def test_one_client_for_each_port(tmp_path):
    """A second one is told who has it; the claim ends with its socket."""
    path = str(tmp_path / "port")
    lock = guest_client.claim(path)
    lock.listen(1)
    with pytest.raises(SettingError, match=rf"already running \(pid {os.getpid()}\) for {path}"):
        guest_client.claim(path)
    other = guest_client.claim(path + "2")
    lock.close()
    guest_client.claim(path).close()
    other.close()


def test_a_claim_to_a_long_path(tmp_path):
    path = str(tmp_path) + "/x" * 100
    guest_client.claim(path).close()
