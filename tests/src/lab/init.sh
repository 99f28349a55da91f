#!/bin/busybox sh
# First process of the lab: loads what mounting the root takes, stacks the overlay, hands over.
B=/bin/busybox
$B mount -t proc proc /proc
$B mount -t sysfs sys /sys
$B mount -t devtmpfs dev /dev
for module in $($B cat /modules/order); do $B insmod "/modules/$module"; done
$B mount -t virtiofs -o ro root /host || exec $B reboot -f
# A file system of its own: an overlay refuses layers that lie within each other.
$B mount -t virtiofs -o ro engines /engines || exec $B reboot -f
$B mount -t tmpfs -o mode=755,size=75% overlay /writes
$B mkdir /writes/upper /writes/work
$B mount -t overlay -o lowerdir=/engines:/host,upperdir=/writes/upper,workdir=/writes/work overlay /new || exec $B reboot -f
$B mkdir -p /new/lab/host /new/lab/bin /new/lab/out
$B mount --move /host /new/lab/host
$B cp /bulkhead-lab /new/lab/bin/bulkhead-lab
$B cp /guest.json /new/lab/guest.json
for fs in proc sys dev; do $B mount --move /$fs /new/$fs; done
exec $B switch_root /new /lab/bin/bulkhead-lab guest-init
