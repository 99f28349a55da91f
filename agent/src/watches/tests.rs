use super::*;
use crate::host_sockets::HostSockets;

fn watches() -> Watches {
    Watches::new("/proc/self".as_ref(), Volumes::below("/none".as_ref(), HostSockets::default()))
}

#[tokio::test]
async fn who_need_not_look_answers_at_once_and_forgets_all() {
    let watches = watches();
    watches.0.state.lock().await.set.left_out = 3;
    let answer = watches.wait(false, 1).await.unwrap();
    assert_eq!((answer.generation, answer.watches.len(), answer.left_out), (2, 0, 0));
    assert_eq!(watches.wait(false, 2).await.unwrap().generation, 2);
}

#[tokio::test(start_paused = true)]
async fn a_later_call_ends_an_earlier_one() {
    let watches = watches();
    watches.0.state.lock().await.next_scan = Instant::now() + limits::WATCH_POLL / 2;
    let began = Instant::now();
    let (first, second) = tokio::join!(biased; watches.wait(true, 1), async {
        tokio::task::yield_now().await;
        watches.wait(false, 1).await
    });
    assert_eq!((first.unwrap().generation, second.unwrap().generation), (1, 1));
    assert!(began.elapsed() < limits::WATCH_POLL);
}

#[test]
fn what_scans_do_again_and_again_takes_a_small_share_of_the_time() {
    let second = Duration::from_secs(1);
    assert_eq!(pause(second / 1000, Duration::ZERO), PAUSE);
    assert_eq!(pause(second, Duration::ZERO), second * SHARE_OF_TIME);
    assert_eq!(pause(4 * second, 3 * second), second * SHARE_OF_TIME);
    assert_eq!(pause(4 * second, 4 * second), PAUSE);
}
