#!/usr/bin/env bash
# Takes the demo away: the host is as it was before.
cd "$(dirname "$0")/.."
. scripts/common.sh

dir=${SHOAL_DEMO_DIR:-/tmp/shoal-demo}
ctl=$PWD/target/release/ctl
if ! [ -e "$dir/pid" ]; then
    say "there is no demo"
    exit 0
fi
pid=$(as_root cat "$dir/pid")
if as_root "$ctl" --host "unix://$dir/run/shoal.sock" info >/dev/null 2>&1; then
    for stack in $(as_root "$ctl" --host "unix://$dir/run/shoal.sock" stack ls -q); do
        say "removing the stack $stack"
        as_root "$ctl" --host "unix://$dir/run/shoal.sock" stack rm "$stack" >/dev/null
    done
    say "stopping the agent"
    as_root kill "$pid"
    for _ in $(seq 100); do as_root kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
else
    say "the demo's agent is not running: starting it to take its containers down"
    as_root sh -c "setsid '$PWD/target/release/agent' --data-dir '$dir/data' --run-dir '$dir/run' >>'$dir/agent.log' 2>&1 </dev/null & echo \$! >'$dir/pid'"
    sleep 1
    exec "$0"
fi
as_root rm -rf "$dir"
say "all gone"
