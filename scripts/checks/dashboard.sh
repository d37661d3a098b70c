#!/usr/bin/env bash
# The page at / of the admin listener, in Chromium: it opens with the last minutes, its numbers move under load, changes
# are done, reloads are shown and refused ones dismissed, a read-only token has no buttons, it is usable by keyboard, on a
# phone and with a thousand backends, it shows the sources of discovered ones, and nothing is in the console.
# --shots DIR leaves pictures of it there, which takes two minutes more.
# shellcheck source=../lib/harness.sh
source "$(dirname "$0")/../lib/harness.sh"

MANY=1000
SHOTS=$WORK/shots
[[ ${1:-} != --shots ]] || SHOTS=$2

ADMIN=127.0.0.1:$(free_ports 1)
TOKEN_FILE=$WORK/token
READ_TOKEN_FILE=$WORK/read-token

# make_token FILE
make_token() (
    umask 077
    head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$1"
)

# The top of a config file: where clients and operators come in.
entrances() {
    cat <<END
listener = [{ bind = "$(free_address)" }]
[admin]
listen = "$ADMIN"
token_file = "$TOKEN_FILE"
read_token_file = "$READ_TOKEN_FILE"
END
}

config_of_three() {
    entrances
    printf '[[pool]]\nname = "web"\nhealth = { type = "http", path = "/health", interval = "500ms", timeout = "500ms" }\n'
    local name
    for name in a b c; do
        printf '[[pool.backend]]\nname = "%s"\naddress = "127.0.0.1:%s"\n' "$name" "${PORTS[$name]}"
    done
}

config_of_many() {
    entrances
    printf '[[pool]]\nname = "many"\nhealth = { type = "off" }\n'
    local index
    for ((index = 0; index < MANY; index++)); do
        printf '[[pool.backend]]\nname = "b-%04d"\naddress = "127.0.%d.%d:80"\n' "$index" $((index / 250)) $((index % 250 + 1))
    done
}

config_of_sources() {
    entrances
    pool_of_dns web web.test "$NAME_SERVER" 500ms 'port = 80' 'obsolete = 0'
}

# A connection for each request, until it is ended.
come_and_go() {
    while :; do
        curl -s --max-time 2 -o /dev/null -H 'Connection: close' "http://$1/[1-40]" || sleep 0.2
    done
}

look() {
    local what=$1 held
    shift
    held=$WORK/$what.held
    "$ROOT/scripts/lib/browser.py" "$what" "http://$ADMIN/" "$TOKEN_FILE" --shots "$SHOTS" "$@" >"$held" 2>"$WORK/$what.log" ||
        fail "$(tail -n 1 "$held") and then $(tail -n 1 "$WORK/$what.log")"
    expect "$what: things that held" "$(grep -c '^ok: ' "$held")" -gt 5
}

require chromium chromedriver curl wrk
build
mkdir -p "$SHOTS"
make_token "$TOKEN_FILE"
make_token "$READ_TOKEN_FILE"

declare -A PORTS
for name in a b c; do
    PORTS[$name]=$(free_ports 1)
    start_http_backend "$name" "${PORTS[$name]}"
done
config_of_three >"$WORK/three.toml"
start_l4lb three -c "$WORK/three.toml"
start stay wrk -t 1 -c 12 -d 300 "http://$(address_of three)/"
start come come_and_go "$(address_of three)"
look page --pid "${PID[three]}" --config "$WORK/three.toml" --read-token-file "$READ_TOKEN_FILE"
pass "$(grep -c '^ok: ' "$WORK/page.held") things held: tokens, numbers, changes, reloads, keyboard, phone, light and dark"
[[ $SHOTS == "$WORK/shots" ]] || look pictures
stop stay
stop come
stop three

NAME_SERVER=127.0.0.1:$(free_ports 1)
start_peer names names "$NAME_SERVER"
wait_until 10 "the name server answers" grep -q '^answers$' "$WORK/names.out"
ask names set web.test 127.0.8.1 127.0.8.2 >/dev/null
config_of_sources >"$WORK/sources.toml"
start_l4lb sources -c "$WORK/sources.toml"
look sources --names "$WORK/names.in"
pass "a source is shown: found, failed with its list kept, and found again"
stop sources

config_of_many >"$WORK/many.toml"
start_l4lb many -c "$WORK/many.toml"
look many
pass "$(sed -nE 's/^ok: (a .* of a processor)$/\1/p' "$WORK/many.held" | paste -s -d ';')"
