"""The VIM: takes guestAgent's events, answers its queries, and sends it commands.

The server answers as the real VIM does (http-api.md): HTTP/1.0 without Content-Length, the
end of the answer is the end of the connection, then a reset; `service` and `action` events get no
answer at all. `misbehave` makes it do worse. One thread per connection; with `serial` they take
turns, so that one that hangs blocks all, as in the real one.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import socket
import struct
import sys
import termios
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from tests.peers.journal import Journal

PREFIX = "/nfvi-plugins/v1"
# SO_LINGER with these makes close() send a reset.
LINGER_NONE = struct.pack("ii", 1, 0)
ENDLESS_LIMIT = 50_000_000

MODES = ("hang", "reset", "400", "404", "500", "503", "slow", "garbage", "endless", "cut", "silent")


class Request(NamedTuple):
    """One request of guestAgent, whole or not. `at` is monotonic seconds."""

    at: float
    method: str
    path: str
    headers: dict[str, str]
    raw: bytes
    body: Any

    @property
    def event_type(self) -> str:
        """service, alarm or action; empty for a query."""
        return str(self.body.get("event-type", "")) if isinstance(self.body, dict) else ""

    @property
    def uuid(self) -> str:
        """The instance or host that it is about."""
        query = parse_qs(urlsplit(self.path).query).get("host_uuid")
        return query[0] if query else urlsplit(self.path).path.rsplit("/", 1)[-1]

    @property
    def data(self) -> dict[str, str]:
        """The event's data: the service's members, or the action's."""
        event_data = self.body["event-data"]
        if "services" in event_data:
            return dict(event_data["services"][0])
        return dict(event_data)


class Misbehaviour(NamedTuple):
    """How to treat the requests that fit `when`, `times` times (None: always)."""

    mode: str
    when: Callable[[Request], object]
    times: int | None


class Vim:
    """Listens on `port` (0: any). `hosts` and `instances` are what queries are answered from."""

    def __init__(self, port: int = 0, command_port: int = 0, serial: bool = False) -> None:
        self.requests: Journal[Request] = Journal()
        # What was no request that the VIM could read: always a mistake of guestAgent.
        self.unreadable: Journal[str] = Journal()
        self.connections = 0
        self.hosts: dict[str, dict[str, str]] = {}
        self.instances: dict[str, dict[str, str]] = {}
        # What hang, silent, slow and endless wait for before they close.
        self.released = threading.Event()
        self.command = VimCommands(command_port)
        self._rules: list[Misbehaviour] = []
        self._listener: socket.socket | None = None
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._turn = threading.Lock() if serial else contextlib.nullcontext()
        self.port = port
        self.listen()

    def set_host(self, uuid: str, hostname: str, state: str = "enabled") -> None:
        """Have the host query answered with this."""
        self.hosts[uuid] = {"hostname": hostname, "state": state}

    def set_instance(self, uuid: str, hostname: str, state: str = "enabled") -> None:
        """Have the instances query of that host name this one."""
        self.instances[uuid] = {"hostname": hostname, "state": state}

    def misbehave(
        self,
        mode: str,
        when: Callable[[Request], object] = lambda _request: True,
        times: int | None = None,
    ) -> None:
        """Treat requests badly from now on: one of MODES.

        hang: read the request, never answer. silent: as hang, but its end is not read either.
        reset, garbage, cut, endless, slow: what the answer is. A number: that status.
        """
        if mode not in MODES:
            raise ValueError(mode)
        with self._lock:
            self._rules.append(Misbehaviour(mode, when, times))

    def behave(self) -> None:
        """Forget every misbehaviour and let go of the connections that hang."""
        with self._lock:
            self._rules.clear()
        self.released.set()
        self.released = threading.Event()

    def refuse(self) -> None:
        """Be down: connections are refused until `listen`."""
        if self._listener is not None:
            # Wakes the accepting thread, which close() alone would not.
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None

    def listen(self) -> None:
        """Be up (again), on the same port."""
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(128)
        self.port = listener.getsockname()[1]
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def events(self, event_type: str = "", uuid: str = "") -> list[Request]:
        """Return the events so far, of that type and instance."""
        return [seen for seen in self.requests if _fits(seen, event_type, uuid, {})]

    def wait_for(
        self,
        predicate: Callable[[Request], object],
        timeout: float = 10.0,
        since: int = 0,
    ) -> Request:
        """Wait for a request that fits."""
        return self.requests.wait_for(predicate, timeout, since)

    def wait_event(
        self, event_type: str, uuid: str = "", timeout: float = 10.0, since: int = 0, **data: str
    ) -> Request:
        """Wait for an event with these members of its data, `_` standing for `-` in their names."""
        wanted = {key.replace("_", "-"): value for key, value in data.items()}
        return self.wait_for(lambda seen: _fits(seen, event_type, uuid, wanted), timeout, since)

    def close(self) -> None:
        self.refuse()
        self.released.set()
        with self._lock:
            connections = list(self._open)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Vim:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            self.connections += 1
            with self._lock:
                self._open.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(30)
        try:
            # A peer that goes away at any point is its own affair.
            with connection, self._turn, contextlib.suppress(OSError):
                request = self._read(connection)
                if request is None:
                    return
                mode = self._mode(request)
                self.requests.append(request)
                self._answer(connection, request, mode)
        except ValueError as error:
            self.unreadable.append(repr(error))
        finally:
            with self._lock:
                self._open.discard(connection)

    def _read(self, connection: socket.socket) -> Request | None:
        """Return the request, or None when the peer closed without a whole one."""
        data = b""
        while b"\r\n\r\n" not in data:
            more = connection.recv(65536)
            if not more:
                return None
            data += more
        head, body = data.split(b"\r\n\r\n", 1)
        first, *lines = head.decode("latin-1").split("\r\n")
        method, path, _version = first.split(" ")
        headers = {}
        for line in lines:
            name, value = line.split(":", 1)
            headers[name.strip().lower()] = value.strip()
        # As the real one: what comes without Content-Length is not read.
        length = int(headers.get("content-length", 0))
        while len(body) < length:
            more = connection.recv(65536)
            if not more:
                return None
            body += more
        body = body[:length]
        parsed = json.loads(body.decode("utf-8")) if body else None
        return Request(time.monotonic(), method, path, headers, data, parsed)

    def _mode(self, request: Request) -> str:
        with self._lock:
            for index, rule in enumerate(self._rules):
                if rule.when(request):
                    if rule.times is not None:
                        if rule.times <= 1:
                            del self._rules[index]
                        else:
                            self._rules[index] = rule._replace(times=rule.times - 1)
                    return rule.mode
        return "normal"

    def _answer(self, connection: socket.socket, request: Request, mode: str) -> None:
        status, body = self._content(request)
        actions: dict[str, Callable[[], None]] = {
            "normal": lambda: self._say(connection, request, status, body),
            "hang": lambda: self._hang(connection),
            "silent": lambda: _wait(self.released),
            "reset": lambda: _reset(connection),
            "slow": lambda: self._dribble(connection, _response(status, body)),
            "garbage": lambda: connection.sendall(b"\x00\xff\x16\x03 what is this?\r\n\r\n" * 9),
            "endless": lambda: self._endless(connection),
            "cut": lambda: connection.sendall(_response(status, body)[:25]),
        }
        if mode in actions:
            actions[mode]()
        else:
            connection.sendall(_response(int(mode), {"reason": f"told to say {mode}"}))

    def _say(
        self, connection: socket.socket, request: Request, status: int, body: dict[str, Any]
    ) -> None:
        """Answer as the VIM on Python 3 does."""
        if request.event_type in ("service", "action") or status == 400:
            return
        connection.sendall(_response(status, body))
        connection.shutdown(socket.SHUT_WR)
        _wait_sent(connection)
        _reset(connection)

    def _content(self, request: Request) -> tuple[int, dict[str, Any]]:
        """Return status and body that the request deserves."""
        path = urlsplit(request.path).path
        if request.method == "PATCH" and path.startswith(f"{PREFIX}/instances/"):
            body = request.body if isinstance(request.body, dict) else {}
            return 200, {**body, "admin_state": "unlocked"}
        if request.method == "GET" and path.startswith(f"{PREFIX}/hosts/"):
            host = self.hosts.get(request.uuid)
            asked = request.body or {}
            if host is None or host["hostname"] != asked.get("hostname"):
                return 400, {}
            return 200, {"uuid": request.uuid, **host}
        if request.method == "GET" and path == f"{PREFIX}/instances/":
            return 200, {"instances": self._instances_on(request.uuid)}
        return 404, {}

    def _instances_on(self, host_uuid: str) -> list[dict[str, Any]]:
        hostname = self.hosts.get(host_uuid, {}).get("hostname")
        return [
            {
                "uuid": uuid,
                "hostname": hostname,
                "services": [{"service": "heartbeat", "state": instance["state"]}],
            }
            for uuid, instance in list(self.instances.items())
            if instance["hostname"] == hostname
        ]

    def _hang(self, connection: socket.socket) -> None:
        """Wait until released or the peer closes."""
        connection.settimeout(0.1)
        released = self.released
        while not released.is_set():
            with contextlib.suppress(socket.timeout):
                if not connection.recv(4096):
                    return

    def _dribble(self, connection: socket.socket, data: bytes) -> None:
        released = self.released
        for index in range(len(data)):
            if released.wait(0.02):
                return
            connection.sendall(data[index : index + 1])

    def _endless(self, connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n")
        chunk = b"[" * 65536
        released = self.released
        for _ in range(ENDLESS_LIMIT // len(chunk)):
            if released.is_set():
                return
            connection.sendall(chunk)


def _fits(request: Request, event_type: str, uuid: str, data: Mapping[str, str]) -> bool:
    if not request.event_type or (event_type and request.event_type != event_type):
        return False
    if uuid and request.uuid != uuid:
        return False
    return all(request.data.get(key) == value for key, value in data.items())


def _response(status: int, body: dict[str, Any]) -> bytes:
    reason = http.client.responses.get(status, "")
    head = f"HTTP/1.0 {status} {reason}\r\nServer: vim\r\nContent-Type: application/json\r\n\r\n"
    return head.encode() + json.dumps(body).encode()


def _wait_sent(connection: socket.socket) -> None:
    """Wait until the peer's kernel has everything: a reset discards what has not gone yet."""
    unsent = bytearray(4)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        fcntl.ioctl(connection, termios.TIOCOUTQ, unsent)
        if not int.from_bytes(unsent, sys.byteorder):
            return
        time.sleep(0.001)


def _reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NONE)
    connection.close()


def _wait(event: threading.Event) -> None:
    event.wait()


class Answer(NamedTuple):
    """guestAgent's answer to a command; `body` is parsed when it is JSON, else None."""

    status: int
    headers: dict[str, str]
    body: Any
    raw: bytes


class VimCommands:
    """The VIM's commands to guestAgent, one connection each, with the VIM's headers."""

    HEADERS: Mapping[str, str] = {
        "User-Agent": "vim/1.0",
        "Content-Type": "application/json",
        "Accept": "application/json",
        "X-Auth-Token": "a-token",
    }

    def __init__(self, port: int, address: str = "127.0.0.1", timeout: float = 20.0) -> None:
        self.port = port
        self.address = address
        self.timeout = timeout

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send any request; `body` is bytes as they are, or an object to be JSON."""
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        connection = http.client.HTTPConnection(self.address, self.port, timeout=self.timeout)
        with contextlib.closing(connection):
            connection.request(
                method, path, body, dict(self.HEADERS if headers is None else headers)
            )
            response = connection.getresponse()
            raw = response.read()
            found = {name.lower(): value for name, value in response.getheaders()}
        parsed = None
        with contextlib.suppress(ValueError):
            parsed = json.loads(raw) if raw else None
        return Answer(response.status, found, parsed, raw)

    def create_instance(self, uuid: str, hostname: str) -> Answer:
        body = {"uuid": uuid, "hostname": hostname, "services": ["heartbeat"]}
        return self.request("POST", f"/v1/instances/{uuid}", body)

    def set_instance(self, uuid: str, hostname: str, state: str = "enabled") -> Answer:
        services = [{"service": "heartbeat", "state": state}]
        body = {"uuid": uuid, "hostname": hostname, "services": services}
        return self.request("PATCH", f"/v1/instances/{uuid}", body)

    def query_instance(self, uuid: str) -> Answer:
        return self.request("GET", f"/v1/instances/{uuid}")

    def delete_instance(self, uuid: str) -> Answer:
        return self.request("DELETE", f"/v1/instances/{uuid}")

    def vote(self, uuid: str, hostname: str, action: str) -> Answer:
        body = {"uuid": uuid, "hostname": hostname, "action": action}
        return self.request("POST", f"/v1/instances/{uuid}/vote", body)

    def notify(self, uuid: str, hostname: str, action: str) -> Answer:
        body = {"uuid": uuid, "hostname": hostname, "action": action}
        return self.request("POST", f"/v1/instances/{uuid}/notify", body)
