//! What is kept of a container's interfaces, so that an agent that starts anew can take them away and
//! others can be added beside them: one line for each, `OUTER INNER NETWORK`.

/// One interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recorded {
    /// Name on the host.
    pub(crate) outer: String,
    /// Name in the container.
    pub(crate) inner: String,
    /// Id of the network that it leads to.
    pub(crate) network: String,
}

pub(crate) fn parse(text: &str) -> Vec<Recorded> {
    let line = |line: &str| {
        let mut words = line.split(' ').map(str::to_owned);
        let mut next = || words.next().unwrap_or_default();
        Recorded { outer: next(), inner: next(), network: next() }
    };
    text.lines().map(line).collect()
}

pub(crate) fn text(interfaces: &[Recorded]) -> String {
    let line = |one: &Recorded| format!("{} {} {}\n", one.outer, one.inner, one.network);
    interfaces.iter().map(line).collect()
}

/// The first of `eth0`, `eth1`, … that none of these has.
pub(crate) fn free_name<'a>(taken: impl Iterator<Item = &'a Recorded> + Clone) -> String {
    let is_free = |name: &String| taken.clone().all(|one| one.inner != *name);
    let mut names = (0..=u16::MAX).map(|number| format!("eth{number}"));
    // There are never so many.
    names.find(is_free).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let one = |outer: &str, inner: &str| Recorded {
            outer: outer.to_owned(),
            inner: inner.to_owned(),
            network: "n".to_owned(),
        };
        let all = [one("a", "eth0"), one("b", "eth2")];
        assert_eq!(parse(&text(&all)), all);
        assert_eq!(free_name(all.iter()), "eth1");
        assert_eq!(free_name(all[1..].iter()), "eth0");
        assert!(parse("").is_empty());
    }
}
