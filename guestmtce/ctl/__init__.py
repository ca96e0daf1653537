"""guestctl: asks the daemons of this host through their control sockets."""
