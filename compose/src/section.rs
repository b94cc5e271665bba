//! Reads mappings key by key: each key is taken once, and what is left over is an error.

use std::num::{IntErrorKind, ParseIntError};
use std::str::FromStr;

use crate::diagnostic::{Log, Place};
use crate::keys;
use crate::near::nearest;
use crate::yaml::{Key, Node, Value};

/// A mapping that is being read.
pub(crate) struct Section<'a> {
    path: String,
    place: Place,
    entries: Vec<(&'a Key, &'a Node)>,
}

impl<'a> Section<'a> {
    /// None, with an error, when the node is no mapping. Nothing at all is an empty one.
    pub(crate) fn of(path: &str, node: &'a Node, log: &mut Log<'_>) -> Option<Self> {
        let entries = match &node.value {
            Value::Map(entries) => entries.iter().map(|(key, value)| (key, value)).collect(),
            Value::Null => Vec::new(),
            other => {
                let found = other.describe();
                // The whole file has no path.
                let at = if path.is_empty() { String::new() } else { format!("{path}: ") };
                log.error(node.place, format!("{at}want a mapping, found {found}"));
                return None;
            }
        };
        Some(Self { path: path.to_owned(), place: node.place, entries })
    }

    pub(crate) fn place(&self) -> Place {
        self.place
    }

    /// `services.web`; empty for the whole file.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// `services.web.image` for a key of this mapping.
    pub(crate) fn at(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Whether a key is there and has something, be it of the wrong type.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.place_of(key).is_some()
    }

    /// Of the value of a key that has something.
    pub(crate) fn place_of(&self, key: &str) -> Option<Place> {
        let (_, node) = self.entries.iter().find(|(own, _)| own.name == key)?;
        (node.value != Value::Null).then_some(node.place)
    }

    /// The value of a key; none when it is not there or has nothing.
    pub(crate) fn take(&mut self, key: &str) -> Option<&'a Node> {
        let index = self.entries.iter().position(|(own, _)| own.name == key)?;
        let (_, node) = self.entries.remove(index);
        (node.value != Value::Null).then_some(node)
    }

    /// A mapping below this one.
    pub(crate) fn part(&mut self, key: &str, log: &mut Log<'_>) -> Option<Self> {
        let path = self.at(key);
        self.take(key).and_then(|node| Self::of(&path, node, log))
    }

    /// The items of a list of any values; none, with an error, when it is no list.
    pub(crate) fn items(&mut self, key: &str, log: &mut Log<'_>) -> &'a [Node] {
        let path = self.at(key);
        let Some(node) = self.take(key) else { return &[] };
        let Value::List(items) = &node.value else {
            log.error(node.place, format!("{path}: want a list, found {}", node.value.describe()));
            return &[];
        };
        items
    }

    /// `labels:`, where a name alone has an empty value.
    pub(crate) fn labels<M: FromIterator<(String, String)>>(&mut self, log: &mut Log<'_>) -> M {
        let path = self.at("labels");
        let labels = self.take("labels").map(|node| pairs(&path, node, log)).unwrap_or_default();
        labels.into_iter().map(|(_, name, value)| (name, value.unwrap_or_default())).collect()
    }

    pub(crate) fn text(&mut self, key: &str, log: &mut Log<'_>) -> Option<String> {
        let path = self.at(key);
        self.take(key).and_then(|node| text(&path, node, log))
    }

    pub(crate) fn flag(&mut self, key: &str, log: &mut Log<'_>) -> Option<bool> {
        let path = self.at(key);
        self.take(key).and_then(|node| flag(&path, node, log))
    }

    /// A value with a syntax of its own.
    pub(crate) fn parsed<T, E: ToString>(
        &mut self,
        key: &str,
        log: &mut Log<'_>,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Option<T> {
        let path = self.at(key);
        let node = self.take(key)?;
        let text = text(&path, node, log)?;
        parse(&text)
            .map_err(|error| log.error(node.place, format!("{path}: {}", error.to_string())))
            .ok()
    }

    pub(crate) fn list(&mut self, key: &str, log: &mut Log<'_>) -> Vec<(Place, String)> {
        let path = self.at(key);
        self.take(key).map(|node| list(&path, node, log)).unwrap_or_default()
    }

    /// The entries that are left, in the order of the file.
    pub(crate) fn entries(self) -> Vec<(&'a Key, &'a Node)> {
        self.entries
    }

    /// What is left is an error: a key of the specification that Shoal does not do yet, or one
    /// that nobody knows. `x-` keys are everyone's own, but for those that begin with `x-shoal-`.
    pub(crate) fn finish(self, known: &[&str], log: &mut Log<'_>) {
        let Self { path, entries, .. } = self;
        let at =
            |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        for (key, _) in entries {
            let name = key.name.as_str();
            if name.starts_with("x-") && !name.starts_with("x-shoal-") {
                continue;
            }
            if known.contains(&name) {
                log.error(key.place, format!("{}: not supported yet", at(name)));
                continue;
            }
            let place = if path.is_empty() { String::new() } else { format!("{path}: ") };
            let home = keys::EXTENSIONS.iter().find(|(extension, _)| *extension == name);
            let message = match (home, nearest(name, known.iter().copied())) {
                (Some((_, home)), _) => {
                    format!("{place}{name:?} has no meaning here, but in {home}")
                }
                (None, Some(near)) => {
                    format!("{place}unknown key {name:?}; did you mean {near:?}?")
                }
                (None, None) => format!("{place}unknown key {name:?}"),
            };
            log.error(key.place, message);
        }
    }
}

/// A scalar as text.
pub(crate) fn text(path: &str, node: &Node, log: &mut Log<'_>) -> Option<String> {
    match &node.value {
        Value::Text(text) | Value::Number(text) => Some(text.clone()),
        Value::Bool(flag) => Some(flag.to_string()),
        other => {
            log.error(node.place, format!("{path}: want a text, found {}", other.describe()));
            None
        }
    }
}

/// True or false.
pub(crate) fn flag(path: &str, node: &Node, log: &mut Log<'_>) -> Option<bool> {
    match &node.value {
        Value::Bool(flag) => Some(*flag),
        // A variable's value is a text.
        Value::Text(text) if text == "true" || text == "false" => Some(text == "true"),
        other => {
            let found = other.describe();
            log.error(node.place, format!("{path}: want true or false, found {found}"));
            None
        }
    }
}

/// A whole number, for [`Section::parsed`].
pub(crate) fn whole<T: FromStr<Err = ParseIntError>>(text: &str) -> Result<T, String> {
    text.parse::<T>().map_err(|error| match error.kind() {
        IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => {
            format!("{text:?} is too large a number")
        }
        _ if text.parse::<i64>().is_ok() => {
            format!("{text:?} is negative; want a whole number, 0 or more")
        }
        _ => format!("{text:?} is not a whole number"),
    })
}

/// A list of scalars; one scalar is a list of one.
pub(crate) fn list(path: &str, node: &Node, log: &mut Log<'_>) -> Vec<(Place, String)> {
    match &node.value {
        Value::List(items) => {
            let texts = items.iter().filter_map(|item| Some((item.place, text(path, item, log)?)));
            texts.collect()
        }
        Value::Map(_) => {
            log.error(node.place, format!("{path}: want a list, found a mapping"));
            Vec::new()
        }
        _ => text(path, node, log).map(|text| (node.place, text)).into_iter().collect(),
    }
}

/// `NAME: value` mappings and `NAME=value` lists alike. None for a name without a value.
pub(crate) fn pairs(
    path: &str,
    node: &Node,
    log: &mut Log<'_>,
) -> Vec<(Place, String, Option<String>)> {
    match &node.value {
        Value::Map(entries) => entries
            .iter()
            .filter_map(|(key, value)| {
                let path = format!("{path}.{}", key.name);
                let value = match value.value {
                    Value::Null => None,
                    _ => Some(text(&path, value, log)?),
                };
                Some((key.place, key.name.clone(), value))
            })
            .collect(),
        Value::List(_) => list(path, node, log)
            .into_iter()
            .map(|(place, entry)| match entry.split_once('=') {
                Some((name, value)) => (place, name.to_owned(), Some(value.to_owned())),
                None => (place, entry, None),
            })
            .collect(),
        other => {
            let found = other.describe();
            log.error(node.place, format!("{path}: want a mapping or a list, found {found}"));
            Vec::new()
        }
    }
}
