//! `linux.personality`: the domain. The specification has no flags yet.

use bulkhead_protocol::container::Personality;

use super::{SpecError, raw};

pub(super) fn parse(raw: Option<&raw::Personality>) -> Result<Option<Personality>, SpecError> {
    let Some(raw) = raw else { return Ok(None) };
    if let Some(flag) = raw.flags.first() {
        let reason = "the specification defines no flags".to_owned();
        return Err(SpecError::Refused { field: format!("linux.personality.flags[0] {flag:?}"), reason });
    }
    match raw.domain.as_str() {
        "LINUX" => Ok(Some(Personality::Linux)),
        "LINUX32" => Ok(Some(Personality::Linux32)),
        "" => Err(SpecError::Missing { field: "linux.personality.domain".into() }),
        other => {
            let reason = format!("{other:?} is not one of LINUX, LINUX32");
            Err(SpecError::Invalid { field: "linux.personality.domain".into(), reason })
        }
    }
}

#[cfg(test)]
mod tests;
