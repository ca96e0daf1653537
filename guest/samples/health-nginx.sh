#!/bin/sh
# A health script for a guest that serves web pages with nginx (health_script in
# guest-client.conf). Healthy: a page comes in time, with a status under 400.

# A page that needs what matters, and nothing more: not the whole application, whose slowness is
# no reason to reboot this guest.
URL=${URL:-http://127.0.0.1/}
# Less than health_timeout_ms.
WAIT_SECS=${WAIT_SECS:-3}

if command -v curl >/dev/null; then
    reason=$(curl --fail --silent --show-error --output /dev/null --noproxy '*' \
        --max-time "$WAIT_SECS" "$URL" 2>&1)
else
    reason=$(wget -q -O /dev/null -T "$WAIT_SECS" "$URL" 2>&1)
fi
status=$?
if [ "$status" -ne 0 ]; then
    echo "$URL: ${reason:-no page (status $status)}"
    exit 1
fi
echo "$URL comes"
