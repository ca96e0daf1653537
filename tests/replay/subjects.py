"""The guestServer under test: on the player's own loop with simulated time, or a process."""

from __future__ import annotations

import signal
import socket

from guestmtce.core.shared.settings import ServerSettings, load_server
from guestmtce.runtime import files
from guestmtce.runtime.loop import Loop
from guestmtce.server.app import GuestServer
from tests.peers.root import Root
from tests.peers.stopwatch import Stopwatch
from tests.replay.compare import Difference, compare
from tests.replay.intended import unexplained
from tests.replay.player import Player
from tests.replay.recording import Recording
from tests.simulation import SimulatedLoop

# The machine is shared, and the clock is real: spacing in simulated time is the sharper test.
REAL_SLACK = 0.4


class InProcess:
    """The app itself; signals are what they lead to."""

    def __init__(self, loop: Loop, root: Root) -> None:
        self._root = str(root.path)
        settings = self._settings()
        hostname = settings.hostname or socket.gethostname()
        self._app = GuestServer(loop, settings, hostname, self._root)

    def _settings(self) -> ServerSettings:
        settings = load_server(files.reader(self._root)).settings
        assert settings is not None
        return settings

    def start(self) -> None:
        self._app.start()

    def reload(self) -> None:
        self._app.reload(self._settings())

    def terminate(self) -> None:
        self._app.stop(lambda: None)


class Process:
    """bin/guestServer."""

    def __init__(self, root: Root) -> None:
        self._root = root

    def start(self) -> None:
        self._daemon = self._root.start_server()

    def reload(self) -> None:
        self._daemon.signal(signal.SIGHUP)

    def terminate(self) -> None:
        self._daemon.signal(signal.SIGTERM)


def _settings_of(recording: Recording) -> dict[str, dict[str, object]]:
    return {"client": {"hbs_failure_threshold": recording.threshold}}


def replay_simulated(scenario: str) -> list[Difference]:
    """Play one scenario in simulated time; return the differences."""
    recording = Recording(scenario)
    loop = SimulatedLoop()
    with Root(settings=_settings_of(recording)) as root:
        subject = InProcess(loop, root)
        player = Player(recording, loop, root, subject)
        player.begin()
        loop.advance(recording.end - player.time)
        found = compare(recording, player.events, player.unfed)
        subject.terminate()
        player.close()
    assert loop.errors == 0, "a callback failed, see the log"
    loop.close()
    return found


def replay_process(scenario: str, ports: tuple[int, int]) -> list[Difference]:
    """Play one scenario to a process, which takes its time; return the differences.

    `ports` are guestAgent's and guestServer's: replays that run at once have different ones.
    What is wrong is so each time: a challenge that real time lets in before the next input of the
    recording, or keeps out, is not. So one that differs is played again, at most thrice.
    """
    for _ in range(2):
        found = _play_to_process(scenario, ports)
        if not unexplained(scenario, found):
            return found
    return _play_to_process(scenario, ports)


def _play_to_process(scenario: str, ports: tuple[int, int]) -> list[Difference]:
    recording = Recording(scenario)
    loop = Loop()
    with Root() as root:
        root.agent_port, root.server_port = ports
        root.write_ini("guestServer", "compute-0", _settings_of(recording))
        player = Player(recording, loop, root, Process(root))
        with Stopwatch() as watch:
            player.begin()
            loop.call_later(recording.end - player.time, loop.stop)
            loop.run()
        slack = REAL_SLACK + watch.longest
        found = compare(recording, player.events, player.unfed, slack=slack)
        player.close()
    assert loop.errors == 0, "a callback failed, see the log"
    loop.close()
    return found
