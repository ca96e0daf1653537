"""What both daemons share: words, errors, settings, the UDP datagram. No I/O, no clock."""
