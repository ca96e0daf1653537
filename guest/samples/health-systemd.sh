#!/bin/sh
# A health script for a guest whose services systemd minds (health_script in guest-client.conf).
# Healthy: each unit of UNITS is active, or on its way.

# The units that this guest is there for, not all that it has.
UNITS=${UNITS:-}
# In place of that, one unit a line; # begins a comment.
UNITS_FILE=${UNITS_FILE:-/etc/guest-client/units}

if [ -z "$UNITS" ] && [ -r "$UNITS_FILE" ]; then
    UNITS=$(sed 's/#.*//' "$UNITS_FILE")
fi
for unit in $UNITS; do
    state=$(systemctl is-active "$unit" 2>&1)
    case $state in
    # systemd is about to start it, or starts it again: what it can mend is no reason to reboot.
    active | activating | reloading | deactivating) ;;
    *)
        echo "$unit is ${state:-not known}"
        exit 1
        ;;
    esac
done
echo "ok"
