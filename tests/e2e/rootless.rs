//! Rootless podman on Bulkhead: an ordinary user in a session of systemd's.

use std::{fs, path::Path, time::Duration};

use bulkhead_tests::host::{DEADLINE, Guide, tour_as, until};

/// Where the page begins to be a user's.
pub(crate) const HEADING: &str = "## As an ordinary user";
/// Whoever has this number on the machine is not touched.
const SLICE: &str = "/sys/fs/cgroup/user.slice/user-4242.slice";

/// A user as distributions make one: ranges of ids, group kvm, a home on a disk, a session with a delegated cgroup and a bus. All of
/// it is in the mount namespace of the tour; the shell ends in the cgroup that systemd gives its user.
const PLACES: &str = r#"
    set -e
    # As systemd has it.
    mount --make-rshared /
    cp -a /etc /tmp/etc && mount --bind /tmp/etc /etc
    mkdir /tmp/dev && cp -a /dev/kvm /dev/vhost-net /dev/net/tun /dev/fuse /tmp/dev
    getent group kvm >/dev/null || groupadd --system kvm
    useradd --uid 4242 --home-dir /home/alice --no-create-home --shell /bin/bash --groups kvm alice
    chgrp kvm /tmp/dev/kvm /tmp/dev/vhost-net && chmod 0660 /tmp/dev/kvm /tmp/dev/vhost-net
    chmod 0666 /tmp/dev/tun /tmp/dev/fuse
    for device in kvm vhost-net net/tun fuse; do mount --bind /tmp/dev/${device##*/} /dev/$device; done
    modprobe loop || true
    truncate --size 1G /tmp/home.img && mkfs.ext4 -q /tmp/home.img
    mount -t tmpfs tour /home && mkdir /home/alice && mount -o loop /tmp/home.img /home/alice
    mkdir -p /run/user/4242 /run/systemd/system
    chown alice: /home/alice /run/user/4242 && chmod 0700 /run/user/4242
    slice=/sys/fs/cgroup/user.slice/user-4242.slice service=$slice/user@4242.service
    mkdir -p $service/tour
    for above in /sys/fs/cgroup /sys/fs/cgroup/user.slice $slice; do
        for controller in cpu memory pids; do echo +$controller >$above/cgroup.subtree_control; done
    done
    chown alice: $service $service/tour
    chown alice: $service/cgroup.procs $service/cgroup.subtree_control $service/tour/cgroup.procs
    # Engines take the name of the first process for the sign of a systemd.
    printf systemd >/proc/1/comm
    as_alice() {
        exec setpriv --reuid alice --regid alice --init-groups env -i HOME=/home/alice USER=alice PATH="$PATH" \
            GOMAXPROCS=$GOMAXPROCS GOGC=$GOGC XDG_RUNTIME_DIR=/run/user/4242 \
            DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/4242/bus "$@"
    }
    alice() { (cd /home/alice; echo $BASHPID >$service/tour/cgroup.procs; as_alice bash "$@"); }
    (echo $BASHPID >$service/cgroup.procs; as_alice /lib/systemd/systemd --user >/run/systemd.log 2>&1) &
    until (as_alice systemctl --user --quiet is-active sockets.target) 2>/dev/null; do
        kill -0 $! || { cat /run/systemd.log; exit 1; }
        sleep 0.1
    done
    set +e
"#;

/// What the user's containers would have left.
const AFTER: &str = "
    pgrep --list-name '^bulkhead'
    ls -A /run/user/4242/bulkhead/@sandboxes
    find /run/user/4242/bulkhead -mindepth 1 -maxdepth 1 ! -name @sandboxes
    find /sys/fs/cgroup/user.slice/user-4242.slice -name 'libpod-[0-9a-f]*'";

/// The cgroups of the session go with the test.
struct Slice;

impl Drop for Slice {
    fn drop(&mut self) {
        let gone = || remove(Path::new(SLICE)).is_ok().then_some(());
        if !std::thread::panicking() {
            until("the cgroups of the user are empty", DEADLINE, gone);
        }
    }
}

fn remove(group: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(group)?.flatten().filter(|entry| entry.path().is_dir()) {
        remove(&entry.path())?;
    }
    fs::remove_dir(group)
}

#[test]
fn a_users_tour_prints_what_its_page_says() {
    let page = include_str!("../../docs/podman.md");
    let (_, page) = page.split_once(HEADING).unwrap();
    let _slice = Slice;
    let guide = Guide { places: PLACES, shell: "alice", after: AFTER };
    tour_as(guide, page, Duration::from_secs(900));
}
