"""Fixtures of the packaging tests: everything is built and installed once."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.packaging.support import SHELLS, Host, copy_sources, host_of, make, must, need, need_root


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of what is packaged."""
    need("make", "make")
    copy = tmp_path_factory.mktemp("sources")
    copy_sources(copy)
    return copy


@pytest.fixture(scope="session")
def installed(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return what `make install` lays."""
    tree = tmp_path_factory.mktemp("installed")
    make(sources, "install", f"DESTDIR={tree}")
    return tree


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
    build = tmp_path_factory.mktemp("rpms")
    make(sources, "rpm", f"BUILD={build}")
    return {path.name.rsplit("-", 2)[0]: path for path in (build / "rpm").iterdir()}


@pytest.fixture(scope="session")
def debs(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the Debian packages by name."""
    need("dpkg-deb", "dpkg")
    build = tmp_path_factory.mktemp("debs")
    make(sources, "deb", f"BUILD={build}")
    return {path.name.split("_")[0]: path for path in (build / "deb").iterdir()}


@pytest.fixture(scope="session", params=["rpm", "deb"])
def unpacked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a tree with all packages of one kind in it."""
    tree = tmp_path_factory.mktemp(request.param)
    if request.param == "deb":
        for package in request.getfixturevalue("debs").values():
            must(["dpkg-deb", "--extract", package, tree])
        return tree
    packages = request.getfixturevalue("rpms").values()
    options = ["--root", tree, "--install", "--nodeps", "--noscripts", "--ignoreos"]
    must([*need_root(), need("rpm", "rpm"), *options, *packages])
    shutil.rmtree(tree / "var/lib/rpm", ignore_errors=True)
    return tree
