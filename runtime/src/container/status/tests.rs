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
    for event in [Made, Start, Pause, Resume, Exit] {
        assert_eq!(Stopped.after(event), Err(Refused { event, status: Stopped }));
    }
}

#[test]
fn a_process_starts_once() {
    for status in [Creating, Starting, Running, Paused, Stopped] {
        assert!(status.after(Start).is_err(), "{status:?}");
    }
}

#[test]
fn a_process_may_die_whenever_the_guest_knows_it() {
    for status in [Created, Starting, Running, Paused] {
        assert_eq!(status.after(Exit), Ok(Stopped));
    }
    assert!(Creating.after(Exit).is_err());
}

#[test]
fn only_what_runs_is_paused_and_only_what_is_paused_resumes() {
    assert_eq!((Running.after(Pause), Paused.after(Resume)), (Ok(Paused), Ok(Running)));
    for status in [Creating, Created, Starting, Paused, Stopped] {
        assert!(status.after(Pause).is_err(), "{status:?}");
    }
    for status in [Creating, Created, Starting, Running, Stopped] {
        assert!(status.after(Resume).is_err(), "{status:?}");
    }
}
