//! How long a worker looks for the next request before it sleeps: as long as that pays.
//!
//!   a look that finds one ─▶ twice what it took          one that finds nothing ─▶ half as long, and at last none
//!
//! The guest's kernel looks for answers by the same rule (`guest-kernel-config/patches/virtiofs-wait-awake.patch`).

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

/// Microseconds. Longer, and the look costs more than the wake-up that it saves.
const MOST: u32 = 500;
/// A shorter look finds nothing.
const LEAST: u32 = 20;
/// Without looks, so many requests come before the next try.
const RETRY: u32 = 64;

#[derive(Debug)]
pub(super) struct Patience {
    micros: AtomicU32,
    /// Times without a look since the last one.
    without: AtomicU32,
}

impl Default for Patience {
    fn default() -> Self {
        Self { micros: AtomicU32::new(MOST), without: AtomicU32::new(0) }
    }
}

impl Patience {
    /// What the next look may take; `None`: there is none.
    pub(super) fn of_a_look(&self) -> Option<Duration> {
        let mut micros = self.micros.load(Ordering::Relaxed);
        if micros == 0 {
            if self.without.fetch_add(1, Ordering::Relaxed) + 1 < RETRY {
                return None;
            }
            self.without.store(0, Ordering::Relaxed);
            micros = MOST;
        }
        Some(Duration::from_micros(micros.into()))
    }

    /// A look has taken so long, and found a request or not.
    pub(super) fn learn(&self, taken: Duration, found: bool) {
        let now = self.micros.load(Ordering::Relaxed);
        let double = u32::try_from(2 * taken.as_micros()).unwrap_or(MOST);
        let next = match found {
            true if double > now => double.min(MOST),
            true => now - (now - double) / 8,
            false => now / 2,
        };
        self.micros.store(if next < LEAST && !found { 0 } else { next }, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_micros(30);

    #[test]
    fn looks_that_find_nothing_become_shorter_and_end_until_a_try() {
        let patience = Patience::default();
        let mut last = Duration::MAX;
        while let Some(look) = patience.of_a_look() {
            assert!(look < last);
            last = look;
            patience.learn(look, false);
        }
        assert_eq!((2..RETRY).find_map(|_| patience.of_a_look()), None);
        assert_eq!(patience.of_a_look(), Some(Duration::from_micros(MOST.into())));
    }

    #[test]
    fn a_look_takes_about_twice_what_the_last_ones_took() {
        let patience = Patience::default();
        (0..100).for_each(|_| patience.learn(SOON, true));
        let look = patience.of_a_look().unwrap();
        assert!((2 * SOON..3 * SOON).contains(&look), "{look:?}");
        patience.learn(Duration::from_secs(1), true);
        assert_eq!(patience.of_a_look(), Some(Duration::from_micros(MOST.into())));
    }
}
