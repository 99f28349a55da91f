use bulkhead_protocol::tuning::Setting;

use super::*;

fn proc_sys() -> (tempfile::TempDir, ProcSys) {
    let dir = tempfile::tempdir().unwrap();
    for (file, value) in [
        ("vm/max_map_count", "65530\n"),
        ("kernel/pid_max", "4194304\n"),
        ("vm/overcommit_memory", "0\n"),
        ("vm/overcommit_kbytes", "0\n"),
    ] {
        fs::create_dir_all(dir.path().join(file).parent().unwrap()).unwrap();
        fs::write(dir.path().join(file), value).unwrap();
    }
    let sys = ProcSys(dir.path().to_owned());
    (dir, sys)
}

#[test]
fn a_setting_is_raised_and_never_lowered_and_one_that_is_not_there_is_left_out() {
    let (dir, sys) = proc_sys();
    let mut tuning = Tuning::default();
    tuning.raise(Setting::MaxMapCount, 262_144);
    tuning.raise(Setting::PidMax, 65_536);
    tuning.raise(Setting::RootKeys, 2_000_000);
    assert!(sys.apply(&tuning).is_empty());
    let read = |file: &str| fs::read_to_string(dir.path().join(file)).unwrap();
    assert_eq!(read("vm/max_map_count"), "262144");
    assert_eq!(read("kernel/pid_max"), "4194304\n");
    assert_eq!(read("vm/overcommit_memory"), "1");
    assert!(!dir.path().join("kernel/keys").exists());
}

#[test]
fn a_limit_of_what_is_promised_holds_with_its_policy() {
    let (dir, sys) = proc_sys();
    let mut tuning = Tuning::default();
    tuning.overcommit = Overcommit::Limit(4096);
    assert!(sys.apply(&tuning).is_empty());
    let read = |file: &str| fs::read_to_string(dir.path().join(file)).unwrap();
    assert_eq!((read("vm/overcommit_kbytes"), read("vm/overcommit_memory")), ("4096".into(), "2".into()));
}

#[test]
fn what_fails_is_told_and_keeps_nothing_else() {
    let (dir, sys) = proc_sys();
    fs::remove_file(dir.path().join("vm/overcommit_memory")).unwrap();
    let mut tuning = Tuning::default();
    tuning.raise(Setting::MaxMapCount, 262_144);
    let failures = sys.apply(&tuning);
    assert!(matches!(&failures[..], [TuningError::Set { value, .. }] if value == "1"), "{failures:?}");
    assert_eq!(fs::read_to_string(dir.path().join("vm/max_map_count")).unwrap(), "262144");
}
