#!/usr/bin/env bash
# Measures, beside docker where it is installed; prints medians and ratios, fails on no time.
# SHOAL_BENCH_RUNS: how often each figure is taken. SHOAL_BENCH_ALONE=1: without docker.
cd "$(dirname "$0")/.."
. scripts/common.sh

need_to_build
need busybox busybox-static nft nftables ip iproute2 curl curl docker-registry docker-registry nsenter util-linux
say "building"
cargo build --release -q -p shoal-agent -p shoal-ctl
cargo bench -q -p shoal-tests --no-run
mkdir -p target/test-images
examples/hello/image.sh >target/test-images/hello.tar
export SHOAL_PROFILE=release
# The program of one benchmark of a package.
bench_program() {
    cargo bench -q -p "$1" --bench "$2" --no-run --message-format=json 2>/dev/null |
        sed -n "s/.*\"executable\":\"\([^\"]*$2-[^\"]*\)\".*/\1/p" | tail -1
}
say "measuring the runtime alone"
as_root "$(bench_program shoal-runtime start)"
say "measuring changes of the rules"
as_root "$(bench_program shoal-network rules)"
say "measuring the raft log"
cargo bench -q -p shoal-manager --bench commits
cargo bench -q -p shoal-manager --bench placements
say "measuring a host"
if [ "$(id -u)" = 0 ]; then
    cargo bench -q -p shoal-tests "$@"
else
    triple=$(host_triple | tr 'a-z-' 'A-Z_')
    env "CARGO_TARGET_${triple}_RUNNER=sudo --preserve-env=SHOAL_PROFILE,SHOAL_BENCH_RUNS,SHOAL_BENCH_ALONE" \
        cargo bench -q -p shoal-tests "$@"
fi
