//! CPUs, or memory nodes, as the kernel writes them: `0-2,7`. What is parsed is in order and bounded.

use std::{fmt, ops::RangeInclusive};

use serde::{Deserialize, Serialize};

/// Above any number that a kernel is built for.
const NUMBER_MAX: u32 = 65_535;
/// Numbers and ranges in one list.
const PARTS_MAX: usize = 1024;

/// At least one number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CpuList(Vec<RangeInclusive<u32>>);

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a list like 0-2,7")]
pub struct CpuListError {
    text: String,
}

impl TryFrom<String> for CpuList {
    type Error = CpuListError;

    fn try_from(text: String) -> Result<Self, CpuListError> {
        let number = |text: &str| -> Option<u32> {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse().ok())?.filter(|number| *number <= NUMBER_MAX)
        };
        let range = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some(first..=last)
        };
        let parts = text.trim().split(',').take(PARTS_MAX + 1).map(range).collect::<Option<Vec<_>>>();
        match parts {
            Some(parts) if parts.len() <= PARTS_MAX => Ok(Self(parts)),
            _ => Err(CpuListError { text: text.chars().take(256).collect() }),
        }
    }
}

impl From<CpuList> for String {
    fn from(list: CpuList) -> String {
        list.to_string()
    }
}

impl fmt::Display for CpuList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            match (range.start(), range.end()) {
                (first, last) if first == last => write!(f, "{comma}{first}")?,
                (first, last) => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

impl CpuList {
    pub fn contains(&self, number: u32) -> bool {
        self.0.iter().any(|range| range.contains(&number))
    }

    /// How many numbers there are in it.
    pub fn count(&self) -> u32 {
        let mut ranges: Vec<_> = self.0.iter().collect();
        ranges.sort_by_key(|range| *range.start());
        let mut next = 0;
        let mut count = 0;
        for range in ranges {
            let after = range.end() + 1;
            count += after.saturating_sub(next.max(*range.start()));
            next = next.max(after);
        }
        count
    }

    /// The numbers as they are written; one may come twice.
    pub fn numbers(&self) -> impl Iterator<Item = u32> {
        self.0.iter().cloned().flatten()
    }

    /// The first number that is not in `other`.
    pub fn first_beyond(&self, other: &Self) -> Option<u32> {
        self.numbers().find(|number| !other.contains(*number))
    }
}

#[cfg(test)]
mod tests;
