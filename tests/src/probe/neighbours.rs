//! What two processes have of each other in one directory: `probe meet DIRECTORY` and `probe visit DIRECTORY`.
//!
//!   host: takes locks, maps, watches, listens, prints "ready"        guest: tries all of it, and prints one line
//!
//! The guest asks and the host answers by the unix socket, one line each, so nothing waits for a time. What needs no answer is
//! tried first, for there may be nobody to connect to.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Write},
    os::{
        fd::AsRawFd,
        unix::{
            fs::OpenOptionsExt,
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

use nix::{sys::stat::Mode, unistd::mkfifo};
use rustix::{
    fs::{FlockOperation, fcntl_lock, flock, inotify},
    io::Errno,
};

/// Lines that each of the two appends, and the bytes of one.
const LINES: u64 = 500;
const LINE: &str = "ten bytes\n";
/// What the guest leaves in the mapped page.
const NUMBER: u64 = 4711;
/// For an answer: what hangs is a fault.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// A page of a file, mapped shared.
#[derive(Debug)]
struct Page(NonNull<AtomicU64>);

impl Page {
    fn of(file: &File) -> io::Result<Self> {
        file.set_len(4096)?;
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        // SAFETY: a null address lets the kernel choose, so no mapping of ours is replaced.
        let address = unsafe { libc::mmap(std::ptr::null_mut(), 4096, access, kind, file.as_raw_fd(), 0) };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        NonNull::new(address.cast()).map(Self).ok_or_else(|| io::ErrorKind::Other.into())
    }

    fn number(&self) -> &AtomicU64 {
        // SAFETY: the page is never unmapped, is aligned for the number, and holds one whatever its bytes are.
        unsafe { self.0.as_ref() }
    }
}

fn open(path: PathBuf) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
}

fn append(directory: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(directory.join("append"))?;
    (0..LINES).try_for_each(|_| file.write_all(LINE.as_bytes()))
}

fn fifo(directory: &Path, options: &mut OpenOptions) -> io::Result<File> {
    options.custom_flags(libc::O_NONBLOCK).open(directory.join("fifo"))
}

/// Waits for one guest, and answers it. Then it waits for a signal.
///
/// # Errors
/// When something cannot be made.
pub fn meet(directory: &Path) -> io::Result<()> {
    let (lock, record) = (open(directory.join("lock"))?, open(directory.join("record"))?);
    flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
    fcntl_lock(&record, FlockOperation::NonBlockingLockExclusive)?;
    mkfifo(&directory.join("fifo"), Mode::from_bits_truncate(0o666))?;
    let mut fifo = fifo(directory, OpenOptions::new().read(true))?;
    let page = Page::of(&open(directory.join("map"))?)?;
    let watch = inotify::init(inotify::CreateFlags::NONBLOCK)?;
    let listener = UnixListener::bind(directory.join("socket"))?;
    inotify::add_watch(&watch, directory, inotify::WatchFlags::CREATE)?;
    println!("ready");
    io::stdout().flush()?;
    for guest in listener.incoming() {
        let guest = guest?;
        let mut answers = guest.try_clone()?;
        for question in BufReader::new(guest).lines() {
            let answer = match question?.as_str() {
                "map" => page.number().load(Ordering::SeqCst).to_string(),
                "fifo" => {
                    let mut word = [0; 16];
                    let length = fifo.read(&mut word)?;
                    String::from_utf8_lossy(&word[..length]).into_owned()
                }
                "watch" => names(&watch)?,
                "append" => {
                    append(directory)?;
                    "done".to_owned()
                }
                _ => "what?".to_owned(),
            };
            writeln!(answers, "{answer}")?;
        }
    }
    Ok(())
}

/// The names that the watch has seen so far.
fn names(watch: &rustix::fd::OwnedFd) -> io::Result<String> {
    let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
    let mut events = inotify::Reader::new(watch, &mut buffer);
    let mut names = Vec::new();
    loop {
        match events.next() {
            Ok(event) => {
                names.extend(event.file_name().map(|name| name.to_string_lossy().into_owned()));
            }
            Err(Errno::AGAIN) => return Ok(names.join(" ")),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Tries what a neighbour in the directory offers; one line of words and what came of them.
///
/// # Errors
/// When not even a file can be opened.
pub fn visit(directory: &Path) -> io::Result<String> {
    let held = |outcome: Result<(), Errno>| match outcome {
        Ok(()) => "free",
        Err(Errno::AGAIN | Errno::ACCESS) => "held",
        Err(_) => "failed",
    };
    let lock = held(flock(open(directory.join("lock"))?, FlockOperation::NonBlockingLockExclusive));
    let record = held(fcntl_lock(open(directory.join("record"))?, FlockOperation::NonBlockingLockExclusive));
    let rest = talk(directory).unwrap_or_else(|error| {
        format!("{:?}", nix::errno::Errno::from_raw(error.raw_os_error().unwrap_or(0)))
    });
    Ok(format!("flock {lock}, record {record}, {rest}"))
}

fn talk(directory: &Path) -> io::Result<String> {
    let mut host = UnixStream::connect(directory.join("socket"))?;
    host.set_read_timeout(Some(PATIENCE))?;
    let mut answers = BufReader::new(host.try_clone()?);
    let mut ask = |question: &str| -> io::Result<String> {
        writeln!(host, "{question}")?;
        let mut answer = String::new();
        answers.read_line(&mut answer)?;
        Ok(answer.trim_end().to_owned())
    };
    Page::of(&open(directory.join("map"))?)?.number().store(NUMBER, Ordering::SeqCst);
    let map = ask("map")?;
    fifo(directory, OpenOptions::new().write(true))?.write_all(b"through")?;
    let fifo = ask("fifo")?;
    fs::write(directory.join("new"), "")?;
    let watch = ask("watch")?;
    // Both write at once.
    let own = {
        let directory = directory.to_owned();
        std::thread::spawn(move || append(&directory))
    };
    ask("append")?;
    own.join().map_err(|_| io::ErrorKind::Other)??;
    let text = fs::read_to_string(directory.join("append"))?;
    let whole = text.split_inclusive('\n').all(|line| line == LINE);
    let lines = if whole { text.lines().count() as u64 } else { 0 };
    let append = if lines == 2 * LINES { "whole" } else { "torn" };
    Ok(format!("map {map}, fifo {fifo}, watch {watch}, append {append}"))
}
