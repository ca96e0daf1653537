#!/bin/sh
# A sample health script for the guest client (health_script in guest-client.conf).
#
# Exit status 0: healthy; anything else: unhealthy, and the host is asked for the
# unhealthy_corrective_action. The first line on standard output says why.
# It is run each health_interval_ms and killed after health_timeout_ms, so it must be quick, and
# cheap enough to run that often.

# Whoever finds a fault in this guest writes it into this file.
FAULT_FILE=${FAULT_FILE:-/run/guest-client/fault}
# The root file system must have this much space left.
LEAST_FREE_KB=${LEAST_FREE_KB:-1024}

if [ -e "$FAULT_FILE" ]; then
    reason=
    read -r reason <"$FAULT_FILE"
    echo "${reason:-fault}"
    exit 1
fi

free_kb=$(df -kP / | awk 'NR == 2 { print $4 }')
if [ "${free_kb:-0}" -lt "$LEAST_FREE_KB" ]; then
    echo "only $free_kb kB free on /"
    exit 1
fi

echo "ok"
