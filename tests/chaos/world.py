"""Both daemons, guests and a VIM on one simulated clock, and what truly happens to them.

Everything that happens follows from the seed: the schedule, the network's weather, what the
guests do. `truth` and `heard` are what the oracle compares.
"""

from __future__ import annotations

import dataclasses
import itertools
import random
import re
import socket
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from guestmtce.agent.app import GuestAgent
from guestmtce.core.shared.settings import AgentSettings, ServerSettings
from guestmtce.runtime.outside import Outside
from guestmtce.server.app import GuestServer
from tests.chaos.evidence import Evidence
from tests.chaos.network import Network
from tests.chaos.process import Process
from tests.peers.root import COMPUTE_0, CONTROLLER, CONTROLLER_0, free_ports
from tests.simulation import SimulatedLoop
from tests.unit.agent_rig import HOSTS, PeersRig, Ports, vim_answer
from tests.unit.agent_support import HOST_0
from tests.unit.server_support import Guest

UUID = "8d80875b-fa73-4ccb-bce3-1cd4df10{:04d}"
HOST = "compute-0"


@dataclass(eq=False)
class Affair:
    """Something that is so from `begin` until `end`: a guest hangs, is ill, or is asked.

    `seen` is when guestServer could see that it was over: by an answer to a challenge.
    """

    uuid: str
    begin: float
    end: float = float("inf")
    seen: float = float("inf")


class Outage(Affair):
    """The VIM takes no requests. It is tried again after 1, 2, 4 ... 30 s."""

    @property
    def tried_again(self) -> float:
        return self.end + min(self.end - self.begin + 1.0, 30.0)


@dataclass
class Truth:
    """What happened, by times of the simulated clock."""

    silences: list[Affair] = field(default_factory=list)
    illnesses: list[Affair] = field(default_factory=list)
    questions: list[Affair] = field(default_factory=list)
    agent_deaths: list[float] = field(default_factory=list)
    server_deaths: list[float] = field(default_factory=list)
    vim_down: list[Outage] = field(default_factory=list)
    cuts: list[Affair] = field(default_factory=list)
    story: list[tuple[float, str]] = field(default_factory=list)


_CHALLENGE = re.compile(
    rb'\n\{"version":\d,"revision":\d,"msg_type":"challenge","sequence":\d+,'
    rb'"heartbeat_challenge":(\d+)\}\n'
)
_ANSWER = (
    b'\n{"version":3,"revision":1,"msg_type":"challenge_response","sequence":1,'
    b'"heartbeat_response":%%d,"heartbeat_health":"%b","corrective_action":"%b","log_msg":""}\n'
)
_WELL, _ILL = _ANSWER % (b"healthy", b"none"), _ANSWER % (b"unhealthy", b"log")
# How long after its last trouble, in seconds, a guest is left alone: it is history then.
LEFT_ALONE_SECS = 12.0
# What the wall clock says when the simulated one begins.
BEGAN = 1_700_000_000.0


class ChaosGuest(Guest):
    """A guest that can hang, come back, be ill, and answers what it is asked."""

    clock: Callable[[], float] = lambda: 0.0
    hung = False
    ill = False

    # What is over with its next good answer.
    over: Affair | None = None
    vote = "accept"
    challenges = 0
    last_challenge = 0.0

    def take(self, data: bytes) -> None:
        """Answer; what is nearly always heard is answered without a look at the rest."""
        challenge = _CHALLENGE.fullmatch(data)
        if challenge is not None:
            self.challenges += 1
            self.last_challenge = self._loop.time()
            if self.answers:
                self.answer(int(challenge[1]))
            return
        before = len(self.heard)
        super().take(data)
        for message in self.heard[before:]:
            if message["msg_type"] == "action_notify" and not self.hung:
                self.say(
                    "action_response",
                    invocation_id=message["invocation_id"],
                    event_type=message["event_type"],
                    notification_type=message["notification_type"],
                    vote_result=self.vote,
                    log_msg="",
                )

    def answer(self, number: int, health: str = "healthy", action: str = "none") -> None:
        self.say_raw((_ILL if self.ill else _WELL) % number)
        if self.over is not None and not self.ill:
            self.over.seen = self.clock()
            self.over = None

    def hang(self) -> None:
        self.hung, self.answers, self.inits = True, False, False

    def come_back(self) -> None:
        """Its client starts anew, as a rebooted guest's does."""
        self.hung, self.answers, self.inits = False, True, True
        if self.connection is not None:
            self.say_init()


class World:
    """One worker with `guests` guests, one controller; `seed` decides the rest.

    `new_agent` and `new_server` say of the daemons that are started whether they number and
    acknowledge what is said; without that they say and hear what the old ones do. `all_new` is
    whether all of them did until now. The last `witnesses` of the guests have no trouble of their
    own; the heartbeat's `intervals`, in seconds, go round among them all.
    """

    def __init__(
        self,
        seed: int,
        guests: int,
        *,
        new_agent: bool = True,
        new_server: bool = True,
        witnesses: int = 0,
        intervals: tuple[float, ...] = (1.0,),
    ) -> None:
        self.new_agent, self.new_server = new_agent, new_server
        self.all_new = new_agent and new_server
        self.random = random.Random(seed)
        self.loop = SimulatedLoop()
        self.truth = Truth()
        self._temporary = tempfile.TemporaryDirectory(prefix="mtce-chaos-")
        self.root = Path(self._temporary.name)
        self.channels = self.root / "var/lib/libvirt/qemu"
        self.channels.mkdir(parents=True)
        for name in ("etc/platform/.initial_config_complete", "var/run/.goenabled"):
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            (self.root / name).touch()
        hosts = "".join(f"{address} {name}\n" for name, address in HOSTS.items())
        (self.root / "etc/hosts").write_text(hosts)
        udp = free_ports(7)  # in one go: no two of them are the same
        outer = Ports(*udp[:4], *free_ports(1, socket.SOCK_STREAM))
        inner = outer._replace(agent=udp[4], server=udp[5])
        self.rig = PeersRig(self.loop, outer._replace(server=udp[6]))
        self.rig.vim.behaviour = self._vim_answers
        self.network = Network(self.loop, random.Random(seed + 1), lambda: self.now)
        self.network.listen("agent", CONTROLLER, outer.agent, inner.agent)
        self.network.listen("agent", CONTROLLER_0, outer.agent, inner.agent)
        self.network.listen("server", COMPUTE_0, outer.server, inner.server)
        self._server_settings = ServerSettings(
            agent_rx_port=outer.agent, rx_port=inner.server, hostname=HOST
        )
        self._agent_settings = AgentSettings(
            rx_port=inner.agent,
            vim_cmd_port=self.rig.ports.commands,
            server_rx_port=outer.server,
            vim_port=self.rig.vim.port,
            mtc_cmd_port=self.rig.ports.mtc_cmd,
            mtc_event_port=self.rig.ports.mtc_event,
            hostname="controller-0",
        )
        self._outside = Outside(
            lambda: BEGAN + self.now, self.loop.time, random.Random(seed + 2).randrange
        )
        self.uuids = [UUID.format(number) for number in range(guests)]
        self.intervals = dict(zip(self.uuids, itertools.cycle(intervals)))
        # What each guest wants done if it is lost, and how it votes.
        self.wanted = dict(zip(self.uuids, itertools.cycle(("reboot", "stop", "log"))))
        self.votes = dict(zip(self.uuids, itertools.cycle(("accept", "reject"))))
        self.guests: dict[str, ChaosGuest] = {}
        self._busy_until = dict.fromkeys(self.uuids[guests - witnesses :], float("inf"))
        self._believed: dict[str, str] = {}
        self.processes: dict[str, Process] = {}
        self.server = self._build_server()
        self.agent = self._build_agent()
        self.loop.simulated.in_flight = self._tells_the_vim
        self.errors = 0

    @property
    def now(self) -> float:
        return self.rig.time

    @property
    def evidence(self) -> Evidence:
        return self.network.evidence

    def tell(self, text: str) -> None:
        self.truth.story.append((self.now, text))

    def start(self) -> None:
        """Begin quietly: everything heartbeats, and the VIM knows it."""
        self.server.start()
        self.agent.start()
        self.loop.settle()
        self.rig.add_host()
        self.rig.host_command("enable")
        for uuid in self.uuids:
            guest = self.guests[uuid] = ChaosGuest(self, uuid)  # type: ignore[arg-type]
            guest.clock = lambda: self.now
            guest.init["heartbeat_interval_ms"] = int(1000 * self.intervals[uuid])
            guest.init["corrective_action"] = self.wanted[uuid]
            guest.vote = self.votes[uuid]
            self.rig.create(uuid)
            self.rig.enable(uuid)
        self.advance(20)
        assert set(self.vim_believes().values()) == {"enabled"}
        self.forget()

    def _tells_the_vim(self) -> bool:
        return bool(self.rig.vim.open or self.agent.core.queue.in_flight)

    def forget(self) -> None:
        """Let what happened until now be history; what the VIM believes stays."""
        self._believed = self.vim_believes()
        self.truth = Truth()
        self.rig.forget()
        for guest in self.guests.values():
            guest.heard.clear()
        self.network.evidence.forget()

    def advance(self, seconds: float) -> None:
        self.loop.advance(seconds)

    def close(self) -> None:
        self.errors = self.loop.errors
        self.agent.stop(lambda: None)
        self.agent.vim_api.stop()
        self.server.stop(lambda: None)
        for guest in self.guests.values():
            guest.stop(unlink=True)
        self.network.close()
        self.rig.close()
        self._temporary.cleanup()

    def idle(self) -> list[str]:
        """Return the guests to which nothing happens, and has happened for some time."""
        return [uuid for uuid in self.guests if self._busy_until.get(uuid, -1.0) < self.now]

    @property
    def vim_is_down(self) -> bool:
        return any(down.end > self.now for down in self.truth.vim_down)

    def vim_is_up_since(self, at: float) -> bool:
        """Whether that is past, and the VIM has taken requests since."""
        return at <= self.now and all(down.tried_again < at for down in self.truth.vim_down)

    # What happens to them.

    def hang(self, uuid: str, seconds: float) -> None:
        """A guest hangs for a while; it comes back by itself."""
        silence = Affair(uuid, self.now)
        self.truth.silences.append(silence)
        self._busy_until[uuid] = self.now + seconds + LEFT_ALONE_SECS
        self.tell(f"{uuid[-4:]} hangs for {seconds:.1f} s")
        self.guests[uuid].hang()

        def over() -> None:
            silence.end = self.now
            self.tell(f"{uuid[-4:]} comes back")
            self.guests[uuid].over = silence
            self.guests[uuid].come_back()

        self.loop.call_later(seconds, over)

    def fall_ill(self, uuid: str, seconds: float) -> None:
        """A guest says that it is unhealthy for a while."""
        illness = Affair(uuid, self.now)
        self.truth.illnesses.append(illness)
        self._busy_until[uuid] = self.now + seconds + LEFT_ALONE_SECS
        self.tell(f"{uuid[-4:]} is ill for {seconds:.1f} s")
        self.guests[uuid].ill = True

        def over() -> None:
            illness.end = self.now
            self.tell(f"{uuid[-4:]} is well")
            self.guests[uuid].over = illness
            self.guests[uuid].ill = False

        self.loop.call_later(seconds, over)

    def ask(self, uuid: str) -> None:
        """The VIM asks for a vote."""
        status, answer = self.rig.ask("vote", "reboot", uuid)
        if status == 200 and int(answer["timeout"]):
            until = self._busy_until[uuid] = self.now + int(answer["timeout"])
            self.truth.questions.append(Affair(uuid, self.now, until))
            self.tell(f"{uuid[-4:]} is asked, until {until:.1f}")

    def cut(self, seconds: float) -> None:
        """The network carries nothing for a while."""
        cut = Affair("", self.now)
        self.truth.cuts.append(cut)
        self.network.weather.cut = True
        self.tell(f"the network is cut for {seconds:.1f} s")

        def over() -> None:
            cut.end = self.now
            self.network.weather.cut = any(each.end > self.now for each in self.truth.cuts)

        self.loop.call_later(seconds, over)

    def vim_goes_down(self, seconds: float) -> None:
        """The VIM refuses connections for a while."""
        down = Outage("", self.now)
        self.truth.vim_down.append(down)
        self.rig.vim.refuse()
        self.tell(f"the VIM is down for {seconds:.1f} s")

        def over() -> None:
            down.end = self.now
            self.rig.vim.listen()

        self.loop.call_later(seconds, over)

    def kill_agent(self) -> None:
        """kill -9 of guestAgent, then a fresh one, as after a swact."""
        self.truth.agent_deaths.append(self.now)
        self.tell("guestAgent dies")
        self.processes["agent"].kill()
        self.network.evidence.dies("agent")
        self.agent = self._build_agent()
        self.all_new = self.all_new and self.new_agent
        self.agent.start()
        self.loop.settle()
        self.rig.add_host()

    def kill_server(self) -> None:
        """kill -9 of guestServer; pmond starts it again."""
        self.truth.server_deaths.append(self.now)
        self.tell("guestServer dies")
        self.processes["server"].kill()
        self.network.evidence.dies("server")
        self.server = self._build_server()
        self.all_new = self.all_new and self.new_server
        self.server.start()
        self.loop.settle()

    # What the VIM heard.

    def vim_believes(self) -> dict[str, str]:
        """Return what the VIM was told last of each instance's heartbeat."""
        told = {
            body["uuid"]: body["event-data"]["services"][0]["status"]
            for body in self.rig.vim.events("service")
        }
        return {**self._believed, **told}

    def heard(self, kind: str) -> list[tuple[float, str, dict[str, Any]]]:
        """Return (when, instance, content) of each event of a kind."""
        return [
            (seen.at, seen.what.members["uuid"], seen.what.members["event-data"])
            for seen in self.rig.vim.requests
            if seen.what.method == "PATCH" and seen.what.members["event-type"] == kind
        ]

    def _build_server(self) -> GuestServer:
        process = self.processes["server"] = Process(self.loop)
        settings = dataclasses.replace(self._server_settings, acknowledge=self.new_server)
        return GuestServer(process, settings, HOST, str(self.root), self._outside)

    def _build_agent(self) -> GuestAgent:
        process = self.processes["agent"] = Process(self.loop)
        return GuestAgent(
            process,
            dataclasses.replace(self._agent_settings, acknowledge=self.new_agent),
            "controller-0",
            str(self.root),
            is_here=lambda _address: True,
            outside=self._outside,
        )

    def _vim_answers(self, raw: bytes) -> bytes:
        """Answer as the VIM does: queries with what it knows, events with nothing."""
        line = raw.split(b"\r\n", 1)[0].decode()
        if "/instances/?" in line:
            service = {"service": "heartbeat", "state": "enabled"}
            known = [{"uuid": uuid, "hostname": HOST, "services": [service]} for uuid in self.uuids]
            return vim_answer({"instances": known})
        if line.startswith("GET"):
            return vim_answer({"uuid": HOST_0, "hostname": HOST, "state": "enabled"})
        return b""
