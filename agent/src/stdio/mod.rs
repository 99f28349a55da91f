//! Stdio of one process: one vsock stream per direction, copied by one `Pump` each.
//!
//!   process ─fd 1─▶ pipe ─▶ Pump ─▶ vsock stream ─▶ VMM ─▶ server ─▶ the caller's stdout
//!
//! The host opens the streams first (`listener`, kept in `pending` under their token); `wire` then makes the pipes,
//! and `Wiring::connect` starts the pumps. A `Pump` holds at most `CHUNK` bytes the far side has not taken, so a slow
//! reader stalls only its own writer. At the exit `Io::finish` fixes how many bytes each stream will carry: all that
//! was written before, which is not end of file, for a grandchild may still hold the pipe.

pub mod listener;
pub mod pending;
pub mod pump;
pub mod wiring;

pub use wiring::{Counts, Io, Tty, Wiring, wire};
