use super::*;

fn proc(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (file, text) in files {
        let path = dir.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    dir
}

#[test]
fn settings_of_the_host_are_taken_as_far_as_they_are_numbers() {
    let host = proc(&[
        ("sys/vm/max_map_count", "262144\n"),
        ("sys/fs/file-max", "9223372036854775807\n"),
        ("sys/fs/nr_open", "many\n"),
        ("sys/fs/inotify/max_user_instances", "128\n"),
        ("sys/vm/overcommit_memory", "0\n"),
    ]);
    let tuning = read(host.path(), 4096);
    let raised: Vec<_> = tuning.raised().collect();
    let expected = [(Setting::MaxMapCount, 262_144), (Setting::FileMax, i64::MAX.unsigned_abs())];
    assert_eq!((raised, tuning.overcommit), (expected.to_vec(), Overcommit::Always));
}

#[test]
fn a_host_that_promises_no_more_than_it_has_makes_the_guest_do_so() {
    let with = |policy: &str, meminfo: &str, mib| {
        read(proc(&[("sys/vm/overcommit_memory", policy), ("meminfo", meminfo)]).path(), mib).overcommit
    };
    let meminfo = "MemTotal:  8388608 kB\nCommitLimit:     4194304 kB\n";
    assert_eq!(with("2\n", meminfo, 8192), Overcommit::Limit(4_194_304));
    assert_eq!(with("2\n", meminfo, 1024), Overcommit::Limit(1_048_576));
    assert_eq!(with("2\n", "", 1024), Overcommit::Limit(1_048_576));
    assert_eq!(with("1\n", meminfo, 1024), Overcommit::Always);
}

#[test]
fn a_host_that_says_nothing_leaves_the_guest_as_it_is() {
    assert_eq!(read(proc(&[]).path(), 4096), Tuning::default());
}
