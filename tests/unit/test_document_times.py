"""Times that more than one document says: in each place the one of the code.

What is in security.md's table of bounds is looked at by `test_security_document.py`.
"""

from __future__ import annotations

import importlib
import re

import pytest

from tests.documents import DOCS, ROOT

# A constant, in seconds, and where it is said: a document, and the words around its number.
PLACES = {
    "core.server.alarms.GAP_SECS": [
        ("behaviour.md", r"So one goes out in (\d+) s for each action"),
        ("behaviour.md", r"A later one within these (\d+) s"),
        ("protocol.md", r"passes on one illness in (\d+) s"),
        ("decisions.md", r"Within (\d+) s of the last one the order is kept"),
    ],
    "core.agent.inventory.ALARM_GAP_SECS": [
        ("http-api.md", r"at most one `failed` alarm goes out in (\d+) s"),
        ("decisions.md", r"one `unhealthy` alarm for each action, in (\d+) s"),
    ],
    "server.app.ILLNESS_SECS": [("datagrams.md", r"ILLHEALTH \| (\d+) s are over")],
    "core.agent.events.UNHEALTHY_SECS": [
        ("http-api.md", r"`unhealthy` also after (\d+) s"),
        ("decisions.md", r"`unhealthy` alarms are dropped (\d+) s after"),
    ],
    "core.agent.vim_health.HUNG_SECS": [
        ("http-api.md", r"leaves a request unanswered for (\d+) s"),
        ("behaviour.md", r"or one that has been out for (\d+) s makes it `suspect`"),
        ("decisions.md", r"When a request has been out for (\d+) s"),
    ],
    "core.agent.vim_health.MAX_RETRY_SECS": [
        ("http-api.md", r"Tried again after 1, 2, 4, … (\d+) s"),
        ("behaviour.md", r"a harmless one, after 1, 2, 4, … (\d+) s"),
    ],
    "core.agent.schedule.PERIOD_SECS": [
        ("README.md", r"audits both every (\d+) s"),
        ("behaviour.md", r"then every (\d+) s each worker has its turn"),
        ("architecture.md", r"guestAgent's look, every (\d+) s"),
        ("deploy.md", r"the audit mends states within (\d+) s"),
    ],
    "core.agent.presence.ABSENT_SECS": [
        ("behaviour.md", r"After (\d+) s it sends no audit"),
        ("decisions.md", r"on no interface here for (\d+) s"),
    ],
    "core.agent.inventory.REPORTING_SECS": [
        ("datagrams.md", r"after READY, and every (\d+) s; never while"),
        ("decisions.md", r"after READY, and every (\d+) s\*\*"),
    ],
    "core.agent.inventory.READY_GAP_SECS": [
        ("behaviour.md", r"at most once in (\d+) s\. An event"),
        ("decisions.md", r"READY of a host is answered once in (\d+) s"),
    ],
    "core.server.connect.IDLE_SECS": [
        ("protocol.md", r"nothing valid came for (\d+) s"),
        ("behaviour.md", r"idle for (\d+) s"),
        ("decisions.md", r"The reconnect after (\d+) s"),
    ],
    "core.server.connect.SUSPENDED_SECS": [
        ("protocol.md", r"the guest was suspended \| after (\d+) s"),
        ("decisions.md", r"opened again after (\d+) s"),
    ],
    "core.server.connect.STARVED_SECS": [
        ("protocol.md", r"\(EMFILE, ENFILE\) \| every (\d+) s"),
        ("troubleshooting.md", r"channels that found none are tried again every (\d+) seconds"),
        ("decisions.md", r"are tried again every (\d+) s, however long"),
    ],
    "core.server.silence.PAUSED_GRACE_SECS": [
        ("behaviour.md", r"after (\d+) s while silence is expected"),
        ("decisions.md", r"whichever is longer, (\d+) s while silence is expected"),
    ],
    "server.watch.BLIND_SCAN_SECS": [
        ("protocol.md", r"bridged by a listing every (\d+) s"),
        ("decisions.md", r"bridged by a listing each (\d+) s"),
        ("monitoring.md", r"the directory is read every (\d+) s"),
        ("troubleshooting.md", r"only read every (\d+) s"),
    ],
    "server.platform.FLAG_SECS": [
        ("operations.md", r"it looks every (\d+) s"),
        ("troubleshooting.md", r"They are looked for every (\d+) seconds"),
    ],
    "server.agent_link.RESOLVE_SECS": [
        ("operations.md", r"yet is tried again every (\d+) s"),
        ("troubleshooting.md", r"the file is read again within (\d+) seconds"),
        ("datagrams.md", r"while the file is read again every (\d+) s"),
        ("decisions.md", r"looked at every (\d+) s until `controller` is found"),
    ],
    "runtime.hosts.KEPT_SECS": [
        ("datagrams.md", r"vanishes keeps its last address for (\d+) s"),
        ("decisions.md", r"keeps its last address for (\d+) s\.\*\*"),
    ],
    "runtime.daemon.KEEP_SECS": [
        ("operations.md", r"is back within (\d+) s, and at SIGUSR1"),
        ("operations.md", r"the other files every (\d+) s"),
        ("decisions.md", r"control socket is back within (\d+) s"),
    ],
    "runtime.event_log.RETRY_SECS": [
        ("operations.md", r"log and events every (\d+) s"),
        ("troubleshooting.md", r"the log and the events within (\d+) s"),
    ],
    "runtime.event_log.KEPT": [
        ("operations.md", r"with the last (\d+) events kept meanwhile"),
        ("troubleshooting.md", r"The last (\d+) events are in the file then"),
        ("http-api.md", r"of the last (\d+) events"),
    ],
    "runtime.metrics_file.FILE_SECS": [
        ("operations.md", r"`metrics_file`, if that is set, every (\d+) s"),
        ("monitoring.md", r"The file is written every (\d+) s"),
        ("README.md", r"a Prometheus textfile, every (\d+) s"),
    ],
}
ROWS = [(path, *place) for path, places in PLACES.items() for place in places]


def said(document: str) -> str:
    """Return a document as one line."""
    path = ROOT / document if document == "README.md" else DOCS / document
    return " ".join(path.read_text("utf-8").split())


@pytest.mark.parametrize(("path", "document", "words"), ROWS)
def test_a_time_is_the_codes(path: str, document: str, words: str) -> None:
    """Whoever changes the constant is told every place."""
    module, _, name = path.rpartition(".")
    constant = getattr(importlib.import_module(f"guestmtce.{module}"), name)
    numbers = re.findall(words, said(document))
    assert numbers, "the document says it in other words now: say which"
    assert {float(number) for number in numbers} == {constant}
