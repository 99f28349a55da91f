use super::*;

#[test]
fn no_more_are_served_at_once_than_there_are_places_and_the_others_come_in_order() {
    let slow = Slow::new(2, 10);
    assert_eq!([slow.enter(1), slow.enter(2)], [Some(1), Some(2)]);
    // A third worker finds both places taken, and is free for other requests.
    assert_eq!([slow.enter(3), slow.enter(4)], [None, None]);
    assert_eq!(slow.leave(), Some(3));
    assert_eq!(slow.enter(5), None);
    assert_eq!([slow.leave(), slow.leave(), slow.leave(), slow.leave()], [Some(4), Some(5), None, None]);
    assert_eq!([slow.enter(6), slow.enter(7), slow.enter(8)], [Some(6), Some(7), None]);
}

#[test]
fn a_driver_that_offers_more_than_its_queues_hold_blocks_its_own_workers() {
    let slow = Slow::new(1, 2);
    assert_eq!(slow.enter(0), Some(0));
    assert_eq!([slow.enter(1), slow.enter(2)], [None, None]);
    assert_eq!(slow.enter(3), Some(3));
    assert_eq!([slow.leave(), slow.leave(), slow.leave(), slow.leave()], [Some(1), Some(2), None, None]);
    assert_eq!([slow.enter(4), slow.enter(5)], [Some(4), None]);
}
