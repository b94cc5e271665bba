//! System-call filters: profiles in Docker's JSON form, compiled to BPF here, once, and loaded
//! by each container's init with one system call.
//!
//! A profile's rules are compiled in their order: the first that matches decides. The program
//! checks the architecture first; system calls of a foreign one are refused.

mod compile;
mod profile;

use serde::{Deserialize, Serialize};

use crate::error::RuntimeError;
use crate::sys::{self, Filter};

/// Docker's default profile: what programs need, and nothing that reaches past the container.
const DEFAULT: &str = include_str!("seccomp/default.json");

/// A compiled filter: four fields an instruction.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Program(Vec<(u16, u8, u8, u32)>);

impl Program {
    fn new(filters: &[Filter]) -> Self {
        Self(filters.iter().map(|filter| (filter.code, filter.jt, filter.jf, filter.k)).collect())
    }

    /// Puts the filter in force for this process, for good.
    pub(crate) fn load(&self) -> std::io::Result<()> {
        let filters: Vec<Filter> =
            self.0.iter().map(|&(code, jt, jf, k)| Filter { code, jt, jf, k }).collect();
        sys::load_seccomp(&filters)
    }
}

/// The default profile for a container with those capabilities (`CAP_…`): some rules hold only
/// with or without one.
pub(crate) fn default_program(capabilities: u64) -> Result<Program, RuntimeError> {
    program(DEFAULT, capabilities)
}

/// The same of a profile in Docker's JSON form.
pub(crate) fn program(text: &str, capabilities: u64) -> Result<Program, RuntimeError> {
    let invalid =
        |error: serde_json::Error| RuntimeError::Invalid(format!("seccomp profile: {error}"));
    let profile: profile::Profile = serde_json::from_str(text).map_err(invalid)?;
    Ok(Program::new(&compile::compile(&profile, capabilities)?))
}

#[cfg(test)]
mod tests;
