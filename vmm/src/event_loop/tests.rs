use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;

const WAIT: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct Counter {
    fd: EventFd,
    deadline: Option<Instant>,
    seen: Sender<&'static str>,
}

impl Subscriber for Counter {
    fn start(&mut self, registrar: &mut Registrar<'_>) -> io::Result<()> {
        registrar.add(borrow(&self.fd), Token(7), Events::IN)
    }

    fn ready(&mut self, token: Token, events: Events, _registrar: &mut Registrar<'_>) {
        assert_eq!(token, Token(7));
        assert!(events.contains(Events::IN));
        self.fd.read().unwrap();
        self.seen.send("ready").unwrap();
    }

    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    fn expired(&mut self, _registrar: &mut Registrar<'_>) {
        self.deadline = None;
        self.seen.send("expired").unwrap();
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        let _ = self.seen.send("dropped");
    }
}

fn counter(deadline: Option<Instant>) -> (Box<Counter>, EventFd, Receiver<&'static str>) {
    let fd = EventFd::new(EFD_NONBLOCK).unwrap();
    let (seen, seeing) = channel();
    (Box::new(Counter { fd: fd.try_clone().unwrap(), deadline, seen }), fd, seeing)
}

#[test]
fn a_subscriber_hears_its_descriptors_and_is_dropped_before_remove_returns() {
    let event_loop = EventLoop::spawn().unwrap();
    let (subscriber, fd, seen) = counter(None);
    let id = event_loop.handle().add(subscriber).unwrap();
    fd.write(1).unwrap();
    assert_eq!(seen.recv_timeout(WAIT), Ok("ready"));
    event_loop.handle().remove(id).unwrap();
    assert_eq!(seen.try_recv(), Ok("dropped"));
}

#[test]
fn a_deadline_in_the_past_expires_once() {
    let event_loop = EventLoop::spawn().unwrap();
    let (subscriber, fd, seen) = counter(Some(Instant::now()));
    event_loop.handle().add(subscriber).unwrap();
    assert_eq!(seen.recv_timeout(WAIT), Ok("expired"));
    fd.write(1).unwrap();
    assert_eq!(seen.recv_timeout(WAIT), Ok("ready"));
}

#[test]
fn a_subscriber_that_cannot_start_is_refused_and_dropped() {
    #[derive(Debug)]
    struct Broken;
    impl Subscriber for Broken {
        fn start(&mut self, _registrar: &mut Registrar<'_>) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }
        fn ready(&mut self, _token: Token, _events: Events, _registrar: &mut Registrar<'_>) {}
    }
    let event_loop = EventLoop::spawn().unwrap();
    assert!(matches!(event_loop.handle().add(Box::new(Broken)), Err(LoopError::Start { .. })));
}

#[test]
fn removing_an_unknown_subscriber_changes_nothing() {
    let event_loop = EventLoop::spawn().unwrap();
    event_loop.handle().remove(SubscriberId(99)).unwrap();
}

#[test]
fn a_descriptor_with_copies_elsewhere_can_be_watched_again_after_its_subscriber_went() {
    let event_loop = EventLoop::spawn().unwrap();
    let (first, fd, _seen) = counter(None);
    let id = event_loop.handle().add(first).unwrap();
    event_loop.handle().remove(id).unwrap();
    let (mut second, _, seen) = counter(None);
    second.fd = fd.try_clone().unwrap();
    event_loop.handle().add(second).unwrap();
    fd.write(1).unwrap();
    assert_eq!(seen.recv_timeout(WAIT), Ok("ready"));
}
