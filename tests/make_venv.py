"""Make the virtual environment of the tests from python3 and the package index alone.

`python3 tests/make_venv.py DIRECTORY REQUIREMENTS` needs neither ensurepip nor pip, which Debian
keeps in packages of their own: it fetches one pinned wheel of pip, compares its hash, unpacks it
into an empty environment and has it install the rest. Where to fetch from is read from pip's own
settings (environment and configuration files), so that a mirror or a proxy is given once.
"""

from __future__ import annotations

import base64
import configparser
import hashlib
import html.parser
import io
import os
import ssl
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
import venv
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

# The last release of pip that runs on Python 3.9.
PIP_WHEEL = "pip-26.0.1-py3-none-any.whl"
PIP_SHA256 = "bdb1b08f4274833d62c1aa29e20907365a2ceb950410df15fc9521bad440122b"

DEFAULT_INDEX = "https://pypi.org/simple"
_TIMEOUT_SECS = 30.0
# Debian's Python 3.9 keeps distutils in a package of its own; told so, pip does without.
_RUN_PIP = """\
import runpy, sysconfig
sysconfig._PIP_USE_SYSCONFIG = True
runpy.run_module("pip", run_name="__main__")
"""
_NO = {"", "0", "false", "no", "off", "n", "f"}
_CERTIFICATES = (
    "install the package ca-certificates, or name the file with your authority's certificates in"
    " PIP_CERT"
)


class SetupError(Exception):
    """The environment cannot be made; the text says why and what would help."""


def pip_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Return pip's settings by name (`index-url`, ...), as pip itself would find them.

    Files count from the site's to the user's and then PIP_CONFIG_FILE, and the environment
    (PIP_INDEX_URL, ...) over all of them.
    """
    home = Path(environment.get("HOME", "/nonexistent"))
    site = environment.get("XDG_CONFIG_DIRS") or "/etc/xdg"
    own = environment.get("XDG_CONFIG_HOME") or home / ".config"
    named = environment.get("PIP_CONFIG_FILE")
    files = [Path(directory) / "pip/pip.conf" for directory in reversed(site.split(os.pathsep))]
    files += [Path("/etc/pip.conf"), home / ".pip/pip.conf", Path(own) / "pip/pip.conf"]
    if named:
        files = [] if named == os.devnull else [*files, Path(named)]
    settings: dict[str, str] = {}
    for file in files:
        parser = configparser.RawConfigParser()
        parser.read(file)
        for section in ("global", "install"):
            if parser.has_section(section):
                settings.update(parser.items(section))
    prefix = "PIP_"
    for name, value in environment.items():
        if name.startswith(prefix) and value:
            settings[name[len(prefix) :].lower().replace("_", "-")] = value
    return settings


def places(settings: Mapping[str, str]) -> list[str]:
    """Return where to look for a wheel of pip: directories and pages with links, in pip's order."""
    found = settings.get("find-links", "").split()
    if settings.get("no-index", "").lower() in _NO:
        indexes = [settings.get("index-url", DEFAULT_INDEX)]
        indexes += settings.get("extra-index-url", "").split()
        found += [f"{index.rstrip('/')}/pip/" for index in indexes]
    return found


class _Links(html.parser.HTMLParser):
    """Collects where the links of a page lead."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.targets += [value for name, value in attrs if name == "href" and value]


class Fetcher:
    """Reads URLs with pip's settings for certificates, proxy and time-out.

    Raises SetupError where the certificates that they name cannot be read.
    """

    def __init__(self, settings: Mapping[str, str]) -> None:
        self._timeout = float(settings.get("timeout") or settings.get("default-timeout") or 0)
        certificates = settings.get("cert")
        try:
            self._context = ssl.create_default_context(cafile=certificates)
        except OSError as error:
            raise SetupError(
                f"cannot read the certificates in {certificates} ({error.strerror or error}), which"
                f" PIP_CERT or pip.conf names: {_CERTIFICATES}"
            ) from error
        self._proxy = settings.get("proxy")
        paths = ssl.get_default_verify_paths()
        directory_of_them = paths.capath is not None and any(os.scandir(paths.capath))
        self._cannot_verify = not (certificates or paths.cafile or directory_of_them)

    def read(self, url: str) -> bytes:
        """Return what is at `url`. Raises OSError."""
        parts = urllib.parse.urlsplit(url)
        request = urllib.request.Request(url)
        context = self._context
        if parts.username:
            # urllib takes a name and a password in a URL for part of the host.
            words = [urllib.parse.unquote(word or "") for word in (parts.username, parts.password)]
            bare = parts._replace(netloc=parts.netloc.rpartition("@")[2])
            request = urllib.request.Request(bare.geturl())
            token = base64.b64encode(":".join(words).encode()).decode()
            request.add_unredirected_header("Authorization", f"Basic {token}")
        elif self._cannot_verify:
            # A bare system has no certificates. The hash says whether this is the right file,
            # and pip brings certificates of its own for all that follows.
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        handlers: list[urllib.request.BaseHandler] = [urllib.request.HTTPSHandler(context=context)]
        if self._proxy:
            handlers.append(
                urllib.request.ProxyHandler({"http": self._proxy, "https": self._proxy})
            )
        opener = urllib.request.build_opener(*handlers)
        with opener.open(request, timeout=self._timeout or _TIMEOUT_SECS) as answer:
            content: bytes = answer.read()
        return content


def _candidates(place: str, fetcher: Fetcher, wheel: str) -> Iterator[str]:
    """Yield the URLs of `wheel` at a directory or a page with links."""
    url = place if "://" in place else Path(place).expanduser().resolve().as_uri()
    parts = urllib.parse.urlsplit(url)
    if parts.scheme == "file":
        path = Path(urllib.request.url2pathname(parts.path))
        if (path / wheel).is_file():
            yield (path / wheel).as_uri()
        if path.is_dir():
            path /= "index.html"
            url = path.as_uri()
        if not path.is_file():
            return
    links = _Links()
    links.feed(fetcher.read(url).decode("utf-8", "replace"))
    for target in links.targets:
        found = urllib.parse.urldefrag(urllib.parse.urljoin(url, target)).url
        if urllib.parse.unquote(found).endswith(f"/{wheel}"):
            yield _with_login_of(url, found)


def _with_login_of(page: str, target: str) -> str:
    """Give the target of a link the page's name and password if it is on the same host."""
    login, at, host = urllib.parse.urlsplit(page).netloc.rpartition("@")
    parts = urllib.parse.urlsplit(target)
    return parts._replace(netloc=f"{login}{at}{host}").geturl() if parts.netloc == host else target


def explain(error: Exception) -> str:
    """Return what went wrong while a URL was read, with the remedy where it is known."""
    reason = getattr(error, "reason", error)
    if isinstance(reason, ssl.SSLCertVerificationError):
        return f"its certificate is signed by nobody known here ({reason}): {_CERTIFICATES}"
    return str(reason)


def fetch_wheel(settings: Mapping[str, str], wheel: str, sha256: str) -> bytes:
    """Return the contents of `wheel`, from the first place where it has the right hash.

    Raises SetupError, with what went wrong at each place.
    """
    fetcher = Fetcher(settings)
    tried = []
    for place in places(settings):
        shown = place.rpartition("@")[2]
        try:
            for url in _candidates(place, fetcher, wheel):
                content = fetcher.read(url)
                if hashlib.sha256(content).hexdigest() == sha256:
                    return content
                tried.append(f"{shown}: its {wheel} has another hash than {sha256}")
            tried.append(f"{shown}: has no {wheel} that is the right one")
        except (OSError, ValueError) as error:
            tried.append(f"{shown}: {explain(error)}")
    raise SetupError(
        f"cannot fetch {wheel}. Where this machine cannot reach {DEFAULT_INDEX}, name your package"
        " index in PIP_INDEX_URL or pip.conf. Tried:\n  " + "\n  ".join(tried)
    )


def make_venv(directory: Path, requirements: Path, environment: Mapping[str, str]) -> None:
    """Make the environment in `directory`. Raises SetupError."""
    wheel = fetch_wheel(pip_settings(environment), PIP_WHEEL, PIP_SHA256)
    try:
        venv.create(directory, symlinks=True, clear=True)
    except OSError as error:
        raise SetupError(f"cannot make {directory}: {error.strerror or error}") from error
    python = directory / "bin/python"
    query = "import sysconfig; print(sysconfig.get_path('purelib'))"
    target = subprocess.run([python, "-c", query], check=True, capture_output=True, text=True)
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        archive.extractall(target.stdout.strip())
    options = ["--quiet", "--disable-pip-version-check", "-r", str(requirements)]
    command = [str(python), "-c", _RUN_PIP, "install", *options]
    if subprocess.run(command, check=False).returncode != 0:
        raise SetupError(
            f"pip cannot install what {requirements} names: see above. If it speaks of"
            " certificates: name the file with your authority's in PIP_CERT"
        )


def main() -> int:
    """Make the environment that the command line names; return the exit status."""
    directory, requirements = map(Path, sys.argv[1:])
    try:
        make_venv(directory, requirements, os.environ)
    except SetupError as error:
        sys.stderr.write(f"make_venv: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
