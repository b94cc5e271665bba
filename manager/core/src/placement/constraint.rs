//! Placement constraints as in Swarm, `node.labels.zone==eu` and `node.role!=manager`, and what
//! people have asked for beside them: `in (…)`, `not in (…)`, `exists`, `not exists`, `<`, `>`.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

use crate::store::Node;

/// One rule about a node.
#[derive(Debug, Clone, PartialEq)]
pub struct Constraint {
    subject: Subject,
    rule: Rule,
}

/// What of a node a rule, or a spread, is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// `node.id`
    Id,
    /// `node.hostname`
    Hostname,
    /// `node.ip`
    Ip,
    /// `node.role`
    Role,
    /// `node.platform.os`
    PlatformOs,
    /// `node.platform.arch`
    PlatformArch,
    /// `node.labels.NAME`: of operators.
    Label(String),
    /// `engine.labels.NAME`: of the agent's flags.
    EngineLabel(String),
}

#[derive(Debug, Clone, PartialEq)]
enum Rule {
    /// Or none of them.
    OneOf {
        values: Vec<Value>,
        wanted: bool,
    },
    Exists {
        wanted: bool,
    },
    Less(f64),
    Greater(f64),
}

#[derive(Debug, Clone, PartialEq)]
enum Value {
    Text(String),
    Range(IpNet),
}

/// A text that is not a constraint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConstraintError {
    /// No operator in it.
    #[error(
        "constraint {text:?} has no operator; write it as node.labels.zone==eu; there are ==, !=, \
         in (A, B), not in (A, B), exists, not exists, < and >"
    )]
    Operator {
        /// The text as given.
        text: String,
    },
    /// Nothing that a node has.
    #[error("constraint {text:?}: {source}")]
    Subject {
        /// The text as given.
        text: String,
        /// What is wrong with it.
        #[source]
        source: SubjectError,
    },
    /// A value of another form.
    #[error("constraint {text:?}: {value:?} is not {wanted}")]
    Value {
        /// The text as given.
        text: String,
        /// The value.
        value: String,
        /// What it has to be.
        wanted: &'static str,
    },
}

/// A name of nothing that a node has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown subject {subject:?}; use node.id, node.hostname, node.ip, node.role, \
     node.platform.os, node.platform.arch, node.labels.NAME or engine.labels.NAME"
)]
pub struct SubjectError {
    /// As given.
    pub subject: String,
}

impl FromStr for Subject {
    type Err = SubjectError;

    fn from_str(text: &str) -> Result<Self, SubjectError> {
        let label = |prefix: &str| {
            text.strip_prefix(prefix).filter(|name| !name.is_empty()).map(str::to_owned)
        };
        Ok(match text {
            "node.id" => Self::Id,
            "node.hostname" => Self::Hostname,
            "node.ip" => Self::Ip,
            "node.role" => Self::Role,
            "node.platform.os" => Self::PlatformOs,
            "node.platform.arch" => Self::PlatformArch,
            _ => match (label("node.labels."), label("engine.labels.")) {
                (Some(name), _) => Self::Label(name),
                (None, Some(name)) => Self::EngineLabel(name),
                (None, None) => return Err(SubjectError { subject: text.to_owned() }),
            },
        })
    }
}

impl Subject {
    /// What the node has of it; none for a label that it lacks.
    #[must_use]
    pub fn of(&self, node: &Node) -> Option<String> {
        let platform = || node.description.platform.clone().unwrap_or_default();
        match self {
            Self::Id => Some(node.id.to_string()),
            Self::Hostname => Some(node.description.hostname.clone()),
            Self::Ip => address(node).map(|address| address.to_string()),
            Self::Role => Some(node.spec.role().to_string()),
            Self::PlatformOs => Some(platform().os),
            Self::PlatformArch => Some(platform().architecture),
            Self::Label(name) => node.spec.labels.get(name).cloned(),
            Self::EngineLabel(name) => node.description.labels.get(name).cloned(),
        }
    }
}

/// Where the node is to be found.
fn address(node: &Node) -> Option<IpAddr> {
    let text = &node.status.address;
    let host = text.rsplit_once(':').map_or(text.as_str(), |(host, _)| host);
    host.trim_matches(['[', ']']).parse().or_else(|_| text.parse()).ok()
}

/// Subject, operator and what follows it.
fn split(text: &str) -> Option<(&str, &str, &str)> {
    // `a==b` and `a!=b` need no spaces; a value may hold anything.
    let symbols = ["==", "!=", "<", ">"].into_iter();
    let first = symbols.filter_map(|symbol| Some((text.find(symbol)?, symbol))).min();
    if let Some((at, symbol)) = first {
        return Some((text[..at].trim(), symbol, text[at + symbol.len()..].trim()));
    }
    let (subject, rest) = text.trim().split_once(char::is_whitespace)?;
    let rest = rest.trim();
    match rest {
        "exists" => return Some((subject, "exists", "")),
        "not exists" | "!exists" => return Some((subject, "not exists", "")),
        _ => {}
    }
    let (operator, list) = match (rest.strip_prefix("not in"), rest.strip_prefix("in")) {
        (Some(list), _) => ("not in", list),
        (None, Some(list)) => ("in", list),
        (None, None) => return None,
    };
    let list = list.trim().strip_prefix('(')?.strip_suffix(')')?;
    Some((subject, operator, list))
}

impl FromStr for Constraint {
    type Err = ConstraintError;

    fn from_str(text: &str) -> Result<Self, ConstraintError> {
        let operator = || ConstraintError::Operator { text: text.to_owned() };
        let (subject, symbol, value) = split(text).ok_or_else(operator)?;
        let subject: Subject = subject
            .parse()
            .map_err(|source| ConstraintError::Subject { text: text.to_owned(), source })?;
        let wrong = |value: &str, wanted| ConstraintError::Value {
            text: text.to_owned(),
            value: value.to_owned(),
            wanted,
        };
        let one = |value: &str| match subject {
            Subject::Ip => {
                let range = value.parse::<IpNet>().ok();
                let range = range.or_else(|| value.parse::<IpAddr>().ok().map(IpNet::from));
                range.map(Value::Range).ok_or_else(|| wrong(value, "an address or a CIDR range"))
            }
            Subject::PlatformArch => Ok(Value::Text(architecture(value).to_owned())),
            _ => Ok(Value::Text(value.to_owned())),
        };
        let number = |value: &str| {
            value.parse::<f64>().map_err(|_| wrong(value, "a number to compare with"))
        };
        let rule = match symbol {
            "==" | "!=" => Rule::OneOf { values: vec![one(value)?], wanted: symbol == "==" },
            "in" | "not in" => {
                let values = value.split(',').map(|value| one(value.trim()));
                Rule::OneOf { values: values.collect::<Result<_, _>>()?, wanted: symbol == "in" }
            }
            "<" => Rule::Less(number(value)?),
            ">" => Rule::Greater(number(value)?),
            _ => Rule::Exists { wanted: symbol == "exists" },
        };
        Ok(Self { subject, rule })
    }
}

/// The name that OCI images have for what uname(2) calls otherwise.
pub(super) fn architecture(name: &str) -> &str {
    match name {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "i386" | "i686" => "386",
        name => name,
    }
}

impl Constraint {
    /// Whether the node meets the rule. A label it lacks equals nothing, and is neither less nor
    /// greater than anything.
    #[must_use]
    pub fn matches(&self, node: &Node) -> bool {
        let own = self.subject.of(node);
        let compare = |holds: &dyn Fn(f64) -> bool| {
            own.as_ref().and_then(|own| own.parse().ok()).is_some_and(holds)
        };
        match &self.rule {
            Rule::Exists { wanted } => own.is_some() == *wanted,
            Rule::Less(bound) => compare(&|own| own < *bound),
            Rule::Greater(bound) => compare(&|own| own > *bound),
            Rule::OneOf { values, wanted } => {
                let is_one = own.is_some_and(|own| {
                    values.iter().any(|value| match value {
                        Value::Text(text) => *text == own,
                        Value::Range(range) => {
                            own.parse::<IpAddr>().is_ok_and(|own| range.contains(&own))
                        }
                    })
                });
                is_one == *wanted
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::node;
    use shoal_proto::v1::Platform;

    fn eu() -> Node {
        let mut node = node(1);
        node.spec.labels.insert("zone".to_owned(), "eu".to_owned());
        node.spec.labels.insert("cores".to_owned(), "8".to_owned());
        node.description.labels.insert("disk".to_owned(), "ssd".to_owned());
        node.description.hostname = "web1".to_owned();
        node.description.platform =
            Some(Platform { architecture: "amd64".to_owned(), os: "linux".to_owned() });
        node.status.address = "10.1.2.3:2377".to_owned();
        node
    }

    #[test]
    fn rules_hold_or_not() {
        for (text, holds) in [
            ("node.labels.zone==eu", true),
            ("node.labels.zone == us", false),
            ("node.labels.zone!=us", true),
            ("node.labels.rack!=us", true),
            ("node.labels.rack==", false),
            ("node.labels.zone in (us, eu)", true),
            ("node.labels.zone not in (us, eu)", false),
            ("node.labels.rack not in (us)", true),
            ("node.labels.zone exists", true),
            ("node.labels.rack exists", false),
            ("node.labels.rack not exists", true),
            ("node.labels.cores > 7.5", true),
            ("node.labels.cores<8", false),
            ("node.labels.zone > 1", false),
            ("node.labels.rack < 1", false),
            ("engine.labels.disk==ssd", true),
            ("node.hostname==web1", true),
            ("node.role==worker", true),
            ("node.platform.os==linux", true),
            ("node.platform.arch==x86_64", true),
            ("node.ip==10.1.0.0/16", true),
            ("node.ip!=10.1.2.3", false),
            ("node.ip in (192.168.0.0/16, 10.1.2.0/24)", true),
            ("node.labels.zone==a>b", false),
        ] {
            assert_eq!(text.parse::<Constraint>().unwrap().matches(&eu()), holds, "{text}");
        }
    }

    #[test]
    fn what_is_no_rule_is_told_why() {
        for (text, words) in [
            ("node.labels.zone", "has no operator"),
            ("node.labels.zone in eu", "has no operator"),
            ("node.zone==eu", "unknown subject \"node.zone\""),
            ("node.labels.==eu", "unknown subject"),
            ("node.ip==home", "\"home\" is not an address or a CIDR range"),
            ("node.labels.cores > many", "\"many\" is not a number"),
        ] {
            let error = text.parse::<Constraint>().unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
