"""guestServer's half: the guest channel and one instance's state machines. No I/O, no clock."""
