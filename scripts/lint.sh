#!/usr/bin/env bash
# Formatting, clippy, licences and sources of dependencies.
cd "$(dirname "$0")/.."
. scripts/common.sh

need_to_build
say "cargo fmt"
cargo fmt --all --check
say "cargo clippy"
cargo clippy -q --workspace --all-targets -- -D warnings
export PATH=$PATH:$PWD/target/tools/bin
if ! cargo deny --version >/dev/null 2>&1; then
    say "installing cargo-deny into target/tools (some minutes, once)"
    cargo install -q --locked --root target/tools cargo-deny
fi
say "cargo deny"
cargo deny --log-level error check bans licenses sources
