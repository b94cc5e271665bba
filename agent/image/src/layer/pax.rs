//! Extended headers of tar archives (POSIX.1-2017, pax, "pax Extended Header").
//!
//! A record is `LENGTH KEY=VALUE\n`. Values are bytes: extended attributes hold newlines and
//! zeros, so records are cut by their length and never by line.

use super::tar::TarError;

const XATTR: &[u8] = b"SCHILY.xattr.";

/// What extended headers say about the entry that follows them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Extended {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    /// Seconds and nanoseconds since 1970.
    pub(super) mtime: Option<(i64, u32)>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: PaxSparse,
}

/// GNU's sparse files in pax headers, versions 0.0, 0.1 and 1.0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PaxSparse {
    pub(super) major: Option<u64>,
    pub(super) name: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    /// Offsets and lengths, in turn.
    pub(super) numbers: Vec<u64>,
}

impl Extended {
    /// Takes in the records of one header; a later record wins over an earlier one.
    pub(super) fn read(&mut self, mut bytes: &[u8]) -> Result<(), TarError> {
        while !bytes.is_empty() {
            // Some writers fill the block with zeros.
            if bytes.iter().all(|b| *b == 0) {
                break;
            }
            let (record, rest) = split_record(bytes).ok_or(TarError::Pax)?;
            bytes = rest;
            let equals = record.iter().position(|b| *b == b'=').ok_or(TarError::Pax)?;
            self.set(&record[..equals], &record[equals + 1..])?;
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), TarError> {
        let text = || (!value.is_empty()).then(|| value.to_vec());
        let number = || if value.is_empty() { Ok(None) } else { decimal(value).map(Some) };
        match key {
            b"path" => self.path = text(),
            b"linkpath" => self.link = text(),
            b"size" => self.size = number()?,
            b"uid" => self.uid = number()?,
            b"gid" => self.gid = number()?,
            b"mtime" => self.mtime = if value.is_empty() { None } else { Some(time(value)?) },
            b"GNU.sparse.major" => self.sparse.major = number()?,
            b"GNU.sparse.name" => self.sparse.name = text(),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.sparse.size = number()?,
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                self.sparse.numbers.push(decimal(value)?);
            }
            b"GNU.sparse.map" => {
                self.sparse.numbers =
                    value.split(|b| *b == b',').map(decimal).collect::<Result<_, _>>()?;
            }
            _ => {
                if let Some(name) = key.strip_prefix(XATTR).filter(|name| !name.is_empty()) {
                    self.xattrs.retain(|(other, _)| other != name);
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Ok(())
    }
}

fn split_record(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = bytes.iter().position(|b| *b == b' ')?;
    let length = usize::try_from(decimal(&bytes[..space]).ok()?).ok()?;
    if length <= space + 1 || length > bytes.len() || bytes[length - 1] != b'\n' {
        return None;
    }
    Some((&bytes[space + 1..length - 1], &bytes[length..]))
}

/// A number of digits only: no sign, no blanks.
pub(super) fn decimal(text: &[u8]) -> Result<u64, TarError> {
    let digits = std::str::from_utf8(text).ok().filter(|text| !text.starts_with('+'));
    digits.and_then(|text| text.parse().ok()).ok_or(TarError::Pax)
}

/// `-12.5` is half a second before twelve seconds before 1970.
fn time(text: &[u8]) -> Result<(i64, u32), TarError> {
    let text = std::str::from_utf8(text).map_err(|_| TarError::Pax)?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().map_err(|_| TarError::Pax)?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return Err(TarError::Pax);
    }
    let nanos = fraction
        .bytes()
        .chain(std::iter::repeat(b'0'))
        .take(9)
        .fold(0u32, |n, b| n * 10 + u32::from(b - b'0'));
    if whole.starts_with('-') && nanos > 0 {
        let seconds = seconds.checked_sub(1).ok_or(TarError::Pax)?;
        return Ok((seconds, 1_000_000_000 - nanos));
    }
    Ok((seconds, nanos))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
        let body = key.len() + value.len() + 3;
        let digits = (1..).find(|digits| (body + digits).to_string().len() == *digits).unwrap();
        [(body + digits).to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
    }

    #[test]
    fn a_value_keeps_its_newlines_and_zeros() {
        let capability = b"\x01\n\x00\x02=\n4 x";
        let bytes =
            [record(b"SCHILY.xattr.security.capability", capability), record(b"path", b"a/b")]
                .concat();
        let mut extended = Extended::default();
        extended.read(&bytes).unwrap();
        assert_eq!(extended.xattrs, [(b"security.capability".to_vec(), capability.to_vec())]);
        assert_eq!(extended.path.as_deref(), Some(b"a/b".as_slice()));
    }

    #[test]
    fn times_have_fractions_and_signs() {
        for (text, want) in [
            ("1700000000", (1_700_000_000, 0)),
            ("12.5", (12, 500_000_000)),
            ("-12.5", (-13, 500_000_000)),
            ("0.1234567891", (0, 123_456_789)),
        ] {
            assert_eq!(time(text.as_bytes()).unwrap(), want, "{text}");
        }
        assert!(time(b"now").is_err());
    }

    #[test]
    fn broken_records_are_refused() {
        for bytes in [&b"5"[..], b"0 a=b\n", b"99 a=b\n", b"6 a=bc", b"6 abc\n", b"+6 a=b\n"] {
            assert!(Extended::default().read(bytes).is_err(), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Extended::default().read(&bytes);
        }

        #[test]
        fn any_path_comes_back(path in proptest::collection::vec(any::<u8>(), 1..300)) {
            let mut extended = Extended::default();
            extended.read(&record(b"path", &path)).unwrap();
            prop_assert_eq!(extended.path, Some(path));
        }
    }
}
