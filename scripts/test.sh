#!/usr/bin/env bash
# Installs what the tests need, then runs them all. Those that make namespaces need root.
cd "$(dirname "$0")/.."
. scripts/common.sh

need_to_build
need nft nftables ip iproute2 busybox busybox-static curl curl \
    docker-registry docker-registry openssl openssl zstd zstd strace strace nsenter util-linux faketime faketime

say "building the programs that the tests start"
cargo build -q -p shoal-agent -p shoal-ctl
say "packing the example"
mkdir -p target/test-images
examples/hello/image.sh >target/test-images/hello.tar
say "running the tests"
if [ "$(id -u)" = 0 ]; then
    cargo test --workspace "$@"
else
    command -v sudo >/dev/null || fail "some tests need root, and there is no sudo; run it as root"
    triple=$(host_triple | tr 'a-z-' 'A-Z_')
    env "CARGO_TARGET_${triple}_RUNNER=sudo --preserve-env=SHOAL_REQUIRE_PRIVILEGED" \
        cargo test --workspace "$@"
fi
if [ $# = 0 ] && ! [ -e /sys/fs/cgroup/cgroup.controllers ] && [ "$(uname -m)" = x86_64 ]; then
    say "this host has cgroup v1: trying v2 in a virtual machine"
    scripts/vm.sh
fi
