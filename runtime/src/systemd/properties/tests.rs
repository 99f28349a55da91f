use super::*;

fn of_files(files: &[(&str, &str)]) -> Vec<(&'static str, String)> {
    let dir = tempfile::tempdir().unwrap();
    for (file, text) in files {
        fs::write(dir.path().join(file), text).unwrap();
    }
    of(dir.path()).into_iter().map(|(name, value)| (name, format!("{value:?}"))).collect()
}

fn value(value: impl Into<Variant<'static>>) -> String {
    format!("{:?}", value.into())
}

#[test]
fn files_become_the_properties_that_mean_the_same() {
    let files = [
        ("cpu.idle", "0\n"),
        ("cpu.weight", "59\n"),
        ("cpu.max", "300000 100000\n"),
        ("cpuset.cpus", "0,9-10\n"),
        ("cpuset.mems", "\n"),
        ("memory.max", "max\n"),
        ("pids.max", "512\n"),
        ("io.weight", "default 4950\n8:0 100\n"),
    ];
    let expected = [
        ("CPUWeight", value(59_u64)),
        ("CPUQuotaPerSecUSec", value(3_000_000_u64)),
        ("AllowedCPUs", value(vec![1_u8, 6])),
        ("MemoryMax", value(u64::MAX)),
        ("TasksMax", value(512_u64)),
        ("IOWeight", value(4950_u64)),
    ];
    assert_eq!(of_files(&files), expected);
}

#[test]
fn an_idle_group_has_the_weight_0_and_what_is_not_there_is_no_property() {
    assert_eq!(of_files(&[("cpu.idle", "1\n"), ("cpu.weight", "0\n")]), [("CPUWeight", value(0_u64))]);
    let unlimited = [("CPUQuotaPerSecUSec", value(u64::MAX))];
    assert_eq!(of_files(&[("cpu.max", "max 100000\n"), ("memory.max", "nonsense")]), unlimited);
}
