//! Names of containers: given, or made up of two words as Docker does.

const FIRST: [&str; 32] = [
    "amber", "bold", "brave", "bright", "calm", "clear", "cool", "cosy", "deep", "eager", "fair",
    "fast", "fine", "fresh", "gentle", "glad", "golden", "happy", "keen", "kind", "light", "lucky",
    "mild", "neat", "noble", "proud", "quick", "quiet", "silver", "steady", "swift", "warm",
];
const SECOND: [&str; 32] = [
    "anchovy",
    "barracuda",
    "bass",
    "bream",
    "carp",
    "catfish",
    "cod",
    "dace",
    "dolphin",
    "eel",
    "flounder",
    "goby",
    "grayling",
    "gurnard",
    "haddock",
    "hake",
    "halibut",
    "herring",
    "lamprey",
    "mackerel",
    "marlin",
    "minnow",
    "mullet",
    "perch",
    "pike",
    "plaice",
    "salmon",
    "sardine",
    "sole",
    "sprat",
    "trout",
    "tuna",
];

/// One that is not taken, from a number that differs from container to container.
pub(super) fn make_up(seed: u128, taken: impl Fn(&str) -> bool) -> String {
    let pick = |list: &[&'static str; 32], shift: u32| list[(seed >> shift) as usize % 32];
    let name = format!("{}_{}", pick(&FIRST, 0), pick(&SECOND, 5));
    if !taken(&name) {
        return name;
    }
    let numbered = (1u64..).map(|number| format!("{name}{number}"));
    numbered.into_iter().find(|name| !taken(name)).unwrap_or(name)
}

/// Docker's rule: a letter or digit, then those and `_.-`.
pub(super) fn check(name: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric();
    let good =
        name.starts_with(plain) && name.chars().all(|c| plain(c) || matches!(c, '_' | '.' | '-'));
    if good && name.len() <= 128 {
        return Ok(());
    }
    Err(format!(
        "{name:?} can't be a container's name: want 1 to 128 letters, digits, _, . and -, a letter \
         or digit first"
    ))
}
