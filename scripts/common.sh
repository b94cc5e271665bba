# Shared by the scripts: to be sourced, from the top of the project.
set -euo pipefail

say() { printf '==> %s\n' "$*"; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

# Runs a command as root.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo --preserve-env=PATH,SHOAL_REQUIRE_PRIVILEGED "$@"
    else
        fail "this needs root, and there is no sudo; run it as root"
    fi
}

# Installs the Debian packages that are missing: pairs of a command or file and its package.
need() {
    local missing=()
    while [ $# -gt 1 ]; do
        if ! command -v "$1" >/dev/null && ! [ -e "$1" ] && ! [ -x "/usr/sbin/$1" ]; then
            missing+=("$2")
        fi
        shift 2
    done
    if [ ${#missing[@]} = 0 ]; then return; fi
    command -v apt-get >/dev/null || fail "these packages are missing: ${missing[*]}"
    say "installing ${missing[*]}"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q "${missing[@]}" >/dev/null 2>&1 ||
        { as_root apt-get update -q >/dev/null &&
            as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q "${missing[@]}" >/dev/null; }
}

# What building needs beside the toolchain: the raft crate's messages are compiled by protoc.
need_to_build() { need cc gcc protoc protobuf-compiler; }

host_triple() { rustc -vV | sed -n 's/^host: //p'; }

command -v cargo >/dev/null || fail "there is no cargo; install a Rust toolchain first"
