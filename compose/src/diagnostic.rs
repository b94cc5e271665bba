//! What is wrong with a file, and where: `app.yml:7:5: services.web: …` with the line below it.

use std::fmt;

use crate::SourceFile;

/// A place in a file, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Place {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

/// One error or warning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file as the user gave it.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// What it is about, and why.
    pub message: String,
    /// The line of the file.
    pub source_line: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, message, source_line } = self;
        write!(f, "{file}:{line}:{column}: {message}")?;
        if !source_line.trim().is_empty() {
            let number = line.to_string();
            let margin = " ".repeat(number.len());
            let indent: String = source_line
                .chars()
                .take(column.saturating_sub(1))
                .map(|c| if c == '\t' { '\t' } else { ' ' })
                .collect();
            write!(f, "\n {number} | {source_line}\n {margin} | {indent}^")?;
        }
        Ok(())
    }
}

/// One or more things that are wrong, in the order of their places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Errors(Vec<Diagnostic>);

impl Errors {
    /// In the order of their places; never empty.
    #[must_use]
    pub fn as_slice(&self) -> &[Diagnostic] {
        &self.0
    }

    pub(crate) fn empty_file(file: &SourceFile) -> Self {
        let message = "the file is empty; a compose file has at least services:".to_owned();
        Self(vec![Diagnostic {
            file: file.path.clone(),
            line: 1,
            column: 1,
            message,
            source_line: String::new(),
        }])
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, error) in self.0.iter().enumerate() {
            if number > 0 {
                writeln!(f)?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Errors {}

/// Gathers what is wrong while a file is read.
pub(crate) struct Log<'a> {
    file: &'a SourceFile,
    errors: Vec<Diagnostic>,
    warnings: Vec<Diagnostic>,
}

impl<'a> Log<'a> {
    pub(crate) fn new(file: &'a SourceFile) -> Self {
        Self { file, errors: Vec::new(), warnings: Vec::new() }
    }

    pub(crate) fn diagnostic(&self, place: Place, message: String) -> Diagnostic {
        let line = self.file.text.lines().nth(place.line.saturating_sub(1));
        Diagnostic {
            file: self.file.path.clone(),
            line: place.line,
            column: place.column,
            message,
            source_line: line.unwrap_or_default().to_owned(),
        }
    }

    pub(crate) fn error(&mut self, place: Place, message: impl Into<String>) {
        let diagnostic = self.diagnostic(place, message.into());
        if !self.errors.contains(&diagnostic) {
            self.errors.push(diagnostic);
        }
    }

    pub(crate) fn warn(&mut self, place: Place, message: impl Into<String>) {
        let diagnostic = self.diagnostic(place, message.into());
        if !self.warnings.contains(&diagnostic) {
            self.warnings.push(diagnostic);
        }
    }

    /// The warnings, or the errors when there are any.
    pub(crate) fn finish(mut self) -> Result<Vec<Diagnostic>, Errors> {
        if self.errors.is_empty() {
            return Ok(self.warnings);
        }
        self.errors.sort_by_key(|error| (error.line, error.column));
        Err(Errors(self.errors))
    }
}
