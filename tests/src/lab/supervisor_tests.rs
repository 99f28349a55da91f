use super::*;

#[test]
fn homes_on_their_own_disk_are_shared_and_kernel_file_systems_are_not() {
    let table = "/dev/vda / ext4 rw 0 0\n\
        proc /proc proc rw 0 0\n\
        /dev/vdb /home xfs rw 0 0\n\
        tmpfs /tmp tmpfs rw 0 0\n\
        tmpfs /run tmpfs rw 0 0\n\
        tmpfs /dev/shm tmpfs rw 0 0\n\
        /dev/vdc /with\\040blank ext4 rw 0 0\n";
    assert_eq!(real_mounts(table), [PathBuf::from("/home"), PathBuf::from("/tmp")]);
}
