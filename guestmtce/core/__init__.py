"""Sans-I/O core: messages, state machines, inventory, audit. Imports no socket, no clock."""
