use std::collections::BTreeMap;

use bulkhead_protocol::container::{
    DeviceKind, ExecCpus, FilterProgram, Namespace, Resources, Rlimit, Rootfs, Scheduling, Submount,
    TimeOffset, Volume, VolumeKind,
};

use bulkhead_protocol::vmm::Slot;

use super::*;
use crate::hotplug::BlockDevice;

/// Of a guest that has mounted two volumes.
fn planned_or_not(spec: &ContainerSpec) -> Result<Plan, ContainerError> {
    let volumes =
        Mounts::from([("@0", "/volumes/5"), ("@1", "/volumes/7")].map(|(a, b)| (a.into(), b.into())));
    let disks = Disks::from([(Slot(6), BlockDevice { name: "vda".into(), major: 254, minor: 0 })]);
    let (share, cgroup) = (Path::new("/share"), Path::new("/cgroup/web"));
    let places = Places { share, volumes: &volumes, cgroup, disks: &disks };
    create(places, spec)
}

fn place_in(volume: u64, path: &str) -> Place {
    let volume = Volume { name: SharePath::of_volume(volume), kind: VolumeKind::Share };
    Place { volume, path: Some(share(path)), attributes: 2 }
}

fn process() -> ProcessSpec {
    ProcessSpec {
        args: vec!["sh".into()],
        env: vec!["PATH=/bin".into()],
        cwd: "/".into(),
        user: User { uid: 0, gid: 0, additional_gids: vec![], umask: None },
        terminal: false,
        console_size: None,
        plain_line_feeds: false,
        capabilities: None,
        rlimits: vec![],
        inherited_rlimits: vec![],
        no_new_privileges: true,
        oom_score_adj: None,
        scheduling: Scheduling::default(),
    }
}

pub(in crate::container) fn spec() -> ContainerSpec {
    let kinds = [NamespaceKind::Pid, NamespaceKind::Mount, NamespaceKind::Ipc, NamespaceKind::Uts];
    ContainerSpec {
        pauses: false,
        rootfs: Rootfs { source: share("web/rootfs"), readonly: false, propagation: None },
        process: process(),
        namespaces: kinds.map(|kind| Namespace { kind, place: NamespacePlace::New }).into(),
        uid_mappings: vec![],
        gid_mappings: vec![],
        time_offsets: TimeOffsets::default(),
        hostname: None,
        domainname: None,
        mounts: vec![],
        devices: vec![],
        masked_paths: vec![],
        readonly_paths: vec![],
        sysctl: BTreeMap::new(),
        guest_sysctl: BTreeMap::new(),
        resources: Resources::default(),
        confinement: Confinement::default(),
        start_hooks: None,
        join: None,
    }
}

fn share(path: &str) -> SharePath {
    SharePath::try_from(path.to_owned()).unwrap()
}

fn mount(destination: &str, source: MountSource) -> Mount {
    Mount {
        destination: destination.into(),
        source,
        set: 0,
        clear: 0,
        recursive_set: 0,
        recursive_clear: 0,
        super_flags: vec![],
        data: vec![],
        propagation: None,
        copy_up: false,
        id_map: None,
    }
}

fn tmpfs() -> MountSource {
    MountSource::Filesystem { kind: "tmpfs".into(), source: "tmpfs".into() }
}

fn bind(path: &str) -> MountSource {
    MountSource::Bind { place: place_in(0, path), submounts: vec![] }
}

fn planned(spec: &ContainerSpec) -> Plan {
    planned_or_not(spec).unwrap()
}

fn refusal(spec: &ContainerSpec) -> String {
    planned_or_not(spec).unwrap_err().chain()
}

/// Where the first step comes that `matches` knows.
fn place(plan: &Plan, matches: impl Fn(&Step) -> bool) -> usize {
    plan.steps.iter().position(matches).unwrap()
}

#[test]
fn a_plan_is_the_same_after_its_way_through_json() {
    let mut spec = spec();
    spec.mounts = vec![mount("/dev", tmpfs()), mount("/data", bind("web/data"))];
    let plan = planned(&spec);
    assert_eq!(serde_json::from_slice::<Plan>(&serde_json::to_vec(&plan).unwrap()).unwrap(), plan);
}

#[test]
fn mounts_keep_their_order_and_come_before_devices_and_masks() {
    let mut spec = spec();
    spec.mounts = vec![mount("/b", bind("web/b")), mount("/dev", tmpfs()), mount("/a", bind("web/a"))];
    spec.masked_paths = vec!["/proc/kcore".into()];
    let plan = planned(&spec);
    let first = place(&plan, |step| matches!(step, Step::BindMount { source: 0, .. }));
    let last = place(&plan, |step| matches!(step, Step::BindMount { source: 1, .. }));
    assert_eq!(last, first + 2);
    let device = place(&plan, |step| matches!(step, Step::Device { .. }));
    let pivot = place(&plan, |step| matches!(step, Step::PivotRoot));
    let mask = place(&plan, |step| matches!(step, Step::MaskPath(_)));
    assert!(last < device && device < pivot && pivot < mask);
    let LaunchKind::Create { outside, .. } = &plan.launch.kind else { panic!("{plan:?}") };
    assert_eq!(
        outside.binds.iter().map(|bind| bind.path.clone()).collect::<Vec<_>>(),
        ["web/b", "web/a"].map(|path| Some(share(path)))
    );
}

#[test]
fn what_is_mounted_below_a_bind_is_a_source_of_its_own() {
    let mut spec = spec();
    let submount = Submount { below: share("deep/er"), place: place_in(1, "x") };
    let source = MountSource::Bind { place: place_in(0, "data"), submounts: vec![submount] };
    spec.mounts = vec![mount("/a", bind("first")), mount("/b", source), mount("/c", bind("last"))];
    let plan = planned(&spec);
    let LaunchKind::Create { outside, .. } = &plan.launch.kind else { panic!("{plan:?}") };
    let bind = |volume: &str, path| Bind { volume: volume.into(), path: Some(share(path)), attributes: 2 };
    let expected = [
        bind("/volumes/5", "first"),
        bind("/volumes/5", "data"),
        bind("/volumes/7", "x"),
        bind("/volumes/5", "last"),
    ];
    assert_eq!(outside.binds, expected);
    let below = plan.steps.iter().find_map(|step| match step {
        Step::BindMount { source: 1, submounts, .. } => Some(submounts.clone()),
        _ => None,
    });
    assert_eq!(below.unwrap(), [BelowBind { source: 2, below: share("deep/er") }]);
    place(&plan, |step| matches!(step, Step::BindMount { source: 3, .. }));
}

#[test]
fn a_volume_that_is_not_mounted_and_an_export_without_one_are_refused() {
    let mut spec = spec();
    let source = MountSource::Bind { place: place_in(2, "x"), submounts: vec![] };
    spec.mounts = vec![mount("/a", source)];
    assert_eq!(refusal(&spec), "volume @2 is not mounted");
    spec.mounts = vec![mount("/a", MountSource::Export { name: share("web/mounts/0") })];
    assert_eq!(refusal(&spec), "mount \"/a\": the host has no volume for web/mounts/0");
}

#[test]
fn a_read_only_tmpfs_is_sealed_after_devices_were_made_in_it() {
    let mut spec = spec();
    let mut dev = mount("/dev", tmpfs());
    dev.super_flags = vec!["ro".into()];
    spec.mounts = vec![dev];
    let plan = planned(&spec);
    let device = place(&plan, |step| matches!(step, Step::DeviceLink { .. }));
    assert!(device < place(&plan, |step| *step == Step::ReadOnlyMount("/dev".into())));
}

#[test]
fn identity_changes_after_everything_that_needs_privilege_and_the_search_comes_last() {
    let plan = planned(&spec());
    let bounds = place(&plan, |step| matches!(step, Step::Bounds(_)));
    let user = place(&plan, |step| matches!(step, Step::BecomeUser(_)));
    let capabilities = place(&plan, |step| matches!(step, Step::Capabilities { for_filter: false }));
    let nnp = place(&plan, |step| matches!(step, Step::NoNewPrivileges));
    let find = place(&plan, |step| matches!(step, Step::FindProgram));
    assert!(bounds < user && user < capabilities && capabilities < nnp && nnp < find);
    assert_eq!(plan.steps.last(), Some(&Step::CloseDescriptors));
}

#[test]
fn a_given_device_takes_the_place_of_the_default_one() {
    let mut spec = spec();
    let null = DeviceNode {
        path: "/dev/null".into(),
        kind: DeviceKind::Char,
        major: 1,
        minor: 3,
        by_name: false,
        disk: None,
        mode: 0o600,
        uid: 5,
        gid: 5,
    };
    spec.devices = vec![null.clone()];
    let nodes: Vec<_> = planned(&spec)
        .steps
        .into_iter()
        .filter_map(|step| if let Step::Device { node, .. } = step { Some(node) } else { None })
        .filter(|node| node.path == "/dev/null")
        .collect();
    assert_eq!(nodes, [null]);
}

#[test]
fn a_dev_that_is_bound_from_outside_is_left_alone() {
    let mut spec = spec();
    spec.mounts = vec![mount("/dev/", bind("web/dev"))];
    let plan = planned(&spec);
    assert!(!plan.steps.iter().any(|step| matches!(step, Step::Device { .. } | Step::DeviceLink { .. })));
}

#[test]
fn namespaces_given_twice_are_refused() {
    let mut spec = spec();
    spec.namespaces.push(Namespace { kind: NamespaceKind::Pid, place: NamespacePlace::New });
    assert_eq!(refusal(&spec), "namespace Pid is given twice");
}

#[test]
fn a_namespace_of_another_container_is_joined_and_not_made() {
    let mut spec = spec();
    spec.namespaces.push(Namespace { kind: NamespaceKind::Network, place: NamespacePlace::Joined });
    assert_eq!(
        refusal(&spec),
        "linux.namespaces: a namespace is joined if and only if the container that it belongs to is named"
    );
    spec.join = Some("first".parse().unwrap());
    let Launch { namespaces, kind, .. } = planned(&spec).launch;
    assert_eq!(namespaces & namespaces::NETWORK, 0);
    assert!(matches!(kind, LaunchKind::Create { joined: namespaces::NETWORK, .. }));
}

#[test]
fn a_namespace_that_a_container_needs_for_itself_is_not_joined() {
    let mut spec = spec();
    spec.join = Some("first".parse().unwrap());
    spec.namespaces.push(Namespace { kind: NamespaceKind::User, place: NamespacePlace::Joined });
    assert_eq!(refusal(&spec), "namespace User cannot be joined");
}

#[test]
fn what_cannot_be_honoured_is_refused_by_name() {
    let mut time = spec();
    time.time_offsets.monotonic = Some(TimeOffset { seconds: 1, nanoseconds: 0 });
    assert_eq!(refusal(&time), "linux.timeOffsets: the container needs a time namespace of its own");

    let mut mountless = spec();
    mountless.namespaces.retain(|namespace| namespace.kind != NamespaceKind::Mount);
    assert_eq!(refusal(&mountless), "linux.namespaces: a container needs a mount namespace of its own");

    let mut name = spec();
    name.namespaces.retain(|namespace| namespace.kind != NamespaceKind::Uts);
    name.hostname = Some("web".into());
    assert_eq!(refusal(&name), "hostname: the container needs a UTS namespace of its own");

    let mut user = spec();
    user.namespaces.push(Namespace { kind: NamespaceKind::User, place: NamespacePlace::New });
    assert_eq!(refusal(&user), "linux.uidMappings: uid 0 of the container is not mapped");

    let mut sysctl = spec();
    sysctl.sysctl.insert("kernel.panic".into(), "1".into());
    assert_eq!(refusal(&sysctl), r#"sysctl "kernel.panic" is not in a separate kernel namespace"#);
}

#[test]
fn a_process_that_contradicts_itself_is_refused() {
    let check = |change: fn(&mut ProcessSpec)| {
        let mut process = process();
        change(&mut process);
        join(namespaces::MOUNT, &process, none()).unwrap_err().chain()
    };
    assert_eq!(check(|process| process.args.clear()), "process.args is empty");
    assert_eq!(check(|process| process.cwd = "tmp".into()), r#"process.cwd "tmp" is not an absolute path"#);
    assert_eq!(
        check(|process| process.console_size = Some((80, 25))),
        "process.consoleSize: the process needs a terminal"
    );
    let twice = |process: &mut ProcessSpec| {
        process.rlimits = vec![Rlimit { resource: 7, soft: 1, hard: 1 }; 2];
    };
    assert_eq!(check(twice), "resource limit 7 is given twice");
}

#[test]
fn a_process_joins_a_container_or_nothing() {
    for namespaces in [0, namespaces::USER | namespaces::NETWORK] {
        let refused = join(namespaces, &process(), none()).unwrap_err();
        assert_eq!(refused.chain(), "the process whose namespaces are joined is not in a container");
    }
}

#[test]
fn a_further_process_mounts_nothing() {
    let mut process = process();
    process.terminal = true;
    let plan = join(namespaces::MOUNT, &process, none()).unwrap();
    assert_eq!(plan.launch.kind, LaunchKind::Join);
    assert!(plan.steps.contains(&Step::Terminal { size: None, plain_line_feeds: false, console: false }));
    assert!(
        !plan.steps.iter().any(|step| matches!(step, Step::Rootfs | Step::PivotRoot | Step::Device { .. }))
    );
}

/// Of a container without a user namespace.
fn none() -> Inherited<'static> {
    const NONE: &Confinement = &Confinement { seccomp: None, personality: None, memory_policy: None };
    Inherited { confinement: NONE, uid_mappings: &[] }
}

#[test]
fn the_streams_belong_to_the_user_by_the_ids_of_the_guest() {
    let mut spec = spec();
    spec.process.user.uid = 1000;
    assert_eq!(planned(&spec).launch.stream_owner, Some(1000));
    spec.namespaces.push(Namespace { kind: NamespaceKind::User, place: NamespacePlace::New });
    let mapping = |container, host, size| IdMapping { container, host, size };
    spec.uid_mappings = vec![mapping(0, 5000, 1), mapping(1000, 100_000, 1)];
    spec.gid_mappings = spec.uid_mappings.clone();
    assert_eq!(planned(&spec).launch.stream_owner, Some(100_000));
    let inherited = Inherited { uid_mappings: &spec.uid_mappings, ..none() };
    for (uid, owner) in [(0, Some(5000)), (1000, Some(100_000)), (1, None), (1001, None)] {
        let user = User { uid, ..spec.process.user.clone() };
        let process = ProcessSpec { user, ..process() };
        let plan = join(namespaces::MOUNT | namespaces::USER, &process, inherited).unwrap();
        assert_eq!(plan.launch.stream_owner, owner, "{uid}");
    }
}

fn filtered() -> Confinement {
    let program = FilterProgram::try_from(vec![0; 8]).unwrap();
    Confinement { seccomp: Some(Seccomp { program, flags: 0 }), ..Confinement::default() }
}

#[test]
fn a_filter_is_set_after_the_release_and_takes_a_capability_only_without_no_new_privs() {
    let last = |no_new_privileges| {
        let process = ProcessSpec { no_new_privileges, ..process() };
        let plan =
            join(namespaces::MOUNT, &process, Inherited { confinement: &filtered(), uid_mappings: &[] })
                .unwrap();
        let reserve = plan.steps.contains(&Step::Capabilities { for_filter: true });
        (reserve, plan.last_steps)
    };
    let filter = |privileged| Step::Filter { seccomp: filtered().seccomp.unwrap(), privileged };
    assert_eq!(last(true), (false, vec![filter(false)]));
    assert_eq!(last(false), (true, vec![filter(true)]));
    assert_eq!(planned(&spec()).last_steps, []);
}

#[test]
fn the_first_cpus_of_an_exec_are_not_those_of_a_new_container() {
    let exec_cpus = Some(ExecCpus { initial: Cpus::new(1), last: None });
    let mut spec = spec();
    spec.process.scheduling.exec_cpus = exec_cpus;
    assert_eq!(planned(&spec).launch.initial_cpus, None);
    let plan = join(namespaces::MOUNT, &spec.process, none()).unwrap();
    assert_eq!(plan.launch.initial_cpus, Cpus::new(1));
}

#[test]
fn a_setting_of_the_guest_is_no_step_of_the_container() {
    let mut spec = spec();
    spec.guest_sysctl.insert("vm.swappiness".into(), "1".into());
    let plan = planned(&spec);
    let LaunchKind::Create { guest_sysctl, .. } = &plan.launch.kind else { panic!("{plan:?}") };
    assert_eq!(*guest_sysctl, [("vm/swappiness".to_owned(), "1".to_owned())]);
    assert!(!plan.steps.iter().any(|step| matches!(step, Step::Sysctl { .. })));
    spec.guest_sysctl.insert("vm...x".into(), "1".into());
    assert_eq!(refusal(&spec), r#"sysctl "vm...x" is not the name of a kernel parameter"#);
}

#[test]
fn the_agents_own_oom_score_is_not_inherited() {
    assert_eq!(planned(&spec()).launch.oom_score_adj, 0);
}
