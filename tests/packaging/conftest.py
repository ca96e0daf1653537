"""Fixtures of the packaging tests: everything is built and installed once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.packaging.support import (
    SHELLS,
    Host,
    copy_sources,
    host_of,
    made_once,
    make,
    must,
    need,
    need_root,
)


def once(factory: pytest.TempPathFactory, name: str, build: Callable[[Path], object]) -> Path:
    """Return the directory `name`, filled by `build` in whichever test process comes first."""
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # what the test processes of one run share
    return made_once(base / f"shared-{name}", build)


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of what is packaged."""
    need("make", "make")
    return once(tmp_path_factory, "sources", copy_sources)


@pytest.fixture(scope="session")
def laid(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return what `make install` lays, of which nothing is ever run."""

    def lay(tree: Path) -> None:
        make(sources, "install", f"DESTDIR={tree}")

    return once(tmp_path_factory, "laid", lay)


@pytest.fixture(scope="session")
def installed(laid: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of it to run programs from: they leave their bytecode there."""

    def copy(tree: Path) -> None:
        shutil.copytree(laid, tree, symlinks=True, dirs_exist_ok=True)

    return once(tmp_path_factory, "installed", copy)


@pytest.fixture
def host(installed: Path) -> Iterator[Host]:
    """Give a host with the installed files."""
    with host_of(installed) as host:
        yield host


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> str:
    """Give each shell that the scripts have to run under."""
    return str(request.param)


@pytest.fixture(scope="session")
def rpms(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the RPMs by package name."""
    need("rpmbuild", "rpm")
    build = once(tmp_path_factory, "rpms", lambda path: make(sources, "rpm", f"BUILD={path}"))
    return {path.name.rsplit("-", 2)[0]: path for path in (build / "rpm").glob("*.rpm")}


@pytest.fixture(scope="session")
def debs(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the Debian packages by name."""
    need("dh", "debhelper")  # which brings dpkg-dev
    need("dpkg-buildpackage", "dpkg-dev")
    build = once(tmp_path_factory, "debs", lambda path: make(sources, "deb", f"BUILD={path}"))
    return {path.name.split("_")[0]: path for path in (build / "deb").glob("*.deb")}


@pytest.fixture(scope="session", params=["rpm", "deb"])
def unpacked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a tree with all packages of one kind in it."""
    packages = request.getfixturevalue(f"{request.param}s").values()

    def unpack(tree: Path) -> None:
        if request.param == "deb":
            for package in packages:
                must(["dpkg-deb", "--extract", package, tree])
            return
        options = ["--root", tree, "--install", "--nodeps", "--noscripts", "--ignoreos"]
        must([*need_root(), need("rpm", "rpm"), *options, *packages])
        shutil.rmtree(tree / "var/lib/rpm", ignore_errors=True)

    return once(tmp_path_factory, f"unpacked-{request.param}", unpack)
