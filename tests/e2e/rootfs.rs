//! A rootfs: what a container keeps of it without asking, and how it sees what somebody else changes there.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt as _, path::Path};

use bulkhead_tests::host::{Container, DEADLINE, TestHost, until};
use serde_json::{Value, json};

use crate::pod::{running, sharing};

/// What the container sees of /data: contents, names, modes, and what is not there.
const LOOK: &str = "cd /data; cat text; busybox ls dir; cat later; busybox stat -c %a mode; cat moved";

fn look(container: &Container<'_>) -> String {
    container.exec(["sh", "-c", LOOK]).text()
}

fn prepare(data: &Path) {
    fs::create_dir_all(data.join("dir")).unwrap();
    for (name, text) in [("text", "before\n"), ("dir/a", ""), ("mode", ""), ("elsewhere", "moved\n")] {
        fs::write(data.join(name), text).unwrap();
    }
    fs::set_permissions(data.join("mode"), fs::Permissions::from_mode(0o644)).unwrap();
}

/// Changes all that `LOOK` looks at.
fn change(data: &Path) {
    fs::write(data.join("text"), "after!\n").unwrap();
    fs::rename(data.join("dir/a"), data.join("dir/b")).unwrap();
    fs::write(data.join("later"), "later\n").unwrap();
    fs::set_permissions(data.join("mode"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(data.join("elsewhere"), data.join("moved")).unwrap();
}

const BEFORE: &str = "before\na\n644\n";
const AFTER: &str = "after!\nb\nlater\n600\nmoved\n";

#[test]
fn what_the_host_and_other_containers_change_in_a_rootfs_is_seen() {
    let host = TestHost::new();
    let bundle = host.bundle().own_rootfs().args(["probe", "linger"]);
    let rootfs = bundle.dir().join("rootfs");
    let data = rootfs.join("data");
    prepare(&data);
    let web = running(&host, "web", &bundle);
    let same = |bundle: bulkhead_tests::host::Bundle| bundle.set("/root/path", json!(rootfs));
    let elsewhere = running(&host, "elsewhere", &same(host.bundle().args(["probe", "linger"])));
    let beside = same(sharing(&host, &web, &["network"]).args(["probe", "linger"]));
    let beside = running(&host, "beside", &beside);
    let all = [&web, &elsewhere, &beside];
    // Twice: what was asked for once is known then.
    for container in all.iter().chain(&all) {
        assert_eq!(look(container), BEFORE, "{}", container.id);
    }

    change(&data);
    for container in all {
        until("the host's changes are seen", DEADLINE, || (look(container) == AFTER).then_some(()));
    }
    for (round, author) in all.iter().enumerate() {
        let script = format!("echo {round} >/data/text; busybox rm /data/dir/*; : >/data/dir/{round}");
        author.exec(["sh", "-c", &script]).success();
        let wanted = AFTER.replace("after!", &round.to_string()).replace("b\n", &format!("{round}\n"));
        for reader in all {
            until(&format!("{} sees what {} did", reader.id, author.id), DEADLINE, || {
                (look(reader) == wanted).then_some(())
            });
        }
    }
    for container in [beside, elsewhere, web] {
        container.delete_force();
    }
}

/// What the file server has been asked for, by operation.
fn asked(host: &TestHost, container: &Container<'_>) -> BTreeMap<String, u64> {
    let line = host.output(["events", "--stats", &container.id]).success();
    let event: Value = serde_json::from_str(&line).unwrap();
    let counters = event["machine"].as_object().unwrap().iter();
    counters
        .filter_map(|(name, value)| Some((name.strip_prefix("fs.")?.to_owned(), value.as_u64()?)))
        .collect()
}

/// How often each operation was asked for while a script ran.
fn asked_by(host: &TestHost, container: &Container<'_>, script: &str) -> impl Fn(&str) -> u64 + use<> {
    let before = asked(host, container);
    container.exec(["sh", "-c", script]).success();
    let after = asked(host, container);
    move |name| {
        let of = |counters: &BTreeMap<String, u64>| counters.get(name).copied().unwrap_or(0);
        of(&after) - of(&before)
    }
}

#[test]
fn a_small_file_takes_three_requests_and_what_is_known_none() {
    let host = TestHost::new();
    let bundle = host.bundle().own_rootfs().args(["probe", "linger"]);
    let data = bundle.dir().join("rootfs/data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("large"), vec![7; 4 << 20]).unwrap();
    (0..100).for_each(|number| fs::write(data.join(format!("file-{number}")), "text").unwrap());
    let web = running(&host, "web", &bundle);

    let small = "cd /data; for n in 1 2 3 4 5 6 7 8 9 10; do echo text >new-$n; done; busybox rm new-*";
    // What the shell itself is made of is known after the first time.
    let _ = asked_by(&host, &web, small);
    let count = asked_by(&host, &web, small);
    assert_eq!([count("create"), count("write"), count("unlink")], [10, 10, 10]);
    let waste = ["open", "flush", "release", "getxattr", "ioctl", "opendir", "releasedir"];
    assert_eq!(waste.map(&count), [0; 7]);
    assert!(count("lookup") + count("getattr") <= 4, "{} {}", count("lookup"), count("getattr"));
    assert!(count("forget") + count("batch_forget") <= 5);

    let read = "busybox md5sum /data/large; busybox ls -l /data; busybox flock /data/large true; cat /data/missing; true";
    let first = asked_by(&host, &web, read);
    assert!(first("read") > 0 && first("readdirplus") == 1);
    let again = asked_by(&host, &web, read);
    let all = ["lookup", "getattr", "open", "read", "readdir", "readdirplus", "setlk", "flush", "release"];
    assert_eq!(all.map(again), [0; 9]);
    web.delete_force();
}
