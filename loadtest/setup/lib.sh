# shellcheck shell=bash disable=SC2034
# Sourced by the scripts beside it: messages, a scratch folder, a server in the background.
# Invariant: leave() ends and removes whatever a script has started or made, also after Ctrl-C.
set -euo pipefail
repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
here=$repo/loadtest/setup
target=${CARGO_TARGET_DIR:-$repo/target}
cd "$repo"

say() { printf '==> %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# Finds the processes to end: those that inherited this script's TMPDIR, or work in a folder below it, of any user. The
# second test is needed because Redis writes its title over its environment.
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

# Makes $scratch, and points TMPDIR to it. It is not below target/, because a Unix socket's path must be short, and
# because Postgres, which refuses to run as root, must be able to enter it as another user.
enter_scratch() {
    scratch=$(mktemp -d /tmp/rollcall.XXXXXX)
    chmod 711 "$scratch"
    export TMPDIR=$scratch
    trap leave EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
}

# Starts `COMMAND...` in the background. $server is its process id, and $scratch/server.log its output.
start_server() {
    : >"$scratch/server.log"
    "$@" >"$scratch/server.log" 2>&1 </dev/null &
    server=$!
}
# Prints the address that follows WORDS in the started server's output.
address() {
    local deadline=$((SECONDS + 30))
    until grep -m1 -oP "$1 \K[0-9.]+:[0-9]+" "$scratch/server.log"; do
        kill -0 "$server" 2>/dev/null || die "the server ended:$(printf '\n'; cat "$scratch/server.log")"
        ((SECONDS < deadline)) || die "no '$1' from the server:$(printf '\n'; cat "$scratch/server.log")"
        sleep 0.05
    done
}

# Makes `go` a version that fetches the toolchain a module asks for (1.21 or later). If the distribution's version is
# older, a newer Go is taken from the module proxy and kept below target/.
current_go() {
    command -v go >/dev/null || "$here/packages" golang-go
    local minor dir=$target/go module
    minor=$(go version | sed -nE 's/.* go1\.([0-9]+).*/\1/p')
    ((minor < 21)) || return 0
    export PATH=$dir/bin:$PATH GOTOOLCHAIN=auto
    [ ! -x "$dir/bin/go" ] || return 0
    module=golang.org/toolchain@v0.0.1-go1.24.11.$(go env GOOS)-$(go env GOARCH)
    say "Go 1.$minor is too old for the tools that are built with it: fetching $module"
    rm -rf "$dir"
    cp -r "$(go mod download -json "$module" | sed -nE 's/.*"Dir": "(.*)".*/\1/p')" "$dir.new"
    # Files of a module are read-only and not executable, and a module contains no go.mod below its own.
    chmod -R u+w "$dir.new"
    chmod +x "$dir.new"/bin/* "$dir.new"/pkg/tool/*/*
    cp "$dir.new/src/_go.mod" "$dir.new/src/go.mod"
    cp "$dir.new/src/cmd/_go.mod" "$dir.new/src/cmd/go.mod"
    mv "$dir.new" "$dir"
}
