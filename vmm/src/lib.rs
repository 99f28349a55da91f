//! The Bulkhead virtual machine monitor: one KVM microVM, its devices and its jail.
