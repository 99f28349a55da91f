//! The lines of a running command, both outputs in the order in which it writes them.

use std::{
    io::{self, BufRead as _, BufReader, pipe},
    process::{Child, Command, ExitStatus},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::Duration,
};

#[derive(Debug)]
pub struct Output {
    child: Child,
    lines: Receiver<String>,
}

impl Output {
    /// Starts the command.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn of(command: &mut Command) -> io::Result<Self> {
        let (reader, writer) = pipe()?;
        command.stdout(writer.try_clone()?).stderr(writer);
        let child = command.spawn()?;
        // Or the command would hold the pipe's ends for ever.
        command.stdout(io::stderr()).stderr(io::stderr());
        let (sender, lines) = channel();
        thread::spawn(move || {
            let mut reader = BufReader::new(reader);
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                let text = String::from_utf8_lossy(&line);
                if sender.send(text.trim_end_matches('\n').to_owned()).is_err() {
                    break;
                }
                line.clear();
            }
        });
        Ok(Self { child, lines })
    }

    /// The next line, waiting so long at most.
    ///
    /// # Errors
    /// `Disconnected` after the last line, when nobody has the outputs any more.
    pub fn next(&mut self, silence: Duration) -> Result<String, RecvTimeoutError> {
        self.lines.recv_timeout(silence)
    }

    /// Every line that is still to come, however long it takes.
    pub fn rest(&mut self) -> impl Iterator<Item = String> {
        self.lines.iter()
    }

    /// Waits for the command's end.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn end(mut self) -> io::Result<ExitStatus> {
        self.child.wait()
    }
}

#[cfg(test)]
mod tests;
