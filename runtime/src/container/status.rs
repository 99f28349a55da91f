//! The lifecycle of a process (a container's is that of its init), on one screen.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Its id is taken; the guest knows nothing of it yet, or is making it.
    Creating,
    /// Parked before its exec (an init), or only described (an exec).
    Created,
    /// The guest was told to run it and has not answered.
    Starting,
    Running,
    /// Frozen in the guest.
    Paused,
    Stopped,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    Made,
    Start,
    Started,
    Pause,
    Resume,
    Exit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a process that is {status:?} refuses {event:?}")]
pub struct Refused {
    pub event: Event,
    pub status: Status,
}

impl Status {
    /// No `_` arm: a new status or event stops the build here.
    pub fn after(self, event: Event) -> Result<Self, Refused> {
        use {Event::*, Status::*};
        match (event, self) {
            (Made, Creating) => Ok(Created),
            (Start, Created) => Ok(Starting),
            (Started, Starting) | (Resume, Paused) => Ok(Running),
            (Pause, Running) => Ok(Paused),
            // It may be over before the answer that it has started is here.
            (Exit, Created | Starting | Running | Paused) | (Started, Stopped) => Ok(Stopped),
            (Made, Created | Starting | Running | Paused | Stopped)
            | (Start, Creating | Starting | Running | Paused | Stopped)
            | (Started, Creating | Created | Running | Paused)
            | (Pause, Creating | Created | Starting | Paused | Stopped)
            | (Resume, Creating | Created | Starting | Running | Stopped)
            | (Exit, Creating | Stopped) => Err(Refused { event, status: self }),
        }
    }

    /// As OCI and the Task API name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Starting | Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

#[cfg(test)]
mod tests;
