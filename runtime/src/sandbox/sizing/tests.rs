use bulkhead_protocol::vmm::HugePages;

use super::*;
use crate::spec::Policy;

fn config() -> Config {
    Config {
        vmm: "/lib/vmm".into(),
        kernel: "/lib/vmlinux".into(),
        initramfs: "/lib/initramfs".into(),
        memory_mib: 512,
        max_memory_mib: 4096,
        vcpus: 1,
        max_vcpus: 4,
        vhost_net: true,
        port_forward: true,
        huge_pages: HugePages::Always,
        strip_setuid: false,
        exclusive_rootfs: true,
        binfmt: vec![],
        allowed_annotations: vec!["org.bulkhead.vm.memory-mib".into(), "org.bulkhead.vm.vcpus".into()],
        allowed_vmms: vec![],
        allowed_kernels: vec!["/opt/vmlinux".into()],
        allowed_initramfs: vec![],
        policy: Policy::default(),
    }
}

fn limited(memory: Option<Limit>, quota: Option<Limit>, period: Option<u64>) -> Resources {
    Resources { memory_max: memory, cpu_quota: quota, cpu_period: period, ..Resources::default() }
}

fn mib(mib: u64) -> Option<Limit> {
    Some(Limit::Value(mib * MIB))
}

fn demand(resources: &Resources) -> Demand {
    Demand::of(resources, &HostLimits::default())
}

/// Memory and vCPUs, and what was warned about.
fn sized(vm: &Vm, resources: &Resources) -> (u32, u8, Vec<String>) {
    let mut warnings = Vec::new();
    let sizes = sizes(&config(), vm, demand(resources), &mut warnings).unwrap();
    assert_eq!((sizes.max_memory_mib, sizes.max_vcpus), (4096, 4));
    (sizes.memory_mib, sizes.vcpus, warnings)
}

fn refused(vm: &Vm) -> String {
    sizes(&config(), vm, Demand::default(), &mut Vec::new()).unwrap_err().to_string()
}

fn hardware(memory_mib: Option<u32>, vcpus: Option<u32>) -> Vm {
    Vm { hardware: Hardware { memory_mib, vcpus }, ..Vm::default() }
}

fn annotated(memory_mib: Option<u32>, vcpus: Option<u32>) -> Vm {
    Vm { annotated: Hardware { memory_mib, vcpus }, ..Vm::default() }
}

#[test]
fn a_container_without_limits_gets_what_the_configuration_says() {
    let unlimited = limited(Some(Limit::Max), Some(Limit::Max), Some(1000));
    for resources in [Resources::default(), unlimited] {
        assert_eq!(sized(&Vm::default(), &resources), (512, 1, vec![]));
    }
}

#[test]
fn a_machine_has_room_for_the_limit_and_the_guest_beside_it() {
    let memory = |limit| sized(&Vm::default(), &limited(limit, None, None)).0;
    assert_eq!(memory(mib(256)), 256 + 64 + 8);
    assert_eq!(memory(Some(Limit::Value(1))), 1 + 64);
    assert_eq!(memory(Some(Limit::Value(0))), 64);
}

#[test]
fn a_quota_is_rounded_up_to_whole_vcpus() {
    let vcpus = |quota, period| sized(&Vm::default(), &limited(None, Some(Limit::Value(quota)), period)).1;
    assert_eq!([1, 50_000, 100_000, 100_001, 250_000].map(|quota| vcpus(quota, None)), [1, 1, 1, 2, 3]);
    assert_eq!(vcpus(30_000, Some(10_000)), 3);
    assert_eq!(vcpus(1, Some(0)), 1, "no division by zero");
}

#[test]
fn a_machine_has_a_vcpu_for_each_of_the_hosts_cpus_that_it_may_use_or_as_many_as_its_quota_needs() {
    let vcpus = |cpus: &str, quota| {
        let host =
            HostLimits { cpus: Some(CpuList::try_from(cpus.to_owned()).unwrap()), ..HostLimits::default() };
        let limits = limited(None, quota, None);
        sizes(&config(), &Vm::default(), Demand::of(&limits, &host), &mut Vec::new()).unwrap().vcpus
    };
    assert_eq!(["6", "4-5", "0-3,3", "0-63"].map(|cpus| vcpus(cpus, None)), [1, 2, 4, 4]);
    assert_eq!(vcpus("4-7", Some(Limit::Value(150_000))), 2);
    assert_eq!(vcpus("4-5", Some(Limit::Value(400_000))), 2);
    assert_eq!(vcpus("4-5", Some(Limit::Max)), 2);
}

#[test]
fn limits_beyond_the_bounds_make_the_largest_machine_and_a_warning() {
    let huge = limited(Some(Limit::Value(u64::MAX)), Some(Limit::Value(u64::MAX)), Some(1));
    let (memory, vcpus, warnings) = sized(&Vm::default(), &huge);
    assert_eq!((memory, vcpus), (4096, 4));
    assert_eq!(warnings.len(), 2);
    assert!(warnings[0].contains("max_memory_mib allows 4096"), "{warnings:?}");
    assert!(warnings[1].contains("max_vcpus allows 4"), "{warnings:?}");
}

#[test]
fn the_specs_hardware_wins_over_annotations_and_those_over_limits() {
    let resources = limited(mib(256), Some(Limit::Value(100_000)), None);
    assert_eq!(sized(&annotated(Some(300), Some(2)), &resources), (300, 2, vec![]));
    let both =
        Vm { annotated: Hardware { memory_mib: Some(300), vcpus: Some(2) }, ..hardware(Some(400), Some(3)) };
    assert_eq!(sized(&both, &resources), (400, 3, vec![]));
    assert_eq!(sized(&hardware(None, Some(3)), &resources), (328, 3, vec![]));
}

#[test]
fn wishes_beyond_the_bounds_are_refused_by_their_field() {
    assert_eq!(
        refused(&hardware(Some(4097), None)),
        "vm.hwConfig.memory: 4097 MiB are not between 48 and 4096, max_memory_mib of the configuration"
    );
    assert!(refused(&hardware(Some(47), None)).starts_with("vm.hwConfig.memory: 47 MiB "));
    assert!(
        refused(&hardware(None, Some(5))).starts_with("vm.hwConfig.vcpus: 5 vCPUs are not between 1 and 4")
    );
    assert!(
        refused(&annotated(Some(u32::MAX), None))
            .starts_with(r#"annotations["org.bulkhead.vm.memory-mib"]: "#)
    );
    assert!(
        refused(&annotated(None, Some(0))).starts_with(r#"annotations["org.bulkhead.vm.vcpus"]: 0 vCPUs"#)
    );
}

#[test]
fn annotations_that_the_operator_does_not_allow_are_refused() {
    let config = Config { allowed_annotations: vec!["org.bulkhead.vm.vcpus".into()], ..config() };
    let sized = |vm: &Vm| sizes(&config, vm, Demand::default(), &mut Vec::new());
    sized(&annotated(None, Some(2))).unwrap();
    assert_eq!(
        sized(&annotated(Some(300), None)).unwrap_err().to_string(),
        r#"annotations["org.bulkhead.vm.memory-mib"] is not supported: allowed_annotations of the configuration does not name it"#
    );
}

#[test]
fn a_machine_that_grows_by_itself_doubles_in_bounded_steps_up_to_its_bound() {
    let mut sizes = vec![512];
    while let Some(next) = grown(*sizes.last().unwrap(), 65_536, u64::MAX) {
        sizes.push(next);
    }
    assert_eq!(sizes[..6], [512, 1024, 2048, 4096, 8192, 12_288]);
    assert_eq!(*sizes.last().unwrap(), 65_536);
    assert_eq!(grown(512, 520, u64::MAX), Some(520), "the last bit is a step too");
    assert_eq!(grown(48, 4096, u64::MAX), Some(96));
    assert_eq!(grown(4096, 4096, u64::MAX), None);
}

#[test]
fn a_machine_grows_by_what_the_host_has_left_and_not_for_a_trifle() {
    assert_eq!(grown(512, 4096, 100), Some(612));
    assert_eq!(grown(512, 4096, 4), None);
    assert_eq!(grown(512, 4096, 0), None);
}

#[test]
fn a_machine_whose_size_the_bundle_chose_does_not_grow_by_itself() {
    let grows_to = |vm: &Vm| {
        let sizes = sizes(&config(), vm, Demand::default(), &mut Vec::new());
        sizes.unwrap().grows_to_mib
    };
    assert_eq!(grows_to(&Vm::default()), 4096);
    assert_eq!(grows_to(&hardware(None, Some(2))), 4096);
    assert_eq!(grows_to(&hardware(Some(400), None)), 400);
    assert_eq!(grows_to(&annotated(Some(300), None)), 300);
}

#[test]
fn the_files_of_a_guest_are_bounded_by_the_memory_that_it_may_have() {
    let files = |resources: &Resources| {
        sizes(&config(), &Vm::default(), demand(resources), &mut Vec::new()).unwrap().files
    };
    assert_eq!(files(&limited(mib(256), None, None)), 512 * (256 + 64 + 8));
    assert_eq!(files(&Resources::default()), 1 << 20);
}

#[test]
fn containers_of_one_sandbox_are_added_up() {
    let (a, b) = (
        limited(mib(100), Some(Limit::Value(50_000)), None),
        limited(mib(220), Some(Limit::Value(70_000)), None),
    );
    assert_eq!(Need::of([demand(&a), demand(&b)]), Need { memory_mib: Some(320 + 64 + 10), vcpus: Some(2) });
    assert_eq!(Need::of([demand(&a), Demand::default()]), Need::default());
    assert_eq!(Need::of([]), Need::default());
}

/// The container that holds a pod with these limits.
fn pod(memory: Option<Limit>, cpu_quota: Option<Limit>) -> Demand {
    let guest = ContainerSpec { pauses: true, ..crate::sandbox::fake::spec(&[]) };
    Demand::of_new(&guest, &PodLimits { memory, cpu_quota, cpu_period: None }, &HostLimits::default())
}

#[test]
fn a_pods_machine_has_room_for_all_its_containers_from_the_start() {
    let pod = pod(mib(320), Some(Limit::Value(120_000)));
    let sizes = sizes(&config(), &Vm::default(), pod, &mut Vec::new()).unwrap();
    assert_eq!((sizes.memory_mib, sizes.vcpus), (320 + 64 + 10, 2));
    assert_eq!((pod.memory(), sizes.grows_to_mib, sizes.files), (Memory::Limited, 4096, 1 << 20));
    // Whose limits are parts of the pod's.
    let web = demand(&limited(mib(220), Some(Limit::Value(100_000)), None));
    let log = demand(&limited(mib(100), Some(Limit::Value(20_000)), None));
    let enough = Need { memory_mib: Some(sizes.memory_mib), vcpus: Some(2) };
    assert_eq!([Need::of([pod]), Need::of([pod, web]), Need::of([pod, web, log])], [enough; 3]);
    // One that was made larger since, and one without a limit.
    let larger = demand(&limited(mib(640), Some(Limit::Value(300_000)), None));
    assert_eq!(Need::of([pod, larger]), Need { memory_mib: Some(640 + 64 + 20), vcpus: Some(3) });
    assert_eq!(Need::of([pod, web, Demand::default()]), Need::default());
}

#[test]
fn a_pod_without_limits_is_sized_by_its_containers_when_they_are_there() {
    let pod = pod(None, None);
    let sizes = sizes(&config(), &Vm::default(), pod, &mut Vec::new()).unwrap();
    assert_eq!((sizes.memory_mib, sizes.vcpus, pod.memory()), (512, 1, Memory::Unlimited));
    let web = demand(&limited(mib(320), None, None));
    assert_eq!(Need::of([pod]), Need::default());
    assert_eq!(Need::of([pod, web]), Need { memory_mib: Some(320 + 64 + 10), vcpus: None });
    assert_eq!(Need::default().or(web.beside(512, 1)), Need { memory_mib: Some(512 + 330), vcpus: Some(1) });
}

#[test]
fn programs_of_the_host_must_be_configured_or_allowed() {
    let vm = |hypervisor: Option<&str>, kernel: Option<&str>, initrd: Option<&str>| Vm {
        hypervisor: hypervisor.map(Into::into),
        kernel: kernel.map(Into::into),
        initrd: initrd.map(Into::into),
        ..Vm::default()
    };
    let chosen = artefacts(config(), &vm(Some("/lib/vmm"), Some("/opt/vmlinux"), None)).unwrap();
    assert_eq!(chosen, Config { kernel: "/opt/vmlinux".into(), ..config() });
    let refused = |vm| artefacts(config(), &vm).unwrap_err().to_string();
    assert_eq!(
        refused(vm(Some("/bin/sh"), None, None)),
        "vm.hypervisor.path is not supported: /bin/sh is not in allowed_vmms of the configuration"
    );
    assert!(
        refused(vm(None, Some("/lib/../lib/vmlinux"), None)).starts_with("vm.kernel.path is not supported")
    );
    assert!(refused(vm(None, None, Some("/x"))).starts_with("vm.kernel.initrd is not supported: /x is not"));
}

#[test]
fn an_update_changes_what_it_has_and_the_machine_in_that_alone() {
    let before = demand(&limited(mib(128), Some(Limit::Value(150_000)), None));
    let more_memory = demand(&limited(mib(256), None, None));
    let after = before.updated(more_memory);
    assert_eq!(after, demand(&limited(mib(256), Some(Limit::Value(150_000)), None)));
    let need = Need::of([after]);
    assert_eq!(need.changed_by(more_memory), Need { memory_mib: Some(256 + 64 + 8), vcpus: None });
    let period = demand(&limited(None, None, Some(50_000)));
    assert_eq!(
        Need::of([before.updated(period)]).changed_by(period),
        Need { memory_mib: None, vcpus: Some(3) }
    );
}
