#!/usr/bin/env bash
# Runs what depends on the kernel in a small virtual machine that has cgroup v2 alone, without
# KVM: the runtime's tests, and an agent that deploys the example and is killed and started again.
cd "$(dirname "$0")/.."
. scripts/common.sh

need_to_build
need qemu-system-x86_64 qemu-system-x86 cpio cpio busybox busybox-static nft nftables ip iproute2 curl curl
[ "$(uname -m)" = x86_64 ] || fail "the machine that is emulated is an x86_64; this host is not"
dir=$PWD/target/vm
root=$dir/root
rm -rf "$root"
mkdir -p "$root"/{bin,dev,proc,sys,tmp,run,etc,var,root,tests,lib64}

# A kernel of Debian's, unpacked here and not installed.
if ! ls "$dir"/kernel/boot/vmlinuz-* >/dev/null 2>&1; then
    say "fetching a kernel"
    mkdir -p "$dir/deb" "$dir/kernel"
    package() {
        apt-cache depends linux-image-cloud-amd64 2>/dev/null |
            sed -n 's/.*Depends: \(linux-image-[0-9].*-cloud-amd64\)$/\1/p' | head -1
    }
    name=$(package)
    [ -n "$name" ] || { as_root apt-get update -q >/dev/null; name=$(package); }
    [ -n "$name" ] || fail "there is no package linux-image-cloud-amd64"
    (cd "$dir/deb" && apt-get download -q "$name" >/dev/null)
    dpkg -x "$dir"/deb/linux-image-*.deb "$dir/kernel"
fi
kernel=$(ls "$dir"/kernel/boot/vmlinuz-* | tail -1)
modules=$(ls -d "$dir"/kernel/lib/modules/* | tail -1)

say "building"
cargo build -q -p shoal-agent -p shoal-ctl
cargo test -q -p shoal-runtime --test containers --no-run
tests=$(cargo test -p shoal-runtime --test containers --no-run --message-format=json 2>/dev/null |
    sed -n 's/.*"executable":"\([^"]*containers-[^"]*\)".*/\1/p' | tail -1)
mkdir -p target/test-images
examples/hello/image.sh >target/test-images/hello.tar

say "packing the machine's disk"
# A program with the libraries that it is linked with.
put() {
    cp -L "$1" "$root/$2"
    { ldd "$1" 2>/dev/null || true; } | sed -n 's|^[^/]*\(/[^ ]*\).*|\1|p' | while read -r library; do
        mkdir -p "$root$(dirname "$library")"
        cp -Ln "$library" "$root$library" 2>/dev/null || true
    done
}
put "$(command -v busybox)" bin/busybox
put target/debug/agent bin/agent
put target/debug/ctl bin/ctl
put "$(PATH=$PATH:/usr/sbin command -v nft)" bin/nft
put "$(PATH=$PATH:/usr/sbin command -v ip)" bin/ip
put "$(command -v curl)" bin/curl
put "$tests" tests/containers
cp target/test-images/hello.tar examples/hello/compose.yml "$root/tests/"
mkdir -p "$root/lib/modules"
cp -r "$modules" "$root/lib/modules/"
find "$root/lib/modules" -path '*kernel/drivers*' ! -path '*drivers/net/*' -delete 2>/dev/null || true
printf 'root:x:0:0:root:/root:/bin/sh\n' >"$root/etc/passwd"
printf 'root:x:0:\n' >"$root/etc/group"
cp scripts/vm-init.sh "$root/init"
chmod 755 "$root/init"
(cd "$root" && find . | cpio -o -H newc --quiet) | gzip -1 >"$dir/initrd.gz"

say "booting"
timeout "${SHOAL_VM_TIMEOUT:-600}" qemu-system-x86_64 -M q35 -accel tcg,thread=multi -cpu max -smp 2 -m 2048 \
    -nographic -no-reboot -nic none -kernel "$kernel" -initrd "$dir/initrd.gz" \
    -append "console=ttyS0 panic=-1 quiet cgroup_no_v1=all" </dev/null | tee "$dir/log"
grep -q '^VM: all passed' "$dir/log" || fail "it did not pass; see $dir/log"
