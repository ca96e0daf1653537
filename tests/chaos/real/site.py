"""The real programs and their surroundings, and how each thing of the plan is done to them."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from guestmtce.runtime.loop import Loop
from tests.chaos.evidence import Evidence, Passage
from tests.chaos.network import Network, Weather
from tests.chaos.real.guests import Client, Guest, Scripted
from tests.chaos.real.ledger import Ledger
from tests.chaos.real.orders import Orders
from tests.chaos.real.plan import WORKERS, Happening, Member, members
from tests.peers.mtc_agent import MtcAgent
from tests.peers.reactor import Reactor
from tests.peers.root import COMPUTE_0, COMPUTE_1, CONTROLLER, HOSTS, Daemon, Root
from tests.peers.vim import Vim
from tests.peers.wire import Datagram

BAD_WEATHER = Weather(loss=0.3, twice=0.1, delay=0.04)
ADDRESSES = dict(zip(WORKERS, (COMPUTE_0, COMPUTE_1)))
CONTROLLERS = ("controller-0", "controller-1")
UUID = "8d80875b-fa73-4ccb-bce3-1cd4df1{:05d}"
HOST_UUID = "8aee436e-d564-459e-a0d8-26c44792{:04d}"
# How late this process may be before what it did late is held against nobody.
LATE_SECS = 0.5
LOOK_SECS = 0.05
ASKS = ("VOTE_INST", "NOTIFY_INST")
# An order is said, or its receiver probed, at 0, 0.25, 0.75, 1.75 and 3.75 s: in bad weather one in
# a hundred has no luck four times.
OFTEN = 4
KILLS = ("agent killed", "server killed")
ENDED = "ended by itself"
VIM_MODES = {
    "vim hangs": "hang",
    "vim is silent": "silent",
    "vim is slow": "slow",
    "vim resets": "reset",
    "vim cuts answers": "cut",
    "vim talks garbage": "garbage",
    "vim says 500": "500",
}
# How each trouble of a guest begins and ends.
TROUBLES: dict[str, tuple[Callable[[Guest], object], Callable[[Guest], object]]] = {
    "hang": (lambda guest: guest.hang(), lambda guest: guest.come_back()),
    "ill": (lambda guest: guest.fall_ill(), lambda guest: guest.be_well()),
    "restart": (lambda guest: guest.crash(), lambda guest: guest.start()),
}


class Level(NamedTuple):
    """What a process holds: open descriptors but its channels, and resident memory in KiB."""

    descriptors: int
    kib: int


class Arrivals(Evidence):
    """What came through, believed or not: there are two workers, and belief is each one's."""

    def arrived(self, _datagram: Datagram, _receiver: str, passage: Passage, now: float) -> None:
        """Note that a copy of it came through."""
        if passage.taken is None:
            passage.taken = now


class Site:
    """Everything, running, until `close`."""

    def __init__(self, seed: int) -> None:
        self.ledger = Ledger()
        self.members = {each.name: each for each in members()}
        self.uuids = {name: UUID.format(n) for n, name in enumerate(self.members)}
        self.names = {uuid: name for name, uuid in self.uuids.items()}
        self.levels: dict[str, Level] = {}
        self._ending = threading.Event()
        self._cleanup = contextlib.ExitStack()
        self._loop = Loop()
        self._thread = threading.Thread(target=self._loop.run, daemon=True)
        self.network = Network(self._loop, random.Random(seed), time.monotonic, Arrivals())
        self._build_roots()
        self._reactor = Reactor()
        self._cleanup.callback(self._reactor.stop)
        first = self.roots[CONTROLLERS[0]]
        self.vim = self._cleanup.enter_context(Vim(first.vim_port, first.vim_cmd_port))
        self.orders = Orders(self.vim, self.ledger, self.members, self.uuids, self._move)
        self.mtc = self._cleanup.enter_context(MtcAgent(first.mtc_event_port, first.mtc_cmd_port))
        for number, worker in enumerate(WORKERS):
            uuid = HOST_UUID.format(number)
            self.vim.set_host(uuid, worker)
            self.mtc.add_host(worker, uuid, ADDRESSES[worker], tell=False)
        self.guests: dict[str, Guest] = {}
        self.daemons: dict[str, Daemon] = {}
        self.active = CONTROLLERS[0]

    def _build_roots(self) -> None:
        """A tree for each host, all with the same ports, the network's between the daemons."""
        self.roots: dict[str, Root] = {}
        outer = Root()
        self._cleanup.callback(outer.close)
        inner = Root()
        self._cleanup.callback(inner.close)
        ports: dict[str, dict[str, object]] = {
            "vim": {"port": outer.vim_port},
            "mtc": {"cmd_port": outer.mtc_cmd_port, "event_port": outer.mtc_event_port},
            "timeouts": {"start_delay": 0},
        }
        of_agent = {"rx_port": inner.agent_port, "vim_cmd_port": outer.vim_cmd_port}
        for host in (*CONTROLLERS, *WORKERS):
            root = self.roots[host] = Root()
            self._cleanup.callback(root.close)
            kind = "worker" if host in WORKERS else "controller"
            (root.path / "etc/platform/platform.conf").write_text(f"nodetype={kind}\n")
            root.write_ini(
                "guestAgent",
                host,
                {**ports, "agent": of_agent, "client": {"rx_port": outer.server_port}},
            )
            root.write_ini(
                "guestServer",
                host,
                {
                    **ports,
                    "agent": {"rx_port": outer.agent_port},
                    "client": {"rx_port": inner.server_port},
                },
            )
        first = self.roots[CONTROLLERS[0]]
        first.vim_port, first.vim_cmd_port = outer.vim_port, outer.vim_cmd_port
        first.mtc_event_port, first.mtc_cmd_port = outer.mtc_event_port, outer.mtc_cmd_port
        for address in (CONTROLLER, *(HOSTS[name] for name in CONTROLLERS)):
            self.network.listen("agent", address, outer.agent_port, inner.agent_port)
        for address in ADDRESSES.values():
            self.network.listen("server", address, outer.server_port, inner.server_port)

    def start(self) -> None:
        """Begin quietly: every guest that can heartbeats, and the VIM has heard it."""
        self._loop.call_soon(self._end_with_the_site)
        self._thread.start()
        for worker in WORKERS:
            self._start(worker)
        self._start(self.active)
        for member in self.members.values():
            self.vim.set_instance(self.uuids[member.name], member.worker)
            self.guests[member.name] = self._build(member)
        if wrong := self.settle(40.0):
            raise AssertionError(f"not begun in 40 s: {wrong}")
        self.levels = self.measure()
        threading.Thread(target=self._look_at_the_clock, daemon=True).start()

    def _end_with_the_site(self) -> None:
        """The network's thread notices by itself: its loop is nobody else's to touch."""
        if self._ending.is_set():
            self._loop.stop()
        else:
            self._loop.call_later(0.2, self._end_with_the_site)

    def _build(self, member: Member) -> Guest:
        root = self.roots[member.worker]
        if member.behaviour == "client":
            return Client(member, self.uuids[member.name], root, self._reactor)
        return Scripted(member, self.uuids[member.name], root.channels, self._reactor)

    def _look_at_the_clock(self) -> None:
        """Note when this process itself was kept waiting: the guests in it were late then."""
        before = time.monotonic()
        while not self._ending.wait(LOOK_SECS):
            now = time.monotonic()
            if now - before > LOOK_SECS + LATE_SECS:
                self.ledger.begin("harness late", lasts=0.0, since=before)
            before = now

    def close(self) -> None:
        """End everything; the trees go."""
        self._ending.set()
        self.orders.close()
        for daemon in self.daemons.values():
            daemon.stop()
        for guest in self.guests.values():
            guest.close()
        if self._thread.is_alive():
            self._thread.join(10)
        self.network.close()
        self._cleanup.close()
        self._loop.close()

    # What the plan does.

    def begin(self, happening: Happening) -> Callable[[], object]:
        """Let it happen; return how it ends."""
        _at, what, who, _seconds = happening
        if what in VIM_MODES:
            return self._vim_misbehaves(what)
        if what in TROUBLES:
            return self._trouble(what, who)
        acts: dict[str, Callable[[], Callable[[], object]]] = {
            "vote": lambda: self._order(self.orders.vote, who),
            "migrate": lambda: self._order(self.orders.migrate, who),
            "cut": self._cut,
            "vim refuses": self._vim_refuses,
            "hosts file empty": self._empty_hosts,
            "agent killed": lambda: self._kill("agent killed", self.active),
            "server killed": lambda: self._kill("server killed", who),
            "agent stopped": lambda: self._stop("agent stopped", self.active),
            "server stopped": lambda: self._stop("server stopped", who),
            "swact": self._swact,
        }
        return acts[what]()

    def _trouble(self, kind: str, who: str) -> Callable[[], object]:
        begins, ends = TROUBLES[kind]
        span = self.ledger.begin(kind, who)
        begins(self.guests[who])

        def over() -> None:
            self.ledger.close(span)
            ends(self.guests[who])

        return over

    def _order(self, order: Callable[[str], None], who: str) -> Callable[[], object]:
        order(who)
        return _nothing

    def _move(self, who: str, target: str) -> None:
        self.guests[who].move(self.roots[target].channels)

    def _cut(self) -> Callable[[], object]:
        span = self.ledger.begin("cut")
        self.network.weather.cut = True

        def over() -> None:
            self.network.weather.cut = False
            self.ledger.close(span)

        return over

    def _vim_refuses(self) -> Callable[[], object]:
        span = self.ledger.begin("vim away")
        self.vim.refuse()

        def over() -> None:
            self.vim.listen()
            self.ledger.close(span)

        return over

    def _vim_misbehaves(self, what: str) -> Callable[[], object]:
        span = self.ledger.begin("vim away")
        self.ledger.tell(what)
        self.vim.misbehave(VIM_MODES[what])

        def over() -> None:
            self.vim.behave()
            self.ledger.close(span)

        return over

    def _empty_hosts(self) -> Callable[[], object]:
        span = self.ledger.begin("hosts file empty")
        for root in self.roots.values():
            (root.path / "etc/hosts").write_text("")

        def over() -> None:
            for root in self.roots.values():
                root.write_hosts(HOSTS)
            self.ledger.close(span)

        return over

    def _kill(self, kind: str, host: str) -> Callable[[], object]:
        span = self.ledger.begin(kind, host)
        self.daemons[host].kill()

        def over() -> None:
            self._start(host)
            self.ledger.close(span)

        return over

    def _stop(self, kind: str, host: str) -> Callable[[], object]:
        span = self.ledger.begin(kind, host)
        self.daemons[host].signal(signal.SIGSTOP)

        def over() -> None:
            self.daemons[host].signal(signal.SIGCONT)
            self.ledger.close(span)

        return over

    def _swact(self) -> Callable[[], object]:
        """guestAgent ends here and begins on the other controller."""
        span = self.ledger.begin("agent killed", self.active)
        self.ledger.tell("swact")
        self.daemons.pop(self.active).stop()
        self.active = CONTROLLERS[1 - CONTROLLERS.index(self.active)]

        def over() -> None:
            self._start(self.active)
            self.ledger.close(span)

        return over

    def _start(self, host: str) -> None:
        program = "guestServer" if host in WORKERS else "guestAgent"
        self.daemons[host] = self.roots[host].start(program, wait=False)

    def bad_weather(self) -> None:
        """Lose, repeat and delay datagrams from now on."""
        self.network.weather = Weather(BAD_WEATHER.loss, BAD_WEATHER.twice, BAD_WEATHER.delay)

    def calm(self) -> None:
        """Good weather, and no guest with a bad habit, from now on."""
        self.network.weather = Weather()
        for guest in self.guests.values():
            guest.calm()
        self.ledger.tell("calm")

    # What can be seen of it.

    def settle(self, seconds: float) -> list[str]:
        """Wait until everybody believes what is true; return what is still wrong after that."""
        end = time.monotonic() + seconds
        while (wrong := self.wrong_states()) and time.monotonic() < end:
            self.look_after()
            time.sleep(0.25)
        return wrong

    def look_after(self) -> None:
        """Start a daemon again that has ended by itself: as pmond and SM would."""
        for host, daemon in list(self.daemons.items()):
            if not daemon.running and not self.ledger.any(KILLS, time.monotonic(), float("inf")):
                self.ledger.begin(ENDED, host, lasts=0.0)
                self._start(host)

    def wrong_states(self) -> list[str]:
        """Return the guests of which the VIM, or guestAgent, believes what is not true."""
        told = {each.uuid: each.data["status"] for each in self.vim.events("service")}
        truth = {
            uuid: "disabled" if self.members[name].behaviour == "endless" else "enabled"
            for name, uuid in self.uuids.items()
        }
        told = {uuid: told.get(uuid, "disabled") for uuid in truth}
        # The VIM first: guestAgent, asked thirty times, is the one who knows before.
        believed = told if told != truth else {uuid: self._status(uuid) for uuid in truth}
        return [
            f"{self.names[uuid]} is {truth[uuid]} at the end, and believed {believed[uuid]}"
            for uuid in truth
            if believed[uuid] != truth[uuid]
        ]

    def _status(self, uuid: str) -> str:
        try:
            answer = self.vim.command.query_instance(uuid)
        except OSError as error:
            return str(error)
        if answer.status != 200:
            return str(answer.status)
        return str(answer.body["services"][0]["status"])

    def measure(self) -> dict[str, Level]:
        """Return what each daemon holds now, by program and host."""
        guests = Counter(self.orders.where.values())
        return {host: _level(daemon.pid, guests[host]) for host, daemon in self.daemons.items()}

    def lost_on_the_way(self, name: str, who: str, begin: float, end: float) -> bool:
        """Whether an order about a guest was tried often enough, and lost each time."""
        evidence, order = self.network.evidence, (name, self.uuids[who])
        said = list(evidence.said(order, begin, end))
        if not said or any(passage.taken_by(end) for passage in said):
            return False
        sender = "agent" if name in ASKS else "server"
        return evidence.tries(order, sender, begin, end) >= OFTEN

    def keep_logs(self, place: Path) -> None:
        """Copy the logs of the daemons to `place`."""
        for host, root in self.roots.items():
            for path in (*root.path.glob("*.log"), *root.path.glob("var/log/mtce-guest/*")):
                (place / host).mkdir(parents=True, exist_ok=True)
                shutil.copy(path, place / host)

    def tracebacks(self) -> list[str]:
        """Return the hosts whose daemon has logged one."""
        logs = {path for root in self.roots.values() for path in root.path.glob("*.log")}
        return sorted(str(path) for path in logs if "Traceback" in path.read_text(errors="replace"))

    def arrived(self, name: str, who: str, begin: float, end: float) -> bool:
        """Whether what was first said in that time about a guest had come through by its end."""
        return any(self.network.evidence.taken(name, self.uuids[who], begin, end))


def _nothing() -> None:
    """End what ends by itself."""


def _level(pid: int, channels: int) -> Level:
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        pages = int(file.read().split()[1])
    kib: int = pages * os.sysconf("SC_PAGE_SIZE") // 1024
    return Level(len(os.listdir(f"/proc/{pid}/fd")) - channels, kib)
