use vhost_user_backend::bitmap::BitmapMmapRegion;
use vm_memory::{Bytes, GuestAddress, GuestMemory};

use super::*;

#[test]
fn memory_is_aligned_to_large_pages_and_zero() {
    let memory = Memory::anonymous(5 << 20).unwrap();
    assert_eq!(memory.host_address() as usize % HUGE_PAGE, 0);
    assert_eq!(memory.size(), 6 << 20);
    assert_eq!(memory.last_addr(), GuestAddress((6 << 20) - 1));
    assert_eq!(memory.read_obj::<u64>(GuestAddress(0x1234)).unwrap(), 0);
}

#[test]
fn a_second_view_sees_the_same_bytes_and_outlives_the_first() {
    let memory = Memory::anonymous(HUGE_PAGE).unwrap();
    let view = memory.view::<BitmapMmapRegion>().unwrap();
    memory.write_obj(0xfeed_u16, GuestAddress(0x100)).unwrap();
    drop(memory);
    assert_eq!(view.read_obj::<u16>(GuestAddress(0x100)).unwrap(), 0xfeed);
}

#[test]
fn no_memory_at_all_is_refused() {
    assert!(Memory::anonymous(0).is_err());
}
