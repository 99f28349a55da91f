//! Kubernetes pods: what the kubelet asks of containerd's CRI plugin, with Bulkhead as the runtime.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use bulkhead_tests::host::{
    CRI_IMAGE, Cri, DEADLINE, Pod, cri_api as api, cri_container as container, cri_image, in_network,
    process, tour, until,
};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use protobuf::MessageField;

use crate::disks::{Loop, image};

/// Removes a pod, of which nothing is left then.
pub(crate) fn removed(cri: &Cri, pod: &Pod) {
    cri.remove_pod(pod);
    cri.assert_no_trace_of(pod);
}

fn limited(mut config: api::ContainerConfig, bytes: i64) -> api::ContainerConfig {
    config.linux.mut_or_insert_default().resources.mut_or_insert_default().memory_limit_in_bytes = bytes;
    config
}

/// With a directory or a file of the host.
fn mounted(mut config: api::ContainerConfig, host: &Path, place: &str) -> api::ContainerConfig {
    config.mounts.push(api::Mount {
        container_path: place.to_owned(),
        host_path: host.to_string_lossy().into_owned(),
        ..Default::default()
    });
    config
}

/// With a block device of the host, as the kubelet asks for a raw block volume.
fn with_disk(mut config: api::ContainerConfig, host: &Path, place: &str) -> api::ContainerConfig {
    config.devices.push(api::Device {
        container_path: place.to_owned(),
        host_path: host.to_string_lossy().into_owned(),
        permissions: "mrw".to_owned(),
        ..Default::default()
    });
    config
}

/// As pods are whose namespace asks for the restricted security standard.
fn confined(mut config: api::ContainerConfig) -> api::ContainerConfig {
    let context = config.linux.mut_or_insert_default().security_context.mut_or_insert_default();
    (context.no_new_privs, context.readonly_rootfs) = (true, true);
    context.supplemental_groups = vec![2000];
    context.capabilities.mut_or_insert_default().drop_capabilities = vec!["ALL".to_owned()];
    context.run_as_user = MessageField::some(api::Int64Value { value: 1000, ..Default::default() });
    context.seccomp = MessageField::some(api::SecurityProfile {
        profile_type: api::security_profile::ProfileType::RuntimeDefault.into(),
        ..Default::default()
    });
    config
}

/// What the containers of one microVM have in common.
fn boot(cri: &Cri, id: &str) -> String {
    cri.seen(id, &["cat", "/proc/sys/kernel/random/boot_id"])
}

/// A tmpfs that goes when it is dropped.
struct Late(PathBuf);

impl Late {
    fn mounted(at: PathBuf) -> Self {
        fs::create_dir(&at).unwrap();
        mount(Some("late"), &at, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        Self(at)
    }
}

impl Drop for Late {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

#[test]
fn the_pods_of_the_readme_go_as_they_stand() {
    // A node has containerd, a network for pods, and registries: here, one on loopback that stands for all.
    // Not on /tmp, which the page has to itself.
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let image = cri_image(dir.path());
    let places = format!(
        r#"
        mkdir -p /etc/containerd /etc/cni /var/lib/containerd /opt /run/bin
        for dir in /etc/containerd /etc/cni /var/lib/containerd /opt; do mount -t tmpfs tour $dir; done
        ln -s {crictl} /run/bin/crictl
        PATH=/run/bin:$PATH
        mkdir -p /opt/cni/bin /etc/cni/net.d /etc/containerd/certs.d/_default /run/registry
        cat >/opt/cni/bin/e2e-wire <<'PLUGIN'
{plugin}
PLUGIN
        chmod 755 /opt/cni/bin/e2e-wire
        ln -s e2e-wire /opt/cni/bin/loopback
        cat >/etc/cni/net.d/10-e2e.conflist <<NETWORK
{{ "cniVersion": "0.3.1", "name": "10.79.0", "plugins": [{{ "type": "e2e-wire" }}] }}
NETWORK
        cat >/etc/containerd/certs.d/_default/hosts.toml <<HOSTS
server = "http://127.0.0.1:5000"
[host."http://127.0.0.1:5000"]
HOSTS
        cat >/etc/containerd/config.toml <<CONFIG
version = 2
[plugins."io.containerd.grpc.v1.cri".registry]
config_path = "/etc/containerd/certs.d"
CONFIG
        systemctl() {{
            [ -z "$daemon" ] || {{ kill $daemon; wait $daemon; }}
            containerd >>/run/containerd.log 2>&1 &
            daemon=$!
            until ctr version >/run/ctr.log 2>&1; do
                kill -0 $daemon || {{ cat /run/containerd.log; exit 1; }}
                sleep 0.2
            done
            crictl pods -q >/run/crictl.log 2>&1 || {{ cat /run/containerd.log; exit 1; }}
        }}
        cat >/run/registry.yml <<REGISTRY
version: 0.1
storage: {{ filesystem: {{ rootdirectory: /run/registry }} }}
http: {{ addr: 127.0.0.1:5000 }}
REGISTRY
        docker-registry serve /run/registry.yml >/run/registry.log 2>&1 &
        until curl -fsS http://127.0.0.1:5000/v2/ >/run/curl.log 2>&1; do sleep 0.2; done
        # Another containerd fills it.
        pause=$(containerd config default | sed -n 's/.*sandbox_image = "\(.*\)"/\1/p')
        systemctl restart containerd
        ctr images import {image} >/run/import.log
        for name in library/busybox:latest ${{pause#*/}}; do
            ctr images tag {name} 127.0.0.1:5000/$name >/run/tag.log
            ctr images push --plain-http 127.0.0.1:5000/$name >/run/push.log 2>&1 || cat /run/push.log
        done
        kill $daemon && wait $daemon
        daemon=
        umount /var/lib/containerd && mount -t tmpfs tour /var/lib/containerd
        trap 'crictl pods -q | xargs -r crictl stopp; crictl pods -q | xargs -r crictl rmp' EXIT"#,
        crictl = env!("CARGO_BIN_EXE_bulkhead-crictl"),
        plugin = include_str!("../src/host/cri/plugin.sh"),
        image = image.display(),
        name = CRI_IMAGE,
    );
    tour(include_str!("../../README.md"), &places, Duration::from_secs(400));
}

#[test]
fn a_pod_from_its_first_call_to_its_last() {
    from_its_first_call_to_its_last(&Cri::new());
}

pub(crate) fn from_its_first_call_to_its_last(cri: &Cri) {
    let mut config = cri.pod_config("first");
    let dns = api::DNSConfig { servers: vec!["192.0.2.53".to_owned()], ..Default::default() };
    config.dns_config = MessageField::some(dns);
    let linux = config.linux.mut_or_insert_default();
    linux.sysctls.insert("net.ipv4.ip_unprivileged_port_start".to_owned(), "77".to_owned());
    linux.resources.mut_or_insert_default().memory_limit_in_bytes = 96 << 20;
    let pod = cri.run_pod(config).unwrap();
    assert!(cri.pod_is_ready(&pod));

    // A container that cannot be started is no harm to the pod.
    let wrong = cri.create(&pod, container("wrong", &["no-such-program"])).unwrap();
    let refused = cri.start(&wrong).unwrap_err();
    assert!(refused.message.contains("no-such-program"), "{refused:?}");
    cri.remove(&wrong);

    let script = "trap 'echo ends; exit 3' TERM; echo out; echo err >&2; while :; do sleep 1 & wait $!; done";
    let (hosts, message) = (cri.dir().join("hosts"), cri.dir().join("message"));
    fs::write(&hosts, "192.0.2.1 first\n").unwrap();
    fs::write(&message, "").unwrap();
    fs::set_permissions(&message, fs::Permissions::from_mode(0o666)).unwrap();
    let config = limited(container("one", &["sh", "-c", script]), 64 << 20);
    let config = mounted(mounted(config, &hosts, "/etc/hosts"), &message, "/dev/termination-log");
    let id = cri.started(&pod, confined(config));
    let running = cri.status(&id);
    assert_eq!(running.state, api::ContainerState::CONTAINER_RUNNING.into());
    until("the output is in the log", DEADLINE, || cri.container_log("one").contains("err").then_some(()));
    let log = cri.container_log("one");
    assert!(log.contains(" stdout F out\n") && log.contains(" stderr F err\n"), "{log}");

    assert_eq!(cri.seen(&id, &["hostname"]), "first\n");
    let places =
        ["/etc/hostname", "/etc/resolv.conf", "/etc/hosts", "/proc/sys/net/ipv4/ip_unprivileged_port_start"];
    let seen = cri.seen(&id, &[&["cat"], &places[..]].concat());
    assert_eq!(seen, "first\nnameserver 192.0.2.53\n192.0.2.1 first\n77\n");
    cri.seen(&id, &["sh", "-c", "echo last words > /dev/termination-log"]);
    assert_eq!(fs::read_to_string(&message).unwrap(), "last words\n");
    let wanted = "^(Uid|Groups|CapEff|NoNewPrivs|Seccomp):";
    let status = cri.seen(&id, &["busybox", "grep", "-E", wanted, "/proc/self/status"]);
    assert_eq!(
        status.replace(" \n", "\n"),
        "Uid:\t1000\t1000\t1000\t1000\nGroups:\t1000 2000\nCapEff:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n"
    );
    let read_only = cri.exec(&id, &["touch", "/tmp/file"]).unwrap();
    assert!(String::from_utf8_lossy(&read_only.stderr).contains("Read-only file system"), "{read_only}");
    let limits = ["oom.group", "swap.max", "max"].map(|name| format!("/sys/fs/cgroup/memory.{name}"));
    let limits: Vec<_> = ["cat"].into_iter().chain(limits.iter().map(String::as_str)).collect();
    assert_eq!(cri.seen(&id, &limits), format!("1\n0\n{}\n", 64 << 20));
    // The microVM was made for the pod, and the container found room in it.
    let memory = cri.seen(&id, &["cat", "/proc/meminfo"]);
    let total = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.strip_suffix("kB")).unwrap();
    let total: u64 = total.trim().parse().unwrap();
    assert!((96 << 10..(96 + 64 + 3) << 10).contains(&total), "{total} KiB");

    let exec = cri.exec(&id, &["sh", "-c", "echo told; echo asked >&2; exit 5"]).unwrap();
    assert_eq!((&*exec.stdout, &*exec.stderr, exec.exit_code), (&b"told\n"[..], &b"asked\n"[..], 5));
    assert_eq!(cri.exec(&id, &["sh", "-c", "kill -9 $$"]).unwrap().exit_code, 137);
    cri.exec(&id, &["no-such-program"]).unwrap_err();
    // A probe that takes too long is killed.
    let late = cri.exec_within(&id, &["sleep", "1000"], 1).unwrap_err();
    assert!(late.message.contains("timeout 1s exceeded"), "{late:?}");
    assert!(!cri.seen(&id, &["ps"]).contains("sleep 1000"));

    let stats = cri.stats(&id);
    assert!(
        stats.memory.working_set_bytes.value > 0 && stats.cpu.usage_core_nano_seconds.value > 0,
        "{stats}"
    );
    let all: Vec<_> = cri.all_stats(&pod).into_iter().map(|stats| stats.attributes.id.clone()).collect();
    assert_eq!(all, [&*id]);
    let resources = api::LinuxContainerResources {
        memory_limit_in_bytes: 80 << 20,
        cpu_period: 100_000,
        cpu_quota: 150_000,
        ..Default::default()
    };
    cri.update(&id, resources).unwrap();
    let limits = ["cat", "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/cpu.max"];
    assert_eq!(cri.seen(&id, &limits), format!("{}\n150000 100000\n", 80 << 20));

    cri.stop(&id, 60);
    assert_eq!(cri.exited(&id).exit_code, 3);
    assert!(cri.container_log("one").contains(" stdout F ends\n"));
    cri.remove(&id);
    assert!(cri.pod_is_ready(&pod));
    removed(cri, &pod);
}

#[test]
fn containers_of_a_pod_share_what_a_pod_shares() {
    share_what_a_pod_shares(&Cri::new());
}

pub(crate) fn share_what_a_pod_shares(cri: &Cri) {
    let volume = cri.dir().join("volume");
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("hello"), "from the volume\n").unwrap();
    let pod = cri.pod("pair");
    let script = "probe meet /data & exec busybox httpd -f -p 8080 -h /data";
    let server = cri.started(&pod, mounted(container("server", &["sh", "-c", script]), &volume, "/data"));
    let client = || mounted(container("client", &["probe", "linger"]), &volume, "/other");
    let first = cri.started(&pod, client());

    assert_eq!(boot(cri, &server), boot(cri, &first));
    until("the server is ready", DEADLINE, || cri.container_log("server").contains("ready").then_some(()));
    // Sockets, locks, fifos, mappings and inotify in a volume.
    assert_eq!(cri.seen(&first, &["probe", "visit", "/other"]), crate::volumes::ALL);
    let fetch = ["busybox", "wget", "-q", "-O", "-", "http://127.0.0.1:8080/hello"];
    assert_eq!(cri.seen(&first, &fetch), "from the volume\n");
    // From the host as well, by the address that the network gave.
    let address = cri.pod_status(&pod).network.ip.clone();
    assert_eq!(cri.fetch(&format!("http://{address}:8080/hello")), "from the volume\n");
    // By the loopback address of the pod's network namespace, which containerd dials for `kubectl port-forward`.
    let namespace = Path::new("/proc").join(cri.pid(&server)).join("ns/net");
    let forwarded = in_network(&namespace, || {
        let mut client = TcpStream::connect("127.0.0.1:8080").unwrap();
        client.write_all(b"GET /hello HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).map(|_| answer)
    });
    assert!(forwarded.as_ref().is_ok_and(|answer| answer.ends_with("from the volume\n")), "{forwarded:?}");
    for (kind, shared) in [("net", true), ("ipc", true), ("uts", true), ("pid", false), ("mnt", false)] {
        let of = |id: &str| cri.seen(id, &["busybox", "readlink", &format!("/proc/self/ns/{kind}")]);
        assert_eq!(of(&server) == of(&first), shared, "{kind}");
    }
    // With shareProcessNamespace the containers see one another, and what holds the pod.
    let mut debug = container("debug", &["probe", "linger"]);
    let context = debug.linux.mut_or_insert_default().security_context.mut_or_insert_default();
    context.namespace_options.mut_or_insert_default().pid = api::NamespaceMode::POD.into();
    let disk = Loop::of(&image(cri.dir().join("disk")));
    // An image volume is mounted on the node when the pod is there already.
    let late = Late::mounted(cri.dir().join("late"));
    fs::write(late.0.join("file"), "from a late mount\n").unwrap();
    let debug = cri.started(&pod, mounted(with_disk(debug, &disk.0, "/dev/data"), &late.0, "/late"));
    assert_eq!(cri.seen(&debug, &["cat", "/late/file"]), "from a late mount\n");
    assert!(cri.seen(&debug, &["ps"]).contains("container-init"));

    // It has a raw block volume.
    assert!(disk.is_taken());
    assert_eq!(cri.seen(&debug, &["busybox", "blockdev", "--getsize64", "/dev/data"]), "1048576\n");
    cri.seen(&debug, &["sh", "-c", "echo from the pod | busybox dd of=/dev/data conv=notrunc"]);
    cri.stop(&debug, 0);
    cri.remove(&debug);
    assert!(!disk.is_taken() && fs::read(&disk.0).unwrap().starts_with(b"from the pod\n"));

    cri.seen(&server, &["sh", "-c", "echo shared > /dev/shm/file"]);
    assert_eq!(cri.seen(&first, &["cat", "/dev/shm/file"]), "shared\n");

    // One goes by a kill for memory, and comes again by the same name.
    cri.stop(&first, 0);
    assert_eq!(cri.exited(&first).exit_code, 137);
    cri.remove(&first);
    let killed = cri.started(&pod, limited(container("client", &["probe", "hold", "64"]), 24 << 20));
    let status = cri.exited(&killed);
    assert_eq!((status.exit_code, &*status.reason), (137, "OOMKilled"), "{status}");
    cri.remove(&killed);
    let mut again = client();
    again.metadata.mut_or_insert_default().attempt = 2;
    let second = cri.started(&pod, again);
    assert_eq!(boot(cri, &server), boot(cri, &second));
    assert_eq!(cri.seen(&second, &fetch), "from the volume\n");
    // With containers that run.
    removed(cri, &pod);
}

#[test]
fn a_pod_outlives_its_containerd_and_not_its_vmm() {
    outlives_its_containerd_and_not_its_vmm(&mut Cri::new());
}

pub(crate) fn outlives_its_containerd_and_not_its_vmm(cri: &mut Cri) {
    let pod = cri.pod("stays");
    let id = cri.started(&pod, container("one", &["probe", "linger"]));
    let other = cri.started(&pod, container("two", &["probe", "linger"]));
    let before = boot(cri, &id);
    // One ends while nobody looks.
    let volume = cri.dir().join("volume");
    fs::create_dir(&volume).unwrap();
    let script = "until [ -e /data/end ]; do sleep 1; done; echo ends; exit 4";
    let ends = cri.started(&pod, mounted(container("ends", &["sh", "-c", script]), &volume, "/data"));
    let pid = cri.pid(&ends);
    cri.restart_after(|| {
        fs::write(volume.join("end"), "").unwrap();
        let proxy = Path::new("/proc").join(&pid);
        until("it has ended", DEADLINE, || (!proxy.exists()).then_some(()));
    });
    assert_eq!(cri.exited(&ends).exit_code, 4);
    until("its last output is in the log", DEADLINE, || {
        cri.container_log("ends").contains(" stdout F ends\n").then_some(())
    });
    assert!(cri.pod_is_ready(&pod));
    assert_eq!(cri.status(&id).state, api::ContainerState::CONTAINER_RUNNING.into());
    assert_eq!(boot(cri, &id), before);
    // Also with one that has ended.
    assert_eq!(cri.all_stats(&pod).len(), 3);
    cri.seen(&id, &["sh", "-c", "echo after > /proc/1/fd/1"]);
    until("output goes on", DEADLINE, || {
        cri.container_log("one").contains(" stdout F after\n").then_some(())
    });
    cri.stop(&other, 0);
    cri.remove(&other);
    let new = cri.started(&pod, container("three", &["probe", "linger"]));
    assert_eq!(boot(cri, &new), before);

    let vmm = process("bulkhead-vmm", &[], &pod.id).unwrap();
    kill(Pid::from_raw(vmm.cast_signed()), Signal::SIGKILL).unwrap();
    for id in [&id, &new] {
        assert_eq!(cri.exited(id).exit_code, 137);
    }
    until("the pod is not ready", DEADLINE, || (!cri.pod_is_ready(&pod)).then_some(()));
    removed(cri, &pod);
}

#[test]
fn a_pod_cannot_have_the_host() {
    let cri = Cri::new();
    let mut config = cri.pod_config("hosts");
    let context = config.linux.mut_or_insert_default().security_context.mut_or_insert_default();
    context.namespace_options.mut_or_insert_default().network = api::NamespaceMode::NODE.into();
    let refused = cri.run_pod(config).unwrap_err();
    assert!(refused.message.contains("would use the host's"), "{refused:?}");

    // What is called the host's is the microVM's.
    let node = api::NamespaceOption {
        pid: api::NamespaceMode::NODE.into(),
        ipc: api::NamespaceMode::NODE.into(),
        ..Default::default()
    };
    let mut config = cri.pod_config("privileged");
    let context = config.linux.mut_or_insert_default().security_context.mut_or_insert_default();
    (context.privileged, context.namespace_options) = (true, MessageField::some(node.clone()));
    let pod = cri.run_pod(config).unwrap();
    let mut config = container("one", &["probe", "linger"]);
    let context = config.linux.mut_or_insert_default().security_context.mut_or_insert_default();
    (context.privileged, context.namespace_options) = (true, MessageField::some(node));
    let id = cri.started(&pod, config);
    let seen = cri.seen(&id, &["ps"]);
    assert!(seen.contains("container-init") && !seen.contains("containerd"), "{seen}");
    // Devices of the host are left out.
    let devices = cri.seen(&id, &["ls", "/dev"]);
    assert!(devices.contains("null") && !devices.contains("kvm"), "{devices}");
    removed(&cri, &pod);
}

#[test]
fn pods_end_whatever_ends_of_them() {
    let cri = Cri::new();
    // All at once.
    let (shim, stopped, held) = thread::scope(|scope| {
        let run = |name: &'static str| {
            let cri = &cri;
            scope.spawn(move || {
                let pod = cri.pod(name);
                let id = cri.started(&pod, container(name, &["probe", "linger"]));
                (pod, id)
            })
        };
        let [shim, stopped, held] = ["shim", "stopped", "held"].map(run);
        (shim.join().unwrap(), stopped.join().unwrap(), held.join().unwrap())
    });
    let strike = |name, words: &[&str], pod: &Pod, signal| {
        let pid = process(name, words, &pod.id).unwrap();
        kill(Pid::from_raw(pid.cast_signed()), signal).unwrap();
    };
    strike("bulkhead", &["-namespace", "serve"], &shim.0, Signal::SIGKILL);
    cri.exited(&shim.1);
    until("the pod is not ready", DEADLINE, || (!cri.pod_is_ready(&shim.0)).then_some(()));
    removed(&cri, &shim.0);
    // A guest that does not answer any more.
    strike("bulkhead-vmm", &[], &stopped.0, Signal::SIGSTOP);
    removed(&cri, &stopped.0);
    // The process that holds the pod.
    cri.seen(&held.1, &["true"]);
    cri.end_pause(&held.0);
    until("the pod is not ready", DEADLINE, || (!cri.pod_is_ready(&held.0)).then_some(()));
    removed(&cri, &held.0);
}
