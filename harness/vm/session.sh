#!/bin/sh
# Second program of the guest, called by init.sh: runs /run/guest/command on the host's streams and
# tells the host, by file descriptor 3 (the port "control"), how that ended. The host then ends the guest.
# Until then it tells every two seconds that this kernel still runs programs.

PATH=/run/guest/bin
cd /run/guest || exit

# A write to a port takes 32 KiB at most, and not every program writes the rest; a pipe takes all.
mkfifo out err
cat out >stdout &
out=$!
cat err >stderr &
err=$!

echo up >&3
while sleep 2; do echo alive; done >&3 &
sh command <stdin >out 2>err 3>&-
status=$?

# What the command left running would keep the pipes open.
for process in /proc/[0-9]*; do
	case ${process#/proc/} in
	1 | $out | $err) ;;
	*) kill -9 "${process#/proc/}" ;;
	esac
done 2>/dev/null
wait $out $err

echo "exit $status" >&3
read -r forever <&3
