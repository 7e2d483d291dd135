#!/bin/sh
# Creates .venv with pinned, hashed packages, and fetches Kafka's jars. `run` or `dev`. Runs again where it stopped.
set -eu
what=${1:-run}
python=${PYTHON:-python3}

fail() {
    printf '%s\n' "$@" >&2
    exit 1
}

command -v "$python" >/dev/null 2>&1 || fail "python3 is missing. Debian, Ubuntu: apt install python3 python3-venv"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "Python 3.11 or newer is needed; this is $("$python" -V 2>&1). Another one: make PYTHON=python3.12 setup"
if ! [ -x .venv/bin/python ]; then
    echo "creating .venv"
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "Python's venv module is missing. Debian, Ubuntu: apt install python3-venv"
    rm -rf .venv
    "$python" -m venv .venv
fi
echo "installing pinned packages (requirements/$what.txt)"
progress=off
[ -t 1 ] && progress=on
.venv/bin/python -m pip install --disable-pip-version-check --require-hashes --only-binary :all: \
    --progress-bar "$progress" -q -r "requirements/$what.txt" ||
    fail "The packages could not be installed: is a package index reachable (pip config list)?"
# the project itself: a path file and the command, so that nothing has to be built
site=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
pwd >"$site/gridtally-project.pth"
{
    printf '#!/bin/sh\n'
    printf 'exec "%s/.venv/bin/python" -m gridtally "$@"\n' "$(pwd)"
} >.venv/bin/gridtally
chmod +x .venv/bin/gridtally
echo "fetching Kafka (46 jars, 43 MB, cached)"
.venv/bin/python -m connectors.embedded.artifact
touch .venv/.ready
[ "$what" = dev ] && touch .venv/.ready-dev
echo "ready: .venv/bin/gridtally --help"
