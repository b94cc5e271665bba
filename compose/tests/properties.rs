//! What holds for every file: it is read or refused, and values mean what is written.

#![allow(clippy::unwrap_used)] // it is all test

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use shoal_compose::{Errors, LoadOptions, Loaded, SourceFile, dotenv, load};

fn read_with(text: &str, environment: &[(&str, &str)]) -> Result<Loaded, Errors> {
    let environment: BTreeMap<String, String> =
        environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let source = SourceFile { path: "compose.yml".to_owned(), text: text.to_owned() };
    let options = LoadOptions {
        project_name: None,
        default_name: "shop",
        working_dir: "/srv/shop",
        environment: &environment,
    };
    load(&source, &options)
}

/// Reads a text that may be anything: spec or errors, and errors have a place and can be shown.
fn assert_read_or_refused(text: &str) {
    let Err(errors) = read_with(text, &[("SET", "value"), ("EMPTY", "")]) else { return };
    assert!(!errors.as_slice().is_empty(), "{text:?}");
    for error in errors.as_slice() {
        assert!(error.line >= 1 && error.column >= 1, "{error:?}");
        assert!(!error.message.is_empty(), "{error:?}");
    }
    assert!(errors.to_string().starts_with("compose.yml:"), "{errors}");
}

/// A file with one service that has these lines below its image.
fn service(lines: &str) -> String {
    format!("services:\n  web:\n    image: nginx\n{lines}\n")
}

/// What YAML and the shell-like syntaxes are made of.
const FRAGMENTS: &[&str] = &[
    "services:",
    "web:",
    "image: a",
    "ports:",
    "volumes:",
    "environment:",
    "command:",
    "x-a: ",
    "deploy:",
    "healthcheck:",
    "depends_on:",
    "networks:",
    "name: ",
    "a",
    "80",
    "80:80",
    "1s",
    "./x:/y",
    "\n",
    "\n  ",
    "\n    ",
    "\n      ",
    "\n  - ",
    "- ",
    ": ",
    ":",
    "? ",
    ", ",
    "[",
    "]",
    "{",
    "}",
    "\"",
    "'",
    "\\",
    "|",
    ">",
    "|2-",
    "\t",
    " #",
    "&a ",
    "*a",
    "<<: *a",
    "!!str ",
    "$",
    "${",
    "$$",
    ":-",
    "\n---\n",
    "\n...\n",
    "\r",
    "\u{feff}",
    "é",
    "\u{2028}",
    "\0",
];

const PROTOCOLS: &[&str] = &["tcp", "udp", "sctp"];

/// Files that use most of what there is.
const FILES: &[&str] = &[
    include_str!("golden/anchors.yml"),
    include_str!("golden/container.yml"),
    include_str!("golden/depends_on.yml"),
    include_str!("golden/deploy.yml"),
    include_str!("golden/environment.yml"),
    include_str!("golden/generic_resources.yml"),
    include_str!("golden/healthcheck.yml"),
    include_str!("golden/interpolation.yml"),
    include_str!("golden/modes.yml"),
    include_str!("golden/movable_volumes.yml"),
    include_str!("golden/networks.yml"),
    include_str!("golden/payloads.yml"),
    include_str!("golden/placement.yml"),
    include_str!("golden/ports.yml"),
    include_str!("golden/schedules.yml"),
    include_str!("golden/updates.yml"),
    include_str!("golden/volumes.yml"),
];

/// One slip of the hand.
#[derive(Debug, Clone)]
enum Slip {
    Insert(Index, &'static str),
    Replace(Index, char),
    Delete(Index, usize),
    /// A line is moved elsewhere.
    Move(Index, Index),
    /// A line's indentation grows.
    Indent(Index),
    /// The rest is not there.
    Cut(Index),
}

fn slip() -> impl Strategy<Value = Slip> {
    let place = any::<Index>;
    prop_oneof![
        4 => (place(), select(FRAGMENTS)).prop_map(|(at, text)| Slip::Insert(at, text)),
        4 => (place(), any::<char>()).prop_map(|(at, to)| Slip::Replace(at, to)),
        4 => (place(), 1..20_usize).prop_map(|(at, count)| Slip::Delete(at, count)),
        2 => (place(), place()).prop_map(|(from, to)| Slip::Move(from, to)),
        2 => place().prop_map(Slip::Indent),
        1 => place().prop_map(Slip::Cut),
    ]
}

fn make(slip: &Slip, text: &str) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
    if chars.is_empty() {
        return String::new();
    }
    match slip {
        Slip::Insert(at, inserted) => {
            let at = at.index(chars.len());
            drop(chars.splice(at..at, inserted.chars()));
        }
        Slip::Replace(at, to) => chars[at.index(text.chars().count())] = *to,
        Slip::Delete(at, count) => {
            let at = at.index(chars.len());
            let end = chars.len().min(at + count);
            drop(chars.drain(at..end));
        }
        Slip::Move(from, to) => {
            let line = lines.remove(from.index(lines.len()));
            lines.insert(to.index(lines.len() + 1), line);
            return lines.concat();
        }
        Slip::Indent(at) => {
            lines.insert(at.index(lines.len()), "  ");
            return lines.concat();
        }
        Slip::Cut(at) => chars.truncate(at.index(chars.len())),
    }
    chars.into_iter().collect()
}

/// Text in double quotes as YAML has them, with no variables in it.
fn quoted(text: &str) -> String {
    let plain = text.replace('$', "$$");
    serde_json::to_string(&plain).expect("any text can be JSON")
}

/// Keys of a service that have a syntax of their own.
const KEYS: &[&str] = &[
    "cap_add",
    "command",
    "configs",
    "cpus",
    "depends_on",
    "deploy",
    "entrypoint",
    "environment",
    "expose",
    "extra_hosts",
    "healthcheck",
    "labels",
    "mem_limit",
    "networks",
    "platform",
    "ports",
    "restart",
    "scale",
    "secrets",
    "shm_size",
    "stop_grace_period",
    "sysctls",
    "tmpfs",
    "ulimits",
    "volumes",
    "x-shoal-schedule",
];

/// The container of the only service.
fn container(loaded: &Loaded) -> &shoal_proto::v1::ContainerSpec {
    let service = loaded.spec.services.first().and_then(|service| service.spec.as_ref());
    let task = service.and_then(|service| service.task.as_ref());
    task.and_then(|task| task.container.as_ref()).expect("a service has a container")
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_read_or_refused(text in any::<String>()) {
        assert_read_or_refused(&text);
    }

    #[test]
    fn anything_made_of_yaml_is_read_or_refused(parts in vec(select(FRAGMENTS), 0..40)) {
        assert_read_or_refused(&parts.concat());
    }

    #[test]
    fn anything_may_stand_at_a_service(text in "\\PC{0,40}", key in select(KEYS)) {
        assert_read_or_refused(&service(&format!("    {key}: {text}")));
        assert_read_or_refused(&service(&format!("    {key}: {}", quoted(&text))));
        assert_read_or_refused(&service(&format!("    {key}: [{}]", quoted(&text))));
    }

    #[test]
    fn a_file_with_slips_is_read_or_refused(
        file in select(FILES),
        slips in vec(slip(), 1..6),
    ) {
        let text = slips.iter().fold(file.to_owned(), |text, slip| make(slip, &text));
        assert_read_or_refused(&text);
    }

    #[test]
    fn a_text_without_a_dollar_stays_as_it_is(text in "[\\PC&&[^$]]{0,60}") {
        let quoted = serde_json::to_string(&text).unwrap();
        let file = service(&format!("    labels:\n      text: {quoted}"));
        let loaded = read_with(&file, &[]).unwrap();
        prop_assert_eq!(container(&loaded).labels.get("text"), Some(&text));
    }

    #[test]
    fn two_dollars_are_one(text in "[\\PC$]{0,60}") {
        let file = service(&format!("    labels:\n      text: {}", quoted(&text)));
        let loaded = read_with(&file, &[]).unwrap();
        prop_assert_eq!(container(&loaded).labels.get("text"), Some(&text));
        prop_assert!(loaded.warnings.is_empty());
    }

    #[test]
    fn a_variables_value_is_not_read_again(value in "\\PC{1,40}", other in "[a-z]{0,8}") {
        let environment = [("VALUE", value.as_str()), ("OTHER", other.as_str())];
        let file = service("    labels: {text: '${OTHER}=$VALUE.', word: \"${NO:-$VALUE}\"}");
        let loaded = read_with(&file, &environment).unwrap();
        let labels = &container(&loaded).labels;
        prop_assert_eq!(labels.get("text"), Some(&format!("{other}={value}.")));
        prop_assert_eq!(labels.get("word"), Some(&value));
    }

    #[test]
    fn words_in_quotes_are_the_arguments(words in vec("\\PC{0,12}", 1..6)) {
        let line: Vec<String> =
            words.iter().map(|word| format!("'{}'", word.replace('\'', "'\\''"))).collect();
        let file = service(&format!("    command: {}", quoted(&line.join(" "))));
        let loaded = read_with(&file, &[]).unwrap();
        prop_assert_eq!(&container(&loaded).args, &words);
    }

    #[test]
    fn both_forms_of_a_port_mean_the_same(
        target in 1..=65535_u32,
        published in proptest::option::of(1..=65535_u32),
        host_ip in proptest::option::of(any::<std::net::IpAddr>()),
        protocol in select(PROTOCOLS),
    ) {
        let published = published.map(|port| port.to_string());
        let bracketed = match host_ip {
            Some(std::net::IpAddr::V6(ip)) => format!("[{ip}]:"),
            Some(std::net::IpAddr::V4(ip)) => format!("{ip}:"),
            None => String::new(),
        };
        let separator = if published.is_none() && host_ip.is_none() { "" } else { ":" };
        let before = published.clone().unwrap_or_default();
        let short = format!("{bracketed}{before}{separator}{target}/{protocol}");
        let short = read_with(&service(&format!("    ports: [\"{short}\"]")), &[]).unwrap();
        let mut long = format!("target: {target}, protocol: {protocol}");
        long.extend(published.map(|port| format!(", published: {port}")));
        long.extend(host_ip.map(|ip| format!(", host_ip: \"{ip}\"")));
        let long = read_with(&service(&format!("    ports: [{{{long}}}]")), &[]).unwrap();
        let ports = |loaded: &Loaded| loaded.spec.services[0].spec.clone().unwrap().ports;
        prop_assert_eq!(ports(&short).len(), 1);
        prop_assert_eq!(ports(&short)[0].target_port, target);
        prop_assert_eq!(ports(&short)[0].protocol().to_string(), protocol);
        prop_assert_eq!(ports(&short), ports(&long));
    }

    #[test]
    fn any_env_file_is_read_or_refused(text in "[\\PC\n=#'\"\\\\]{0,80}") {
        if let Err(error) = dotenv::parse(&text) {
            prop_assert!(error.starts_with("line "), "{error}");
        }
    }

    #[test]
    fn values_in_single_quotes_stand_for_themselves(value in "[\\PC&&[^'\\\\]]{0,40}") {
        let read = dotenv::parse(&format!("# first\nVALUE='{value}' # last\n")).unwrap();
        prop_assert_eq!(read.get("VALUE"), Some(&value));
    }
}
