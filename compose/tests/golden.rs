//! Compose files in `golden/`, each beside what becomes of it: `NAME.txt` has the warnings and the
//! spec, `NAME.err` the errors as a person sees them. Variables come from `NAME.env` where there
//! is one. With `SHOAL_BLESS=1` the expected files are written instead of compared.

// It is all test, and its data is in files, which the crate itself does not touch.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use shoal_compose::{LoadOptions, Loaded, SourceFile, dotenv, load};

/// What became of a file, by the ending of the file that has it.
struct Outcome {
    ending: &'static str,
    text: String,
}

#[test]
fn each_file_gives_what_stands_beside_it() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let bless = env::var_os("SHOAL_BLESS").is_some_and(|value| value == "1");
    let files: BTreeSet<PathBuf> =
        fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    let is = |path: &Path, ending: &str| path.extension().is_some_and(|own| own == ending);
    let mut failures = Vec::new();
    let mut cases = 0;
    for path in &files {
        if is(path, "yml") {
            cases += 1;
            failures.extend(check(path, bless).err());
        } else if !files.contains(&path.with_extension("yml")) {
            failures.push(format!("{}: there is no .yml beside it", path.display()));
        }
    }
    assert!(cases > 0, "no files in {}", folder.display());
    let count = failures.len();
    assert!(
        failures.is_empty(),
        "{count} of {cases} differ; SHOAL_BLESS=1 writes what there is now\n\n{}",
        failures.join("\n\n")
    );
}

fn check(path: &Path, bless: bool) -> Result<(), String> {
    let outcome = outcome(path)?;
    let expected = path.with_extension(outcome.ending);
    let other = path.with_extension(if outcome.ending == "txt" { "err" } else { "txt" });
    if bless {
        if other.exists() {
            fs::remove_file(&other).map_err(|error| format!("{}: {error}", other.display()))?;
        }
        return fs::write(&expected, &outcome.text)
            .map_err(|error| format!("{}: {error}", expected.display()));
    }
    if other.exists() {
        return Err(format!("{} is there, but the file gives\n{}", other.display(), outcome.text));
    }
    let wanted = fs::read_to_string(&expected)
        .map_err(|error| format!("{}: {error}; want\n{}", expected.display(), outcome.text))?;
    if wanted == outcome.text {
        return Ok(());
    }
    Err(format!("{} differs\n{}", expected.display(), difference(&wanted, &outcome.text)))
}

fn outcome(path: &Path) -> Result<Outcome, String> {
    let read = |path: &Path| {
        fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
    };
    let variables = path.with_extension("env");
    let environment = match variables.exists() {
        true => dotenv::parse(&read(&variables)?)
            .map_err(|error| format!("{}: {error}", variables.display()))?,
        false => BTreeMap::new(),
    };
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    let source = SourceFile { path: name.unwrap_or_default(), text: read(path)? };
    let options = LoadOptions {
        project_name: None,
        default_name: "Shop",
        working_dir: "/srv/shop",
        environment: &environment,
    };
    Ok(match load(&source, &options) {
        Ok(loaded) => Outcome { ending: "txt", text: print(&loaded) },
        Err(errors) => Outcome { ending: "err", text: format!("{errors}\n") },
    })
}

/// Warnings, then the spec as JSON with sorted keys (labels have no order of their own), then the
/// files that are to be read.
fn print(loaded: &Loaded) -> String {
    let mut text = String::new();
    for warning in &loaded.warnings {
        let _ = writeln!(text, "warning: {warning}");
    }
    let mut spec = serde_json::to_value(&loaded.spec).expect("a spec can be JSON");
    spec.sort_all_objects();
    let spec = serde_json::to_string_pretty(&spec).expect("a value can be printed");
    text += &(spec + "\n");
    for file in &loaded.files {
        let (payload, path, limit) = (file.payload, &file.path, file.limit);
        let rule = format!("payload {payload} is {path}, {limit} bytes at the most");
        let _ = writeln!(text, "file: {}", file.diagnostic(rule));
    }
    text
}

/// The lines that differ, without those that both begin and end with.
fn difference(wanted: &str, found: &str) -> String {
    let (wanted, found): (Vec<&str>, Vec<&str>) =
        (wanted.lines().collect(), found.lines().collect());
    let shorter = wanted.len().min(found.len());
    let head = wanted.iter().zip(&found).take_while(|(one, other)| one == other).count();
    let tail = wanted.iter().rev().zip(found.iter().rev());
    let tail = tail.take_while(|(one, other)| one == other).count().min(shorter - head);
    let mut text = format!("line {}:\n", head + 1);
    for line in &wanted[head..wanted.len() - tail] {
        let _ = writeln!(text, "- {line}");
    }
    for line in &found[head..found.len() - tail] {
        let _ = writeln!(text, "+ {line}");
    }
    text
}

/// Those that the README and the documentation tell people to start with.
#[test]
fn the_examples_are_read_without_a_warning() {
    for example in ["hello/compose.yml", "rolling.yml"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(example);
        let outcome = outcome(&path).unwrap();
        assert_eq!(outcome.ending, "txt", "{}", outcome.text);
        assert!(!outcome.text.contains("warning:"), "{}", outcome.text);
    }
}

/// A page's compose files are the fences that begin with `# example:`.
#[test]
fn the_examples_of_the_page_on_services_are_read_without_a_warning() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/services.md");
    let page = fs::read_to_string(&page).unwrap();
    let fences = page.split("```yaml\n").skip(1);
    let examples: Vec<&str> = fences.filter_map(|fence| fence.split("```").next()).collect();
    assert!(examples.len() > 10, "{} examples", examples.len());
    let environment = BTreeMap::new();
    let options = LoadOptions {
        project_name: None,
        default_name: "Shop",
        working_dir: "/srv/shop",
        environment: &environment,
    };
    for example in examples {
        assert!(example.starts_with("# example: "), "{example}");
        let source = SourceFile { path: "services.md".to_owned(), text: example.to_owned() };
        let loaded = load(&source, &options).unwrap_or_else(|errors| panic!("{errors}"));
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    }
}
