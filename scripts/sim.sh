#!/usr/bin/env bash
# Runs the simulation of the control plane. SEEDS: over how many; FIRST_SEED: the first of them.
cd "$(dirname "$0")/.."
. scripts/common.sh

need_to_build
say "${SEEDS:-1000} seeds from ${FIRST_SEED:-1} on"
SHOAL_SEEDS="${SEEDS:-1000}" SHOAL_FIRST_SEED="${FIRST_SEED:-1}" \
    cargo test --release -q -p shoal-tests --test simulation
