"""The request to the VIM that a queued message is written as (http-api.md, "Events").

Made when it is written, not when it was queued: a `service` event tells the state of that moment.
"""

from __future__ import annotations

from typing import NamedTuple

from guestmtce.core.agent import vim_messages
from guestmtce.core.agent.inventory import Inventory
from guestmtce.core.agent.lanes import Kind, Message
from guestmtce.core.agent.vim_messages import GuestAnswer, VimAlarm

_BASE = "/nfvi-plugins/v1"


class VimRequest(NamedTuple):
    """Method, path and body of a request; a query of the instances has no body."""

    method: str
    target: str
    body: bytes | None


def request_for(inventory: Inventory, key: str, message: Message) -> VimRequest:
    """Return the request that tells or asks `message` of the lane `key`."""
    detail = message.detail
    if message.kind is Kind.HOST_STATE:
        host = inventory.hosts[str(detail)]
        body = vim_messages.host_state_body(host.hostname, host.uuid)
        return VimRequest("GET", f"{_BASE}/hosts/{host.uuid}", body)
    if message.kind is Kind.INSTANCES:
        return VimRequest("GET", f"{_BASE}/instances/?host_uuid={detail}", None)
    if isinstance(detail, GuestAnswer):
        body = vim_messages.action_body(key, detail)
    elif isinstance(detail, VimAlarm):
        body = vim_messages.alarm_body(inventory.instances[key].for_vim(), detail)
    else:
        body = vim_messages.service_body(inventory.instances[key].for_vim())
    return VimRequest("PATCH", f"{_BASE}/instances/{key}", body)
