//! What `make test` does: every check and every test, and one line of counts at the end.
//!
//! ```text
//!  bin/suite ─┬─ steps: a command that passes or fails as a whole; `cargo test` with its own counts
//!             ├─ machines: tests that boot machines, where that works, each on record by its name
//!             │     └─ place: the lab, which may die and be replaced, or this machine
//!             └─ tally: counts, names, the last line
//! ```
//!
//! `output` reads a command's lines, `harness` what test programs say in them.

pub mod harness;
pub mod machines;
pub mod output;
pub mod place;
pub mod steps;
pub mod tally;
