"""Who may change something by a command: [agent] vim_cmd_users."""

from __future__ import annotations

import logging
from collections.abc import Collection

from guestmtce.core.agent.vim_commands import CommandError, Reason
from guestmtce.runtime.local_user import LocalUser, LocalUsers

log = logging.getLogger(__name__)

_UNKNOWN_HELP = (
    "refused a command, as it is not known which local user sends it, and [agent] vim_cmd_users "
    "is set. Its sender must keep the connection open until it is answered, and the kernel must "
    "tell this daemon who it is: systemd's RestrictAddressFamilies needs AF_NETLINK. An empty "
    "vim_cmd_users takes commands from everybody"
)


class Permission:
    """Refuses whom the setting does not name; root may always, and everybody if it is empty."""

    def __init__(self) -> None:
        self._explained = False

    def check(self, allowed: Collection[str], user: LocalUser) -> None:
        """Raise CommandError unless `user` is among the names and uids in `allowed`."""
        if not allowed or user.uid == 0:
            return
        if user.uid is None:
            if not self._explained:
                self._explained = True
                log.warning("%s", _UNKNOWN_HELP)
            detail = "which local user sends this is not known, and [agent] vim_cmd_users is set"
            raise CommandError(403, Reason.UNSUPPORTED, detail)
        if not {user.name, str(user.uid)} & set(allowed):
            detail = f"user {user.name} is not in [agent] vim_cmd_users"
            raise CommandError(403, Reason.UNSUPPORTED, detail)


def warn_of_strangers(allowed: Collection[str], users: LocalUsers) -> None:
    """Log which names in the setting are nobody's, so that they let nobody in."""
    for name in allowed:
        if not name.isdigit() and not users.has(name):
            log.warning(
                "[agent] vim_cmd_users: no user %s in the passwd file: give the uid of one who is "
                "known elsewhere",
                name,
            )
