#!/bin/busybox sh
# The first process of the virtual machine of vm.sh.
export PATH=/bin
/bin/busybox --install -s /bin
# Where the kernel looks for the program that loads modules.
ln -sfn /bin /sbin
if [ -z "$SWITCHED" ]; then
    # The first root can't be pivoted away from: go on from a copy on a tmpfs.
    mkdir -p /new
    mount -t tmpfs -o size=1500m tmpfs /new
    for entry in bin dev etc init lib lib64 proc root run sbin sys tests tmp usr var; do
        [ -e "/$entry" ] && cp -a "/$entry" /new/
    done
    export SWITCHED=1
    exec switch_root /new /init
fi
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ip link set lo up
hostname vm
depmod 2>/dev/null
say() { echo "VM: $*"; }
stop() { say "$*"; sync; poweroff -f; sleep 60; }

say "kernel $(uname -r), cgroups: $(grep -c cgroup2 /proc/mounts) v2, $(grep -c ' cgroup ' /proc/mounts) v1"
export SHOAL_REQUIRE_PRIVILEGED=1
# This kernel's tmpfs has no ID-mapped mounts (Linux 6.3), and strace is not here: the host runs these.
/tests/containers --skip user_namespace --skip every_failing_step || stop "the runtime's tests failed"

start() {
    agent --log warn >>/tmp/agent.log 2>&1 &
    agent=$!
    for i in $(seq 300); do ctl info >/dev/null 2>&1 && return; sleep 0.2; done
    cat /tmp/agent.log
    stop "the agent does not answer"
}
ip link add up0 type dummy && ip addr add 192.0.2.1/24 dev up0 && ip link set up0 up &&
    ip route add default via 192.0.2.2
start
ctl info | grep -i cgroups
ctl image import /tests/hello.tar shoal-hello --cmd '["/hello","web"]' || stop "import failed"
ctl stack deploy -f /tests/compose.yml hello --timeout 120s 2>&1 | cat
[ "$(ctl stack ps hello | grep -c -i running)" = 4 ] || { cat /tmp/agent.log; stop "deploy failed"; }
curl -fsS -m 20 http://127.0.0.1:8080/whoami || { cat /tmp/agent.log; stop "no answer"; }
kill -9 $agent
wait $agent
start
ctl stack ps hello
[ "$(ctl stack ps hello | grep -c -i running)" = 4 ] || stop "not all run after a restart"
curl -fsS -m 20 http://127.0.0.1:8080/whoami || stop "no answer after a restart"
ctl stack rm hello || stop "rm failed"
kill $agent
wait $agent
[ -z "$(ls -d /sys/fs/cgroup/shoal 2>/dev/null)" ] || stop "a cgroup is left"
stop "all passed"
