use std::sync::Arc;

use super::{
    super::fake::{FakeAgent, Guest, SIZES, vmm},
    *,
};

/// A machine of 64 MiB and one vCPU that may have 256 and 2.
struct Test {
    machine: Machine,
    agent: Agent,
    fake: FakeAgent,
}

impl Test {
    fn new() -> Self {
        let fake = FakeAgent::default();
        let (vmm, _) = vmm(Guest::Works, fake.clone());
        Self { machine: Machine::new(vmm, SIZES, None, Memory::Limited), agent: fake.connect(), fake }
    }

    async fn resize(&self, memory_mib: Option<u32>, vcpus: Option<u32>) -> Result<Size, ResizeError> {
        let mut held = self.machine.hold().await;
        held.resize(&self.agent, Need { memory_mib, vcpus }).await?;
        Ok(held.size())
    }

    /// What VMM and agent were asked since the last call, looks at the counters left out.
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.fake.machine().asked)
    }
}

fn size(memory_mib: u32, vcpus: u8) -> Size {
    Size { memory_mib, vcpus }
}

#[tokio::test]
async fn a_machine_grows_and_shrinks_in_memory_and_vcpus() {
    let test = Test::new();
    assert_eq!(test.resize(Some(200), Some(2)).await.unwrap(), size(200, 2));
    assert_eq!(test.asked(), ["plug 5", "bind 5", "memory 200", "cpus 2", "nudge"]);
    assert_eq!(test.resize(Some(250), None).await.unwrap(), size(250, 2));
    assert_eq!(test.asked(), ["memory 250"]);
    assert_eq!(test.resize(Some(100), Some(1)).await.unwrap(), size(100, 1));
    assert_eq!(test.asked(), ["cpus 1", "nudge", "memory 100"]);
}

#[tokio::test]
async fn a_size_that_is_there_already_asks_nobody() {
    let test = Test::new();
    assert_eq!(test.resize(None, None).await.unwrap(), size(64, 1));
    assert_eq!(test.resize(Some(64), Some(1)).await.unwrap(), size(64, 1));
    assert_eq!(test.asked(), Vec::<String>::new());
    test.resize(Some(128), None).await.unwrap();
    test.asked();
    assert_eq!(test.resize(Some(128), None).await.unwrap(), size(128, 1));
    assert_eq!(test.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn a_machine_stays_within_its_bounds() {
    let test = Test::new();
    assert_eq!(test.resize(Some(u32::MAX), Some(u32::MAX)).await.unwrap(), size(256, 2));
    assert_eq!(test.resize(Some(0), Some(0)).await.unwrap(), size(64, 1));
}

#[tokio::test]
async fn vcpus_that_fail_take_the_memory_back() {
    let test = Test::new();
    test.fake.machine().refuses_cpus = true;
    let error = test.resize(Some(128), Some(2)).await.unwrap_err();
    assert!(matches!(error, ResizeError::Agent { .. }), "{error}");
    assert_eq!(
        test.asked(),
        ["plug 5", "bind 5", "memory 128", "cpus 2", "nudge", "cpus 1", "nudge", "memory 64"]
    );
    test.fake.machine().refuses_cpus = false;
    assert_eq!(test.resize(Some(128), Some(2)).await.unwrap(), size(128, 2));
    assert_eq!(test.asked(), ["memory 128", "cpus 2", "nudge"]);
}

#[tokio::test]
async fn a_device_that_cannot_be_bound_is_unplugged_and_tried_again_the_next_time() {
    let test = Test::new();
    test.fake.machine().refuses_bind = true;
    test.resize(Some(128), None).await.unwrap_err();
    assert_eq!(test.asked(), ["plug 5", "bind 5", "unplug 5", "memory 64"]);
    test.fake.machine().refuses_bind = false;
    test.resize(Some(128), None).await.unwrap();
    assert_eq!(test.asked(), ["plug 5", "bind 5", "memory 128"]);
}

#[tokio::test]
async fn a_guest_that_does_not_plug_loses_what_it_was_offered() {
    let mut test = Test::new();
    test.machine.patience = Duration::from_millis(50);
    test.fake.machine().plugs_at_most = Some(32);
    let error = test.resize(Some(128), None).await.unwrap_err();
    assert!(matches!(error, ResizeError::Slow { plugged: 32, wanted: 64, .. }), "{error}");
    assert_eq!(test.asked().last().unwrap(), "memory 64");
}

#[tokio::test]
async fn resizes_at_once_follow_each_other() {
    let test = Arc::new(Test::new());
    let (a, b) = tokio::join!(test.resize(Some(128), None), test.resize(None, Some(2)));
    a.unwrap();
    assert_eq!(b.unwrap(), size(128, 2));
}
