"""tests/make_venv.py: from where a fresh machine gets pip, and what it takes for pip."""

from __future__ import annotations

import base64
import hashlib
import http.server
import ssl
import subprocess
import sys
import threading
import urllib.error
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.make_venv import (
    DEFAULT_INDEX,
    SetupError,
    explain,
    fetch_wheel,
    make_venv,
    pip_settings,
    places,
)
from tests.peers.root import REPOSITORY

WHEEL = "pip-1.0-py3-none-any.whl"
CONTENT = b"a wheel"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
PAGE = f'<a href="../files/{WHEEL}#sha256={SHA256}" data-requires-python="&gt;=3">{WHEEL}</a>'


class Index(http.server.ThreadingHTTPServer):
    """A package index on loopback; notes who asked for what."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.pages = {"/simple/pip/": PAGE.encode(), f"/simple/files/{WHEEL}": CONTENT}
        self.asked: list[tuple[str, str | None]] = []


class Handler(http.server.BaseHTTPRequestHandler):
    server: Index

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers["Authorization"]))
        content = self.server.pages.get(self.path)
        self.send_response(404 if content is None else 200)
        self.end_headers()
        self.wfile.write(content or b"")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def index() -> Iterator[Index]:
    with Index() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def url(index: Index, login: str = "") -> str:
    return f"http://{login}127.0.0.1:{index.server_port}/simple/"


def test_without_settings_it_is_the_public_index() -> None:
    settings = pip_settings({"PIP_CONFIG_FILE": "/dev/null"})
    assert places(settings) == [f"{DEFAULT_INDEX}/pip/"]


def test_settings_are_found_where_pip_finds_them(tmp_path: Path) -> None:
    """The user's file counts over the site's, PIP_CONFIG_FILE over both, PIP_* over all."""

    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    site = "[global]\nindex-url = http://site\ncert = /site\nproxy = site\ntimeout = 1\n"
    write("xdg/pip/pip.conf", site)
    write("home/.config/pip/pip.conf", "[install]\ncert = /user\nproxy = user\ntimeout = 2\n")
    named = write("named.conf", "[global]\nproxy = named\ntimeout = 3\n")
    environment = {
        "HOME": str(tmp_path / "home"),
        "XDG_CONFIG_DIRS": str(tmp_path / "xdg"),
        "PIP_CONFIG_FILE": str(named),
        "PIP_TIMEOUT": "4",
    }
    found = pip_settings(environment)
    expected = {"index-url": "http://site", "cert": "/user", "proxy": "named", "timeout": "4"}
    assert {name: found[name] for name in expected} == expected
    assert pip_settings({**environment, "PIP_CONFIG_FILE": "/dev/null"}).get("cert") is None


def test_every_place_that_pip_would_ask() -> None:
    settings = {
        "find-links": "/wheels  http://links",
        "index-url": "http://index/simple/",
        "extra-index-url": "http://one\nhttp://two",
    }
    indexes = ["http://index/simple/pip/", "http://one/pip/", "http://two/pip/"]
    assert places(settings) == ["/wheels", "http://links", *indexes]
    assert places({**settings, "no-index": "true"}) == ["/wheels", "http://links"]
    assert places({**settings, "no-index": "false"}) == places(settings)


def test_the_wheel_of_an_index(index: Index) -> None:
    assert fetch_wheel({"index-url": url(index)}, WHEEL, SHA256) == CONTENT


def test_a_wheel_in_a_directory(tmp_path: Path) -> None:
    (tmp_path / WHEEL).write_bytes(CONTENT)
    assert fetch_wheel({"find-links": str(tmp_path), "no-index": "1"}, WHEEL, SHA256) == CONTENT
    settings = {"find-links": tmp_path.as_uri(), "no-index": "1"}
    assert fetch_wheel(settings, WHEEL, SHA256) == CONTENT


def test_an_index_in_files(tmp_path: Path) -> None:
    (tmp_path / "simple/pip").mkdir(parents=True)
    (tmp_path / "simple/pip/index.html").write_text(PAGE)
    (tmp_path / "simple/files").mkdir()
    (tmp_path / "simple/files" / WHEEL).write_bytes(CONTENT)
    settings = {"index-url": (tmp_path / "simple").as_uri()}
    assert fetch_wheel(settings, WHEEL, SHA256) == CONTENT


def test_another_file_of_that_name_is_refused(index: Index, tmp_path: Path) -> None:
    """And the next place is tried."""
    (tmp_path / WHEEL).write_bytes(b"something else")
    settings = {"find-links": str(tmp_path), "index-url": url(index)}
    assert fetch_wheel(settings, WHEEL, SHA256) == CONTENT
    index.pages[f"/simple/files/{WHEEL}"] = b"worse"
    with pytest.raises(SetupError, match="another hash") as raised:
        fetch_wheel(settings, WHEEL, SHA256)
    assert str(tmp_path) in str(raised.value)
    assert url(index) in str(raised.value)


@pytest.mark.parametrize("page", ["", "<a>x</a>", "<a href=other.whl>", "<<<&&", "\0\xff"])
def test_a_page_without_it(index: Index, page: str) -> None:
    index.pages["/simple/pip/"] = page.encode("latin-1")
    with pytest.raises(SetupError, match="PIP_INDEX_URL"):
        fetch_wheel({"index-url": url(index)}, WHEEL, SHA256)


@pytest.mark.parametrize(
    "place", ["http://127.0.0.1:1/", "nonsense://x", "/nonexistent", "http://["]
)
def test_a_place_out_of_reach(place: str) -> None:
    with pytest.raises(SetupError):
        fetch_wheel({"find-links": place, "no-index": "1"}, WHEEL, SHA256)


def test_a_name_and_a_password_go_to_the_index_and_to_no_message(index: Index) -> None:
    settings = {"index-url": url(index, "me:se%40cret@")}
    assert fetch_wheel(settings, WHEEL, SHA256) == CONTENT
    token = "Basic " + base64.b64encode(b"me:se@cret").decode()
    assert index.asked == [("/simple/pip/", token), (f"/simple/files/{WHEEL}", token)]
    with pytest.raises(SetupError) as raised:
        fetch_wheel(settings, WHEEL, "0" * 64)
    assert "se%40cret" not in str(raised.value)


def test_certificates_that_are_not_there(tmp_path: Path) -> None:
    """A bare system has none, and pip's setting is easily carried there: a sentence says so."""
    missing = tmp_path / "missing.crt"
    command = [sys.executable, REPOSITORY / "tests/make_venv.py", tmp_path / "venv", "/dev/null"]
    environment = {"PIP_CERT": str(missing), "PIP_CONFIG_FILE": "/dev/null"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"make_venv: cannot read the certificates in {missing}")
    assert "install the package ca-certificates" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_an_index_whose_certificate_nobody_knows() -> None:
    error = urllib.error.URLError(ssl.SSLCertVerificationError(1, "self-signed certificate"))
    assert "self-signed certificate" in explain(error)
    assert "PIP_CERT" in explain(error)
    assert explain(urllib.error.URLError("no route")) == "no route"


def test_a_place_that_cannot_be_written_is_said_in_a_sentence(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("tests.make_venv.fetch_wheel", lambda *_: b"")
    (tmp_path / "file").touch()
    place = tmp_path / "file" / "venv"
    with pytest.raises(SetupError, match=f"cannot make {place}: Not a directory"):
        make_venv(place, tmp_path / "requirements.txt", {})
