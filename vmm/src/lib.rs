//! The Bulkhead virtual machine monitor: one KVM microVM, its devices and its jail.
//!
//!   main ─▶ jail (two processes) ─▶ control ─▶ machine ─┬▶ boot     what is in guest memory at the first instruction
//!                                                       ├▶ vm, vcpu KVM
//!                                                       └▶ devices  virtio-mmio slots, on event_loop or own threads
//!
//! Synchronous: threads and epoll. A guest controls every register, descriptor and message that devices see.
//!
//! A module imports from modules further down in this list, never from one further up, and so it is among the modules of
//! each directory (a module may use the error type and the helpers of the directory it is in):
//!
//!   control, kvm_probe                what a process of this program does
//!   machine                           all parts of a running VM
//!   vcpu
//!   vm, boot                          KVM; guest memory at the start
//!   capabilities, devices
//!   event_loop, jail
//!   confine
//!   memory, fds, log, counter, threads    know nothing of each other

pub mod boot;
pub mod capabilities;
pub mod confine;
pub mod control;
mod counter;
pub mod devices;
pub mod event_loop;
pub mod fds;
pub mod jail;
pub mod kvm_probe;
pub mod log;
pub mod machine;
pub mod memory;
mod threads;
pub mod vcpu;
pub mod vm;
