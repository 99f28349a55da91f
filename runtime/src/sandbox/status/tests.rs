use super::{Event::*, Status::*, *};

#[test]
fn a_life_goes_from_creating_to_stopped() {
    let life = [(Made, Created), (Start, Starting), (Started, Running), (Exit, Stopped)];
    let mut status = Creating;
    for (event, next) in life {
        status = status.after(event).unwrap();
        assert_eq!(status, next);
    }
}

#[test]
fn nothing_happens_after_stopped_but_the_late_news_that_it_had_started() {
    assert_eq!(Stopped.after(Started), Ok(Stopped));
    for event in [Made, Start, Exit] {
        assert_eq!(Stopped.after(event), Err(Refused { event, status: Stopped }));
    }
}

#[test]
fn a_process_starts_once() {
    for status in [Creating, Starting, Running, Stopped] {
        assert!(status.after(Start).is_err(), "{status:?}");
    }
}

#[test]
fn a_process_may_die_whenever_the_guest_knows_it() {
    for status in [Created, Starting, Running] {
        assert_eq!(status.after(Exit), Ok(Stopped));
    }
    assert!(Creating.after(Exit).is_err());
}
