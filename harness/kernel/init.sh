#!/bin/sh
# First program of the guest, in its initramfs: makes the host's root folder the guest's own, opens
# the ports to the host and hands over to session.sh. All tools are busybox's.

fail() {
	dmesg | tail -n 20
	echo "init: $*"
	echo c >/proc/sysrq-trigger
}

mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys

for module in /modules/*; do
	insmod "$module" || fail "module ${module##*/} can't be loaded"
done

# noxattr: overlayfs would ask the host for attributes of every folder that it looks at.
options=trans=virtio,version=9p2000.L,msize=1048576,cache=loose,noxattr,access=any,ro
mount -t 9p -o $options host /host || fail "the host's root folder can't be mounted"
for readahead in /sys/class/bdi/9p-*/read_ahead_kb; do
	echo 1024 >"$readahead"
done
mount -t tmpfs -o mode=755 changes /changes
mkdir /changes/new /changes/work
mount -t overlay -o lowerdir=/preload:/host,upperdir=/changes/new,workdir=/changes/work root /guest ||
	fail "nothing can be mounted over the host's root folder"

mount --move /dev /guest/dev
mount --move /proc /guest/proc
mount --move /sys /guest/sys
mount -t tmpfs -o mode=755 run /guest/run
mkdir -p /guest/run/guest /guest/run/lock /guest/run/netns /guest/dev/pts /guest/dev/shm
ln -s /proc/self/fd /guest/dev/fd
mount -t devpts -o ptmxmode=666 devpts /guest/dev/pts
mount -t tmpfs shm /guest/dev/shm
mount -t bpf bpf /guest/sys/fs/bpf
mount -t debugfs debugfs /guest/sys/kernel/debug
mount -t tracefs tracefs /guest/sys/kernel/tracing

# The modules of this kernel, where modprobe looks for them.
read -r modules </modules.path
mkdir -p "/guest/lib/modules/$(uname -r)"
mount --bind "/guest$modules" "/guest/lib/modules/$(uname -r)" || fail "no modules in $modules"

# Tracing needs addresses and events; BPF needs its compiler.
echo 0 >/guest/proc/sys/kernel/kptr_restrict
echo -1 >/guest/proc/sys/kernel/perf_event_paranoid
echo 1 >/guest/proc/sys/net/core/bpf_jit_enable
echo nft-harness >/guest/proc/sys/kernel/hostname
ulimit -l unlimited
ip link set lo up

# If one can't be loaded now, modprobe will say why when it is needed.
for module in /usual/*; do
	insmod "$module"
done 2>/dev/null

# The ports get their names from the host, a moment after the device appeared.
for name in stdin stdout stderr control; do
	until port=$(grep -lx $name /guest/sys/class/virtio-ports/*/name 2>/dev/null); do
		usleep 1000
	done
	port=${port%/name}
	port=/dev/${port##*/}
	ln -s "$port" /guest/run/guest/$name
done
exec 3>"/guest$port" # control, the last

mv /bin /session.sh /command /guest/run/guest/
# What switch_root does, but without deleting the initramfs: /preload is in use.
cd /guest || fail "the new root folder can't be entered"
run/guest/bin/mount --move . /
exec run/guest/bin/chroot . /run/guest/bin/sh /run/guest/session.sh
