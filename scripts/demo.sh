#!/usr/bin/env bash
# Builds Shoal, starts a cluster of one node, deploys the example and shows it working.
cd "$(dirname "$0")/.."
. scripts/common.sh

need_to_build
need nft nftables curl curl tar tar
dir=${SHOAL_DEMO_DIR:-/tmp/shoal-demo}
export SHOAL_HOST="unix://$dir/run/shoal.sock"

say "building (the first time takes some minutes)"
cargo build --release -q -p shoal-agent -p shoal-ctl
agent=$PWD/target/release/agent
ctl=$PWD/target/release/ctl

if as_root "$ctl" --host "$SHOAL_HOST" info >/dev/null 2>&1; then
    say "the demo's agent is running already"
else
    say "starting a cluster of one node in $dir"
    as_root mkdir -p "$dir"
    as_root sh -c "setsid '$agent' --data-dir '$dir/data' --run-dir '$dir/run' >'$dir/agent.log' 2>&1 </dev/null & echo \$! >'$dir/pid'"
    for _ in $(seq 100); do
        as_root "$ctl" --host "$SHOAL_HOST" info >/dev/null 2>&1 && break
        as_root kill -0 "$(as_root cat "$dir/pid")" 2>/dev/null ||
            { as_root tail -3 "$dir/agent.log" >&2; fail "the agent has ended; see $dir/agent.log"; }
        sleep 0.1
    done
fi

say "packing the example into the image shoal-hello:latest"
examples/hello/image.sh | as_root "$ctl" --host "$SHOAL_HOST" image import - shoal-hello:latest \
    --cmd '["/hello", "web"]' --expose 8080 >/dev/null

say "deploying examples/hello/compose.yml"
as_root "$ctl" --host "$SHOAL_HOST" stack deploy -f examples/hello/compose.yml

say "asking it three times"
for _ in 1 2 3; do curl -fsS -m 5 http://127.0.0.1:8080/whoami; done
as_root "$ctl" --host "$SHOAL_HOST" stack ps hello
cat <<END
==> it works: open http://127.0.0.1:8080/ in a browser, or go on with

    export SHOAL_HOST=$SHOAL_HOST
    $ctl service scale hello_web=5
    $ctl stack logs hello

    "make demo-down" takes everything away again.
END
