"""StarlingX guest heartbeat: the daemons guestServer and guestAgent, and guestctl."""

__version__ = "1.0.0"
