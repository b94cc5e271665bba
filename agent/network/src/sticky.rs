//! Who always comes to the same endpoint: highest random weight (Thaler and Ravishankar, 1998). An
//! endpoint that comes or goes moves its own share of the clients and no others, and all nodes agree.

use std::fmt::Display;

/// Which of the targets has that key; none of none.
pub(crate) fn choose<T: Display>(key: impl Display, targets: &[T]) -> Option<usize> {
    let weight = |target: &T| hash(format!("{key}/{target}").as_bytes());
    let weights = targets.iter().map(weight).enumerate();
    weights.max_by_key(|(_, weight)| *weight).map(|(number, _)| number)
}

/// FNV-1a with a last mixing (murmur3's): the same on every node, whatever its version.
fn hash(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let mut hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325, step);
    for factor in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
        hash = (hash ^ (hash >> 33)).wrapping_mul(factor);
    }
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_spread_and_stay_when_others_come_and_go() {
        let four = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"];
        let chosen = |targets: &[&'static str]| -> Vec<&'static str> {
            (0..1000).map(|key| targets[choose(key, targets).unwrap()]).collect()
        };
        let before = chosen(&four);
        for target in four {
            let count = before.iter().filter(|one| **one == target).count();
            assert!((200..300).contains(&count), "{target} has {count} of 1000");
        }
        let after = chosen(&four[..3]);
        for (before, after) in before.iter().zip(&after) {
            assert!(before == after || *before == four[3], "{before} moved to {after}");
        }
        assert_eq!(choose(1, &[] as &[&str]), None);
    }
}
