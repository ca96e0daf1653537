#!/bin/sh
# An event script that lets a guest finish its work first (event_script in guest-client.conf).
#
# When the platform asks whether it may stop, reboot or migrate this guest, it takes no new work
# and waits for the connections that it has. If they end in time it says yes; if not it says no,
# and takes work again: the platform may ask later. Afterwards, work is taken again.
#
# Set the three commands for what runs here; the samples are for nginx behind a load balancer that
# asks for a page which exists only while this guest takes work.

# Takes no new work; takes it again; prints how many connections there are.
DRAIN=${DRAIN:-"rm -f /var/www/html/in-service"}
UNDRAIN=${UNDRAIN:-"touch /var/www/html/in-service"}
COUNT=${COUNT:-"ss -Htn state established sport = :80 | wc -l"}
# Two seconds less than vote_secs: the script is killed one second before that.
WAIT_SECS=${WAIT_SECS:-8}

drained() {
    sh -c "$DRAIN"
    left=$WAIT_SECS
    while connections=$(sh -c "$COUNT") && [ "${connections:-0}" -gt 0 ]; do
        if [ "$left" -le 0 ]; then
            sh -c "$UNDRAIN"
            echo "$connections connections are still open"
            return 1
        fi
        left=$((left - 1))
        sleep 1
    done
    echo "drained"
}

case "$1 $2" in
"revocable stop" | "revocable reboot" | "revocable cold_migrate_begin") drained ;;
"irrevocable unpause" | "irrevocable resume" | "irrevocable "*_end) sh -c "$UNDRAIN" ;;
revocable* | irrevocable*) ;;
*)
    echo "usage: $0 revocable|irrevocable EVENT"
    exit 2
    ;;
esac
