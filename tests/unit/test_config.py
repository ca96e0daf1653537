"""operations.md, "Configuration": every key, its default, its range; errors name the place."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guestmtce.core.shared import config
from guestmtce.core.shared.config import Configuration, Source
from guestmtce.core.shared.settings import (
    AGENT_INI,
    MTC_CONF,
    NFV_CONF,
    PLATFORM_CONF,
    SERVER_INI,
    AgentSettings,
    ServerSettings,
    load_agent,
    load_server,
    management_interface,
)

PATH = SERVER_INI

SHIPPED = """\
; the shared file of both daemons
[agent]
rx_port = 2401          ; from guestServer
vim_cmd_port = 2410
hbs_failure_threshold = 1

[client]
rx_port = 2411
hbs_failure_threshold = 1
hbs_pulse_period = 400

[timeouts]
start_delay = 1

[debug]
debug_timer = 0
debug_json = 0
debug_fsm = 0
debug_http = 0
debug_alive = 0
debug_msg = 0
debug_state = 0
debug_work = 0
debug_level = 0
debug_all = 0
flush = 1
flush_thld = 5
"""

LEAST = "[agent]\nrx_port=2401\nvim_cmd_port=2410\n[client]\nrx_port=2411\n"


def reader(files: dict[str, str | OSError]) -> Callable[[str], Source]:
    """Return a reader of these files; there is no other."""

    def read(path: str) -> Source:
        text = files.get(path, FileNotFoundError(2, "No such file or directory", path))
        if isinstance(text, OSError):
            raise text
        return Source(path, text)

    return read


def server(text: str) -> Configuration[ServerSettings]:
    return load_server(reader({SERVER_INI: text}))


def agent(text: str, **others: str | OSError) -> Configuration[AgentSettings]:
    names = {"mtc": MTC_CONF, "nfv": NFV_CONF}
    files = {names[key]: value for key, value in others.items()}
    return load_agent(reader({AGENT_INI: text, **files}))


def problems(text: str) -> list[str]:
    loaded = server(text)
    assert loaded.settings is None
    return [str(problem) for problem in loaded.problems]


def test_shipped_file():
    """One shipped file serves both daemons, without a word to say about it."""
    loaded = server(SHIPPED)
    assert (loaded.problems, loaded.warnings) == ([], [])
    assert loaded.settings == ServerSettings(agent_rx_port=2401, rx_port=2411)
    loaded_agent = agent(SHIPPED)
    assert (loaded_agent.problems, loaded_agent.warnings) == ([], [])
    assert loaded_agent.settings == AgentSettings(
        rx_port=2401, vim_cmd_port=2410, server_rx_port=2411
    )


def test_server_defaults():
    """Optional keys, with what they default to."""
    settings = server(LEAST).settings
    assert dataclasses.asdict(settings) == {
        "agent_rx_port": 2401,
        "rx_port": 2411,
        "hbs_failure_threshold": 1,
        "hbs_pulse_period_ms": 400,
        "start_delay_secs": 1,
        "address": None,
        "agent_peers": ("controller", "controller-0", "controller-1"),
        "metrics_file": None,
        "hostname": None,
        "acknowledge": True,
        "channel_directory": "/var/lib/libvirt/qemu",
        "debug": 0,
    }


def test_agent_defaults():
    """vim_cmd_address 127.0.0.1; mtc ports 2108 and 2107; nothing read from other files."""
    settings = agent(LEAST).settings
    assert settings.vim_cmd_address == "127.0.0.1"
    assert (settings.mtc_cmd_port, settings.mtc_event_port) == (2108, 2107)
    assert settings.vim_port == 30002
    assert (settings.address, settings.local_address) == (None, None)


SERVER_KEYS = [
    ("client", "hbs_failure_threshold", "3", "hbs_failure_threshold", 3),
    ("client", "hbs_pulse_period", "500", "hbs_pulse_period_ms", 500),
    ("timeouts", "start_delay", "0", "start_delay_secs", 0),
    ("client", "address", "192.168.204.2", "address", "192.168.204.2"),
    ("client", "agent_peers", "controller, fd00::1", "agent_peers", ("controller", "fd00::1")),
    ("client", "metrics_file", "/var/m.prom", "metrics_file", "/var/m.prom"),
    ("host", "name", "compute-7", "hostname", "compute-7"),
    ("network", "acknowledge", "no", "acknowledge", False),
    ("channels", "directory", "/run/channels", "channel_directory", "/run/channels"),
    ("debug", "debug_level", "4", "debug", 4),
]
AGENT_KEYS = [
    ("agent", "address", "fd00::2", "address", "fd00::2"),
    ("agent", "local_address", "10.0.0.1", "local_address", "10.0.0.1"),
    ("agent", "max_hosts", "7", "max_hosts", 7),
    ("agent", "metrics_file", "/var/a.prom", "metrics_file", "/var/a.prom"),
    ("agent", "vim_cmd_address", "127.0.0.9", "vim_cmd_address", "127.0.0.9"),
    ("agent", "vim_cmd_users", "vim, 1002", "vim_cmd_users", ("vim", "1002")),
    ("vim", "address", "127.0.0.8", "vim_address", "127.0.0.8"),
    ("vim", "port", "1", "vim_port", 1),
    ("mtc", "cmd_port", "65535", "mtc_cmd_port", 65535),
    ("mtc", "event_port", "5", "mtc_event_port", 5),
    ("host", "name", "controller-0", "hostname", "controller-0"),
    ("network", "acknowledge", "no", "acknowledge", False),
    ("debug", "debug_level", "255", "debug", 255),
]


def one_more(section: str, key: str, value: str) -> str:
    """Return the smallest file with one more setting, replacing the section's start."""
    if f"[{section}]" in LEAST:
        return LEAST.replace(f"[{section}]\n", f"[{section}]\n{key} = {value}\n")
    return f"{LEAST}[{section}]\n{key} = {value}\n"


@pytest.mark.parametrize(("section", "key", "text", "name", "value"), SERVER_KEYS)
def test_each_server_key(section, key, text, name, value):
    """Each key where it stands, converted, and known to both daemons."""
    loaded = server(one_more(section, key, text))
    assert getattr(loaded.settings, name) == value
    assert loaded.warnings == []
    assert agent(one_more(section, key, text)).problems == []


@pytest.mark.parametrize(("section", "key", "text", "name", "value"), AGENT_KEYS)
def test_each_agent_key(section, key, text, name, value):
    """Each key where it stands, converted, and known to both daemons."""
    loaded = agent(one_more(section, key, text))
    assert getattr(loaded.settings, name) == value
    assert loaded.warnings == []
    assert server(one_more(section, key, text)).problems == []


def test_every_setting_is_tested_here():
    """The tables above are complete."""
    required = {"agent_rx_port", "rx_port", "vim_cmd_port", "server_rx_port"}
    for rows, settings in ((SERVER_KEYS, ServerSettings), (AGENT_KEYS, AgentSettings)):
        names = {row.name for row in dataclasses.fields(settings)}
        assert names - required == {name for _, _, _, name, _ in rows}


# Problems


@pytest.mark.parametrize(
    ("gone", "line", "missing"),
    [
        ("rx_port=2401\n", 1, "[agent] rx_port"),
        ("rx_port=2411\n", 4, "[client] rx_port"),
        ("vim_cmd_port=2410\n", 1, "[agent] vim_cmd_port"),
    ],
)
def test_required_keys(gone, line, missing):
    """Must be present, as before: missing → a clear error. vim_cmd_port only for guestAgent."""
    text = LEAST.replace(gone, "")
    (problem,) = agent(text).problems
    assert str(problem) == f"{AGENT_INI}:{line}: {missing} is missing"
    if "vim" in missing:
        assert server(text).problems == []
    else:
        assert problems(text) == [f"{PATH}:{line}: {missing} is missing"]


def test_an_empty_file_misses_its_keys():
    """Every problem is named, not only the first."""
    assert problems("") == [
        f"{PATH}: [agent] rx_port is missing",
        f"{PATH}: [client] rx_port is missing",
    ]


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        *(("client", "hbs_failure_threshold", v) for v in ("", "x", "-1", "1001", "1.0", "0x1")),
        *(("client", "hbs_pulse_period", v) for v in ("0", "9", "86400001", "1e3", "٤٠٠", "1_0")),
        *(("timeouts", "start_delay", v) for v in ("-1", "3601")),
        *(("debug", "debug_level", v) for v in ("on", "256")),
        *(("debug", "flush_thld", v) for v in ("-1", "many")),
        *(("vim", "port", v) for v in ("0", "65536", "99999999999999999999")),
        ("client", "address", "two words"),
        ("client", "address", ""),
        ("host", "name", "é"),
        ("client", "agent_peers", ","),
        ("client", "agent_peers", "a b, c"),
        *(("agent", "vim_cmd_users", v) for v in (",", "vim,", "two words", "-x", "é")),
        ("client", "metrics_file", "relative"),
        ("channels", "directory", "var/lib"),
    ],
)
def test_bad_values(section, key, value):
    """Not a number, out of range → an error naming file, line, section, key."""
    text = one_more(section, key, value)
    line = 1 + next(n for n, row in enumerate(text.split("\n")) if row.startswith(key))
    (problem,) = problems(text)
    assert problem.startswith(f"{PATH}:{line}: [{section}] {key} = {value!r}: ")


@pytest.mark.parametrize("port", ["0", "-1", "65536", "http", ""])
def test_bad_ports(port):
    """A required key with a bad value is named once."""
    (problem,) = problems(LEAST.replace("rx_port=2411", f"rx_port={port}"))
    assert problem.startswith(f"{PATH}:5: [client] rx_port = {port!r}: ")


def test_a_key_of_the_other_daemon_is_checked_too():
    """Values are checked: one file, one check."""
    (problem,) = problems(LEAST.replace("2410", "zero"))
    assert problem == f"{PATH}:3: [agent] vim_cmd_port = 'zero': not a number"


def test_an_indented_key_has_its_line():
    """Naming file, line, section, key, however the file is indented."""
    text = "[agent]\n  rx_port = 2401\n  vim_cmd_port = 2410\n[client]\n\n  rx_port = abc\n"
    assert problems(text) == [f"{PATH}:6: [client] rx_port = 'abc': not a number"]


@pytest.mark.parametrize("ending", ["\r\n", "\n"])
def test_line_endings(ending):
    """A file from elsewhere is read, and its lines are counted, the same."""
    text = LEAST.replace("\n", ending)
    assert server(text).settings.rx_port == 2411
    assert problems(text.replace("2411", "x")) == [
        f"{PATH}:5: [client] rx_port = 'x': not a number"
    ]


def test_odd_characters_are_no_line_ends():
    """Lines are what an editor counts."""
    text = "; \x0b \x0c \x1c \u2028 \x85\n" + LEAST.replace("2411", "x")
    assert problems(text) == [f"{PATH}:6: [client] rx_port = 'x': not a number"]


def test_unknown_keys_and_sections_are_warnings():
    """Unknown: a warning, naming file, line, section, key."""
    loaded = server(LEAST + "colour = red\n[paint]\nshade = 1\n")
    assert loaded.problems == []
    assert loaded.warnings == [
        f"{PATH}:7: unknown section [paint]",
        f"{PATH}:6: unknown key [client] colour",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rx_port = 1\n[agent]\n", f"{PATH}:1: a line before any [section]"),
        ("[agent]\nrx_port = 1\nrx_port = 2\n", f"{PATH}:3: rx_port is given twice"),
        ("[agent]\nRX_PORT = 1\nrx_port = 2\n", f"{PATH}:3: rx_port is given twice"),
        ("[agent]\n[client]\n[agent]\n", f"{PATH}:3: [agent] is given twice"),
        ("[agent]\nrx_port\n", f"{PATH}:2: neither [section] nor key = value"),
        ("[agent]\n= 5\n", f"{PATH}:2: neither [section] nor key = value"),
    ],
)
def test_broken_files(text, message):
    """A broken ini → a clear message naming file, line."""
    assert message in problems(text)


def test_a_slip_of_the_pen_hides_no_other_problem():
    """All told: a line that cannot be read is passed over, and the rest is looked at."""
    text = (
        "stray\nagain\n[agent]\nrx_port = 2401\nrx_port = 2402\nvim_cmd_port\n"
        "[client]\nrx_port = many\n[client]\nwhat is this\nhbs_pulse_period = 1\n"
    )
    assert problems(text) == [
        f"{PATH}:1: a line before any [section]",
        f"{PATH}:5: rx_port is given twice",
        f"{PATH}:6: neither [section] nor key = value",
        f"{PATH}:8: [client] rx_port = 'many': not a number",
        f"{PATH}:9: [client] is given twice",
        f"{PATH}:10: neither [section] nor key = value",
        f"{PATH}:11: [client] hbs_pulse_period = '1': out of range: 10 to 86400000",
    ]


@given(st.text(alphabet="[]=:;# \n\tabrx_port1", max_size=200))
def test_any_text_is_read_or_told(text):
    """Settings, or at least one problem; each in a line that the file has."""
    loaded = server(text)
    assert (loaded.settings is None) == bool(loaded.problems)
    assert all(problem.line <= text.count("\n") + 1 for problem in loaded.problems)


@pytest.mark.parametrize("key", ["hbs_failure_threshold", "start_delay"])
def test_keys_that_select_nothing_any_more_are_still_known(key):
    section = "timeouts" if key == "start_delay" else "agent"
    assert agent(one_more(section, key, "2")).warnings == []
    assert len(agent(one_more(section, key, "x")).problems) == 1


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(2, "No such file or directory", "/root/etc/mtc/guestServer.ini"),
        PermissionError(13, "Permission denied", "/root/etc/mtc/guestServer.ini"),
    ],
)
def test_unreadable_file(error):
    """A missing ini → a clear message naming the file."""
    loaded = load_server(reader({SERVER_INI: error}))
    assert [str(problem) for problem in loaded.problems] == [
        f"/root/etc/mtc/guestServer.ini: cannot read it: {error.strerror}"
    ]


def test_comments():
    """Comments with ; or # at line start, inline after whitespace and ;."""
    text = (
        "# c\n; c\n[agent]\nrx_port = 2401 ; why\nvim_cmd_port = 2410\t;why\n"
        "# x = 1\n[client]\nrx_port = 2411\nmetrics_file = /a;b#c\n"
    )
    loaded = server(text)
    assert loaded.warnings == []
    assert loaded.settings.metrics_file == "/a;b#c"


def test_percent_signs_mean_nothing():
    """INI values are taken as they stand."""
    text = LEAST + "metrics_file = /run/%(x)s\n"
    assert server(text).settings.metrics_file == "/run/%(x)s"


# The other services' files


def test_ports_from_the_other_services_files():
    """Also read by guestAgent: /etc/mtc.conf and the VIM's config.ini."""
    settings = agent(
        LEAST,
        mtc="[agent]\nmtc_to_guest_cmd_port = 11\nhbs_to_mtc_event_port = 12\n",
        nfv="[guest-rest-api]\nport = 13\n",
    ).settings
    assert (settings.mtc_cmd_port, settings.mtc_event_port, settings.vim_port) == (11, 12, 13)


def test_own_file_goes_first():
    """What the daemon's own ini sets is not asked elsewhere."""
    text = LEAST + "[vim]\nport = 5\n"
    assert agent(text, nfv="[guest-rest-api]\nport = 13\n").settings.vim_port == 5


def test_the_other_files_may_say_nothing():
    """Their keys have defaults."""
    settings = agent(LEAST, mtc="[x]\ny = 1\n", nfv="").settings
    assert (settings.mtc_cmd_port, settings.vim_port) == (2108, 30002)


def test_a_bad_port_there_is_a_problem():
    """Names that file, not ours."""
    loaded = agent(LEAST, mtc="[agent]\n\nmtc_to_guest_cmd_port = x\n")
    assert [str(problem) for problem in loaded.problems] == [
        "/etc/mtc.conf:3: [agent] mtc_to_guest_cmd_port = 'x': not a number"
    ]


def test_a_broken_file_there_is_a_warning():
    """Another service's file must not stop us, and what can be read of it counts."""
    loaded = agent(LEAST, mtc="rubbish\n")
    assert loaded.settings.mtc_cmd_port == 2108
    assert loaded.warnings == ["/etc/mtc.conf:1: a line before any [section]; passed over"]


def test_an_unreadable_file_there_is_a_warning():
    """A missing one is no matter, another error is worth a word."""
    error = PermissionError(13, "Permission denied", "/root/etc/mtc.conf")
    loaded = agent(LEAST, mtc=error)
    assert loaded.settings.mtc_cmd_port == 2108
    assert loaded.warnings == ["/root/etc/mtc.conf: cannot read it: Permission denied"]


# Showing and changing


def test_the_effective_configuration_is_printed():
    """`--check-config`: print the effective configuration."""
    shown = config.describe(server(LEAST + "metrics_file = /m\n").settings).splitlines()
    assert shown == [
        "[agent]",
        "rx_port = 2401",
        "[client]",
        "rx_port = 2411",
        "hbs_failure_threshold = 1",
        "hbs_pulse_period = 400",
        "address = (by host name)",
        "agent_peers = controller, controller-0, controller-1",
        "metrics_file = /m",
        "[timeouts]",
        "start_delay = 1",
        "[host]",
        "name = (by host name)",
        "[network]",
        "acknowledge = yes",
        "[channels]",
        "directory = /var/lib/libvirt/qemu",
        "[debug]",
        "debug_level = 0",
    ]
    assert "metrics_file = (none)" in config.describe(server(LEAST).settings)
    assert "vim_cmd_port = 2410" in config.describe(agent(LEAST).settings)


def test_sighup_applies_what_can_change_while_running():
    """Threshold, pulse period, debug, peers; the rest needs a restart."""
    old = server(LEAST).settings
    new = dataclasses.replace(
        old,
        hbs_failure_threshold=3,
        hbs_pulse_period_ms=500,
        agent_peers=("controller",),
        debug=2,
        rx_port=9,
        hostname="other",
    )
    settings, applied, deferred = config.changes(old, new)
    assert applied == [
        "[client] hbs_failure_threshold",
        "[client] hbs_pulse_period",
        "[client] agent_peers",
        "[debug] debug_level",
    ]
    assert deferred == ["[client] rx_port", "[host] name"]
    assert settings == dataclasses.replace(new, rx_port=2411, hostname=None)
    assert config.changes(old, old) == (old, [], [])


# /etc/platform/platform.conf


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("nodetype=worker\nsubfunction=controller,worker\nmanagement_interface=enp0s8\n", "enp0s8"),
        ('management_interface="vlan 100" # comment\n', "vlan 100"),
        ("management_interface='a'\nmanagement_interface=b\n", "b"),
        ("management_interface=\nother=1\nrubbish\n#management_interface=x\n", ""),
        ('nodetype="unclosed\nmanagement_interface=lo\n', "lo"),
        ('management_interface="unclosed\n', ""),
    ],
)
def test_the_management_interface(text, expected):
    """`management_interface=` in a file of shell-style lines."""
    assert management_interface(reader({PLATFORM_CONF: text})) == expected


def test_platform_conf_that_is_not_there():
    """One that cannot be read says nothing."""
    assert management_interface(reader({})) == ""


def test_what_a_reload_changes():
    """The settings that guest.ini marks (reload), and no other."""
    marked = {
        key
        for block in (Path(__file__).parents[2] / "etc/guest.ini").read_text().split("\n\n")
        if "(reload)" in block
        for key in re.findall(r"^;?(\w+) =", block, re.MULTILINE)
    }
    live = {
        row.metadata["at"][1]
        for settings in (ServerSettings, AgentSettings)
        for row in dataclasses.fields(settings)
        if row.metadata["live"]
    }
    assert live == marked
    for settings in (ServerSettings, AgentSettings):
        debug = next(row for row in dataclasses.fields(settings) if row.name == "debug")
        assert debug.metadata["live"]
