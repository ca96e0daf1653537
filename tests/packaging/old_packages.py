"""Stand-ins of the platform's packages 1.0-1.stx.9: the same names, files and conffiles.

Their daemons are shell scripts that run until they are told to end; their maintainer scripts do
what debhelper has those of the platform do.
"""

from __future__ import annotations

import textwrap
from pathlib import Path

from tests.packaging.support import must, need

VERSION = "1.0-1.stx.9"

_DAEMON = """
    #!/bin/sh
    # The C++ daemon {name}.
    [ "$1" = child ] && while :; do sleep 0.2; done
    echo "old {name}" >>/var/log/{name}.starts
    "$0" child >/dev/null 2>&1 </dev/null &
    echo $! >/var/run/{name}.pid
"""
_INIT = """
    #!/bin/sh
    # The C++ daemon's init script.
    pid=$(cat /var/run/{name}.pid 2>/dev/null)
    case $1 in
        start) /usr/local/bin/{name} ;;
        stop)
            kill "$pid"
            while grep -q "^State:.[^Z]" "/proc/$pid/status"; do sleep 0.1; done 2>/dev/null
            rm -f /var/run/{name}.pid
            ;;
        restart) "$0" stop; "$0" start ;;
        status) kill -0 "$pid" 2>/dev/null || exit 3 ;;
    esac
"""
_LOGROTATE = """
    /var/log/{name}.log {{
        create 0640 root root
        start 1
        rotate 5
        size 10M
        compress
        delaycompress
        notifempty
        missingok
    }}
"""
_UNIT = """
    [Service]
    Type=forking
    ExecStart=/etc/init.d/{name} start
    [Install]
    WantedBy=multi-user.target
"""
_INI = """
    ; the C++ daemons' file
    [agent]
    rx_port = 2401
    vim_cmd_port = 2410
    [client]
    rx_port = 2411
"""
_POSTINST = """
    #!/bin/sh
    set -e
    if [ "$1" = configure ] && deb-systemd-helper --quiet was-enabled {name}.service; then
        deb-systemd-helper {action} {name}.service >/dev/null
    fi
"""
_POSTRM = """
    #!/bin/sh
    set -e
    if [ "$1" = purge ]; then
        deb-systemd-helper purge {name}.service >/dev/null
    fi
"""

_SPEC = """
    Name: mtce-{name}
    Version: 1.0
    Release: 1.stx.9
    Summary: the C++ daemon
    License: Apache-2.0
    BuildArch: noarch
    AutoReqProv: no
    %define __os_install_post %{{nil}}
    %description
    A stand-in.
    %install
    cp -a {top}/stage/. %{{buildroot}}
    %files
    %defattr(-,root,root)
"""
# operations.md, Packages: path, mode, text.
_FILES = {
    "/usr/local/bin/{name}": (0o700, _DAEMON),
    "/etc/init.d/{name}": (0o700, _INIT),
    "/etc/mtc/{name}.ini": (0o600, _INI),
    "/etc/logrotate.d/{name}.logrotate": (0o644, _LOGROTATE),
    "/lib/systemd/system/{name}.service": (0o644, _UNIT),
}
_MORE_FILES = {
    "guestServer": {
        "/usr/share/starlingx/pmon.d/guestServer.conf": (
            0o644,
            "[process]\nprocess = guestServer\n",
        )
    },
    "guestAgent": {
        "/usr/lib/ocf/resource.d/platform/guestAgent": (0o755, "#!/bin/sh\nexit 0\n"),
    },
}
PACKAGES = {"guestServer": "mtce-guest-server", "guestAgent": "mtce-guest-agent"}


def files_of(name: str) -> list[str]:
    """Return the paths in the old package of a daemon."""
    return [path.format(name=name) for path in {**_FILES, **_MORE_FILES[name]}]


def build_rpm(name: str, directory: Path) -> Path:
    """Build the RPM of that content in `directory`, under the name that RPMs had; return it."""
    top = directory / f"rpm-{name}"
    _lay(name, top / "stage")
    files = "\n".join(
        f"%config(noreplace) {path}" if path.endswith((".ini", ".logrotate")) else path
        for path in files_of(name)
    )
    spec = textwrap.dedent(_SPEC).format(name=name, top=top)
    _write(top / "old.spec", 0o644, f"{spec}{files}\n")
    options = [f"--define=_topdir {top}", f"--define=_rpmdir {top}"]
    must([need("rpmbuild", "rpm"), "-bb", "--quiet", *options, top / "old.spec"])
    (package,) = (top / "noarch").glob("*.rpm")
    return package


def _lay(name: str, stage: Path) -> None:
    for path, (mode, text) in {**_FILES, **_MORE_FILES[name]}.items():
        _write(stage / path.format(name=name)[1:], mode, text.format(name=name))


def build(name: str, directory: Path) -> Path:
    """Build the old package of a daemon in `directory`; return it."""
    stage = directory / PACKAGES[name]
    _lay(name, stage)
    conffiles = [path for path in files_of(name) if path.startswith("/etc/")]
    _write(stage / "DEBIAN/conffiles", 0o644, "\n".join(conffiles) + "\n")
    control = f"Package: {PACKAGES[name]}\nVersion: {VERSION}\nArchitecture: all\n"
    control += "Maintainer: nobody <nobody@example.com>\nDescription: the C++ daemon\n"
    _write(stage / "DEBIAN/control", 0o644, control)
    action = "enable" if name == "guestServer" else "update-state"
    _write(stage / "DEBIAN/postinst", 0o755, _POSTINST.format(name=name, action=action))
    _write(stage / "DEBIAN/postrm", 0o755, _POSTRM.format(name=name))
    package = directory / f"{PACKAGES[name]}_{VERSION}_all.deb"
    must(["dpkg-deb", "--root-owner-group", "--build", stage, package])
    return package


def _write(path: Path, mode: int, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text).lstrip("\n"))
    path.chmod(mode)
