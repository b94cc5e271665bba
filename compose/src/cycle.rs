//! Services that depend on each other in a circle would wait for ever.

use std::collections::{BTreeMap, BTreeSet};

use shoal_proto::v1::StackService;

use crate::diagnostic::{Log, Place};

/// For each service, those that it waits for.
type Edges<'a> = BTreeMap<&'a str, Vec<&'a str>>;

/// An error at `place` for each circle, named by the service that comes first in the alphabet.
pub(crate) fn check(project: &str, services: &[StackService], place: Place, log: &mut Log<'_>) {
    let prefix = format!("{project}_");
    let edges: Edges<'_> = services
        .iter()
        .map(|service| {
            let dependencies = service.spec.iter().flat_map(|spec| &spec.depends_on);
            let names = dependencies.filter_map(|other| other.service.strip_prefix(&prefix));
            (service.name.as_str(), names.collect())
        })
        .collect();
    for &start in edges.keys() {
        if let Some(cycle) = find(&edges, start)
            && cycle.iter().min() == Some(&start)
        {
            let way = cycle.join(" -> ");
            log.error(place, format!("services wait for each other: {way} -> {start}"));
        }
    }
}

/// A way from a service back to itself. Each service is looked at once: where there was no way
/// back from it, there is none the next time.
fn find<'a>(edges: &Edges<'a>, start: &'a str) -> Option<Vec<&'a str>> {
    let next = |name: &str| edges.get(name).map(Vec::as_slice).unwrap_or_default().iter();
    let mut seen = BTreeSet::from([start]);
    let mut path = vec![(start, next(start))];
    while let Some((_, rest)) = path.last_mut() {
        match rest.next() {
            Some(&name) if name == start => {
                return Some(path.iter().map(|(name, _)| *name).collect());
            }
            Some(&name) => {
                if seen.insert(name) {
                    path.push((name, next(name)));
                }
            }
            None => {
                path.pop();
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{Edges, find};

    #[test]
    fn a_way_back_is_found_past_dead_ends() {
        let edges = Edges::from([
            ("a", vec!["b", "c"]),
            ("b", vec!["d"]),
            ("c", vec!["d", "e"]),
            ("e", vec!["a"]),
        ]);
        assert_eq!(find(&edges, "a"), Some(vec!["a", "c", "e"]));
        assert_eq!(find(&edges, "b"), None);
    }

    #[test]
    fn many_ways_to_the_same_service_are_not_all_walked() {
        let names: Vec<[String; 2]> =
            (0..60).map(|layer| [format!("a{layer}"), format!("b{layer}")]).collect();
        let mut edges = Edges::new();
        for layers in names.windows(2) {
            for name in &layers[0] {
                edges.insert(name, layers[1].iter().map(String::as_str).collect());
            }
        }
        assert_eq!(find(&edges, "a0"), None);
    }
}
