#!/usr/bin/env bash
# Formatting, clippy, licences and sources of dependencies.
cd "$(dirname "$0")/.."
. scripts/common.sh

need cc gcc
say "cargo fmt"
cargo fmt --all --check
say "cargo clippy"
cargo clippy -q --workspace --all-targets -- -D warnings
if cargo deny --version >/dev/null 2>&1; then
    say "cargo deny"
    cargo deny --log-level error check bans licenses sources
else
    say "cargo deny is not installed: licences are not checked (cargo install cargo-deny --locked)"
fi
