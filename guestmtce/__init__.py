"""StarlingX guest heartbeat: the daemons guestServer and guestAgent, and guestctl."""

import os

# "VERSION COMMIT" beside an installed package, "VERSION" alone in a checkout.
_ABOVE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
with open(os.path.join(_ABOVE, "VERSION"), encoding="ascii") as _file:
    __version__, *_rest = _file.read().split()

#: The commit that an installed package was built of; empty in a checkout.
__commit__ = _rest[0] if _rest else ""
