#!/bin/sh
#
# maintain NAME EVENT: what the scripts of the RPM and Debian packages have done with a service.
#
#   installed   the package is new on this host: have the service started with the next boot,
#               and pmond look after it
#   changed     its files are new: if it runs, have it restarted, once, by whoever minds it
#   removing    its files are about to go: stop it and start it no more
#
# Works with systemd, with System V init, and in an image where nothing runs. A service that
# cannot be enabled or restarted is said and does not fail the package.

NAME=$1
EVENT=$2
SCRIPT=/etc/init.d/$NAME
# Package managers leave out where StarlingX has its tools.
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH

has() {
    command -v "$1" >/dev/null 2>&1
}

complain() {
    echo "$NAME: $*" >&2
}

systemd_runs() {
    has systemctl && [ -d /run/systemd/system ]
}

pmond_runs() {
    has pmon-restart && kill -0 "$(cat /var/run/pmond.pid 2>/dev/null)" 2>/dev/null
}

service_runs() {
    "$SCRIPT" status >/dev/null 2>&1
}

PMON_FILE=/usr/share/starlingx/pmon.d/$NAME.conf
PMON_LINK=/etc/pmon.d/$NAME.conf

# pmond reads /etc/pmon.d. What somebody else has put there stays.
link_for_pmond() {
    if [ -e "$PMON_FILE" ] && [ -d /etc/pmon.d ] && ! [ -e "$PMON_LINK" ] && ! [ -L "$PMON_LINK" ]; then
        ln -s "$PMON_FILE" "$PMON_LINK"
    fi
}

unlink_for_pmond() {
    if [ "$(readlink "$PMON_LINK" 2>/dev/null)" = "$PMON_FILE" ]; then
        rm -f "$PMON_LINK"
    fi
}

# Debian's helper works without a running systemd, and knows what the administrator has disabled. It
# works for dpkg alone: under rpm on such a system it does nothing.
debian_helps() {
    [ -n "${DPKG_MAINTSCRIPT_PACKAGE:-}" ] && has deb-systemd-helper
}

enable_by_debian() {
    deb-systemd-helper unmask "$NAME.service" >/dev/null || true
    if deb-systemd-helper --quiet was-enabled "$NAME.service"; then
        deb-systemd-helper enable "$NAME.service" >/dev/null
    else
        deb-systemd-helper update-state "$NAME.service" >/dev/null
    fi
}

enable_service() {
    if debian_helps; then
        enable_by_debian
        # It is there on a Debian without systemd too, and makes no links of init scripts.
        if ! has systemctl && has update-rc.d; then
            update-rc.d "$NAME" defaults
        fi
    elif has systemctl; then
        systemctl enable "$NAME.service"
    elif has update-rc.d; then
        update-rc.d "$NAME" defaults
    elif has chkconfig; then
        chkconfig --add "$NAME"
    else
        complain "no service manager found: start it with $SCRIPT start"
    fi
}

disable_service() {
    if debian_helps; then
        deb-systemd-helper purge "$NAME.service" >/dev/null
        return
    fi
    if has systemctl; then
        systemctl disable "$NAME.service"
    fi
    # `systemctl enable` may have had the init script linked too.
    if has update-rc.d; then
        update-rc.d -f "$NAME" remove
    elif has chkconfig; then
        chkconfig --del "$NAME"
    fi
}

# One restart, by one of them: pmond or SM would take a restart by another for a failure.
restart_service() {
    service_runs || return 0
    if [ "$NAME" = guestServer ] && pmond_runs; then
        pmon-restart "$NAME"
    elif [ "$NAME" = guestAgent ] && has sm-restart-safe; then
        sm-restart-safe service guest-agent
    elif systemd_runs && systemctl --quiet is-active "$NAME.service"; then
        systemctl try-restart "$NAME.service"
    else
        "$SCRIPT" condrestart
    fi
}

stop_service() {
    if [ "$NAME" = guestServer ] && pmond_runs && has pmon-stop; then
        pmon-stop "$NAME"
    fi
    if systemd_runs && systemctl --quiet is-active "$NAME.service"; then
        systemctl stop "$NAME.service"
    fi
    "$SCRIPT" stop
}

case $EVENT in
    installed)
        if [ "$NAME" != guestAgent ]; then
            enable_service || complain "cannot be enabled"
        elif debian_helps; then
            # SM runs it, so it is not started at boot. Who has it started all the same leaves a
            # link, which the purge has to know of.
            deb-systemd-helper update-state "$NAME.service" >/dev/null
        fi
        link_for_pmond
        if systemd_runs; then systemctl daemon-reload; fi
        ;;
    changed)
        link_for_pmond
        if systemd_runs; then systemctl daemon-reload; fi
        restart_service || complain "cannot be restarted: see $SCRIPT status"
        ;;
    removing)
        stop_service || complain "does not stop"
        disable_service || complain "cannot be disabled"
        unlink_for_pmond
        ;;
    *)
        echo "Usage: $0 NAME installed|changed|removing" >&2
        exit 2
        ;;
esac
exit 0
