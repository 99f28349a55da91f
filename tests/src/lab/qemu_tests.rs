use std::fs;

use super::*;

#[test]
fn a_program_is_started_as_it_is() {
    let command = Qemu::at(Path::new("/bin/sh")).unwrap().command();
    assert_eq!((command.get_program(), command.get_args().len()), ("/bin/sh".as_ref(), 0));
}

#[test]
fn an_unpacked_one_is_started_by_its_own_loader_with_its_own_libraries_and_data() {
    let root = tempfile::tempdir().unwrap();
    for file in [LOADER, PROGRAM] {
        let path = root.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }
    let command = Qemu::at(root.path()).unwrap().command();
    let below = |file: &str| root.path().join(file).into_os_string();
    assert_eq!(command.get_program(), below(LOADER));
    let wanted = [
        "--library-path".into(),
        below(LIBRARIES),
        below(PROGRAM),
        "-L".into(),
        below("usr/share/qemu"),
        "-L".into(),
        below("usr/share/seabios"),
    ];
    assert_eq!(command.get_args().collect::<Vec<_>>(), wanted);
}

#[test]
fn a_directory_without_a_qemu_is_refused_by_the_missing_file() {
    let root = tempfile::tempdir().unwrap();
    let error = Qemu::at(root.path()).unwrap_err().to_string();
    assert!(error.ends_with("ld-linux-x86-64.so.2 is missing"), "{error}");
}
