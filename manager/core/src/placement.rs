//! Which nodes a service's tasks may be on, as far as nothing but the node itself decides it: its
//! constraints and its platforms. Orchestrators and the scheduler read it alike.

mod constraint;

use shoal_proto::v1::{Platform, TaskSpec};

pub use constraint::{Constraint, ConstraintError, Subject, SubjectError};

use crate::store::Node;

/// A task's rules, parsed once.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    constraints: Vec<(Constraint, String)>,
    platforms: Vec<Platform>,
}

/// The rule that a node breaks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Broken {
    /// The constraint's text.
    Constraint(String),
    /// Its platform is none that the image runs on.
    Platform,
}

impl Rules {
    /// Those of a spec. One that can't be read is met by no node.
    #[must_use]
    pub fn of(spec: &TaskSpec) -> Self {
        let Some(placement) = &spec.placement else { return Self::default() };
        let nothing = "node.id==nothing".parse::<Constraint>();
        let constraints = placement.constraints.iter().filter_map(|text| {
            let rule = text.parse::<Constraint>().or_else(|_| nothing.clone()).ok()?;
            Some((rule, text.clone()))
        });
        Self { constraints: constraints.collect(), platforms: placement.platforms.clone() }
    }

    /// Every node meets them.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.constraints.is_empty() && self.platforms.is_empty()
    }

    /// The first rule that the node breaks.
    #[must_use]
    pub fn broken(&self, node: &Node) -> Option<Broken> {
        let mut constraints = self.constraints.iter();
        if let Some((_, text)) = constraints.find(|(rule, _)| !rule.matches(node)) {
            return Some(Broken::Constraint(text.clone()));
        }
        if self.platforms.is_empty() {
            return None;
        }
        let own = node.description.platform.clone().unwrap_or_default();
        let fits = self.platforms.iter().any(|platform| {
            let same = |wanted: &str, own: &str| wanted.is_empty() || wanted == own;
            let architecture = constraint::architecture(&platform.architecture);
            same(architecture, constraint::architecture(&own.architecture))
                && same(&platform.os, &own.os)
        });
        (!fits).then_some(Broken::Platform)
    }
}
