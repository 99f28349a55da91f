//! KVM_RUN that answers "try again" (EAGAIN): how often in a row, and what to do about it.

/// Answers in a row: so many are taken at once, and so many are too many, about 2 s later.
const AT_ONCE: u32 = 16;
pub(super) const MOST: u32 = 2000;

/// How often KVM_RUN has answered EAGAIN in a row, without the guest having run.
#[derive(Debug, Default)]
pub(super) struct Again(pub(super) u32);

/// What to do after an answer of KVM_RUN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    /// Go on.
    Go,
    /// Go on after a moment.
    Pause,
    /// It will not end.
    Stuck,
}

impl Again {
    pub(super) fn take(&mut self, errno: Option<i32>) -> After {
        if errno != Some(libc::EAGAIN) {
            self.0 = 0;
            return After::Go;
        }
        self.0 = self.0.saturating_add(1);
        match self.0 {
            0..=AT_ONCE => After::Go,
            count if count < MOST => After::Pause,
            _ => After::Stuck,
        }
    }
}
