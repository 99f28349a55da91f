//! Whose a new file is, and who decides whether it may be made.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use super::{guest::of_user, *};

/// Root of a user namespace in the guest is another user to the host. Its kernel knows that it may pass all modes there.
#[test]
fn the_guests_kernel_decides_who_may_write_to_a_directory() {
    let mut guest = Guest::mount(false);
    fs::set_permissions(guest.outside(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(guest.share(), fs::Permissions::from_mode(0o555)).unwrap();
    let create = body().u32(libc::O_RDWR as u32).u32(0o640).u32(0).u32(0).name("created");
    for (opcode, body) in [
        (op::MKDIR, body().u32(0o750).u32(0).name("directory")),
        (op::MKNOD, body().u32(libc::S_IFREG | 0o600).u32(0).u32(0).u32(0).name("node")),
        (op::SYMLINK, body().name("link").name("target")),
        (op::CREATE, create),
    ] {
        let made = guest.raw(&of_user(message(opcode, ROOT, body), 1000), 4096).unwrap();
        assert_eq!(made.errno, 0, "operation {opcode}");
    }
    for name in ["directory", "node", "link", "created"] {
        let meta = fs::symlink_metadata(guest.share().join(name)).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (1000, 1000), "{name}");
    }
    // The next caller is root again, with all that it may do.
    let made = guest.call(op::MKDIR, ROOT, body().u32(0o700).u32(0).name("of root")).node();
    let owner = body().u32(1 << 1 | 1 << 2).u32(0).bytes(&[0; 68]).u32(7).u32(8).bytes(&[0; 4]);
    assert_eq!(guest.call(op::SETATTR, made, owner).errno, 0);
    let meta = fs::metadata(guest.share().join("of root")).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (7, 8));
}
