"""The losses that guestAgent has not acknowledged, kept across a restart of guestServer.

The file lies beside the pidfile and is written in the turn after something has changed: a loss
is told, acknowledged or void. Where there are hundreds, several changes are written together.
What may be told of it after a restart, and when, is `core.server.saved_loss`'s to say.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping

from guestmtce.core.server import saved_loss
from guestmtce.core.server.reports import Reports
from guestmtce.core.server.saved_loss import SavedLoss
from guestmtce.core.shared.owed import Topic
from guestmtce.core.shared.vocabulary import Command
from guestmtce.runtime import files
from guestmtce.runtime.loop import Loop, Timers
from guestmtce.runtime.outside import seconds_since_boot
from guestmtce.server.agent_link import AgentLink
from guestmtce.server.channel import Channel

log = logging.getLogger(__name__)

LOSSES_FILE = "/var/run/guestServer.losses"
BOOT_ID = "/proc/sys/kernel/random/boot_id"
# Of as many losses as there can be instances.
FILE_BYTES = 4 * 1024 * 1024
LOOK_SECS = 1.0
# A hundred losses are written in a millisecond or two, ten thousand in a hundred of them: so long
# for each full hundred the next change waits for others to come.
PAUSE_SECS = 0.01


class Losses:
    """Saves what is owed, and tells what an earlier run of ours owed once that may be told.

    `channels` are the instances by UUID.
    """

    def __init__(
        self,
        loop: Loop,
        path: str,
        link: AgentLink,
        *,
        channels: Mapping[str, Channel],
        since_boot: Callable[[], float] = seconds_since_boot,
    ) -> None:
        self.problem = ""
        self._loop = loop
        self._path = path
        self._link = link
        self._channels = channels
        self._since_boot = since_boot
        self._boot_id = _read_boot_id()
        self._timers = Timers(loop)
        self._changes = 0
        # When each loss that is owed was told, by its order id.
        self._lost_at: dict[str, float] = {}
        # Of an earlier run: not told again yet; and since when their channels are open.
        self._waiting: dict[str, SavedLoss] = {}
        self._open_since: dict[str, float] = {}

    def load(self) -> None:
        """Read what the run before us left."""
        try:
            text = files.read_text(self._path, FILE_BYTES)
            losses = saved_loss.from_text(text, self._boot_id, self._since_boot())
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            log.warning("%s is not used: %s", self._path, error)
            return
        for loss in losses:
            log.info("instance %s: its loss was not acknowledged before our restart", loss.uuid)
            self._waiting[loss.uuid] = loss
        if self._waiting:
            self._timers.start("look", LOOK_SECS, self._look)

    def recall(self, uuid: str, reports: Reports) -> None:
        """Let an instance that we meet for the first time have the terms that it was lost with.

        From then on guestAgent is told them: LOSS itself does not name the action.
        """
        loss = self._waiting.get(uuid)
        if loss is not None:
            reports.terms = loss.terms

    def stop(self) -> None:
        """Save, and do nothing more."""
        if self._timers.active("save"):
            self._save()
        self._timers.cancel_all()

    def note_flush(self) -> None:
        """Something was told or acknowledged: save it in the next turn, if it was a loss."""
        role = self._link.role
        if role is not None and role.changes(Topic.LOSS) != self._changes:
            self._changes = role.changes(Topic.LOSS)
            self._save_soon()

    def void(self, uuid: str) -> None:
        """Nobody wants to hear of an instance's loss any more."""
        if self._waiting.pop(uuid, None) is not None:
            self._open_since.pop(uuid, None)
            self._save_soon()

    def void_all(self) -> None:
        """Nobody wants to hear of any."""
        for uuid in list(self._waiting):
            self.void(uuid)

    def _look(self) -> None:
        """See which losses of the run before us are void, and which are true still."""
        for loss in list(self._waiting.values()):
            self._look_at(loss)
        if self._waiting:
            self._timers.start("look", LOOK_SECS, self._look)

    def _look_at(self, loss: SavedLoss) -> None:
        now, channel = self._loop.time(), self._channels.get(loss.uuid)
        if self._since_boot() - loss.lost_at > saved_loss.OLDEST_SECS:
            self.void(loss.uuid)
            return
        if channel is None or not channel.instance.connection.connected:
            # Who has closed it we are told: had it been QEMU, the loss would be void by now.
            return
        if loss.socket and channel.socket_mark != loss.socket:
            log.info("instance %s: it has a new channel since its loss, which is void", loss.uuid)
            self.void(loss.uuid)
            return
        instance = channel.instance
        if loss.uuid not in self._open_since:
            self._open_since[loss.uuid] = now
        if instance.heartbeat.initialized:
            self.void(loss.uuid)
        elif now - self._open_since[loss.uuid] >= loss.silent_secs:
            self._tell_again(loss, instance.reports)

    def _tell_again(self, loss: SavedLoss, reports: Reports) -> None:
        """Tell a loss, or wait until guestAgent has said that it wants to hear of such."""
        if not reports.wants_faults:
            return
        log.warning("instance %s: lost before our restart, and silent since", loss.uuid)
        self._lost_at[loss.order_id] = loss.lost_at
        self.void(loss.uuid)
        self._link.send(Command.HEARTBEAT_LOSS, reports.loss, order_id=loss.order_id)

    def _save_soon(self) -> None:
        if not self._timers.active("save"):
            hundreds = (len(self._waiting) + len(self._lost_at)) // 100
            self._timers.start("save", hundreds * PAUSE_SECS, self._save)

    def _save(self) -> None:
        role = self._link.role
        owed = role.orders(Topic.LOSS) if role is not None else []
        now = self._since_boot()
        self._lost_at = {name: self._lost_at.get(name, now) for _uuid, name in owed}
        losses = list(self._waiting.values())
        for uuid, name in owed:
            channel = self._channels.get(uuid)
            if channel is not None:
                terms, socket = channel.instance.reports.terms, channel.socket_mark
                losses.append(SavedLoss(uuid, name, self._lost_at[name], terms, socket))
        try:
            if losses:
                text = saved_loss.to_text(self._boot_id, losses)
                files.write_atomic(self._path, text, 0o600)
            elif os.path.lexists(self._path):
                os.unlink(self._path)
        except OSError as error:
            problem = f"losses are not saved: cannot write {self._path}: {files.why(error)}"
            if problem != self.problem:
                log.error("%s", problem)
            self.problem = problem
        else:
            self.problem = ""


def _read_boot_id() -> str:
    try:
        return files.read_text(BOOT_ID).strip()
    except OSError:
        return "unknown"
