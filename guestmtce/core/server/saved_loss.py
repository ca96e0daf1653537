"""LOSSes that outlive a restart of guestServer: what is saved, and when it may be told again.

Sans-I/O. While we were away the guest may have recovered. So a saved loss is told only when its
channel has been open for a while and no init came; it is void when the channel closes or is another
one than before, when the instance is deleted, or when reporting is off (decision 24).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import NamedTuple

from guestmtce.core.server.guest_protocol import Terms
from guestmtce.core.shared.text import decode_json
from guestmtce.core.shared.vocabulary import CorrectiveAction, Timeouts, canonical_uuid

OLDEST_SECS = 600.0
SILENT_SECS = 15.0
SILENT_INTERVALS = 3
_MAX_SECS = 86_400
_MAX_INTERVAL_MS = 86_400_000
_MAX_ID = 64
_MAX_SOCKET = 64


class SavedLoss(NamedTuple):
    """A LOSS that guestAgent has not acknowledged for good.

    `order_id` is its name between the daemons, `lost_at` when it was told (seconds since boot,
    sleep included), `terms` what the guest wanted at its last init, `socket` which socket file its
    channel had ("": not known).
    """

    uuid: str
    order_id: str
    lost_at: float
    terms: Terms
    socket: str = ""

    @property
    def silent_secs(self) -> float:
        """How long its channel has to be open without an init before it is told again."""
        return max(SILENT_SECS, SILENT_INTERVALS * self.terms.interval_ms / 1000)


def to_text(boot_id: str, losses: Iterable[SavedLoss]) -> str:
    """Return the file's text."""
    saved = [
        {
            "uuid": loss.uuid,
            "id": loss.order_id,
            "lost_at": loss.lost_at,
            "interval_ms": loss.terms.interval_ms,
            "corrective_action": str(loss.terms.corrective_action),
            "timeouts": list(loss.terms.timeouts),
            "socket": loss.socket,
        }
        for loss in losses
    ]
    return json.dumps({"boot": boot_id, "losses": saved}) + "\n"


def from_text(text: str, boot_id: str, now: float) -> list[SavedLoss]:
    """Return what the file's text says that is of this boot and not too old.

    Raises ValueError if it is no such file.
    """
    content = decode_json(text)
    if not isinstance(content, dict) or not isinstance(content.get("losses"), list):
        raise ValueError("not a file of losses")
    if content.get("boot") != boot_id:
        return []
    losses = [_loss(entry) for entry in content["losses"]]
    return [loss for loss in losses if 0 <= now - loss.lost_at <= OLDEST_SECS]


def _loss(entry: object) -> SavedLoss:
    if not isinstance(entry, dict):
        raise ValueError("not a loss")
    uuid = canonical_uuid(str(entry.get("uuid")))
    order_id, lost_at, timeouts = (entry.get(key) for key in ("id", "lost_at", "timeouts"))
    if uuid is None or not isinstance(order_id, str) or not 0 < len(order_id) <= _MAX_ID:
        raise ValueError("not a loss")
    socket = entry.get("socket", "")
    if not isinstance(socket, str) or len(socket) > _MAX_SOCKET:
        raise ValueError("not a loss")
    if type(lost_at) is not float or not isinstance(timeouts, list):
        raise ValueError("not a loss")
    if len(timeouts) != len(Timeouts._fields):
        raise ValueError("not a loss")
    terms = Terms(
        interval_ms=_integer(entry.get("interval_ms"), _MAX_INTERVAL_MS),
        timeouts=Timeouts(*(_integer(each, _MAX_SECS) for each in timeouts)),
        corrective_action=CorrectiveAction.parse(str(entry.get("corrective_action"))),
    )
    return SavedLoss(uuid, order_id, lost_at, terms, socket)


def _integer(value: object, most: int) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError("not a loss")
    return value
