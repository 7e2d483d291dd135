#!/bin/sh
# Gives a user of the broker a new random password and prints it; --remove takes the user away.
#   deploy/mqtt-user.sh meters/m-00042       a meter: publishes its own readings and events, reads its own receipts
#   deploy/mqtt-user.sh gateways/gw-001      a gateway: the same for its meters, in its own topic
#   deploy/mqtt-user.sh head-end             publishes for all meters (`gridtally simulate`, `gridtally replay`)
#   deploy/mqtt-user.sh --remove meters/m-00042
#   … --stdin NAME                           takes the password from standard input
# Then tell the broker: docker compose kill -s HUP mqtt
set -eu
secrets=${GRIDTALLY_SECRETS_DIR:-$(dirname "$0")/secrets}
file=$secrets/mqtt_passwords

fail() {
    printf '%s\n' "mqtt-user.sh: $*" >&2
    exit 1
}

# The password is long and random, so mosquitto's own 101 rounds of PBKDF2 do: many rounds would only slow reconnects.
hashed() {
    if command -v mosquitto_passwd >/dev/null 2>&1; then
        cat >"$work/plain"
        mosquitto_passwd -U "$work/plain"
        cat "$work/plain"
    elif command -v python3 >/dev/null 2>&1; then
        python3 -c '
import base64, hashlib, os, sys
for line in sys.stdin:
    name, _, password = line.rstrip("\n").partition(":")
    salt = os.urandom(12)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, 101, 64)
    print(f"{name}:$7$101${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}")'
    else
        command -v docker >/dev/null 2>&1 || fail "needs one of mosquitto_passwd, python3, docker"
        docker run --rm --interactive --network none --entrypoint sh eclipse-mosquitto:2.0.22 -c \
            'umask 077; cat >/tmp/plain; mosquitto_passwd -U /tmp/plain; cat /tmp/plain'
    fi
}

action=random
case ${1:-} in
--remove | --stdin)
    action=${1#--}
    shift
    ;;
esac
name=${1:-}
export LC_ALL=C
case $name in
*[!A-Za-z0-9._/-]*) good=no ;; # a line end too, at which grep would begin anew
*) printf '%s\n' "$name" |
    grep -Eq '^((meters|gateways)/[A-Za-z0-9._-]{1,64}|head-end|gridtally-bridge|gridtally-health)$' && good=yes || good=no ;;
esac
[ "$good" = yes ] || fail "usage: mqtt-user.sh [--remove | --stdin] meters/ID | gateways/ID | head-end (is '$name')"
[ -d "$secrets" ] || fail "no directory $secrets: run deploy/make-secrets.sh first"
umask 077
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
touch "$file"
awk -F : -v name="$name" '$1 != name' "$file" >"$work/users"
case $action in
random) password=$(head -c 24 /dev/urandom | base64 | tr '+/' '-_') ;;
stdin) IFS= read -r password ;;
esac
[ "$action" = remove ] || printf '%s:%s\n' "$name" "$password" | hashed >>"$work/users"
# written in place: the broker's container has this very file mounted (why all may read it: make-secrets.sh)
cat "$work/users" >"$file"
chmod 0644 "$file"
[ "$action" != random ] || printf '%s\n' "$password"
