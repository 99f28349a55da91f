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
        Entry::Redirect {
            namespace: "/run/netns/web".into(),
            id: NamespaceId::example(),
            interface: 7,
            tap: 8,
        },
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

#[test]
fn processes_that_have_ended_do_not_make_it_grow_and_nothing_else_is_lost() {
    let (_dir, journal) = journal();
    let own = journal.append_self(Role::Server).unwrap();
    let dead = Entry::Process { role: Role::Proxy, process: Process { pid: 1, start_ticks: u64::MAX } };
    let cgroup = |writer: usize, n: usize| Entry::Cgroup { path: format!("/{writer}/{n}").into() };
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let journal = &journal;
            let dead = &dead;
            scope.spawn(move || {
                for n in 0..1000 {
                    journal.append(dead).unwrap();
                    if n % 100 == 0 {
                        journal.append(&cgroup(writer, n)).unwrap();
                    }
                }
            });
        }
    });
    assert!(fs::metadata(&journal.path).unwrap().len() < LARGE + 1000);
    let entries = journal.entries().unwrap();
    assert_eq!(entries[0], Entry::Process { role: Role::Server, process: own });
    for writer in 0..4 {
        for n in (0..1000).step_by(100) {
            assert!(entries.contains(&cgroup(writer, n)), "{writer} {n}");
        }
    }
}
