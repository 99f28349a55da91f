use tempfile::TempDir;

use super::*;

/// A cgroup of ordinary files.
fn group(files: &[(&str, &str)]) -> TempDir {
    let group = TempDir::new().unwrap();
    for (file, text) in files {
        fs::write(group.path().join(file), text).unwrap();
    }
    group
}

fn read(group: &TempDir, file: &str) -> String {
    fs::read_to_string(group.path().join(file)).unwrap()
}

#[test]
fn what_was_changed_is_set_back_also_when_changed_twice() {
    let group = group(&[("memory.max", "max\n"), ("cpu.max", "5000 100000\n"), ("cpuset.cpus", "\n")]);
    let mut earlier = Earlier::new(group.path());
    for (file, value) in
        [("memory.max", "5"), ("cpu.max", "7 100"), ("cpu.max", "max 100"), ("cpuset.cpus", "1")]
    {
        earlier.remember(file, value).unwrap();
        write(group.path(), file, value).unwrap();
    }
    assert_eq!(
        ["memory.max", "cpu.max", "cpuset.cpus"].map(|file| read(&group, file)),
        ["5", "max 100", "1"]
    );
    assert!(earlier.restore().is_empty());
    let restored = ["memory.max", "cpu.max", "cpuset.cpus"].map(|file| read(&group, file));
    assert_eq!(restored, ["max", "5000 100000", "\n"]);
}

#[test]
fn the_weight_is_remembered_with_idle_which_takes_it_away() {
    let group = group(&[("cpu.idle", "0\n"), ("cpu.weight", "70\n")]);
    let mut earlier = Earlier::new(group.path());
    earlier.remember("cpu.idle", "1").unwrap();
    write(group.path(), "cpu.idle", "1").unwrap();
    write(group.path(), "cpu.weight", "0").unwrap();
    assert!(earlier.restore().is_empty());
    assert_eq!(["cpu.idle", "cpu.weight"].map(|file| read(&group, file)), ["0", "70"]);
}

#[test]
fn a_file_that_is_missing_is_an_error_and_one_that_refuses_is_named() {
    let group = group(&[("pids.max", "3\n")]);
    let mut earlier = Earlier::new(group.path());
    assert_eq!(earlier.remember("memory.max", "1").unwrap_err().kind(), io::ErrorKind::NotFound);
    earlier.remember("pids.max", "4").unwrap();
    fs::remove_file(group.path().join("pids.max")).unwrap();
    let left = earlier.restore();
    assert_eq!(left.len(), 1);
    assert!(left[0].to_string().starts_with("set pids.max of /"), "{}", left[0]);
}

#[test]
fn the_line_of_one_device_is_told_from_those_of_others() {
    let before = |text, file, value| values_before(text, file, value).join("|");
    let throttled = "8:16 rbps=1 wbps=max riops=max wiops=max\n";
    assert_eq!(before(throttled, "io.max", "8:16 rbps=5"), throttled.trim());
    assert_eq!(before(throttled, "io.max", "8:1 rbps=5"), "8:1 rbps=max wbps=max riops=max wiops=max");
    let weights = "default 100\n8:16 50\n";
    assert_eq!(before(weights, "io.weight", "70"), "default 100|8:16 50");
    assert_eq!(before(weights, "io.weight", "default 70"), "default 100");
    assert_eq!(before(weights, "io.weight", "8:16 70"), "8:16 50");
    assert_eq!(before(weights, "io.weight", "8:1 70"), "8:1 default");
    assert_eq!(before("", "io.max", "8:1 rbps=5"), "8:1 rbps=max wbps=max riops=max wiops=max");
    assert_eq!(before("res_a 10\nres_b max\n", "misc.max", "res_b 4"), "res_b max");
    assert!(values_before("0\n", "cpu.weight", "").is_empty());
}

#[test]
fn two_devices_of_one_file_are_both_set_back() {
    let group = group(&[("io.weight", "default 100\n")]);
    let mut earlier = Earlier::new(group.path());
    for value in ["50", "8:0 20", "8:16 30", "8:0 40"] {
        earlier.remember("io.weight", value).unwrap();
    }
    let values: Vec<&str> = earlier.values.iter().map(|value| value.text.as_str()).collect();
    assert_eq!(values, ["default 100", "8:0 default", "8:16 default"]);
    assert!(earlier.restore().is_empty());
}
