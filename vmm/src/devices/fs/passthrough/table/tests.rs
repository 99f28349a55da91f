use std::{fs::File, path::Path};

use super::{
    super::{
        super::budget::Budget,
        handle::OpenFlags,
        inode::{Export, Status, Watched},
    },
    *,
};

fn slot() -> super::super::Slot {
    Budget::new(1).take().unwrap()
}

fn inode(path: &Path) -> Arc<Inode> {
    let file = File::open(path).unwrap();
    let status = Status::of(&file, c"").unwrap();
    Arc::new(Inode::new(file.into(), &status, (Export::Share, Watched::No), slot()))
}

/// Two exports with a directory each, which has a file that is open: the numbers of the six, and of the handles.
struct Two {
    table: Table,
    web: [u64; 3],
    db: [u64; 3],
    handles: [u64; 2],
    directory: tempfile::TempDir,
}

fn two() -> Two {
    let directory = tempfile::tempdir().unwrap();
    let table = Table::default();
    table.start_over(Some(inode(directory.path())));
    let mut made = Vec::new();
    for name in ["web", "db"] {
        let paths = [name.to_owned(), format!("{name}/rootfs"), format!("{name}/rootfs/file")];
        std::fs::create_dir_all(directory.path().join(&paths[1])).unwrap();
        std::fs::write(directory.path().join(&paths[2]), "").unwrap();
        let mut numbers = [0; 3];
        let mut parent = ROOT;
        for (number, path) in numbers.iter_mut().zip(&paths) {
            let name = path.rsplit('/').next().unwrap();
            *number = table.give(parent, name.as_bytes(), inode(&directory.path().join(path))).unwrap().0;
            parent = *number;
        }
        let handle = open(&table, numbers[2], &directory.path().join(&paths[2])).unwrap();
        made.push((numbers, handle));
    }
    let [(web, first), (db, second)] = made.try_into().unwrap();
    Two { table, web, db, handles: [first, second], directory }
}

fn open(table: &Table, number: u64, path: &Path) -> io::Result<u64> {
    let handle = Handle::new(inode(path), File::open(path).unwrap(), OpenFlags::new(0), slot());
    table.open(number, handle)
}

fn errno_of<T>(result: io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

#[test]
fn what_is_revoked_is_all_of_one_export_and_nothing_else() {
    let Two { table, web, db, handles, .. } = two();
    let revoked = table.revoke(b"web");
    assert_eq!((revoked.inodes.len(), revoked.handles.len()), (3, 1));
    assert!(web.iter().all(|number| errno_of(table.inode(*number)) == Some(libc::ESTALE)));
    assert!(db.iter().chain(&[ROOT]).all(|number| table.inode(*number).is_ok()));
    assert_eq!(errno_of(table.handle(web[2], handles[0])), Some(libc::ESTALE));
    assert!(table.handle(db[2], handles[1]).is_ok());
    let again = table.revoke(b"web");
    assert!(again.inodes.is_empty() && again.handles.is_empty());
}

#[test]
fn a_request_that_ran_meanwhile_brings_nothing_back() {
    let Two { table, web, directory, .. } = two();
    table.revoke(b"web");
    let file = directory.path().join("web/rootfs/file");
    assert_eq!(errno_of(table.give(web[1], b"file", inode(&file))), Some(libc::ESTALE));
    assert_eq!(errno_of(open(&table, web[2], &file)), Some(libc::ESTALE));
    // The next export of that name is another owner, and has other numbers.
    let number = table.give(ROOT, b"web", inode(&directory.path().join("web"))).unwrap().0;
    assert!(!web.contains(&number));
    assert_eq!(table.revoke(b"web").inodes.len(), 1);
}

#[test]
fn an_inode_is_there_as_often_as_it_was_given() {
    let Two { table, web, directory, .. } = two();
    let file = inode(&directory.path().join("web/rootfs/file"));
    let again = |table: &Table| table.give_again(web[1], b"file", &file.id()).unwrap().map(|given| given.0);
    assert_eq!(again(&table), Some(web[2]));
    assert_eq!(table.give(web[1], b"other", Arc::clone(&file)).unwrap().0, web[2], "it is known");
    assert!(table.forget(web[2], 2).is_none());
    assert!(table.forget(web[2], 9).is_some());
    assert!(table.forget(web[2], 1).is_none());
    assert!(table.forget(ROOT, 9).is_none() && table.inode(ROOT).is_ok());
    assert_eq!(again(&table), None);
    assert!(table.give(web[1], b"file", Arc::clone(&file)).unwrap().0 > web[2], "no number comes back");
}

#[test]
fn a_handle_is_one_inodes_and_goes_once() {
    let Two { table, web, db, handles, .. } = two();
    assert_eq!(errno_of(table.handle(db[2], handles[0])), Some(libc::EBADF));
    assert_eq!(errno_of(table.close(db[2], handles[0])), Some(libc::EBADF));
    assert!(table.close(web[2], handles[0]).is_ok());
    assert_eq!(errno_of(table.close(web[2], handles[0])), Some(libc::EBADF));
}

#[test]
fn a_guest_that_starts_over_has_nothing_but_the_root() {
    let Two { table, web, handles, directory, .. } = two();
    let old = table.start_over(Some(inode(directory.path())));
    assert_eq!((old.inodes.len(), old.handles.len()), (7, 2));
    assert!(table.inode(ROOT).is_ok());
    assert_eq!(errno_of(table.handle(web[2], handles[0])), Some(libc::ESTALE));
    table.start_over(None);
    assert_eq!(errno_of(table.inode(ROOT)), Some(libc::EBADF), "nothing is mounted");
}
