#!/bin/sh
# First program of the guest, in its initramfs. Makes the host's root folder the guest's own, opens the ports to
# the host and hands over to session.sh; or, where the initramfs has a folder /template, prepares that folder as
# the root of harness/warm/program.py, which mounts the host's files when the guest has been saved and restored.
# All tools are busybox's.

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

root=/guest
if [ -e /template ]; then
	root=/template
	mount --bind $root $root # what confines rulesets changes its root, which has to be a mount
	mkdir -p $root/dev $root/proc $root/sys $root/run $root/tmp
	chmod 1777 $root/tmp
else
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
fi

mount --move /dev $root/dev
mount --move /proc $root/proc
mount --move /sys $root/sys
mount -t tmpfs -o mode=755 run $root/run
mkdir -p $root/run/guest $root/run/lock $root/run/netns $root/dev/pts $root/dev/shm
ln -s /proc/self/fd $root/dev/fd
ln -s /proc/self/fd/0 $root/dev/stdin
ln -s /proc/self/fd/1 $root/dev/stdout
ln -s /proc/self/fd/2 $root/dev/stderr
mount -t devpts -o ptmxmode=666 devpts $root/dev/pts
mount -t tmpfs shm $root/dev/shm
mount -t bpf bpf $root/sys/fs/bpf
mount -t debugfs debugfs $root/sys/kernel/debug
mount -t tracefs tracefs $root/sys/kernel/tracing
mount -t cgroup2 cgroup2 $root/sys/fs/cgroup # a kernel without cgroups has no such folder

if [ $root = /guest ]; then
	# The modules of this kernel, where modprobe looks for them.
	read -r modules </modules.path
	mkdir -p "/guest/lib/modules/$(uname -r)"
	mount --bind "/guest$modules" "/guest/lib/modules/$(uname -r)" || fail "no modules in $modules"
fi

# Tracing needs addresses and events; BPF needs its compiler.
echo 0 >$root/proc/sys/kernel/kptr_restrict
echo -1 >$root/proc/sys/kernel/perf_event_paranoid
echo 1 >$root/proc/sys/net/core/bpf_jit_enable
echo nft-harness >$root/proc/sys/kernel/hostname
ulimit -l unlimited
ip link set lo up

# If one can't be loaded now, modprobe will say why when it is needed.
for module in /usual/*; do
	insmod "$module"
done 2>/dev/null

# Listing connections walks the whole table, which has a bucket for each 32 KiB of memory: emulated, 4 ms each time.
# This way it takes a tenth of that, and as many connections as before find room (nf_conntrack_max stays).
echo 4096 2>/dev/null >$root/proc/sys/net/netfilter/nf_conntrack_buckets

# A page fault is expensive under emulation: from Linux 6.8 memory comes in blocks of 16 pages, where 16 fit in.
echo always 2>/dev/null >$root/sys/kernel/mm/transparent_hugepage/hugepages-64kB/enabled

if [ $root = /template ]; then
	rm -r /modules /usual # a template is as large as what it has in memory
	exec 9</
	. /command
fi

# The ports get their names from the host, a moment after the device appeared.
for name in stdin stdout stderr control; do
	until port=$(grep -lx $name $root/sys/class/virtio-ports/*/name 2>/dev/null); do
		usleep 1000
	done
	port=${port%/name}
	port=/dev/${port##*/}
	ln -s "$port" $root/run/guest/$name
done
exec 3>"/guest$port" # control, the last

mv /bin /session.sh /command $root/run/guest/
# What switch_root does, but without deleting the initramfs: /preload is in use.
cd /guest || fail "the new root folder can't be entered"
run/guest/bin/mount --move . /
exec run/guest/bin/chroot . /run/guest/bin/sh /run/guest/session.sh
