use super::*;
use crate::spec::AllowedSockets;

const HOST: Host = Host { memory_mib: 16_384, cpus: 4, usable_cpus: 3 };

fn check(text: &str) -> Result<Config, ConfigError> {
    let path = Path::new("/etc/bulkhead/config.toml");
    parse(path, text)?.check(path, Path::new("/usr"), HOST)
}

fn refusal(text: &str) -> String {
    bulkhead_sys::chain(&check(text).unwrap_err())
}

#[test]
fn an_empty_file_gives_the_defaults_beside_the_executable() {
    let config = check("").unwrap();
    assert_eq!(config.vmm, Path::new("/usr/libexec/bulkhead/bulkhead-vmm"));
    assert_eq!(config.kernel, Path::new("/usr/share/bulkhead/vmlinux"));
    assert_eq!(config.initramfs, Path::new("/usr/share/bulkhead/initramfs.img"));
    assert_eq!((config.memory_mib, config.max_memory_mib), (512, 14_336));
    assert_eq!((config.vcpus, config.max_vcpus), (3, 4));
    assert!(config.vhost_net);
    assert!(config.allowed_annotations.is_empty() && config.allowed_kernels.is_empty());
}

#[test]
fn the_prefix_is_two_levels_above_the_executable() {
    assert_eq!(prefix_of(Path::new("/opt/bh/bin/bulkhead")), Path::new("/opt/bh"));
    assert_eq!(prefix_of(Path::new("/bulkhead")), Path::new("/"));
}

#[test]
fn port_forward_is_true_unless_the_operator_says_otherwise() {
    assert!(check("").unwrap().port_forward);
    assert!(!check("port_forward = false").unwrap().port_forward);
}

#[test]
fn vhost_net_is_true_or_false_and_nothing_else() {
    assert!(!check("vhost_net = false").unwrap().vhost_net);
    assert!(refusal("vhost_net = 'no'").contains("vhost_net"));
}

#[test]
fn huge_pages_are_always_or_never_and_nothing_else() {
    assert_eq!(check("").unwrap().huge_pages, HugePages::Always);
    assert_eq!(check("huge_pages = 'never'").unwrap().huge_pages, HugePages::Never);
    assert!(refusal("huge_pages = 'sometimes'").contains("huge_pages"));
}

#[test]
fn setuid_is_stripped_only_when_asked_for() {
    assert!(check("").unwrap().exclusive_rootfs);
    assert!(!check("exclusive_rootfs = false").unwrap().exclusive_rootfs);
    assert!(!check("").unwrap().strip_setuid);
    assert!(check("strip_setuid = true").unwrap().strip_setuid);
    assert!(refusal("strip_setuid = 'sudo'").contains("strip_setuid"));
}

#[test]
fn handlers_of_foreign_binaries_are_names_of_the_host() {
    assert!(check("").unwrap().binfmt.is_empty());
    assert_eq!(check("binfmt = ['qemu-aarch64']").unwrap().binfmt, ["qemu-aarch64"]);
    for bad in ["", "..", "register", "a/b"] {
        assert!(refusal(&format!("binfmt = ['{bad}']")).contains("is no name of a handler"), "{bad:?}");
    }
    let many = vec!["'a'"; HANDLERS + 1].join(", ");
    assert!(refusal(&format!("binfmt = [{many}]")).ends_with("binfmt: 65 handlers are more than 64"));
}

#[test]
fn vmm_is_taken_when_absolute_and_refused_when_not() {
    assert_eq!(check("vmm = '/x/vmm'").unwrap().vmm, Path::new("/x/vmm"));
    assert!(refusal("vmm = 'x/vmm'").ends_with("vmm: x/vmm is not an absolute path"));
}

#[test]
fn kernel_is_taken_when_absolute_and_refused_when_not() {
    assert_eq!(check("kernel = '/x/vmlinux'").unwrap().kernel, Path::new("/x/vmlinux"));
    assert!(refusal("kernel = 'vmlinux'").ends_with("kernel: vmlinux is not an absolute path"));
}

#[test]
fn initramfs_is_taken_when_absolute_and_refused_when_not() {
    assert_eq!(check("initramfs = '/x/i.img'").unwrap().initramfs, Path::new("/x/i.img"));
    assert!(refusal("initramfs = ''").contains("initramfs: "));
}

#[test]
fn memory_is_taken_within_what_boots_and_refused_outside() {
    assert_eq!(check("memory_mib = 48").unwrap().memory_mib, 48);
    assert_eq!(check("memory_mib = 65536").unwrap().memory_mib, 65_536);
    assert!(refusal("memory_mib = 47").ends_with("memory_mib: 47 is not between 48 and 65536"));
    assert!(refusal("memory_mib = 65537").ends_with("memory_mib: 65537 is not between 48 and 65536"));
}

#[test]
fn max_memory_is_at_least_the_memory_and_follows_it_by_default() {
    assert_eq!(check("memory_mib = 20000").unwrap().max_memory_mib, 20_000);
    assert_eq!(check("memory_mib = 64\nmax_memory_mib = 64").unwrap().max_memory_mib, 64);
    let refused = "max_memory_mib: 511 is not between memory_mib, 512, and 65536";
    assert!(refusal("max_memory_mib = 511").ends_with(refused));
    assert!(refusal("max_memory_mib = 65537").contains("max_memory_mib: 65537 is not between"));
}

#[test]
fn annotations_can_be_allowed_when_they_exist() {
    let config = check("allowed_annotations = ['org.bulkhead.vm.vcpus']").unwrap();
    assert_eq!(config.allowed_annotations, ["org.bulkhead.vm.vcpus"]);
    let unknown = refusal("allowed_annotations = ['org.bulkhead.vm.cpus']");
    assert!(
        unknown.contains(r#"allowed_annotations: "org.bulkhead.vm.cpus" is not one of org.bulkhead.vm."#)
    );
}

#[test]
fn programs_of_bundles_can_be_allowed_by_absolute_paths() {
    for key in ["allowed_vmms", "allowed_kernels", "allowed_initramfs"] {
        check(&format!("{key} = ['/x/a', '/x/b']")).unwrap();
        let refused = refusal(&format!("{key} = ['/x/a', 'b']"));
        assert!(refused.ends_with(&format!("{key}: b is not an absolute path")), "{refused}");
    }
    assert_eq!(check("allowed_kernels = ['/x/a']").unwrap().allowed_kernels, [Path::new("/x/a")]);
}

#[test]
fn vcpus_are_taken_up_to_max_vcpus_which_follows_them_by_default() {
    let config = check("vcpus = 8").unwrap();
    assert_eq!((config.vcpus, config.max_vcpus), (8, 8));
    assert_eq!(check("max_vcpus = 2").unwrap().vcpus, 2);
    assert!(refusal("vcpus = 0").ends_with("vcpus: 0 is not between 1 and max_vcpus, 4"));
    assert!(refusal("vcpus = 4\nmax_vcpus = 2").ends_with("vcpus: 4 is not between 1 and max_vcpus, 2"));
}

#[test]
fn max_vcpus_are_taken_up_to_the_limit() {
    assert_eq!(check("max_vcpus = 32").unwrap().max_vcpus, 32);
    assert!(refusal("max_vcpus = 33").ends_with("max_vcpus: 33 is not between 1 and 32"));
}

#[test]
fn sysctls_are_allowed_by_name_or_prefix_and_refused_otherwise() {
    let allowed = check("allowed_sysctls = ['vm.*', 'kernel.pid_max']").unwrap().policy.sysctls;
    let expected = vec!["vm.*".to_owned(), "kernel.pid_max".to_owned()];
    assert_eq!(allowed, expected.try_into().unwrap());
    let refusal = refusal("allowed_sysctls = ['*']");
    assert!(refusal.contains("allowed_sysctls: \"*\" is neither a name "), "{refusal}");
}

#[test]
fn sockets_of_the_host_are_allowed_by_patterns_of_absolute_paths() {
    let allowed = check("host_sockets = ['/run/spire/agent/*.sock']").unwrap().policy.sockets;
    assert_eq!(allowed, vec!["/run/spire/agent/*.sock".to_owned()].try_into().unwrap());
    assert_eq!(check("").unwrap().policy.sockets, AllowedSockets::default());
    let refusal = refusal("host_sockets = ['run/x.sock']");
    assert!(refusal.contains("host_sockets: \"run/x.sock\" is no absolute path "), "{refusal}");
}

#[test]
fn an_apparmor_profile_is_a_warning_or_refused() {
    assert_eq!(check("").unwrap().policy.apparmor, Apparmor::Warn);
    assert_eq!(check("apparmor = 'refuse'").unwrap().policy.apparmor, Apparmor::Refuse);
    assert!(refusal("apparmor = 'enforce'").contains("unknown variant `enforce`"));
}

#[test]
fn an_unknown_field_is_refused_by_name() {
    assert!(refusal("memory = 3").contains("unknown field `memory`"));
}

#[test]
fn a_wrong_type_is_refused_by_name() {
    assert!(refusal("memory_mib = 'big'").contains("memory_mib"), "{}", refusal("memory_mib = 'big'"));
}

#[test]
fn a_named_file_must_exist() {
    let error = Config::load(Some(Path::new("/nonexistent/config.toml"))).unwrap_err();
    assert!(matches!(error, ConfigError::Read { .. }));
}

#[test]
fn missing_artefacts_are_named_with_a_hint() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let config = Config { vmm: path("vmm"), kernel: path("k"), initramfs: path("i"), ..check("").unwrap() };
    let failure = || {
        let error = config.open_artefacts().unwrap_err();
        assert!(error.hint().is_some());
        error.to_string()
    };
    assert!(failure().starts_with("open the VMM "));
    fs::write(path("vmm"), "").unwrap();
    assert!(failure().starts_with("open the guest kernel "));
    fs::create_dir(path("k")).unwrap();
    assert!(failure().starts_with("open the guest kernel "));
    fs::remove_dir(path("k")).unwrap();
    fs::write(path("k"), "").unwrap();
    assert!(failure().starts_with("open the guest image "));
    fs::write(path("i"), "").unwrap();
    config.open_artefacts().unwrap();
}

#[test]
fn the_documented_file_is_the_default() {
    let page = include_str!("../../../docs/config.md");
    let example = page.split("```toml").nth(1).unwrap().split("```").next().unwrap();
    let path = Path::new("/etc/bulkhead/config.toml");
    let documented = parse(path, example).unwrap().check(path, Path::new("/elsewhere"), HOST).unwrap();
    let default = RawConfig::default().check(path, Path::new("/usr/local"), HOST).unwrap();
    assert_eq!(documented, default);
}
