"""guestAgent: on the active controller; between the VIM, mtcAgent and the guestServers."""
