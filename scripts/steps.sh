# Sourced by the scripts beside it: what is done is told in a line, the rest goes to a log.
#
#   step "what is done" command arg...

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
mkdir -p build
LOG=build/make.log

step() {
    local what=$1 start=$SECONDS
    shift
    printf '▸ %s ' "$what"
    if "$@" </dev/null >"$LOG" 2>&1; then
        printf '(%d s)\n' $((SECONDS - start))
    else
        local code=$?
        printf 'FAILED (%d s): %s\n' $((SECONDS - start)) "$*"
        tail -n 200 "$LOG"
        exit "$code"
    fi
}

fail() {
    printf '✗ %s\n' "$*" >&2
    exit 3
}

# Whether we are root or may become it; asks for sudo's password where there is a terminal.
may_root() {
    [ "$EUID" = 0 ] || { command -v sudo >/dev/null && sudo --validate 2>/dev/null; }
}

# Run as root, or say what cannot be done.
as_root() {
    if [ "$EUID" = 0 ]; then
        "$@"
    elif may_root; then
        sudo "$@"
    else
        echo "this takes root or the right to use sudo: $*" >&2
        return 3
    fi
}

# The lab is a Python program of the tests; -P keeps the checkout off its path.
lab() {
    as_root env PYTHONPATH=tests PYTHONDONTWRITEBYTECODE=1 .venv/bin/python -P -m hosts.lab "$@"
}
