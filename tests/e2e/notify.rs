//! Watchers in a container hear of changes that the host makes in its volumes.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Stdio,
};

use bulkhead_tests::host::{Container, DEADLINE, TestHost, until};
use serde_json::{Value, json};

/// More than a sandbox may have watched.
const MANY: usize = 1030;

fn volume(source: &Path, destination: &str, option: &str) -> Value {
    json!({ "destination": destination, "type": "bind", "source": source, "options": ["rbind", option] })
}

/// Changes something again and again until the watcher says so: then the host has found the watch.
fn until_heard(container: &Container<'_>, directory: &Path, seen_at: &str) {
    let mut knocks = 0;
    until("the watcher hears of a new file", DEADLINE, || {
        knocks += 1;
        fs::write(directory.join(format!("knock-{knocks}")), "").unwrap();
        container.stdout().contains(&format!("CREATE {seen_at}/knock-")).then_some(())
    });
}

fn count(container: &Container<'_>, line: &str) -> usize {
    container.stdout().lines().filter(|said| *said == line).count()
}

/// As the kubelet does it: a new directory, and a link that is replaced.
fn config_map(directory: &Path, version: &str, content: &str) {
    fs::create_dir(directory.join(version)).unwrap();
    fs::write(directory.join(version).join("key"), content).unwrap();
    symlink(version, directory.join("..data_tmp")).unwrap();
    fs::rename(directory.join("..data_tmp"), directory.join("..data")).unwrap();
}

fn server_logs(host: &TestHost) -> String {
    let directories = fs::read_dir(host.root().join("@sandboxes")).unwrap();
    directories
        .filter_map(|entry| fs::read_to_string(entry.unwrap().path().join("server.log")).ok())
        .collect()
}

#[test]
fn changes_made_on_the_host_reach_watchers_up_to_a_bound() {
    let host = TestHost::new();
    let made = |name: &str| -> PathBuf {
        let directory = host.dir().join(name);
        fs::create_dir(&directory).unwrap();
        directory
    };
    let (data, config, many) = (made("data"), made("config"), made("many"));
    fs::create_dir(data.join("sub")).unwrap();
    fs::write(data.join("file"), "old").unwrap();
    fs::write(host.dir().join("single"), "old").unwrap();
    config_map(&config, "..1", "one");
    for number in 0..MANY {
        fs::create_dir(many.join(number.to_string())).unwrap();
    }
    let bundle = host
        .bundle()
        .args(["probe", "watch", "/data", "/data/sub", "/data/file", "/config", "/single"])
        .push("/mounts", volume(&data, "/data", "rw"))
        .push("/mounts", volume(&config, "/config", "ro"))
        .push("/mounts", volume(&many, "/many", "ro"))
        .push("/mounts", volume(&host.dir().join("single"), "/single", "ro"));
    let web = host.create("web", &bundle);
    web.start();
    web.until_stdout("watching");

    until_heard(&web, &data, "/data");
    fs::write(data.join("new"), "fresh").unwrap();
    web.until_stdout("CLOSE_WRITE /data/new =fresh\n");
    fs::rename(data.join("new"), data.join("other")).unwrap();
    web.until_stdout("MOVED_TO /data/other #1 =fresh\n");
    fs::remove_file(data.join("other")).unwrap();
    web.until_stdout("DELETE /data/other\n");
    let said = web.stdout();
    for line in ["CREATE /data/new\n", "MODIFY /data/new\n", "MOVED_FROM /data/new #1\n"] {
        assert!(said.contains(line), "{line}: {said}");
    }

    // What a watch is of, and what is in it, are two things.
    fs::write(data.join("sub/deep"), "deep").unwrap();
    web.until_stdout("CLOSE_WRITE /data/sub/deep =deep\n");
    fs::write(data.join("file"), "newer").unwrap();
    web.until_stdout("CLOSE_WRITE /data/file =newer\n");
    fs::write(host.dir().join("single"), "newer").unwrap();
    web.until_stdout("CLOSE_WRITE /single =newer\n");
    // An editor's way: the watch of the old file ends, as it does without a microVM.
    fs::write(data.join("swap"), "newest").unwrap();
    fs::rename(data.join("swap"), data.join("file")).unwrap();
    web.until_stdout("MOVED_TO /data/file #2 =newest\n");
    web.until_stdout("DELETE_SELF /data/file\n");
    web.until_stdout("IGNORED /data/file\n");
    fs::remove_dir_all(data.join("sub")).unwrap();
    web.until_stdout("DELETE_SELF /data/sub\n");

    config_map(&config, "..2", "two");
    web.until_stdout("MOVED_TO /config/..data");
    let said = web.stdout();
    let replaced = said.lines().find(|line| line.starts_with("MOVED_TO /config/..data "));
    assert!(replaced.is_some_and(|line| line.ends_with(" =two")), "{said}");

    // The guest's own kernel tells of the guest's changes. An echo from the host would come before `last`.
    web.exec(["busybox", "sh", "-c", "echo own > /data/own"]).success();
    fs::write(data.join("last"), "last").unwrap();
    web.until_stdout("CLOSE_WRITE /data/last =last\n");
    let said = web.stdout();
    assert_eq!(said.lines().filter(|line| line.starts_with("CLOSE_WRITE /data/own")).count(), 1, "{said}");
    assert_eq!(count(&web, "CREATE /data/own"), 1, "{said}");

    // Those that come first stay; the others are named.
    let mut flood = host.bulkhead(["exec", "--detach", &web.id, "probe", "watch", "/many/*"]);
    assert!(flood.stdin(Stdio::null()).stdout(Stdio::null()).status().unwrap().success());
    let warning = format!("more than 1024 files and directories are watched in volumes, {}:/many/", web.id);
    until("the warning of the server", DEADLINE, || server_logs(&host).contains(&warning).then_some(()));
    fs::write(data.join("later"), "later").unwrap();
    web.until_stdout("CLOSE_WRITE /data/later =later\n");

    web.delete_force();
    host.assert_no_trace();
}
