#!/bin/sh
# A sample event script for the guest client (event_script in guest-client.conf).
#
# Called as:  event-script.sh revocable|irrevocable EVENT
#
#   revocable    a vote: may the platform do EVENT to this guest?
#   irrevocable  a notification: EVENT is about to happen, or has happened
#
# EVENT is one of: stop reboot suspend pause unpause resume resize_begin resize_end
#   live_migrate_begin live_migrate_end cold_migrate_begin cold_migrate_end unknown
#
# Exit status:  0  yes, or done
#               1  no (votes only)
#               anything else is an error: the action goes on
# The first line on standard output is given to the platform as the reason. The script is killed
# one second before the platform stops waiting (vote_secs and the *_notice_secs), and when
# another event comes meanwhile. Lines on its standard error go to the client's log.

# While this file exists the guest does not want to be disturbed; its first line says why.
BUSY_FILE=${BUSY_FILE:-/run/guest-client/busy}

vote() {
    case $1 in
    stop | reboot | suspend | pause | resize_begin | live_migrate_begin | cold_migrate_begin)
        if [ -e "$BUSY_FILE" ]; then
            reason=
            read -r reason <"$BUSY_FILE"
            echo "${reason:-busy}"
            return 1
        fi
        ;;
    esac
    return 0
}

notified() {
    case $1 in
    stop | reboot)
        # Before the end: for example, flush and stop the application here.
        sync
        ;;
    suspend | pause | resize_begin | live_migrate_begin | cold_migrate_begin)
        # Before an interruption: for example, hand the traffic over to another guest here.
        ;;
    unpause | resume | resize_end | live_migrate_end | cold_migrate_end)
        # Afterwards: for example, correct the clock and take the traffic back here.
        ;;
    esac
    return 0
}

case $1 in
revocable) vote "$2" ;;
irrevocable) notified "$2" ;;
*)
    echo "usage: $0 revocable|irrevocable EVENT"
    exit 2
    ;;
esac
