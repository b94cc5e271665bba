//! Fields of tar headers: numbers in two notations, and the checksum.

use super::tar::TarError;

/// Octal digits, or a big-endian binary number when the first bit is set; blank means zero.
pub(super) fn number(field: &[u8]) -> Option<i64> {
    if field[0] & 0x80 != 0 {
        let negative = field[0] & 0x40 != 0;
        let first = i128::from(field[0] & 0x3f) - if negative { 0x40 } else { 0 };
        // Twelve bytes at most: no overflow.
        let value = field[1..].iter().fold(first, |value, b| value * 256 + i128::from(*b));
        return i64::try_from(value).ok();
    }
    let digits = field.split(|b| matches!(b, 0 | b' ')).find(|part| !part.is_empty());
    match std::str::from_utf8(digits.unwrap_or(b"0")) {
        Ok(digits) if !digits.starts_with(['+', '-']) => i64::from_str_radix(digits, 8).ok(),
        _ => None,
    }
}

/// A number that can't be negative; `name` and the entry's path are for the error.
pub(super) fn positive(
    header: &tar::Header,
    name: &'static str,
    field: &[u8],
) -> Result<u64, TarError> {
    number(field)
        .and_then(|value| u64::try_from(value).ok())
        .ok_or_else(|| TarError::Number { path: lossy(&header.path_bytes()), field: name })
}

/// The sum of all bytes, the checksum's own taken as blanks. Old writers summed signed bytes.
pub(super) fn has_checksum(header: &tar::Header) -> bool {
    let bytes = header.as_bytes();
    let sum = |signed: bool| -> i64 {
        let value = |b: u8| if signed { i64::from(b as i8) } else { i64::from(b) };
        let blank = 8 * i64::from(b' ');
        blank + bytes[..148].iter().chain(&bytes[156..]).map(|b| value(*b)).sum::<i64>()
    };
    let checksum = number(&header.as_old().cksum);
    checksum == Some(sum(false)) || checksum == Some(sum(true))
}

pub(super) fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_binary_and_blank_is_zero() {
        for (field, want) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   755 \0", Some(0o755)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"       \0", Some(0)),
            (b"\x80\0\0\0\0\0\x01\x02", Some(258)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
            (b"0000089\0", None),
            (b"-000001\0", None),
        ] {
            assert_eq!(number(field), want, "{field:?}");
        }
    }
}
