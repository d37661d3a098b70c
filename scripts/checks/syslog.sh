#!/usr/bin/env bash
# rsyslog of Debian reads what l4lb writes to it: with its parser for RFC 5424, and as it reads /dev/log without
# settings. Its socket and its files are private; the service of the machine is left alone.
# shellcheck source=../lib/harness.sh
source "$(dirname "$0")/../lib/harness.sh"

write_rsyslog_conf() {
    cat >"$WORK/rsyslog.conf" <<END
global(workDirectory="$WORK")
module(load="imuxsock" SysSock.Use="off")
input(type="imuxsock" Socket="$WORK/rfc5424" UseSpecialParser="off" ParseHostname="on" UseSysTimeStamp="off")
input(type="imuxsock" Socket="$WORK/local")
template(name="parts" type="string"
    string="%pri-text%|%timereported:::date-rfc3339%|%hostname%|%app-name%|%procid%|%msgid%|%structured-data%|%msg%\n")
action(type="omfile" file="$WORK/messages" template="parts")
END
}

start_rsyslog() {
    rm -f "$WORK/rfc5424" "$WORK/local"
    start rsyslog rsyslogd -n -f "$WORK/rsyslog.conf" -i "$WORK/rsyslog.pid"
    wait_until 10 "rsyslogd listens" test -S "$WORK/local"
}

# One session through an l4lb whose lines have that header.
start_with() {
    local header=$1
    cat >"$WORK/lb.toml" <<END
[global]
log = { target = "syslog", socket = "$WORK/$header", header = "$header", facility = "local3", app_name = "edge", fields = ["reason", "to_client", "pool"] }
[admin]
socket = false
[[listener]]
bind = "$ADDRESS"
[[pool]]
name = "web"
health = { type = "off" }
backend = [{ address = "$BACKEND" }]
END
    "$L4LB" -c "$WORK/lb.toml" </dev/null >"$WORK/lb.out" 2>&1 &
    PID[lb]=$!
    wait_until 10 "l4lb accepts" accepts_connections "$ADDRESS"
}

has_message() { grep -qE "$1" "$WORK/messages" 2>/dev/null; }

check_header() {
    local header=$1 head=$2
    stop rsyslog
    rm -f "$WORK/messages"
    start_rsyslog
    start_with "$header"
    curl -sS -o "$WORK/answer" "http://$ADDRESS/"
    wait_until 10 "rsyslog has the session" has_message "^local3.info\|$head ?session reason=done to_client=[0-9]+ pool=web$"
    # rsyslogd goes and comes back: what was logged meanwhile waits.
    stop rsyslog
    curl -sS -o "$WORK/answer" "http://$ADDRESS/"
    rm -f "$WORK/messages"
    start_rsyslog
    wait_until 10 "the next rsyslog has the session of meanwhile" has_message "^local3.info\|$head ?session reason=done to_client=[0-9]+ pool=web$"
    signal TERM lb
    await_exit lb 10
    expect "exit code" "$EXIT" = 0
    wait_until 10 "rsyslog has the last line" has_message "^local3.info\|$head ?stopped: accepted="
    pass "rsyslog reads the lines with header $header, also after it was started anew"
}

require rsyslogd curl python3
build
ADDRESS=$(free_address)
BACKEND=$(free_address)
start_http_backend backend "${BACKEND##*:}"
write_rsyslog_conf
start_rsyslog
HOST=$(</proc/sys/kernel/hostname)
check_header rfc5424 "20[0-9-]+T[0-9:]+\.[0-9]{6}(Z|\+00:00)\|$HOST\|edge\|[0-9]+\|(session|process)\|-\|"
check_header local "[^|]+\|[^|]+\|edge\|[0-9]+\|-\|-\|"
