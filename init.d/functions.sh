# shellcheck shell=sh
# What the init scripts and the OCF agent share: start, stop and look after one daemon.
#
# Sourced, POSIX sh, no helper of any distribution. The caller has set:
#   NAME     the program's name, as it stands in /proc/PID/comm
#   BINARY   what to start; it becomes a daemon by itself, and says by its exit code if it did
#   PIDFILE  where the daemon writes its pid
#   ROOT     prefix of every path, for tests and image builds; passed on as --root. Empty: none
# and may define any of these functions anew.
#
# DAEMON_USER is whose process it is, by default the caller's.
#
# init_main ACTION does what /etc/init.d/NAME ACTION is to do, and returns its exit code:
#   0 done · 1 failed (status: dead, pid file left) · 2 usage · 3 not running (status)
#   5 not installed · 7 does not stop

PATH=${PATH:-/usr/bin:/bin}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/sbin:/usr/bin:/bin
export PATH

# Is process PID a NAME? Its number may belong to another program by now, or to a zombie.
is_ours() {
    { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 1
    case $stat in
        "$1 ($NAME) "[ZX]*) return 1 ;;
        "$1 ($NAME) "*) return 0 ;;
    esac
    return 1
}

# Print the pid of the daemon; fail if it does not run.
running_pid() (
    pid=$(cat "$PIDFILE" 2>/dev/null)
    case $pid in
        '' | *[!0-9]*) ;;
        *) is_ours "$pid" && echo "$pid" && exit 0 ;;
    esac
    find_without_pidfile
)

# Print the pid of a daemon whose pid file is gone: a cleaner of /var/run may have removed it.
# A name alone is not believed: another user, a container or another root has such names too.
find_without_pidfile() {
    for directory in /proc/[0-9]*; do
        pid=${directory#/proc/}
        if is_ours "$pid" && shares_our_root "$pid" &&
            { holds_our_file "$pid" || is_called_as_ours "$pid"; }; then
            echo "$pid"
            return 0
        fi
    done
    return 1
}

# Is what process PID sees as / what we see?
shares_our_root() {
    [ "$(stat -Lc %d:%i "/proc/$1/root" 2>/dev/null)" = "$(stat -Lc %d:%i /proc/self/root)" ]
}

# Has process PID a file of this daemon open (pid file or lock), removed or not?
holds_our_file() {
    run=$(readlink -f "$ROOT/var/run") || return 1
    case $(ls -l "/proc/$1/fd" 2>/dev/null) in
        *" -> $run/$NAME."*) return 0 ;;
    esac
    return 1
}

# Is process PID one of our user, of our program, under our --root?
is_called_as_ours() {
    [ "$(stat -c %u "/proc/$1" 2>/dev/null)" = "$(id -u "${DAEMON_USER:-$(id -u)}")" ] || return 1
    words=" $({ tr '\0' ' ' <"/proc/$1/cmdline"; } 2>/dev/null) "
    case $words in
        " $NAME "* | *" $BINARY "*) ;;
        *) return 1 ;;
    esac
    case $words in
        *" --root ${ROOT:-/} "* | *" --root=${ROOT:-/} "*) return 0 ;;
        *" --root"*) return 1 ;;
    esac
    [ -z "$ROOT" ]
}

# Run the daemon's program with its usual options and these.
run_binary() {
    "$BINARY" ${ROOT:+--root "$ROOT"} "$@"
}

# end_daemon PID TENTHS SIGNAL...: send each signal in turn and give it so many tenths of a
# second; succeed as soon as the process is gone.
end_daemon() (
    pid=$1
    tenths=$2
    shift 2
    for signal; do
        if ! kill -s "$signal" "$pid" && is_ours "$pid"; then
            # Not ours to signal: waiting will not help.
            exit 1
        fi
        left=$tenths
        while [ "$left" -gt 0 ]; do
            if ! is_ours "$pid"; then
                forget_pid "$pid"
                exit 0
            fi
            sleep 0.1
            left=$((left - 1))
        done
    done
    exit 1
)

# Remove the pid file that a dead process left, unless a new daemon has it already.
forget_pid() {
    if [ "$(cat "$PIDFILE" 2>/dev/null)" = "$1" ]; then
        rm -f "$PIDFILE"
    fi
}

# Set the management interface up where platform.conf names one that is down: early in the
# boot nobody else may have done it yet, and without it nothing can be sent.
raise_management_interface() (
    interface=$(sed -n 's/^management_interface=["'\'']\{0,1\}\([A-Za-z0-9._-]*\).*/\1/p' \
        "$ROOT/etc/platform/platform.conf" 2>/dev/null | tail -n 1)
    flags=$(cat "$ROOT/sys/class/net/${interface:-none}/flags" 2>/dev/null) || exit 0
    # The lowest bit is IFF_UP.
    [ $((flags & 1)) -eq 0 ] || exit 0
    echo "Setting $interface up"
    ip link set dev "$interface" up || echo "$NAME: cannot set $interface up" >&2
)

is_installed() {
    [ -x "$BINARY" ] && return 0
    echo "$NAME: $BINARY is not installed, or not executable" >&2
    return 1
}

init_start() {
    if pid=$(running_pid); then
        echo "$NAME is already running (pid $pid)"
        return 0
    fi
    is_installed || return 5
    raise_management_interface
    # Returns when the daemon is initialised, or has said on stderr why it is not.
    if run_binary; then
        echo "Starting $NAME: OK"
        return 0
    fi
    # Another one may have been faster.
    if pid=$(running_pid); then
        echo "$NAME is already running (pid $pid)"
        return 0
    fi
    echo "Starting $NAME: FAILED"
    return 1
}

init_stop() {
    if ! pid=$(running_pid); then
        [ -e "$PIDFILE" ] && forget_pid "$(cat "$PIDFILE")"
        echo "$NAME is not running"
        return 0
    fi
    # One that was stopped (SIGSTOP) must go on in order to end; that takes 2 s at most.
    kill -s CONT "$pid" 2>/dev/null
    if end_daemon "$pid" 30 TERM KILL; then
        echo "Stopping $NAME: OK"
        return 0
    fi
    echo "Stopping $NAME: FAILED, pid $pid is still there"
    return 7
}

init_restart() {
    # Not stopped if it could not be started again.
    is_installed || return 5
    init_stop || return
    init_start
}

init_condrestart() {
    if running_pid >/dev/null; then
        init_restart
    else
        echo "$NAME is not running"
    fi
}

init_reload() {
    if ! pid=$(running_pid); then
        echo "$NAME is not running"
        return 1
    fi
    is_installed || return 5
    if ! problems=$(run_binary --check-config 2>&1); then
        printf '%s\n' "$problems" >&2
        echo "Reloading $NAME: FAILED, it goes on with its present configuration"
        return 1
    fi
    if ! kill -s HUP "$pid"; then
        echo "Reloading $NAME: FAILED"
        return 1
    fi
    echo "Reloading $NAME: OK"
}

init_status() {
    if pid=$(running_pid); then
        echo "$NAME is running (pid $pid)"
        return 0
    fi
    if [ -e "$PIDFILE" ]; then
        echo "$NAME is dead, and its pid file $PIDFILE is left"
        return 1
    fi
    echo "$NAME is not running"
    return 3
}

init_main() {
    case ${1-} in
        start | stop | restart | reload | status | condrestart) "init_$1" ;;
        try-restart) init_condrestart ;;
        force-reload) init_reload ;;
        *)
            echo "Usage: $0 {start|stop|restart|reload|status|condrestart}" >&2
            return 2
            ;;
    esac
}
