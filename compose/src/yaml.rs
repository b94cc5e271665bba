//! YAML as a tree whose nodes know their place. Anchors, aliases and merge keys are resolved here.

use std::collections::BTreeMap;
use std::rc::Rc;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, StrInput};

use crate::diagnostic::{Log, Place};

/// A file whose aliases blow it up beyond this is refused.
const MAX_NODES: usize = 200_000;
/// Of a node below the root, aliases replaced. What walks the tree calls itself so many times.
const MAX_DEPTH: usize = 100;

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) value: Value,
}

/// A scalar that is not quoted has the type that YAML 1.2's core schema gives it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    /// As written; the readers parse it.
    Number(String),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Key {
    pub(crate) place: Place,
    pub(crate) name: String,
}

impl Value {
    pub(crate) fn describe(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "true or false",
            Self::Number(_) => "a number",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

/// The one document of a file; none, with errors in the log, when it can't be read, and none
/// without when it is empty.
pub(crate) fn parse(text: &str, log: &mut Log<'_>) -> Option<Node> {
    let mut builder =
        Builder { events: Parser::new_from_str(text), anchors: BTreeMap::new(), nodes: 0, log };
    let mut root = None;
    loop {
        match builder.next()? {
            (Event::StreamEnd, _) => return root,
            (Event::DocumentStart(_), span) => {
                if root.is_some() {
                    let rule = "a second document; a compose file has one";
                    builder.log.error(place(span), rule);
                    return None;
                }
                let (event, span) = builder.next()?;
                let node = builder.build(event, span, 0)?;
                root = (node.value != Value::Null).then_some(node);
            }
            _ => {}
        }
    }
}

fn place(span: Span) -> Place {
    Place { line: span.start.line().max(1), column: span.start.col() + 1 }
}

/// What an alias stands for.
struct Anchored {
    node: Node,
    /// Levels below the node.
    height: usize,
    /// With the node itself.
    nodes: usize,
}

struct Builder<'i, 'l, 'f> {
    events: Parser<'i, StrInput<'i>>,
    anchors: BTreeMap<usize, Rc<Anchored>>,
    nodes: usize,
    log: &'l mut Log<'f>,
}

impl<'i> Builder<'i, '_, '_> {
    fn next(&mut self) -> Option<(Event<'i>, Span)> {
        match self.events.next()? {
            Ok(next) => Some(next),
            Err(error) => {
                let mark = error.marker();
                let place = Place { line: mark.line().max(1), column: mark.col() + 1 };
                self.log.error(place, format!("this is no YAML: {}", error.info()));
                None
            }
        }
    }

    /// None, with an error, when so many more nodes, down to this depth, are too much.
    fn admit(&mut self, place: Place, depth: usize, nodes: usize) -> Option<()> {
        self.nodes += nodes;
        if depth > MAX_DEPTH {
            let rule = "the file is nested too deep to be a compose file";
            self.log.error(place, format!("{rule}: more than {MAX_DEPTH} levels"));
            return None;
        }
        if self.nodes > MAX_NODES {
            let rule = "the file is too large to be a compose file";
            let count = format!("more than {MAX_NODES} values, with what its aliases stand for");
            self.log.error(place, format!("{rule}: {count}"));
            return None;
        }
        Some(())
    }

    fn build(&mut self, event: Event<'i>, span: Span, depth: usize) -> Option<Node> {
        let place = place(span);
        self.admit(place, depth, 1)?;
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, _) => {
                let plain = style == ScalarStyle::Plain;
                (if plain { scalar(&text) } else { Value::Text(text.into_owned()) }, anchor)
            }
            Event::Alias(anchor) => {
                let Some(anchored) = self.anchors.get(&anchor).cloned() else {
                    self.log.error(place, "this alias stands inside what it is an alias of");
                    return None;
                };
                self.admit(place, depth + anchored.height, anchored.nodes)?;
                return Some(Node { place, value: anchored.node.value.clone() });
            }
            Event::SequenceStart(anchor, _) => {
                let mut items = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => break,
                        (event, span) => items.push(self.build(event, span, depth + 1)?),
                    }
                }
                (Value::List(items), anchor)
            }
            Event::MappingStart(anchor, _) => (self.mapping(depth)?, anchor),
            _ => (Value::Null, 0),
        };
        let node = Node { place, value };
        if anchor != 0 {
            let (height, nodes) = (height(&node), count(&node));
            // The copy counts as well: anchors may stand inside anchors.
            self.admit(place, depth, nodes)?;
            self.anchors.insert(anchor, Rc::new(Anchored { node: node.clone(), height, nodes }));
        }
        Some(node)
    }

    fn mapping(&mut self, depth: usize) -> Option<Value> {
        let mut entries: Vec<(Key, Node)> = Vec::new();
        let mut merged = Vec::new();
        loop {
            let (event, span) = match self.next()? {
                (Event::MappingEnd, _) => break,
                next => next,
            };
            let key = self.build(event, span, depth + 1)?;
            let (event, span) = self.next()?;
            let value = self.build(event, span, depth + 1)?;
            let name = match key.value {
                Value::Text(name) | Value::Number(name) => name,
                Value::Bool(value) => value.to_string(),
                Value::Null => String::new(),
                Value::List(_) | Value::Map(_) => {
                    self.log.error(key.place, "a key must be a text");
                    continue;
                }
            };
            if name == "<<" {
                merged.push(value);
                continue;
            }
            if let Some((first, _)) = entries.iter().find(|(other, _)| other.name == name) {
                let line = first.place.line;
                self.log.error(
                    key.place,
                    format!("the key {name:?} is there twice; the first is in line {line}"),
                );
                continue;
            }
            entries.push((Key { place: key.place, name }, value));
        }
        for value in merged {
            self.merge(value, &mut entries);
        }
        Some(Value::Map(entries))
    }

    /// `<<: *other` and `<<: [*one, *two]`: keys that are not there yet.
    fn merge(&mut self, value: Node, entries: &mut Vec<(Key, Node)>) {
        match value.value {
            Value::Map(others) => {
                for (key, node) in others {
                    if !entries.iter().any(|(own, _)| own.name == key.name) {
                        entries.push((key, node));
                    }
                }
            }
            Value::List(items) => items.into_iter().for_each(|item| self.merge(item, entries)),
            Value::Null => {}
            _ => self.log.error(value.place, "<< takes a mapping or a list of mappings"),
        }
    }
}

fn count(node: &Node) -> usize {
    match &node.value {
        Value::List(items) => 1 + items.iter().map(count).sum::<usize>(),
        Value::Map(entries) => 1 + entries.iter().map(|(_, node)| count(node)).sum::<usize>(),
        _ => 1,
    }
}

fn height(node: &Node) -> usize {
    match &node.value {
        Value::List(items) => items.iter().map(|item| 1 + height(item)).max().unwrap_or(0),
        Value::Map(entries) => entries.iter().map(|(_, node)| 1 + height(node)).max().unwrap_or(0),
        _ => 0,
    }
}

/// The core schema of YAML 1.2 (chapter 10.3.2).
fn scalar(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let number = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && digits.contains(|c: char| c.is_ascii_digit())
        && (text.parse::<f64>().is_ok() || is_radix(digits));
    if number { Value::Number(text.to_owned()) } else { Value::Text(text.to_owned()) }
}

fn is_radix(text: &str) -> bool {
    let all = |digits: &str, radix| !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
    text.strip_prefix("0x").is_some_and(|digits| all(digits, 16))
        || text.strip_prefix("0o").is_some_and(|digits| all(digits, 8))
}
