use std::sync::atomic::{AtomicU32, Ordering};

use virtio_bindings::virtio_mmio::*;
use vm_memory::{Bytes as _, GuestAddress};

use super::*;
use crate::{
    devices::{
        device::{ActivateError, Activation, copy_config},
        queue::{ActiveQueue, QueueError},
        testing::Ring,
    },
    memory::HUGE_PAGE,
};

const SLOT: Slot = Slot(2);
const VERSION_1: u64 = 1 << 32;
const OWN_FEATURE: u64 = 1 << 5;

#[derive(Debug, Default)]
struct Seen {
    activated: AtomicU32,
    reset: AtomicU32,
    features: std::sync::atomic::AtomicU64,
    activation: Mutex<Option<Activation>>,
}

#[derive(Debug)]
struct Probe {
    seen: Arc<Seen>,
    refuse: bool,
}

impl VirtioDevice for Probe {
    fn device_id(&self) -> u32 {
        4
    }
    fn features(&self) -> u64 {
        OWN_FEATURE
    }
    fn queue_sizes(&self) -> &[u16] {
        &[8, 16]
    }
    fn read_config(&self, offset: u64, data: &mut [u8]) {
        copy_config(b"config", offset, data);
    }
    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        if self.refuse {
            return Err(ActivateError { device: "probe", source: "told to".into() });
        }
        self.seen.activated.fetch_add(1, Ordering::Relaxed);
        self.seen.features.store(activation.features, Ordering::Relaxed);
        *self.seen.activation.lock().unwrap() = Some(activation);
        Ok(())
    }
    fn reset(&mut self) {
        self.seen.reset.fetch_add(1, Ordering::Relaxed);
        *self.seen.activation.lock().unwrap() = None;
    }
}

#[derive(Debug, Default)]
struct Log(Mutex<Vec<String>>);

impl Wires for Arc<Log> {
    fn connect(&self, slot: Slot, _: &Interrupt, kicks: &[Arc<EventFd>]) -> io::Result<()> {
        self.0.lock().unwrap().push(format!("connect {} {}", slot.0, kicks.len()));
        Ok(())
    }
    fn disconnect(&self, slot: Slot, _: &Interrupt, kicks: &[Arc<EventFd>]) {
        self.0.lock().unwrap().push(format!("disconnect {} {}", slot.0, kicks.len()));
    }
}

/// A driver in front of one slot.
struct Driver {
    slots: Slots,
    seen: Arc<Seen>,
    wires: Arc<Log>,
    memory: Memory,
}

impl Driver {
    fn new() -> Self {
        Self::with(false)
    }

    fn with(refuse: bool) -> Self {
        let (seen, wires) = (Arc::<Seen>::default(), Arc::<Log>::default());
        let memory = Memory::anonymous(HUGE_PAGE).unwrap();
        let slots = Slots::new(Box::new(Arc::clone(&wires)), memory.clone());
        slots.plug(SLOT, Box::new(Probe { seen: Arc::clone(&seen), refuse })).unwrap();
        Self { slots, seen, wires, memory }
    }

    fn read(&self, register: u32) -> u32 {
        let mut data = [0xaa; 4];
        assert!(self.slots.read(address(SLOT) + u64::from(register), &mut data));
        u32::from_le_bytes(data)
    }

    fn write(&self, register: u32, value: u32) {
        assert!(self.slots.write(address(SLOT) + u64::from(register), &value.to_le_bytes()));
    }

    fn status(&self, bits: u32) -> u32 {
        self.write(VIRTIO_MMIO_STATUS, bits);
        self.read(VIRTIO_MMIO_STATUS)
    }

    fn accept(&self, features: u64) {
        for (select, half) in [(0, features as u32), (1, (features >> 32) as u32)] {
            self.write(VIRTIO_MMIO_DRIVER_FEATURES_SEL, select);
            self.write(VIRTIO_MMIO_DRIVER_FEATURES, half);
        }
    }

    fn set_queue(&self, index: u32, at: u64, size: u16) {
        let setup = Ring::new(&self.memory, at, size).setup;
        self.write(VIRTIO_MMIO_QUEUE_SEL, index);
        self.write(VIRTIO_MMIO_QUEUE_NUM, setup.size);
        for (low, high, value) in [
            (VIRTIO_MMIO_QUEUE_DESC_LOW, VIRTIO_MMIO_QUEUE_DESC_HIGH, setup.descriptors),
            (VIRTIO_MMIO_QUEUE_AVAIL_LOW, VIRTIO_MMIO_QUEUE_AVAIL_HIGH, setup.avail),
            (VIRTIO_MMIO_QUEUE_USED_LOW, VIRTIO_MMIO_QUEUE_USED_HIGH, setup.used),
        ] {
            self.write(low, value as u32);
            self.write(high, (value >> 32) as u32);
        }
        self.write(VIRTIO_MMIO_QUEUE_READY, 1);
    }

    /// As Linux does it.
    fn probe(&self, features: u64) -> u32 {
        for status in [0, 1, 3] {
            self.status(status);
        }
        self.accept(features);
        if self.status(0xb) != 0xb {
            return self.read(VIRTIO_MMIO_STATUS);
        }
        self.set_queue(0, 0x1_0000, 8);
        self.set_queue(1, 0x2_0000, 16);
        self.status(0xf)
    }

    fn activated(&self) -> u32 {
        self.seen.activated.load(Ordering::Relaxed)
    }
}

#[test]
fn a_driver_that_follows_the_rules_gets_a_live_device() {
    let driver = Driver::new();
    assert_eq!(driver.read(VIRTIO_MMIO_MAGIC_VALUE), 0x7472_6976);
    assert_eq!(driver.read(VIRTIO_MMIO_VERSION), 2);
    assert_eq!(driver.read(VIRTIO_MMIO_DEVICE_ID), 4);
    assert_eq!(driver.probe(VERSION_1 | OWN_FEATURE), 0xf);
    assert_eq!(driver.activated(), 1);
    assert_eq!(driver.seen.features.load(Ordering::Relaxed), VERSION_1 | OWN_FEATURE);
    let activation = driver.seen.activation.lock().unwrap();
    let sizes: Vec<u16> = activation.as_ref().unwrap().queues.iter().map(ActiveQueue::size).collect();
    assert_eq!(sizes, [8, 16]);
}

#[test]
fn an_empty_slot_is_a_placeholder_whatever_is_written() {
    let driver = Driver::new();
    let slots = &driver.slots;
    let empty = address(Slot(3));
    assert!(slots.write(empty + 0x70, &1_u32.to_le_bytes()));
    for (offset, expected) in [(0, MAGIC), (4, 2), (8, 0), (0x70, 0), (0x100, 0)] {
        let mut data = [0xaa; 4];
        assert!(slots.read(empty + offset, &mut data));
        assert_eq!(u32::from_le_bytes(data), expected, "{offset:#x}");
    }
}

#[test]
fn addresses_outside_of_the_slots_are_nobodys() {
    let driver = Driver::new();
    for address in [0, BASE - 1, BASE + SIZE * SLOTS as u64, BASE + SIZE * 256, u64::MAX] {
        assert!(!driver.slots.read(address, &mut [0; 4]), "{address:#x}");
        assert!(!driver.slots.write(address, &[0; 4]), "{address:#x}");
    }
}

#[test]
fn a_status_that_skips_a_step_or_goes_back_is_ignored() {
    let driver = Driver::new();
    assert_eq!(driver.status(3), 0);
    assert_eq!(driver.status(0xf), 0);
    assert_eq!(driver.status(1), 1);
    assert_eq!(driver.status(0xb), 1);
    assert_eq!(driver.status(3), 3);
    assert_eq!(driver.status(1), 3);
    assert_eq!(driver.status(0xf), 3);
    assert_eq!(driver.status(0x83), 0x83);
    assert_eq!(driver.status(0xb), 0x83, "a failed device stays failed until reset");
    assert_eq!(driver.status(0), 0);
    assert_eq!(driver.activated(), 0);
}

#[test]
fn features_that_were_not_offered_or_lack_version_1_are_refused() {
    let driver = Driver::new();
    assert_eq!(driver.probe(VERSION_1 | 1 << 6), 3);
    assert_eq!(driver.probe(OWN_FEATURE), 3);
    assert_eq!(driver.activated(), 0);
    assert_eq!(driver.probe(VERSION_1), 0xf);
}

#[test]
fn offered_features_are_the_devices_and_the_transports() {
    let driver = Driver::new();
    assert_eq!(driver.read(VIRTIO_MMIO_DEVICE_FEATURES), (OWN_FEATURE | 1 << 29) as u32);
    driver.write(VIRTIO_MMIO_DEVICE_FEATURES_SEL, 1);
    assert_eq!(driver.read(VIRTIO_MMIO_DEVICE_FEATURES), 1);
    driver.write(VIRTIO_MMIO_DEVICE_FEATURES_SEL, 2);
    assert_eq!(driver.read(VIRTIO_MMIO_DEVICE_FEATURES), 0);
}

#[test]
fn queue_registers_are_read_only_once_the_device_is_live() {
    let driver = Driver::new();
    driver.probe(VERSION_1);
    driver.write(VIRTIO_MMIO_QUEUE_SEL, 0);
    driver.write(VIRTIO_MMIO_QUEUE_NUM, 4096);
    driver.write(VIRTIO_MMIO_QUEUE_READY, 0);
    assert_eq!(driver.read(VIRTIO_MMIO_QUEUE_READY), 1);
    assert_eq!(driver.status(0xf), 0xf);
    assert_eq!(driver.activated(), 1, "DRIVER_OK again is not a second activation");
}

#[test]
fn a_queue_out_of_bounds_makes_the_device_ask_for_reset() {
    let driver = Driver::new();
    for status in [1, 3] {
        driver.status(status);
    }
    driver.accept(VERSION_1);
    driver.status(0xb);
    driver.set_queue(0, 0x1_0000, 8);
    driver.set_queue(1, HUGE_PAGE as u64, 16);
    assert_eq!(driver.status(0xf), 0x4f);
    assert_eq!(driver.read(VIRTIO_MMIO_INTERRUPT_STATUS), 3);
    assert_eq!(driver.activated(), 0);
    assert_eq!(driver.status(0), 0);
    assert_eq!(driver.read(VIRTIO_MMIO_INTERRUPT_STATUS), 1);
    assert_eq!(driver.probe(VERSION_1), 0xf);
}

#[test]
fn a_device_that_refuses_activation_asks_for_reset() {
    assert_eq!(Driver::with(true).probe(VERSION_1), 0x4f);
}

#[test]
fn a_reset_stops_the_device_and_forgets_all_registers() {
    let driver = Driver::new();
    driver.probe(VERSION_1);
    let resets = driver.seen.reset.load(Ordering::Relaxed);
    assert_eq!(driver.status(0), 0);
    assert_eq!(driver.seen.reset.load(Ordering::Relaxed), resets + 1);
    driver.write(VIRTIO_MMIO_QUEUE_SEL, 1);
    assert_eq!(driver.read(VIRTIO_MMIO_QUEUE_READY), 0);
    assert_eq!(driver.probe(VERSION_1), 0xf);
    assert_eq!(driver.activated(), 2);
}

#[test]
fn a_queue_that_does_not_exist_has_no_size_and_takes_no_writes() {
    let driver = Driver::new();
    for select in [2, u32::MAX] {
        driver.write(VIRTIO_MMIO_QUEUE_SEL, select);
        assert_eq!(driver.read(VIRTIO_MMIO_QUEUE_NUM_MAX), 0);
        driver.write(VIRTIO_MMIO_QUEUE_READY, 1);
        assert_eq!(driver.read(VIRTIO_MMIO_QUEUE_READY), 0);
    }
    driver.write(VIRTIO_MMIO_QUEUE_SEL, 1);
    assert_eq!(driver.read(VIRTIO_MMIO_QUEUE_NUM_MAX), 16);
    driver.write(VIRTIO_MMIO_QUEUE_NOTIFY, 77);
}

#[test]
fn a_config_change_is_acknowledged_and_used_buffers_always_wait() {
    let driver = Driver::new();
    driver.probe(VERSION_1);
    {
        let activation = driver.seen.activation.lock().unwrap();
        let interrupt = &activation.as_ref().unwrap().interrupt;
        interrupt.signal_queue();
        interrupt.signal_config();
        assert_eq!(interrupt.irqfd().read().unwrap(), 2);
    }
    assert_eq!(driver.read(VIRTIO_MMIO_INTERRUPT_STATUS), 3);
    assert_eq!(driver.read(VIRTIO_MMIO_CONFIG_GENERATION), 1);
    driver.write(VIRTIO_MMIO_INTERRUPT_ACK, 1);
    assert_eq!(driver.read(VIRTIO_MMIO_INTERRUPT_STATUS), 3);
    driver.write(VIRTIO_MMIO_INTERRUPT_ACK, 3);
    assert_eq!(driver.read(VIRTIO_MMIO_INTERRUPT_STATUS), 1);
}

#[test]
fn there_is_no_shared_memory_region() {
    let driver = Driver::new();
    assert_eq!(driver.read(VIRTIO_MMIO_SHM_LEN_LOW), u32::MAX);
    assert_eq!(driver.read(VIRTIO_MMIO_SHM_LEN_HIGH), u32::MAX);
}

#[test]
fn accesses_of_any_width_and_place_are_harmless() {
    let driver = Driver::new();
    driver.probe(VERSION_1);
    for offset in 0..SIZE {
        for width in [1, 2, 4, 8] {
            let mut data = vec![0xaa; width];
            assert!(driver.slots.read(address(SLOT) + offset, &mut data));
            // Status last, since it resets.
            if offset / 4 * 4 != u64::from(VIRTIO_MMIO_STATUS) {
                assert!(driver.slots.write(address(SLOT) + offset, &vec![0xff; width]));
            }
        }
    }
    let mut byte = [0];
    assert!(driver.slots.read(address(SLOT) + 0x102, &mut byte));
    assert_eq!(byte, *b"n", "config space is read by any width");
    assert_eq!(driver.activated(), 1);
}

#[test]
fn a_slot_is_filled_once_and_emptied_once() {
    let driver = Driver::new();
    let device = || Box::new(Probe { seen: Arc::clone(&driver.seen), refuse: false });
    assert!(matches!(driver.slots.plug(SLOT, device()), Err(SlotError::Taken(SLOT))));
    assert!(matches!(driver.slots.plug(Slot(SLOTS as u8), device()), Err(SlotError::NoSuch(_))));
    driver.probe(VERSION_1);
    driver.slots.unplug(SLOT).unwrap();
    assert!(driver.seen.activation.lock().unwrap().is_none(), "unplug resets the device");
    assert!(matches!(driver.slots.unplug(SLOT), Err(SlotError::Empty(SLOT))));
    assert_eq!(driver.read(VIRTIO_MMIO_DEVICE_ID), 0);
    driver.slots.plug(SLOT, device()).unwrap();
    assert_eq!(driver.read(VIRTIO_MMIO_STATUS), 0);
    let log = driver.wires.0.lock().unwrap();
    assert_eq!(*log, ["connect 2 2", "disconnect 2 2", "connect 2 2"]);
}

#[test]
fn every_slot_has_its_own_pin_of_the_ioapic() {
    let mut pins: Vec<u32> = (0..SLOTS as u8).map(|slot| gsi(Slot(slot))).collect();
    assert!(pins.iter().all(|pin| (5..24).contains(pin) && *pin != 8));
    pins.dedup();
    assert_eq!(pins.len(), SLOTS);
}

#[test]
fn counters_carry_the_devices_name() {
    let driver = Driver::new();
    driver.probe(VERSION_1);
    let device = Probe { seen: Arc::default(), refuse: false };
    driver.slots.plug(Slot(9), Box::new(device)).unwrap();
    let metrics = driver.slots.metrics();
    assert!(metrics.contains(&("rng.activations".into(), 1)), "{metrics:?}");
    assert!(metrics.contains(&("rng9.activations".into(), 0)), "{metrics:?}");
}

#[test]
fn a_nudge_raises_the_interrupt_of_each_device_and_the_driver_finds_it() {
    let driver = Driver::new();
    driver.slots.plug(Slot(9), Box::new(Probe { seen: Arc::default(), refuse: false })).unwrap();
    driver.slots.nudge();
    for slot in [SLOT, Slot(9)] {
        let guard = driver.slots.lock(slot).unwrap();
        let interrupt = guard.as_ref().unwrap().interrupt();
        assert_eq!(interrupt.irqfd().read().unwrap(), 1);
    }
    assert_eq!(driver.read(VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_VRING);
}

/// A state of a live device, with the rings of `Driver::probe`.
fn live_state() -> (Driver, TransportState) {
    let driver = Driver::new();
    driver.probe(VERSION_1);
    let state = driver.slots.state(SLOT).unwrap();
    (driver, state)
}

#[test]
fn a_device_that_is_restored_raises_its_interrupt_and_starts_behind_what_was_served() {
    let (driver, state) = live_state();
    assert!(driver.seen.activation.lock().unwrap().is_none(), "a device whose state is taken does not serve");
    driver.memory.write_obj(41_u16, GuestAddress(0x1_0000 + 0x2000 + 2)).unwrap();
    driver.slots.restore(SLOT, &state).unwrap();
    let activation = driver.seen.activation.lock().unwrap();
    let activation = activation.as_ref().unwrap();
    let taken: Vec<_> = activation.queues.iter().map(ActiveQueue::taken).collect();
    assert_eq!(taken, [41, 0]);
    assert_eq!(activation.features, VERSION_1);
    assert_eq!(activation.interrupt.irqfd().read().unwrap(), 1);
}

#[test]
fn a_state_that_no_driver_can_have_brought_about_is_refused_by_name() {
    let refused = |change: &dyn Fn(&mut TransportState)| {
        let (driver, mut state) = live_state();
        change(&mut state);
        let error = driver.slots.restore(SLOT, &state).unwrap_err();
        assert_eq!(driver.read(VIRTIO_MMIO_STATUS), 0, "{error}");
        error
    };
    assert!(matches!(refused(&|state| state.device_id = 1), RestoreError::Device { state: 1, slot: 4 }));
    assert!(matches!(refused(&|state| state.status = 2), RestoreError::Status(2)));
    assert!(matches!(refused(&|state| state.status = 0x4f), RestoreError::Status(0x4f)));
    assert!(matches!(
        refused(&|state| state.driver_features = 1),
        RestoreError::Features { accepted: 1, .. }
    ));
    assert!(matches!(
        refused(&|state| state.queues.truncate(1)),
        RestoreError::Queues { state: 1, device: 2 }
    ));
    let outside = refused(&|state| state.queues[1].used = HUGE_PAGE as u64);
    assert!(matches!(outside, RestoreError::Start(StartError::Queue(QueueError::Address { index: 1, .. }))));
    let empty = Driver::new().slots.restore(Slot(3), &live_state().1).unwrap_err();
    assert!(matches!(empty, RestoreError::Slot(SlotError::Empty(Slot(3)))));
}
