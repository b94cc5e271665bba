#!/usr/bin/env bash
# Writes the example's root file system to standard output, as a tar archive: one static program.
cd "$(dirname "$0")/../.."
. scripts/common.sh

triple=$(host_triple)
cargo rustc -q -p shoal-hello --release --target "$triple" -- -C target-feature=+crt-static >&2
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mkdir "$root/data"
cp "target/$triple/release/hello" "$root/hello"
tar -C "$root" --owner=0 --group=0 -c hello data
