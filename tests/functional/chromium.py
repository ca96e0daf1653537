"""A headless Chromium, by the DevTools protocol over its pipe: no package is needed for that."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from typing import Any

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser")
_OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
_SECS = 60.0
# Chromium reads commands from descriptor 3 and writes to 4; ours are moved out of their way.
_FOR_COMMANDS, _FOR_ANSWERS, _FREE = 3, 4, 10


class Browser:
    """One Chromium with one page."""

    def __init__(self) -> None:
        assert PROGRAM is not None
        self.events: list[dict[str, Any]] = []
        self._profile = tempfile.mkdtemp(prefix="mtce-chromium.")
        theirs_in, ours_out = map(_moved, os.pipe())
        ours_in, theirs_out = map(_moved, os.pipe())

        def give() -> None:
            os.dup2(theirs_in, _FOR_COMMANDS)
            os.dup2(theirs_out, _FOR_ANSWERS)

        self._process = subprocess.Popen(
            [PROGRAM, *_OPTIONS, f"--user-data-dir={self._profile}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(_FOR_COMMANDS, _FOR_ANSWERS),
            preexec_fn=give,  # noqa: PLW1509 - no thread runs yet
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._in, self._out = ours_in, ours_out
        self._data = b""
        self._number = 0
        self._session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Have a command done, and return what it says."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + _SECS
        while True:
            answer = self._next(deadline)
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def open(self, url: str, *, width: int = 1280, dark: bool = False, script: bool = True) -> None:
        """Go to a page, and wait until it is loaded."""
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[feature])
        self.call("Emulation.setScriptExecutionDisabled", value=not script)
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.events.clear()
        self.call("Page.navigate", url=url)
        self.wait_until(lambda: any(e["method"] == "Page.loadEventFired" for e in self.events))

    def run(self, expression: str) -> Any:
        """Return the value of an expression on the page, or of its promise."""
        result = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait_until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + _SECS
        while not condition():
            assert time.monotonic() < deadline
            self.call("Browser.getVersion")
            time.sleep(0.05)

    def complaints(self) -> list[str]:
        """Return what the browser has found wrong with the page so far."""
        found = []
        for event in self.events:
            if event["method"] == "Runtime.exceptionThrown":
                found.append(str(event["params"]))
            elif event["method"] == "Log.entryAdded":
                found.append(event["params"]["entry"]["text"])
        return found

    def asked_for(self) -> list[str]:
        """Return the URLs that the page has fetched so far."""
        requests = (e for e in self.events if e["method"] == "Network.requestWillBeSent")
        return [event["params"]["request"]["url"] for event in requests]

    def close(self) -> None:
        for descriptor in (self._in, self._out):
            os.close(descriptor)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(2)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(10)
        shutil.rmtree(self._profile, ignore_errors=True)

    def _next(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._data:
            ready, _, _ = select.select([self._in], [], [], deadline - time.monotonic())
            assert ready, "no answer of the browser"
            data = os.read(self._in, 1 << 20)
            assert data, "the browser has ended"
            self._data += data
        message, _, self._data = self._data.partition(b"\0")
        return json.loads(message)


def _moved(descriptor: int) -> int:
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _FREE)
    os.close(descriptor)
    return moved
