//! From a checked profile to BPF, by libseccomp.
//!
//! The binary tree that libseccomp can make is not asked for: it takes twice as long here, and the guest's kernel
//! keeps a bitmap of the system calls that are allowed whatever their arguments, so it seldom runs the filter.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _},
    os::fd::AsFd as _,
    sync::Once,
};

use bulkhead_protocol::{
    container::{FilterProgram, Seccomp},
    limits,
};
use libseccomp::{ScmpArch, ScmpFilterContext, error::SeccompError};
use rustix::fs::{MemfdFlags, memfd_create};

use super::{Profile, invalid, newer};
use crate::spec::SpecError;

impl Profile {
    /// What the guest's kernel takes. Some milliseconds of work.
    ///
    /// # Errors
    /// Rules that libseccomp refuses, such as two actions for one system call, and a filter that is too long.
    pub fn compile(&self) -> Result<Seccomp, SpecError> {
        assume_the_guests_kernel();
        let failed = |field: &str| {
            let field = field.to_owned();
            move |source: SeccompError| SpecError::Seccomp { field, source }
        };
        let mut filter = ScmpFilterContext::new(self.default).map_err(failed("linux.seccomp"))?;
        // libseccomp begins with its own machine's.
        for arch in self.architectures.iter().filter(|arch| **arch != ScmpArch::X8664) {
            filter.add_arch(*arch).map_err(failed("linux.seccomp.architectures"))?;
        }
        // A rule that says what holds anyway is an error to libseccomp.
        for rule in self.rules.iter().filter(|rule| rule.action != self.default) {
            for (name, syscall) in &rule.syscalls {
                for conditions in &rule.alternatives {
                    filter
                        .add_rule_conditional(rule.action, *syscall, conditions)
                        .map_err(failed(&format!("{}, {name}", rule.field)))?;
                }
            }
        }
        let program = [newer::prologue(self), export(&filter)?].concat();
        let length = program.len() / FilterProgram::INSTRUCTION;
        let program = FilterProgram::try_from(program).map_err(|_| {
            let reason = format!("compiles to {length} instructions: the kernel takes {}", limits::FILTER);
            invalid("linux.seccomp".into(), reason)
        })?;
        Ok(Seccomp { program, flags: self.flags })
    }
}

/// libseccomp asks the kernel that it runs on which actions there are, but the filter is for another one.
fn assume_the_guests_kernel() {
    /// Has SCMP_ACT_LOG and SCMP_ACT_KILL_PROCESS: Linux 4.14.
    const API_LEVEL: u32 = 3;
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Should it not be possible, the host's kernel is asked.
        let _ = libseccomp::set_api(API_LEVEL);
    });
}

fn export(filter: &ScmpFilterContext) -> Result<Vec<u8>, SpecError> {
    let io = |source: io::Error| SpecError::Filter { source };
    let mut file = File::from(memfd_create("filter", MemfdFlags::CLOEXEC).map_err(|errno| io(errno.into()))?);
    filter
        .export_bpf(file.as_fd())
        .map_err(|source| SpecError::Seccomp { field: "linux.seccomp".into(), source })?;
    file.rewind().map_err(io)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(io)?;
    Ok(bytes)
}
