#!/bin/busybox sh
# The guest's first process on its disk: makes it a machine, runs the test program that the kernel's command line names,
# reports on the second serial line, and switches the machine off.
export PATH=/bin
mount -t proc none /proc
mount -t sysfs none /sys
mount -t cgroup2 none /sys/fs/cgroup
mkdir -p /dev/pts /dev/shm
mount -t devpts -o ptmxmode=0666 none /dev/pts
mount -t tmpfs none /dev/shm
mount -t tmpfs none /run
ip link set lo up
hostname guest

# as `cargo xtask test` sets them
export SAMPAN_BIN=/programs/sampan SAMPAN_TEST_BUSYBOX=/bin/busybox SAMPAN_TEST_GO=/bin/busybox
export SAMPAN_TEST_TOOLS=/tools CARGO_TARGET_DIR=/target TMPDIR=/tmp HOME=/tmp RUST_BACKTRACE=0

exec >/dev/ttyS1 2>&1
echo "guest: kernel $(uname -r)"
# the types of all file systems of control groups
[ "$(grep -o ' cgroup[2]* ' /proc/mounts | sort -u)" = " cgroup2 " ] && echo "guest: cgroup2 alone"
# not from "$@": the kernel puts words of its own that it does not know before them
set -- $(sed 's/.* -- //' /proc/cmdline)
program=$1
shift
"/programs/$program" "$@"
echo "guest: ended $?"
# sets it once all that was written has been sent (TCSADRAIN): a restart waits for nobody's last line
stty -F /dev/ttyS1 -echo
# the emulator ends with what it was told to take for a restart
echo b >/proc/sysrq-trigger
