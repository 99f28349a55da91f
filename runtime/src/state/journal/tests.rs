use super::*;

fn journal() -> (tempfile::TempDir, Journal) {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::at(dir.path().join("journal"));
    (dir, journal)
}

#[test]
fn entries_come_back_in_the_order_they_were_written() {
    let (_dir, journal) = journal();
    let entries = [
        Entry::Process { role: Role::Server, process: Process { pid: 7, start_ticks: 9 } },
        Entry::Cgroup { path: "/sys/fs/cgroup/bulkhead".into() },
        Entry::Cgroup { path: "/sys/fs/cgroup/bulkhead/web".into() },
        Entry::Scope {
            scope: Scope { slice: "a.slice".into(), unit: "web.scope".into() },
            path: "/sys/fs/cgroup/a.slice/web.scope".into(),
        },
        Entry::Foreign { path: "/sys/fs/cgroup/bulkhead/web".into() },
        Entry::Owned { path: "/sys/fs/cgroup/bulkhead/web".into() },
        Entry::Vacated { path: "/sys/fs/cgroup/bulkhead/web".into() },
        Entry::Redirect { namespace: "/run/netns/web".into(), id: NamespaceId::example(), interface: 7 },
    ];
    for entry in &entries {
        journal.append(entry).unwrap();
    }
    assert_eq!(journal.entries().unwrap(), entries);
}

#[test]
fn a_missing_journal_has_no_entries() {
    assert!(journal().1.entries().unwrap().is_empty());
}

#[test]
fn a_line_that_was_cut_off_is_skipped_and_the_others_count() {
    let (_dir, journal) = journal();
    let entry = Entry::Cgroup { path: "/sys/fs/cgroup/x".into() };
    journal.append(&entry).unwrap();
    let mut text = fs::read(&journal.path).unwrap();
    text.extend_from_slice(br#"{"object":"cgroup","pa"#);
    fs::write(&journal.path, text).unwrap();
    assert_eq!(journal.entries().unwrap(), [entry]);
}
