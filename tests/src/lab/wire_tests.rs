use super::*;

#[test]
fn every_frame_arrives_as_it_was_sent() {
    let frames = [
        Frame::Request(b"{}".to_vec()),
        Frame::Stdin(vec![0, 255, b'\n']),
        Frame::Stdin(Vec::new()),
        Frame::Resize(WindowSize { rows: 24, columns: 80 }),
        Frame::Stdout(vec![7; MAX_FRAME]),
        Frame::Stderr(b"oops".to_vec()),
        Frame::Exit(Exit::Signal(9)),
        Frame::Refused("no such file".into()),
    ];
    let mut bytes = Vec::new();
    for frame in &frames {
        send(&mut bytes, frame).unwrap();
    }
    let mut from = bytes.as_slice();
    for frame in &frames {
        assert_eq!(receive(&mut from).unwrap().as_ref(), Some(frame));
    }
    assert_eq!(receive(&mut from).unwrap(), None);
}

#[test]
fn a_frame_longer_than_the_limit_is_refused_on_both_sides() {
    let too_long = Frame::Stdout(vec![0; MAX_FRAME + 1]);
    assert!(send(&mut Vec::new(), &too_long).is_err());
    let mut claim = vec![b'o'];
    claim.extend_from_slice(&u32::MAX.to_le_bytes());
    assert!(receive(&mut claim.as_slice()).is_err());
}

#[test]
fn a_frame_that_is_cut_off_is_an_error_and_not_the_end() {
    let mut bytes = Vec::new();
    send(&mut bytes, &Frame::Stdout(b"hello".to_vec())).unwrap();
    bytes.pop();
    assert!(receive(&mut bytes.as_slice()).is_err());
}

#[test]
fn a_death_by_signal_shows_as_a_shell_would_show_it() {
    assert_eq!(Exit::Signal(9).status(), 137);
    assert_eq!(Exit::Code(42).status(), 42);
}
