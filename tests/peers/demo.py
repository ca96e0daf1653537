"""`make demo`: both daemons and three guests on loopback, under a temporary root, in 30 seconds.

The guests are processes of guest/guest_client.py behind QEMU-like relays; the VIM and mtcAgent are
test peers in this process. Prints a timeline of what happened and who said it. Exits 0 only if
every event that must reach the VIM did; else names the missing ones, keeps the tree with the logs,
and exits 1. Standard library only, no root rights.

    python3 -m tests.peers.demo
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.peers.journal import wait_until
from tests.peers.mtc_agent import MtcAgent
from tests.peers.reactor import Reactor
from tests.peers.relay import Relay, Said
from tests.peers.root import COMPUTE_0, REPOSITORY, Daemon, Root
from tests.peers.vim import Answer, Request, Vim
from tests.peers.wire import Datagram

SECONDS_AT_MOST = 30.0
STOP_RESERVE_SECONDS = 3.0
INTERVAL_MS = 500

HOST = "compute-0"
HOST_UUID = "c0c0c0c0-0000-4000-8000-00000000c0c0"


class Timeline:
    """Prints lines of `seconds  who  what`, from any thread."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._lock = threading.Lock()

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self._began

    def say(self, who: str, what: str, at: float | None = None) -> None:
        seconds = self.elapsed if at is None else at - self._began
        with self._lock:
            print(f"{seconds:6.2f} s  {who:<22} {what}", flush=True)

    def chapter(self, title: str) -> None:
        with self._lock:
            print(f"\n{title}", flush=True)


class Guest:
    """An instance: its relay, and its guest client as a process of its own."""

    def __init__(self, root: Root, reactor: Reactor, number: int, corrective_action: str) -> None:
        self.name = f"vm-{number}"
        self.uuid = f"{number}{number}{number}{number}0000-0000-4000-8000-00000000000{number}"
        self.directory = root.path / self.name
        self.directory.mkdir()
        port = self.directory / "port"
        self.relay = Relay(root.channels, self.uuid, port, reactor=reactor)
        samples = REPOSITORY / "guest" / "samples"
        command = [sys.executable, str(REPOSITORY / "guest" / "guest_client.py"), "-f"]
        command += ["--config", str(REPOSITORY / "guest" / "guest-client.conf")]
        command += ["--socket", str(port), "--name", self.name]
        command += ["--interval-ms", str(INTERVAL_MS), "--corrective-action", corrective_action]
        command += ["--unhealthy-corrective-action", "log", "--health-interval-ms", "500"]
        command += ["--event-script", str(samples / "event-script.sh")]
        command += ["--health-script", str(samples / "health-script.sh")]
        # Where the sample scripts look for a reason to say no, or to be ill.
        self.busy_file = self.directory / "busy"
        self.fault_file = self.directory / "fault"
        env = {**os.environ, "BUSY_FILE": str(self.busy_file), "FAULT_FILE": str(self.fault_file)}
        self.client = Daemon(command, root.path / f"{self.name}.log", env)

    def close(self) -> None:
        self.client.stop()
        self.relay.close()


class Demo:
    """The play: `run` goes through its chapters and returns the exit status."""

    def __init__(self) -> None:
        self.timeline = Timeline()
        self.root = Root()
        self.missing: list[str] = []
        self.interrupted = False
        self._cleanup = contextlib.ExitStack()
        self._names = {HOST_UUID: HOST}

    def run(self) -> int:
        """Play everything, clean up, and tell what is missing."""
        try:
            self._start()
            self._host_and_instances()
            self._votes_and_notification()
            self._hang()
            self._illness()
            self._resume()
            self._why()
            self._delete()
        except AssertionError as error:
            self.missing.append(f"the end of the demo: {error}")
        except KeyboardInterrupt:
            self.interrupted = True
        finally:
            self._stop()
        return self._verdict()

    def _start(self) -> None:
        self.timeline.chapter("Starting")
        self._cleanup.callback(self.root.stop)
        self.vim = self._cleanup.enter_context(
            Vim(self.root.vim_port, self.root.vim_cmd_port, serial=True)
        )
        self.vim.requests.listener = self._vim_heard
        self.vim.set_host(HOST_UUID, HOST)
        self.mtc = self._cleanup.enter_context(
            MtcAgent(self.root.mtc_event_port, self.root.mtc_cmd_port)
        )
        self.mtc.received.listener = self._mtc_heard
        self.mtc.add_host(HOST, HOST_UUID, COMPUTE_0, tell=False)
        self.timeline.say("demo", f"everything is under {self.root.path}")
        self.root.start_agent()
        self.timeline.say("guestAgent", "runs")
        self.root.start_server()
        self.timeline.say("guestServer", f"runs, as {HOST}")

    def _host_and_instances(self) -> None:
        self.timeline.chapter("A host is added; three instances are created, enabled, heartbeating")
        self._expect("host added: its state asked of the VIM", self._asks_for("/hosts/"))
        self._expect("host added: its instances asked of the VIM", self._asks_for("/instances/"))
        reactor = Reactor()
        self._cleanup.callback(reactor.stop)
        self.guests = []
        for number, action in ((1, "reboot"), (2, "log"), (3, "reboot")):
            guest = Guest(self.root, reactor, number, action)
            self._cleanup.callback(guest.close)
            self.guests.append(guest)
            self._names[guest.uuid] = guest.name
            command = self.vim.command
            self._command("creates", guest, command.create_instance(guest.uuid, HOST))
            self._command("enables", guest, command.set_instance(guest.uuid, HOST))
        for guest in self.guests:
            self._expect(
                f"{guest.name} heartbeating: service enabled",
                lambda seconds, uuid=guest.uuid: self.vim.wait_event(
                    "service", uuid, seconds, status="enabled", restart_timeout="300"
                ),
            )

        for guest in self.guests:
            self._expect(
                f"{guest.name} heartbeating: three challenges in a row answered",
                lambda seconds, guest=guest: guest.relay.messages.wait_for_count(
                    3, lambda said: said.message["msg_type"] == "challenge_response", seconds
                ),
            )
            self.timeline.say(guest.name, "has answered three challenges")

    def _votes_and_notification(self) -> None:
        willing, busy, _ = self.guests
        self.timeline.chapter("A vote is accepted, another rejected; a notification")
        self._command("asks to stop", willing, self.vim.command.vote(willing.uuid, HOST, "stop"))
        self._expect_answer("vote accepted", willing, "stop", "allow")

        self._guest_file(busy.busy_file, "call in progress", busy, "is busy")
        answer = self.vim.command.vote(busy.uuid, HOST, "reboot")
        self._command("asks to reboot", busy, answer)
        self._expect_answer("vote rejected", busy, "reboot", "reject", "call in progress")

        action = "live_migrate_begin"
        answer = self.vim.command.notify(willing.uuid, HOST, action)
        self._command(f"announces {action} to", willing, answer)
        self._expect_answer("notification done", willing, action, "proceed")

    def _hang(self) -> None:
        guest = self.guests[2]
        self.timeline.chapter("A guest hangs")
        since = len(self.vim.requests)
        guest.client.signal(signal.SIGSTOP)
        stopped_at = time.monotonic()
        self.timeline.say(guest.name, "hangs (SIGSTOP)")
        guest.relay.messages.listener = self._unanswered(guest)
        alarm = self._expect(
            "guest hung: alarm failed with repair action reboot",
            lambda seconds: self.vim.wait_event(
                "alarm", guest.uuid, seconds, since, state="failed", repair_action="reboot"
            ),
        )
        guest.relay.messages.listener = None
        if alarm is not None:
            self._say_delay(guest, alarm.at, stopped_at)
        self._expect(
            "guest hung: service disabled",
            lambda seconds: self.vim.wait_event(
                "service", guest.uuid, seconds, since, status="disabled"
            ),
        )

    def _illness(self) -> None:
        guest = self.guests[1]
        self.timeline.chapter("A guest is ill")
        self._guest_file(guest.fault_file, "fan broken", guest, "is ill")
        self._expect(
            "guest ill: alarm unhealthy with repair action log",
            lambda seconds: self.vim.wait_event(
                "alarm", guest.uuid, seconds, state="unhealthy", repair_action="log"
            ),
        )

    def _resume(self) -> None:
        guest = self.guests[2]
        self.timeline.chapter("The hung guest goes on")
        since = len(self.vim.requests)
        guest.client.signal(signal.SIGCONT)
        self.timeline.say(guest.name, "goes on (SIGCONT); says init when challenges stay away 5 s")
        self._expect(
            "hung guest resumed: service enabled",
            lambda seconds: self.vim.wait_event(
                "service", guest.uuid, seconds, since, status="enabled"
            ),
        )

    def _why(self) -> None:
        """What an operator asks at three in the morning, and what has to be in the answer."""
        self.timeline.chapter("Why was my VM rebooted?")
        for guest, told in ((self.guests[2], "LOST"), (self.guests[1], "fan broken")):
            print(f"\n$ guestctl why {guest.name}")
            command = [str(REPOSITORY / "bin" / "guestctl"), "--root", str(self.root.path)]
            done = subprocess.run(
                [sys.executable, *command, "why", guest.name],
                check=False,
                capture_output=True,
                text=True,
                timeout=10,
            )
            print(done.stdout + done.stderr, end="", flush=True)
            if done.returncode != 0 or told not in done.stdout:
                self.missing.append(f"guestctl why {guest.name} says {told}")

    def _delete(self) -> None:
        guest = self.guests[0]
        self.timeline.chapter("A guest is deleted")
        answer = self.vim.command.delete_instance(guest.uuid)
        self._command("deletes", guest, answer, 204)
        self._expect(
            "guest deleted: its channel closed",
            lambda seconds: wait_until(lambda: not guest.relay.host_connected, seconds),
        )
        self.timeline.say("guestServer", f"has closed the channel of {guest.name}")
        answer = self.vim.command.query_instance(guest.uuid)
        self._command("asks for", guest, answer, 404)

    def _stop(self) -> None:
        self.timeline.chapter("Stopping")
        # A second ^C must not leave processes behind.
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, signal.SIG_IGN)
        self._cleanup.close()
        self.timeline.say("demo", "all processes ended")

    def _verdict(self) -> int:
        if self.interrupted:
            self.root.remove()
            return 130
        if self.timeline.elapsed > SECONDS_AT_MOST:
            self.missing.append(f"the end within {SECONDS_AT_MOST:g} s")
        if self.missing:
            print("\nMISSING:")
            for what in self.missing:
                print(f"  {what}")
            print(f"\nThe logs are in {self.root.path}")
            return 1
        self.root.remove()
        print(f"\nEvery expected event was seen at the VIM, in {self.timeline.elapsed:.1f} s.")
        return 0

    def _expect(self, what: str, wait: Callable[[float], Any]) -> Any:
        """Let `wait(seconds)` find it in what is left of the time; note it as missing if not."""
        left = SECONDS_AT_MOST - STOP_RESERVE_SECONDS - self.timeline.elapsed
        try:
            return wait(max(0.0, min(10.0, left)))
        except AssertionError:
            self.timeline.say("demo", f"MISSING: {what}")
            self.missing.append(what)
            return None

    def _expect_answer(
        self, what: str, guest: Guest, action: str, response: str, reason: str = ""
    ) -> None:
        self._expect(
            f"{what}: action event of {guest.name}",
            lambda seconds: self.vim.wait_event(
                "action",
                guest.uuid,
                seconds,
                action=action,
                guest_response=response,
                reason=reason,
            ),
        )

    def _asks_for(self, kind: str) -> Callable[[float], Request]:
        def wait(seconds: float) -> Request:
            return self.vim.wait_for(
                lambda request: request.method == "GET" and kind in request.path, seconds
            )

        return wait

    def _command(self, what: str, guest: Guest, answer: Answer, status: int = 200) -> None:
        """Print a command of the VIM and its answer; another status is a missing event."""
        details = ""
        if isinstance(answer.body, dict) and "timeout" in answer.body:
            details = f", waits {answer.body['timeout']} s"
        self.timeline.say("VIM -> guestAgent", f"{what} {guest.name}: {answer.status}{details}")
        if answer.status != status:
            self.missing.append(f"answer {status} when the VIM {what} {guest.name}: {answer.raw!r}")

    def _guest_file(self, path: Path, text: str, guest: Guest, what: str) -> None:
        """Write what the guest's sample script reads, whole at once."""
        new = path.with_suffix(".new")
        new.write_text(text + "\n")
        new.replace(path)
        self.timeline.say(guest.name, f"{what}: {text}")

    def _unanswered(self, guest: Guest) -> Callable[[Said], None]:
        count = 0

        def listener(said: Said) -> None:
            nonlocal count
            if said.speaker == "host" and said.message["msg_type"] == "challenge":
                count += 1
                what = f"challenge {count} to {guest.name}: no answer"
                self.timeline.say("guestServer", what, said.at)

        return listener

    def _say_delay(self, guest: Guest, alarm_at: float, stopped_at: float) -> None:
        challenges = [
            said.at
            for said in guest.relay.messages
            if said.at > stopped_at and said.message["msg_type"] == "challenge"
        ]
        first = min(challenges, default=alarm_at)
        self.timeline.say(
            "demo",
            f"alarm {alarm_at - first:.2f} s after the first unanswered challenge"
            f" (interval {INTERVAL_MS} ms, threshold 1)",
        )

    def _mtc_heard(self, datagram: Datagram) -> None:
        self.timeline.say("guestAgent -> mtcAgent", datagram.name, datagram.at)
        if datagram.name == "MONITOR_READY":
            self.timeline.say("mtcAgent -> guestAgent", f"ADD_HOST {HOST} {COMPUTE_0}")

    def _vim_heard(self, request: Request) -> None:
        self.timeline.say("guestAgent -> VIM", self._describe(request), request.at)

    def _describe(self, request: Request) -> str:
        name = self._names.get(request.uuid, request.uuid)
        if not request.event_type:
            what = "state" if "/hosts/" in request.path else "instances"
            return f"asks for the {what} of {name}"
        data = request.data
        if request.event_type == "action":
            reason = f" ({data['reason']})" if data.get("reason") else ""
            return f"{name} on {data['action']}: {data['guest-response']}{reason}"
        if request.event_type == "alarm":
            return f"ALARM {name} {data['state']}, repair action {data['repair-action']}"
        return f"{name} heartbeating: {data['status']}, restart timeout {data['restart-timeout']}"


def main() -> int:
    """Run the demo; ^C and SIGTERM end it early, with everything cleaned up."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    return Demo().run()


if __name__ == "__main__":
    sys.exit(main())
