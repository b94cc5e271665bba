//! What someone may have meant who wrote a name that is not there.

/// The known name that is the fewest slips away: two at the most, and not all of the name.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let most = name.chars().count().saturating_sub(1).min(2);
    let near = known.into_iter().map(|other| (distance(other, name), other));
    let near = near.filter(|(slips, _)| *slips <= most).min_by_key(|(slips, _)| *slips);
    near.map(|(_, other)| other)
}

/// Letters to insert, delete or replace to get from one to the other (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replace = corner + usize::from(from != *to);
            corner = row[j + 1];
            row[j + 1] = replace.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn the_nearest_name_is_offered_and_a_stranger_is_not() {
        let known = ["image", "images", "init", "db"];
        for (name, expected) in [
            ("imagee", Some("image")),
            ("imges", Some("images")),
            ("inti", Some("init")),
            ("dc", Some("db")),
            ("aa", None),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(nearest(name, known), expected, "{name}");
        }
    }
}
