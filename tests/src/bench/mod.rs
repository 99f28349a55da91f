//! The benchmarks: ratios against runc, crun and a bare QEMU microvm of the same kernel, in one interleaved run.
//!
//!   contest: A B C D, A B C D, … ─▶ samples ─▶ report (Markdown) and picture (SVG timeline)
//!
//! Absolute times mean nothing in software emulation, so only ratios within one round are compared, with their spread;
//! none is printed when the control, runc, moved by more than 15 % between the halves of the run.

pub mod contest;
pub mod disk;
pub mod files;
pub mod memory;
pub mod microvm;
pub mod network;
pub mod picture;
pub mod pods;
pub mod programs;
pub mod reclaim;
pub mod report;
pub mod samples;
pub mod throughput;
pub mod timeline;
