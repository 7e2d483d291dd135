#!/bin/sh
# Makes what docker-compose.yml needs and must not be in git: random passwords, and a private CA with the broker's
# certificate. What is there already is kept, so it can be run again, and a certificate of your own can be put there before.
#   deploy/make-secrets.sh [NAME ...]     names or addresses by which meters reach the broker; default: this host's name
set -eu
here=$(CDPATH='' cd "$(dirname "$0")" && pwd)
secrets=${GRIDTALLY_SECRETS_DIR:-$here/secrets}
export GRIDTALLY_SECRETS_DIR="$secrets"

fail() {
    printf '%s\n' "make-secrets.sh: $*" >&2
    exit 1
}

command -v openssl >/dev/null 2>&1 || fail "openssl is missing. Debian, Ubuntu: apt install openssl"
[ $# -gt 0 ] || set -- "$(hostname)"
umask 077
mkdir -p "$secrets"
chmod 0700 "$secrets"

# Containers run as different users, and compose mounts a secret with the file's own mode: a file is readable by all, but the
# directory only by its owner.
keep() {
    cat >"$secrets/$1.new"
    chmod 0444 "$secrets/$1.new"
    mv "$secrets/$1.new" "$secrets/$1"
    echo "made $1"
}

random() {
    head -c 24 /dev/urandom | base64 | tr '+/' '-_' | tr -d '\n'
}

for name in database_superuser_password database_password grafana_admin_password mqtt_bridge_password mqtt_health_password; do
    [ -s "$secrets/$name" ] || random | keep "$name"
done
[ -s "$secrets/database_dsn" ] ||
    printf 'postgresql://gridtally:%s@database:5432/gridtally' "$(cat "$secrets/database_password")" | keep database_dsn
for name in bridge health; do
    grep -q "^gridtally-$name:" "$secrets/mqtt_passwords" 2>/dev/null || {
        { cat "$secrets/mqtt_${name}_password" && echo; } | "$here/mqtt-user.sh" --stdin "gridtally-$name"
        echo "made the broker's user gridtally-$name"
    }
done

if ! [ -s "$secrets/mqtt_server.crt" ]; then
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    if ! [ -s "$secrets/mqtt_ca.key" ]; then
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 -sha256 \
            -subj "/CN=gridtally private CA" -addext "keyUsage=critical,keyCertSign,cRLSign" \
            -keyout "$secrets/mqtt_ca.key" -out "$work/ca.crt" 2>"$work/log" || fail "$(cat "$work/log")"
        keep mqtt_ca.crt <"$work/ca.crt"
    fi
    names=DNS:mqtt
    for name in "$@"; do
        case $name in
        *[!0-9.]*) kind=DNS ;;
        *) kind=IP ;;
        esac
        names=$names,$kind:$name
    done
    printf '%s\n' "subjectAltName=$names" "basicConstraints=critical,CA:FALSE" "keyUsage=critical,digitalSignature" \
        "extendedKeyUsage=serverAuth" "subjectKeyIdentifier=hash" "authorityKeyIdentifier=keyid" >"$work/extensions"
    {
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/CN=$1" \
            -keyout "$work/server.key" -out "$work/server.csr" &&
            openssl x509 -req -in "$work/server.csr" -CA "$secrets/mqtt_ca.crt" -CAkey "$secrets/mqtt_ca.key" \
                -CAcreateserial -CAserial "$work/serial" -days 825 -sha256 -extfile "$work/extensions" \
                -out "$work/server.crt"
    } 2>"$work/log" || fail "$(cat "$work/log")"
    keep mqtt_server.key <"$work/server.key"
    keep mqtt_server.crt <"$work/server.crt"
    echo "the broker's certificate is for $names; meters need mqtt_ca.crt; take mqtt_ca.key away from this machine"
fi
[ -f "$here/../.env" ] || [ "$secrets" != "$here/secrets" ] || cp "$here/../.env.example" "$here/../.env"
