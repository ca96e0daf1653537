"""Test peers: what the daemons and the guest client talk to, written from the specification.

Nothing here imports guestmtce, so that a mistake there is not made twice.

    wire       the two formats, encoded and decoded independently
    root       a `--root` tree with free ports; starts and stops the daemons
    vim        the VIM: records events, answers queries, sends commands
    mtc_agent  mtcAgent: the owner of the hosts
    agent      a scripted guestAgent: commands guestServers, records what they say
    guest      a scripted guest: QEMU and guest client in one, under the test's control
    host       a scripted host: what a guest client has at the other end of its port
    relay      a QEMU-like relay between the host daemon and a real guest client
    demo       what `make demo` runs, with all of them

Peers work in threads and are used from the test's thread. Each is a context manager that cleans
up after itself, and keeps what it has seen in a `Journal`, on which a test waits.
"""
