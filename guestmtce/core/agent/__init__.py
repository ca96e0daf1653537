"""guestAgent's half: inventory, commands, events, audit, the VIM's queue. No I/O, no clock."""
