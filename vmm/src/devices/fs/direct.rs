//! The requests that the library's server cannot hand on, from message to reply: locks, and files without a name.
//!
//!   header with such an opcode ─▶ `serve` ─▶ read once, checked ─▶ `Filter` ─▶ reply, or an `Answer` for later
//!
//! The library knows the messages, but its trait gives them no arguments. All other opcodes are its business.

use std::io::{self, Read as _, Write as _};

use rustix::io::Errno;
use virtiofsd::{
    descriptor_utils::{Reader, Writer},
    fuse::{
        CreateIn, EntryOut, ExtHeader, ExtType, InHeader, LkIn, LkOut, Opcode, OpenOut, OutHeader, SuppGroups,
    },
    soft_idmap::Id as _,
};
use vm_memory::ByteValued;

use super::{
    filter::Filter,
    locks::{Answer, Outcome, Request, told},
    passthrough::Caller,
};

/// A name (255 bytes) and the few groups that Linux sends along.
const MAX_EXTRA: usize = 4096;

/// How a request went on.
pub(super) enum Served {
    /// Bytes of the reply: the used length of the chain.
    Now(u32),
    /// The answer is called for it.
    Later,
}

/// Whether `serve` takes such requests.
pub(super) fn takes(opcode: Opcode) -> bool {
    matches!(opcode, Opcode::Getlk | Opcode::Setlk | Opcode::Setlkw | Opcode::TmpFile)
}

/// Serves a request that it takes. The reader is behind the header. `None`: it is no message.
pub(super) fn serve(
    filter: &Filter,
    header: &InHeader,
    opcode: Opcode,
    mut reader: Reader<'_>,
    writer: Writer<'_>,
    answer: impl FnOnce() -> Answer,
) -> Option<Served> {
    let unique = header.unique;
    let written = match opcode {
        Opcode::TmpFile => {
            let made = tmpfile(filter, header, &mut reader)?;
            reply(writer, unique, made.map(|(entry, open)| (entry, Some(open))))
        }
        Opcode::Getlk => {
            let asked: LkIn = reader.read_obj().ok()?;
            let found = Request::try_from(&asked)
                .map_err(io::Error::from)
                .and_then(|request| filter.test_lock(header.nodeid, asked.fh, &request));
            reply(writer, unique, found.map(|found| (LkOut { lk: told(found, &asked) }, NOTHING)))
        }
        Opcode::Setlk | Opcode::Setlkw => {
            let asked: LkIn = reader.read_obj().ok()?;
            let outcome = match Request::try_from(&asked) {
                Err(errno) => Outcome::Done(Err(errno.into())),
                Ok(request) if matches!(opcode, Opcode::Setlkw) => {
                    filter.wait_for_lock(header.nodeid, asked.fh, request, unique, answer)
                }
                Ok(request) => Outcome::Done(filter.set_lock(header.nodeid, asked.fh, &request)),
            };
            match outcome {
                Outcome::Later => return Some(Served::Later),
                Outcome::Done(done) => status(writer, unique, &done),
            }
        }
        _ => return None,
    };
    written.map(Served::Now)
}

/// The reply to a request that has waited.
pub(super) fn late(writer: Writer<'_>, unique: u64, result: Result<(), Errno>) -> Option<u32> {
    status(writer, unique, &result.map_err(io::Error::from))
}

/// A CREATE without a name that counts.
fn tmpfile(
    filter: &Filter,
    header: &InHeader,
    reader: &mut Reader<'_>,
) -> Option<io::Result<(EntryOut, OpenOut)>> {
    let CreateIn { flags, mode, umask, .. } = reader.read_obj().ok()?;
    let fixed = size_of::<InHeader>() + size_of::<CreateIn>();
    let extra = (header.len as usize).checked_sub(fixed).filter(|length| *length <= MAX_EXTRA)?;
    let mut bytes = vec![0; extra];
    reader.read_exact(&mut bytes).ok()?;
    // Linux names it "/".
    let name = bytes.iter().position(|byte| *byte == 0)?;
    let groups = groups(bytes.get(name + 1..)?)?;
    let caller = Caller { uid: header.uid.into_inner(), gid: header.gid.into_inner(), groups };
    Some(filter.tmpfile(&caller, header.nodeid, mode, flags, umask).map(|(entry, handle, options)| {
        let open = OpenOut { fh: handle, open_flags: options.bits(), ..Default::default() };
        (EntryOut::from(entry), open)
    }))
}

/// The caller's groups that came behind the name. `None`: they are no such thing.
fn groups(mut bytes: &[u8]) -> Option<Vec<u32>> {
    let mut groups = Vec::new();
    while !bytes.is_empty() {
        let (header, rest) = take::<ExtHeader>(bytes)?;
        let size = (header.size as usize).checked_sub(size_of::<ExtHeader>())?;
        let (extension, next) = rest.split_at_checked(size)?;
        if matches!(ExtType::try_from(header.ext_type), Ok(ExtType::SupGroups)) {
            let (SuppGroups { nr_groups }, mut list) = take::<SuppGroups>(extension)?;
            for _ in 0..nr_groups {
                let (group, rest) = take::<u32>(list)?;
                groups.push(group);
                list = rest;
            }
        }
        bytes = next;
    }
    Some(groups)
}

fn take<T: ByteValued + Default>(bytes: &[u8]) -> Option<(T, &[u8])> {
    let (first, rest) = bytes.split_at_checked(size_of::<T>())?;
    let mut value = T::default();
    value.as_mut_slice().copy_from_slice(first);
    Some((value, rest))
}

const NOTHING: Option<u8> = None;

fn status(writer: Writer<'_>, unique: u64, result: &io::Result<()>) -> Option<u32> {
    let error = result.as_ref().err().map_or(0, |error| -error.raw_os_error().unwrap_or(libc::EIO));
    write(writer, unique, error, &[])
}

/// A reply of one struct or two, or of an error.
fn reply<A: ByteValued, B: ByteValued>(
    writer: Writer<'_>,
    unique: u64,
    result: io::Result<(A, Option<B>)>,
) -> Option<u32> {
    match result {
        Ok((first, second)) => {
            let second = second.as_ref().map_or(&[][..], B::as_slice);
            write(writer, unique, 0, &[first.as_slice(), second])
        }
        Err(error) => status(writer, unique, &Err(error)),
    }
}

/// `error` is 0 or negative.
fn write(mut writer: Writer<'_>, unique: u64, error: i32, parts: &[&[u8]]) -> Option<u32> {
    let length = size_of::<OutHeader>() + parts.iter().map(|part| part.len()).sum::<usize>();
    // A few hundred bytes.
    let header = OutHeader { len: length as u32, error, unique };
    writer.write_all(header.as_slice()).ok()?;
    parts.iter().try_for_each(|part| writer.write_all(part)).ok()?;
    Some(header.len)
}
