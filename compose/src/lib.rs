//! Compose files: from text to the spec of a stack. Pure: texts, the environment and the folder
//! come in as arguments.
//!
//! Text becomes a tree of nodes that know their place ([`yaml`]), variables are replaced in it
//! ([`interpolate`]), then each part is read by what the compose specification says of it. A key
//! that Shoal does not understand is an error, never passed over.

mod cycle;
mod diagnostic;
pub mod dotenv;
mod interpolate;
mod keys;
mod name;
mod near;
mod path;
mod section;
mod service;
mod stack;
mod words;
mod yaml;

use std::collections::BTreeMap;

use shoal_proto::v1::StackSpec;

pub use diagnostic::{Diagnostic, Errors};
pub use name::normalize_project_name;
pub use stack::PayloadFile;

use diagnostic::Log;

/// A file's name, for messages, and its content.
#[derive(Debug, Clone)]
pub struct SourceFile {
    /// As the user gave it.
    pub path: String,
    /// All of it.
    pub text: String,
}

/// What a file means depends on.
#[derive(Debug, Clone)]
pub struct LoadOptions<'a> {
    /// The name that the user asked for; goes before `COMPOSE_PROJECT_NAME` in the environment,
    /// and that before the file's own.
    pub project_name: Option<&'a str>,
    /// The folder's name, used when nothing else names the project; it is normalized.
    pub default_name: &'a str,
    /// Absolute; relative paths in the file are from here.
    pub working_dir: &'a str,
    /// For `${…}` and for variables that are passed through.
    pub environment: &'a BTreeMap<String, String>,
}

/// A file that was understood.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What it asks for; without the data that are in files.
    pub spec: StackSpec,
    /// Where those data are, for the caller to read.
    pub files: Vec<PayloadFile>,
    /// What the user should know although it is no error.
    pub warnings: Vec<Diagnostic>,
}

/// Reads a compose file.
///
/// # Errors
/// Everything that is wrong with it, each with its place.
pub fn load(file: &SourceFile, options: &LoadOptions<'_>) -> Result<Loaded, Errors> {
    let mut log = Log::new(file);
    let read = yaml::parse(&file.text, &mut log).and_then(|mut root| {
        interpolate::interpolate(&mut root, options.environment, &mut log);
        stack::read(&root, options, &mut log)
    });
    match (log.finish(), read) {
        (Ok(warnings), Some((spec, files))) => Ok(Loaded { spec, files, warnings }),
        (Err(errors), _) => Err(errors),
        (Ok(_), None) => Err(Errors::empty_file(file)),
    }
}
