#!/bin/busybox sh
# The guest's first process, in the initramfs: loads the modules in their order and changes to the disk. A container
# cannot be started from here: pivot_root fails on an initramfs.
alias b=/bin/busybox
b mount -t devtmpfs none /dev
for module in /modules/*; do
    b insmod "$module" || echo "start.sh: $module cannot be loaded"
done
b mount -t ext4 /dev/vda /root || exit 1
b mount --move /dev /root/dev
exec /bin/busybox switch_root /root /init
