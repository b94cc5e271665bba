//! Placement constraints as in Swarm: `node.labels.zone==eu`, `node.role!=manager`.

use std::str::FromStr;

use crate::store::Node;

/// One rule about a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Constraint {
    subject: Subject,
    equal: bool,
    value: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Subject {
    Id,
    Hostname,
    Role,
    PlatformOs,
    PlatformArch,
    Label(String),
}

/// A text that is not a constraint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConstraintError {
    /// Neither `==` nor `!=` in it.
    #[error("constraint {text:?} has no == or !=; write it as node.labels.zone==eu")]
    Operator {
        /// The text as given.
        text: String,
    },
    /// Nothing that a node has.
    #[error(
        "constraint {text:?}: unknown subject {subject:?}; use node.id, node.hostname, node.role, \
         node.platform.os, node.platform.arch or node.labels.NAME"
    )]
    Subject {
        /// The text as given.
        text: String,
        /// What stands before the operator.
        subject: String,
    },
}

impl FromStr for Constraint {
    type Err = ConstraintError;

    fn from_str(text: &str) -> Result<Self, ConstraintError> {
        let (subject, equal, value) = match (text.split_once("=="), text.split_once("!=")) {
            (Some((subject, value)), _) => (subject, true, value),
            (None, Some((subject, value))) => (subject, false, value),
            (None, None) => return Err(ConstraintError::Operator { text: text.to_owned() }),
        };
        let subject = match subject.trim() {
            "node.id" => Subject::Id,
            "node.hostname" => Subject::Hostname,
            "node.role" => Subject::Role,
            "node.platform.os" => Subject::PlatformOs,
            "node.platform.arch" => Subject::PlatformArch,
            other => match other.strip_prefix("node.labels.") {
                Some(label) if !label.is_empty() => Subject::Label(label.to_owned()),
                _ => {
                    let subject = other.to_owned();
                    return Err(ConstraintError::Subject { text: text.to_owned(), subject });
                }
            },
        };
        Ok(Self { subject, equal, value: value.trim().to_owned() })
    }
}

impl Constraint {
    /// Whether the node meets the rule. A label it lacks equals nothing.
    #[must_use]
    pub fn matches(&self, node: &Node) -> bool {
        let platform = node.description.platform.clone().unwrap_or_default();
        let equals = match &self.subject {
            Subject::Id => node.id.to_string() == self.value,
            Subject::Hostname => node.description.hostname == self.value,
            Subject::Role => node.spec.role().to_string() == self.value,
            Subject::PlatformOs => platform.os == self.value,
            Subject::PlatformArch => platform.architecture == self.value,
            Subject::Label(name) => node.spec.labels.get(name) == Some(&self.value),
        };
        equals == self.equal
    }
}
