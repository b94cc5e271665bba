#!/usr/bin/env bash
# Takes away what `make install` installed; settings and data stay.
cd "$(dirname "$0")/.."
. scripts/common.sh

prefix=${PREFIX:-/usr/local}
dest=${DESTDIR:-}
as_root rm -f "$dest$prefix/bin/agent" "$dest$prefix/bin/ctl" "$dest/etc/systemd/system/shoal.service"
say "uninstalled; /etc/shoal and /var/lib/shoal stay"
