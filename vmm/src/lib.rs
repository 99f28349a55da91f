//! The Bulkhead virtual machine monitor: one KVM microVM, its devices and its jail.

pub mod devices;
pub mod event_loop;
pub mod log;
pub mod memory;
