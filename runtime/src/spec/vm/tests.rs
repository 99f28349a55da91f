use std::path::Path;

use serde_json::json;

use crate::spec::{Hardware, Vm, fixture::bundle};

#[test]
fn a_bundle_that_says_nothing_of_a_vm_wants_nothing() {
    assert_eq!(bundle().load().unwrap().host.vm, Vm::default());
    let empty =
        json!({"hypervisor": {"parameters": []}, "kernel": {"path": ""}, "image": {}, "hwConfig": null});
    assert_eq!(bundle().set("vm", empty).load().unwrap().host.vm, Vm::default());
}

#[test]
fn hardware_is_taken_in_whole_mib_and_zero_means_not_set() {
    let hardware = |value| bundle().set("vm.hwConfig", value).load().unwrap().host.vm.hardware;
    let wanted = Hardware { memory_mib: Some(257), vcpus: Some(3) };
    assert_eq!(hardware(json!({"memory": (256 << 20) + 1, "vcpus": 3})), wanted);
    assert_eq!(hardware(json!({"memory": 0, "vcpus": 0})), Hardware::default());
    // As the specification's Go type spells it.
    let vm = bundle().set("vm.hwconfig", json!({"vcpus": 2})).load().unwrap().host.vm;
    assert_eq!(vm.hardware.vcpus, Some(2));
}

#[test]
fn hardware_that_no_machine_has_is_refused() {
    let refused = |value| bundle().set("vm.hwConfig", value).refusal();
    assert_eq!(refused(json!({"memory": u64::MAX})), "vm.hwConfig.memory: is more than any machine has");
    assert!(refused(json!({"memory": -1})).starts_with("vm.hwConfig.memory: invalid value"));
    assert!(refused(json!({"vcpus": "two"})).starts_with("vm.hwConfig.vcpus: invalid type"));
}

#[test]
fn devices_of_xen_are_refused_by_name_and_empty_ones_accepted() {
    for (name, value) in [
        ("deviceTree", json!("/dt")),
        ("dtdevs", json!(["/a"])),
        ("iomems", json!([{"firstGFN": 1, "firstMFN": 1, "nrMFNs": 1}])),
        ("irqs", json!([1])),
    ] {
        let refusal = bundle().set(&format!("vm.hwConfig.{name}"), value).refusal();
        assert!(refusal.starts_with(&format!("vm.hwConfig.{name} is not supported: ")), "{refusal}");
    }
    bundle().set("vm.hwConfig.irqs", json!([])).load().unwrap();
}

#[test]
fn programs_of_the_host_are_named_by_absolute_paths() {
    let vm =
        json!({"hypervisor": {"path": "/x/vmm"}, "kernel": {"path": "/x/vmlinux", "initrd": "/x/i.img"}});
    let vm = bundle().set("vm", vm).load().unwrap().host.vm;
    assert_eq!(vm.hypervisor.as_deref(), Some(Path::new("/x/vmm")));
    assert_eq!(vm.kernel.as_deref(), Some(Path::new("/x/vmlinux")));
    assert_eq!(vm.initrd.as_deref(), Some(Path::new("/x/i.img")));
    for field in ["vm.hypervisor.path", "vm.kernel.path", "vm.kernel.initrd"] {
        assert!(bundle().set(field, json!("x")).refusal().starts_with(&format!("{field}: ")));
    }
}

#[test]
fn parameters_and_images_are_refused() {
    for field in ["vm.hypervisor.parameters", "vm.kernel.parameters"] {
        assert_eq!(
            bundle().set(field, json!(["init=/bin/sh"])).refusal(),
            format!("{field} is not supported: the runtime alone sets the command line")
        );
    }
    let image = json!({"path": "/x.raw", "format": "raw"});
    assert_eq!(bundle().set("vm.image", image).refusal(), "vm.image is not supported yet");
}

#[test]
fn our_annotations_are_numbers_and_unknown_ones_are_refused() {
    let annotated = |name: &str, value: &str| bundle().set("annotations", json!({name: value}));
    let vm = annotated("org.bulkhead.vm.vcpus", "2").load().unwrap().host.vm;
    assert_eq!(vm.annotated, Hardware { memory_mib: None, vcpus: Some(2) });
    let vm = annotated("org.bulkhead.vm.memory-mib", "300").load().unwrap().host.vm;
    assert_eq!(vm.annotated.memory_mib, Some(300));
    assert_eq!(
        annotated("org.bulkhead.vm.vcpus", "two").refusal(),
        r#"annotations["org.bulkhead.vm.vcpus"]: "two" is not a whole number"#
    );
    assert!(annotated("org.bulkhead.vm.memory-mib", "-1").refusal().contains("is not a whole number"));
    assert_eq!(
        annotated("org.bulkhead.vm.memory", "1").refusal(),
        r#"annotations["org.bulkhead.vm.memory"] is not supported: the known names are org.bulkhead.vm.memory-mib, org.bulkhead.vm.vcpus"#
    );
    annotated("org.example.vm.memory", "any").load().unwrap();
}
