"""The status page in a real browser: what it shows, that it renews itself, and that it is safe."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from guestmtce.agent import page
from tests.functional import chromium
from tests.functional.chromium import Browser

pytestmark = pytest.mark.skipif(
    chromium.PROGRAM is None, reason="no Chromium: apt-get install chromium"
)

HOSTILE = "<img src=x onerror=\"document.title='had'\"></td><script>document.title='had'</script>"


def instance(number: int, **more: Any) -> dict[str, Any]:
    return {
        "uuid": f"8d80875b-fa73-4ccb-bce3-{number:012d}",
        "name": f"web-{number}",
        "host": "compute-0",
        "condition": "ok",
        "since": 1.7e9,
        "reporting": True,
        "corrective_action": "reboot",
        **more,
    }


def event(number: int, **more: Any) -> dict[str, Any]:
    return {"number": number, "at": 1.7e9, "name": "web-1", "what": "loss", "detail": "", **more}


class Site:
    """Serves the page as guestAgent does; `shown` is what it shows, `tell()` a new event."""

    def __init__(self) -> None:
        self.instances = [
            instance(1, condition="lost"),
            instance(2, condition="ill", detail=HOSTILE, name=HOSTILE, host=HOSTILE),
            instance(3, condition="unknown"),
            instance(4),
        ]
        self.events = [event(1), event(2, name=HOSTILE, detail=HOSTILE)]
        self.problems = ["the VIM does not take requests"]
        self._told = threading.Condition()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"

    def tell(self, new: dict[str, Any]) -> None:
        with self._told:
            self.events.append(new)
            self._told.notify_all()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def render(self, everything: bool) -> bytes:
        host = {"hostname": "compute-0", "ip": "10.0.0.5", "silent": True, "instances": 4}
        shown = page.Snapshot(
            {"problems": self.problems, "summary": {"hostname": "controller-0", "vim_queue": 2}},
            {"suspect": True, "in_flight": 1, "waiting": {"alarm": 2}},
            [{**host, "lost": 1, "ill": 1, "reporting": "enabled", "last_heard": 1.7e9}],
            self.instances,
            self.events,
            "1",
            1.7e9 + 100,
        )
        return b"".join(page.render(shown, everything=everything))

    def follow(self, write: Any) -> None:
        """Write until the browser has left the page."""
        with self._told, contextlib.suppress(OSError):
            while True:
                write(b"data: {}\n\n" if self._told.wait(5) else b":\n\n")

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                stream = self.path == "/v1/events"
                body = b"" if stream else site.render("all" in self.path)
                self.send_response(200)
                kind = "text/event-stream" if stream else page.CONTENT_TYPE
                self.send_header("Content-Type", kind)
                for name, value in page.HEADERS.items():
                    self.send_header(name, value)
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(body)
                if stream:
                    site.follow(self.wfile.write)

            def log_message(self, *_args: Any) -> None:
                """Say nothing."""

        return Handler


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    browser = Browser()
    yield browser
    browser.close()


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.close()


TEXT = "document.body.innerText"


def test_it_is_shown_and_nothing_is_wrong_with_it(browser, site):
    """No complaint of the browser's, least of all that the policy refused something."""
    browser.open(site.url)
    assert browser.run("document.title") == "Guest heartbeat"
    assert "guestAgent on controller-0: degraded" in browser.run(TEXT)
    assert browser.run("document.querySelectorAll('img, main script').length") == 0
    assert browser.run("document.querySelector('#instances tbody td').innerText").startswith("lost")
    assert browser.complaints() == []
    assert {url for url in browser.asked_for() if not url.startswith("data:")} == {
        site.url,
        f"{site.url}v1/events",
    }


def test_without_javascript_it_is_all_there(browser, site):
    browser.open(site.url, script=False)
    root = browser.call("DOM.getDocument", depth=-1)["root"]["nodeId"]
    html = browser.call("DOM.getOuterHTML", nodeId=root)["outerHTML"]
    for text in ("web-1", "lost", "compute-0", "Reload this page to renew it."):
        assert text in html


def test_an_event_comes_by_itself_and_the_rest_stays_in_place(browser, site):
    """Only what is new is put in, so a screen reader says that alone; the focus is kept."""
    browser.open(site.url)
    browser.run("document.getElementById('w-instances').focus()")
    browser.run("window.first = document.getElementById('events').lastChild; 0")
    site.instances[3]["condition"] = "booting"
    site.tell(event(3, what="told", detail="alarm failed: taken"))
    browser.wait_until(lambda: "alarm failed: taken" in browser.run(TEXT))
    assert "booting" in browser.run(TEXT)
    assert browser.run("document.getElementById('events').children.length") == 3
    assert browser.run("window.first.isConnected")
    assert browser.run("document.activeElement.id") == "w-instances"
    assert browser.complaints() == []


def test_an_agent_that_is_gone_is_said(browser, site):
    """What stands there is not to be taken for the present."""
    browser.open(site.url)
    assert browser.run("document.getElementById('stale').hidden")
    browser.run("fetch = () => Promise.reject(new Error('refused')); plan(0)")
    browser.wait_until(lambda: "No answer from guestAgent since" in browser.run(TEXT))


CONTRASTS = """(() => {
  const light = (color) => {
    const [r, g, b] = color.match(/[0-9.]+/g).map((part) => part / 255)
      .map((part) => part <= .04045 ? part / 12.92 : ((part + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const back = light(getComputedStyle(document.body).backgroundColor);
  const found = {};
  for (const each of document.querySelectorAll("main *, header *, footer *")) {
    const front = light(getComputedStyle(each).color);
    const ratio = (Math.max(front, back) + .05) / (Math.min(front, back) + .05);
    found[getComputedStyle(each).color] = ratio;
  }
  return found;
})()"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_can_be_read(browser, site, dark):
    """The ratio of WCAG's level AA, for every colour of text on the page."""
    browser.open(site.url, dark=dark)
    ratios = browser.run(CONTRASTS)
    assert len(ratios) >= 5
    assert min(ratios.values()) >= 4.5, ratios
    back = browser.run("getComputedStyle(document.body).backgroundColor")
    assert (back == "rgb(13, 17, 23)") is dark


@pytest.mark.parametrize("width", [360, 800, 1280, 1920])
def test_no_width_needs_scrolling_sideways(browser, site, width):
    """Wide tables scroll in themselves, and can be reached by keyboard."""
    browser.open(site.url, width=width)
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.run("document.querySelectorAll('.wide:not([tabindex=\"0\"])').length") == 0


def test_a_screen_reader_is_told_what_is_what(browser, site):
    browser.open(site.url)
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    roles = [node["role"]["value"] for node in nodes if not node["ignored"]]
    for role in ("main", "banner", "contentinfo", "table", "columnheader", "rowheader", "list"):
        assert role in roles, role
    tables = [n["name"]["value"] for n in nodes if n["role"]["value"] == "table"]
    assert "Instances, what is wrong first" in tables


def test_of_5000_instances_those_are_renewed_that_have_changed(browser, site):
    """To lay all of them out again is what a browser stalls over."""
    site.instances = [instance(number) for number in range(5000)]
    browser.open(f"{site.url}?all")
    rows = "document.querySelectorAll('#instances tbody tr')"
    assert browser.run(f"{rows}.length") == 5000
    browser.run(f"window.rows = [...{rows}]; 0")
    site.instances[77]["condition"] = "lost"
    browser.run("renew()")
    assert browser.run(f"{rows}[0].innerText").startswith("lost")
    assert browser.run("window.rows.filter((row) => row.isConnected).length") == 5000 - 78
