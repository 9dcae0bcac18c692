# shellcheck shell=bash disable=SC2034
# Sourced by the scripts beside it: messages, a scratch folder, a server in the background.
# Invariant: what a script starts or makes, leave() ends and removes, also after Ctrl-C.
set -euo pipefail
repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
here=$repo/loadtest/setup
target=${CARGO_TARGET_DIR:-$repo/target}
cd "$repo"

say() { printf '==> %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# Everything that inherited our TMPDIR or works below it is ours, whoever started it and as
# whichever user it runs. (Redis writes its title over its environment, hence the second test.)
ours() {
    local proc
    for proc in /proc/[0-9]*; do
        if [[ $(readlink "$proc/cwd") == "$scratch"/* ]] || grep -qsz "^TMPDIR=$scratch\$" "$proc/environ"; then
            echo "${proc#/proc/}"
        fi
    done 2>/dev/null
}
signal_ours() {
    local pids
    mapfile -t pids < <(ours)
    [ ${#pids[@]} -eq 0 ] || kill "-$1" "${pids[@]}" 2>/dev/null || true
}
leave() {
    trap '' INT TERM
    local deadline=$((SECONDS + 5))
    signal_ours INT # not KILL: Postgres then also gives back its shared memory
    while [ -n "$(ours)" ] && ((SECONDS < deadline)); do
        sleep 0.05
    done
    signal_ours KILL
    rm -rf "$scratch"
}

# Makes $scratch and points TMPDIR there. Not below target/: a Unix socket's path must be short,
# and Postgres, which refuses to run as root, has to pass through as another user.
enter_scratch() {
    scratch=$(mktemp -d /tmp/rollcall.XXXXXX)
    chmod 711 "$scratch"
    export TMPDIR=$scratch
    trap leave EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
}

# Starts `COMMAND...` in the background: $server is its process, $scratch/server.log what it prints.
start_server() {
    : >"$scratch/server.log"
    "$@" >"$scratch/server.log" 2>&1 </dev/null &
    server=$!
}
# The address that the started server prints after WORDS.
address() {
    local deadline=$((SECONDS + 30))
    until grep -m1 -oP "$1 \K[0-9.]+:[0-9]+" "$scratch/server.log"; do
        kill -0 "$server" 2>/dev/null || die "the server ended:$(printf '\n'; cat "$scratch/server.log")"
        ((SECONDS < deadline)) || die "no '$1' from the server:$(printf '\n'; cat "$scratch/server.log")"
        sleep 0.05
    done
}
