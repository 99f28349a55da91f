//! What the runtime says: to a person on standard error, and to its caller in the file of `--log`.
//!
//! Callers (docker, containerd, conmon) reuse one file for many runs and read its JSON lines, so it is opened for
//! append, never truncated, and each entry is one `write`. Errors go to both places; the rest goes to the file, or
//! to standard error when there is none. A log that cannot be written stops nothing.

mod bounded;

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
    sync::{Mutex, OnceLock, PoisonError},
    time::SystemTime,
};

use bulkhead_sys::text::printable;

pub use self::bounded::Bounded;
use crate::time::rfc3339;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    Text,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Debug,
    Info,
    Warning,
    Error,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// As on the command line; a server or proxy that is spawned gets the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogOptions {
    pub path: Option<PathBuf>,
    pub format: Format,
    pub debug: bool,
}

#[derive(Debug)]
pub struct Log {
    options: LogOptions,
    file: Option<File>,
}

impl Log {
    /// Opens the file, making it (mode 0644) when it is missing.
    ///
    /// # Errors
    /// When it cannot be opened for append.
    pub fn open(options: LogOptions) -> io::Result<Self> {
        let open = |path| OpenOptions::new().append(true).create(true).mode(0o644).open(path);
        let file = options.path.as_ref().map(open).transpose()?;
        Ok(Self { options, file })
    }

    pub fn options(&self) -> &LogOptions {
        &self.options
    }

    pub fn debug(&self, message: &str) {
        self.entry(Level::Debug, message, &[]);
    }

    pub fn info(&self, message: &str) {
        self.entry(Level::Info, message, &[]);
    }

    pub fn warn(&self, message: &str) {
        self.entry(Level::Warning, message, &[]);
    }

    pub fn error(&self, message: &str) {
        self.entry(Level::Error, message, &[]);
    }

    /// One entry with named values, for lifecycle steps (`sandbox`, `container`).
    pub fn entry(&self, level: Level, message: &str, fields: &[(&str, &str)]) {
        if level == Level::Debug && !self.options.debug {
            return;
        }
        if let Some(mut file) = self.file.as_ref() {
            let line = line(self.options.format, SystemTime::now(), level, message, fields);
            // Nowhere is left to report it to.
            let _ = file.write_all(line.as_bytes());
        }
        let quiet = level == Level::Info && !self.options.debug;
        if level == Level::Error || (self.file.is_none() && !quiet) {
            note(&for_a_person(level, message, fields));
        }
    }
}

/// The file that takes the place of standard error in a process without a terminal.
static NOTES: OnceLock<Mutex<Bounded>> = OnceLock::new();

/// Writes all further notes, and the message of a panic, to a file: for a process that outlives its caller.
pub fn note_in(log: Bounded) {
    let _ = NOTES.set(Mutex::new(log));
    std::panic::set_hook(Box::new(|panic| note(&panic.to_string())));
}

/// Writes one line to standard error, or to the file of `note_in`. A line that cannot be written is lost without a panic,
/// unlike with `eprintln`.
pub fn note(message: &str) {
    note_bytes(printable(&format!("{message}\n")).as_bytes());
}

/// As `note`, for bytes that are already safe to show.
pub fn note_bytes(bytes: &[u8]) {
    let _ = match NOTES.get() {
        Some(log) => log.lock().unwrap_or_else(PoisonError::into_inner).write(bytes),
        None => io::stderr().write_all(bytes),
    };
}

fn for_a_person(level: Level, message: &str, fields: &[(&str, &str)]) -> String {
    let mut text = match level {
        Level::Error => format!("bulkhead: {message}"),
        _ => format!("bulkhead: {}: {message}", level.name()),
    };
    for (name, value) in fields {
        text.push_str(&format!(" {name}={value}"));
    }
    text
}

/// One line with its newline; line breaks inside values are escaped by both formats.
fn line(format: Format, time: SystemTime, level: Level, message: &str, fields: &[(&str, &str)]) -> String {
    let time = rfc3339(time);
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let mut line = match format {
        Format::Json => {
            format!(r#"{{"level":"{}","msg":{},"time":"{time}""#, level.name(), quoted(message))
        }
        Format::Text => format!(r#"time="{time}" level={} msg={}"#, level.name(), quoted(message)),
    };
    for (name, value) in fields {
        match format {
            Format::Json => line.push_str(&format!(",{}:{}", quoted(name), quoted(value))),
            Format::Text => line.push_str(&format!(" {name}={}", quoted(value))),
        }
    }
    line.push_str(if format == Format::Json { "}\n" } else { "\n" });
    // Files are looked at in terminals as well.
    printable(&line).into_owned()
}

#[cfg(test)]
mod tests;
