//! What clients did to a register and saw of it, and whether one register, with one operation after
//! the other, could have given them that (linearizability; Herlihy, Wing 1990).
//!
//! Each write has a value of its own, so that it is known whose value a read has seen. Then it is
//! enough to look at the operations of each value together (Gibbons, Korach 1997): a value must be
//! written before it is read, and the times in which values must have been there can't overlap.

use std::collections::BTreeMap;

/// One operation, with the times of its call and its answer. A write without an answer may have
/// been done at any time after its call, or never.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    pub is_write: bool,
    pub value: u64,
    pub called: u64,
    pub answered: Option<u64>,
}

/// The value that the register has before the first write.
pub const INITIAL: u64 = 0;

struct Value {
    written: Option<(u64, u64)>,
    /// The earliest answer and the latest call of all its operations.
    first_answer: u64,
    last_call: u64,
    reads: usize,
}

/// Why the history could not have happened to one register; nothing when it could.
///
/// # Errors
/// The two operations, or values, that contradict each other.
pub fn check(history: &[Operation]) -> Result<(), String> {
    let mut values: BTreeMap<u64, Value> = BTreeMap::new();
    let initial = Value { written: Some((0, 0)), first_answer: 0, last_call: 0, reads: 0 };
    values.insert(INITIAL, initial);
    for operation in history {
        // A read that was not answered has seen nothing.
        let answered = match operation.answered {
            Some(answered) => answered,
            None if operation.is_write => u64::MAX,
            None => continue,
        };
        let value = values.entry(operation.value).or_insert(Value {
            written: None,
            first_answer: u64::MAX,
            last_call: 0,
            reads: 0,
        });
        if operation.is_write {
            value.written = Some((operation.called, answered));
        } else {
            value.reads += 1;
        }
        value.first_answer = value.first_answer.min(answered);
        value.last_call = value.last_call.max(operation.called);
    }
    for (value, seen) in &values {
        let Some((called, _)) = seen.written else {
            return Err(format!("{value} was read and never written"));
        };
        if seen.first_answer < called {
            return Err(format!("{value} was read before it was written"));
        }
    }
    // A write that nobody has seen and that may not have been done says nothing.
    values.retain(|_, seen| {
        seen.reads > 0 || seen.written.is_some_and(|(_, answered)| answered != u64::MAX)
    });
    // When a value has an operation that began after another of it had ended, it was there all the
    // time between the two.
    let mut zones: Vec<(u64, u64, u64)> = values
        .iter()
        .filter(|(_, seen)| seen.first_answer < seen.last_call)
        .map(|(value, seen)| (seen.first_answer, seen.last_call, *value))
        .collect();
    zones.sort_unstable();
    for pair in zones.windows(2) {
        if pair[1].0 < pair[0].1 {
            return Err(format!("{} and {} were there at the same time", pair[0].2, pair[1].2));
        }
    }
    // The others have one moment, and it can't be inside another's time.
    for (value, seen) in values.iter().filter(|(_, seen)| seen.first_answer >= seen.last_call) {
        let (begin, end) = (seen.last_call, seen.first_answer);
        let around = zones.iter().find(|(from, to, _)| *from < begin && end < *to);
        if let Some((_, _, other)) = around {
            return Err(format!("{value} was there while {other} was"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(value: u64, called: u64, answered: impl Into<Option<u64>>) -> Operation {
        Operation { is_write: true, value, called, answered: answered.into() }
    }

    fn read(value: u64, called: u64, answered: u64) -> Operation {
        Operation { is_write: false, value, called, answered: Some(answered) }
    }

    #[test]
    fn one_after_the_other_is_fine_and_so_are_overlaps_that_can_be_put_in_order() {
        for history in [
            vec![write(1, 1, 2), read(1, 3, 4), write(2, 5, 6), read(2, 7, 8)],
            vec![write(1, 1, 10), write(2, 1, 10), read(2, 2, 3), read(1, 4, 5)],
            vec![read(0, 1, 2), write(1, 3, None), read(0, 4, 5), read(1, 6, 7)],
            vec![write(1, 1, None), write(2, 2, 3), read(2, 4, 5), read(1, 6, 7)],
        ] {
            assert_eq!(check(&history), Ok(()), "{history:?}");
        }
    }

    #[test]
    fn lost_writes_old_reads_and_values_from_nowhere_are_found() {
        for history in [
            vec![write(1, 1, 2), read(0, 3, 4)],
            vec![write(1, 1, 2), write(2, 3, 4), read(1, 5, 6)],
            vec![write(1, 1, 2), read(1, 3, 4), write(2, 5, 6), read(2, 7, 8), read(1, 9, 10)],
            vec![read(7, 1, 2)],
            vec![read(1, 1, 2), write(1, 3, 4)],
            vec![write(1, 1, None), write(2, 2, 3), read(1, 4, 5), read(2, 6, 7), read(1, 8, 9)],
        ] {
            assert!(check(&history).is_err(), "{history:?}");
        }
    }
}
