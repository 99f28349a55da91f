//! The Bulkhead virtual machine monitor: one KVM microVM, its devices and its jail.
//!
//!   main ─▶ jail (two processes) ─▶ control ─▶ machine ─┬▶ boot     what is in guest memory at the first instruction
//!                                                       ├▶ vm, vcpu KVM
//!                                                       └▶ devices  virtio-mmio slots, on event_loop or own threads
//!
//! Synchronous: threads and epoll. A guest controls every register, descriptor and message that devices see.

pub mod boot;
pub mod capabilities;
pub mod confine;
pub mod control;
pub mod devices;
pub mod event_loop;
pub mod jail;
pub mod kvm_probe;
pub mod log;
pub mod machine;
pub mod memory;
pub mod vcpu;
pub mod vm;
