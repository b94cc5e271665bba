#!/usr/bin/env bash
# Installs the programs, the systemd unit and /etc/shoal.
cd "$(dirname "$0")/.."
. scripts/common.sh

prefix=${PREFIX:-/usr/local}
dest=${DESTDIR:-}
need_to_build
need nft nftables
cargo build --release -q -p shoal-agent -p shoal-ctl
as_root install -D -m 755 target/release/agent "$dest$prefix/bin/agent"
as_root install -D -m 755 target/release/ctl "$dest$prefix/bin/ctl"
sed "s|@BIN@|$prefix/bin|" packaging/shoal.service >target/shoal.service
as_root install -D -m 644 target/shoal.service "$dest/etc/systemd/system/shoal.service"
as_root install -d -m 755 "$dest/etc/shoal" "$dest/etc/shoal/certs.d"
[ -e "$dest/etc/shoal/agent.toml" ] ||
    as_root install -D -m 644 packaging/agent.toml "$dest/etc/shoal/agent.toml"
if [ -z "$dest" ] && command -v systemctl >/dev/null; then as_root systemctl daemon-reload || true; fi
say "installed; start it with: systemctl enable --now shoal"
