"""How a request to the VIM ended, in the queue's terms: http-api.md, "Rules for events"."""

from __future__ import annotations

import pytest

from guestmtce.agent.vim_api import judge, result_label
from guestmtce.core.agent.vim_queue import Ended
from guestmtce.runtime.http_client import CLOSED, GARBAGE, RESET, TIMEOUT, Outcome


@pytest.mark.parametrize(
    ("outcome", "ended", "label"),
    [
        (Outcome(True, 200, b"{}", ""), Ended.TAKEN, "2xx"),
        (Outcome(True, None, b"", CLOSED), Ended.TAKEN, "closed"),
        (Outcome(True, 404, b"", ""), Ended.TAKEN, "4xx"),
        (Outcome(True, 499, b"", ""), Ended.TAKEN, "4xx"),
        (Outcome(True, 500, b"", ""), Ended.TAKEN_BADLY, "5xx"),
        (Outcome(True, 503, b"", CLOSED), Ended.TAKEN_BADLY, "5xx"),
        (Outcome(True, None, b"", RESET), Ended.TAKEN_BADLY, "reset"),
        (Outcome(True, None, b"", GARBAGE), Ended.TAKEN, "garbage"),
        (Outcome(True, None, b"", TIMEOUT), Ended.TIMED_OUT, "timeout"),
        (Outcome(True, 200, b"", TIMEOUT), Ended.TIMED_OUT, "timeout"),
        (Outcome(False, None, b"", "refused"), Ended.NOT_DELIVERED, "refused"),
        (Outcome(False, None, b"", TIMEOUT), Ended.NOT_DELIVERED, "timeout"),
        (Outcome(False, None, b"", "no address"), Ended.NOT_DELIVERED, "no_address"),
    ],
)
def test_how_a_request_ended(outcome, ended, label):
    assert judge(outcome) is ended
    assert result_label(outcome) == label
