#!/bin/sh
# A health script for a guest that serves a PostgreSQL database (health_script in
# guest-client.conf). Healthy: the server accepts connections, or is just starting.

# Where the server listens: a directory with its socket, or a host name; and its port.
PGHOST=${PGHOST:-/var/run/postgresql}
PGPORT=${PGPORT:-5432}
# Less than health_timeout_ms.
WAIT_SECS=${WAIT_SECS:-3}

reason=$(pg_isready -h "$PGHOST" -p "$PGPORT" -t "$WAIT_SECS" 2>&1)
case $? in
0) echo "PostgreSQL accepts connections" ;;
# Starting, or recovering from a crash. To reboot it now would have it start all over again.
1) echo "PostgreSQL is starting" ;;
2)
    echo "PostgreSQL does not answer"
    exit 1
    ;;
*)
    echo "pg_isready: $reason"
    exit 1
    ;;
esac
