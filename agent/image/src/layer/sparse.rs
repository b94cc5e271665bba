//! Sparse files in tar archives: which parts of a file are stored.
//!
//! Four ways to say it: GNU's old header, and versions 0.0, 0.1 and 1.0 in pax headers. All end
//! up as [`Segment`]s that are in order, inside the file and exactly as long as what is stored.

use super::pax::decimal;
use super::tar::TarError;

/// Ends of a map that no honest archive reaches: about 43,000 segments.
pub(super) const MAX_MAP: usize = 1 << 20;

/// A stored part of a file; between segments are holes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// Pairs of offset and length as segments.
pub(super) fn from_numbers(numbers: &[u64]) -> Result<Vec<Segment>, TarError> {
    if !numbers.len().is_multiple_of(2) {
        return Err(TarError::Sparse);
    }
    Ok(numbers.chunks(2).map(|pair| Segment { offset: pair[0], length: pair[1] }).collect())
}

/// The map that version 1.0 stores before the data: a count, then the pairs, a line each.
///
/// Returns nothing while `bytes` doesn't hold the whole map yet.
pub(super) fn read_map(bytes: &[u8]) -> Result<Option<Vec<Segment>>, TarError> {
    let complete = bytes.iter().rposition(|b| *b == b'\n').map_or(&[][..], |end| &bytes[..end]);
    let mut lines = complete.split(|b| *b == b'\n');
    let Some(count) = lines.next().filter(|line| !line.is_empty()) else {
        return Ok(None);
    };
    let count = usize::try_from(decimal(count)?).map_err(|_| TarError::Sparse)?;
    let wanted = count.checked_mul(2).filter(|n| *n <= MAX_MAP).ok_or(TarError::Sparse)?;
    let numbers: Vec<&[u8]> = lines.take(wanted).collect();
    if numbers.len() < wanted {
        return Ok(None);
    }
    let numbers: Vec<u64> = numbers.into_iter().map(decimal).collect::<Result<_, _>>()?;
    from_numbers(&numbers).map(Some)
}

/// Are the segments in order, inside a file of `size`, and as long as the `stored` bytes?
pub(super) fn check(segments: &[Segment], size: u64, stored: u64) -> Result<(), TarError> {
    let mut end = 0;
    let mut total = 0u64;
    for segment in segments {
        if segment.offset < end {
            return Err(TarError::Sparse);
        }
        end = segment.offset.checked_add(segment.length).ok_or(TarError::Sparse)?;
        total += segment.length;
    }
    if end > size || total != stored { Err(TarError::Sparse) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_read_only_when_it_is_whole() {
        assert_eq!(read_map(b"").unwrap(), None);
        assert_eq!(read_map(b"2\n0\n512\n").unwrap(), None);
        let map = read_map(b"2\n0\n512\n4096\n8\n\0\0").unwrap().unwrap();
        assert_eq!(map[1], Segment { offset: 4096, length: 8 });
        assert_eq!(read_map(b"0\n\0").unwrap(), Some(vec![]));
        assert!(read_map(b"x\n").is_err());
        assert!(read_map(b"99999999999999999999\n").is_err());
    }

    #[test]
    fn maps_that_overlap_or_lie_about_lengths_are_refused() {
        let at = |offset, length| Segment { offset, length };
        check(&[at(0, 4), at(8, 4)], 12, 8).unwrap();
        for (segments, size, stored) in [
            (vec![at(0, 4), at(2, 4)], 12, 8),
            (vec![at(0, 4)], 3, 4),
            (vec![at(0, 4)], 4, 5),
            (vec![at(u64::MAX, 2)], u64::MAX, 2),
        ] {
            assert!(check(&segments, size, stored).is_err());
        }
    }
}
