//! Ids of cluster objects: 128 random bits, written as 25 characters of base 36 as in Swarm.

use std::fmt;
use std::str::FromStr;

/// Characters of an id in its text form; 36^25 holds 128 bits.
pub const ID_LENGTH: usize = 25;

const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// A text that is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an id: want {ID_LENGTH} characters of 0-9 and a-z")]
pub struct IdError {
    /// The text as given.
    pub text: String,
}

fn format(mut value: u128, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut text = [b'0'; ID_LENGTH];
    for place in text.iter_mut().rev() {
        *place = DIGITS[(value % 36) as usize];
        value /= 36;
    }
    f.pad(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
}

fn parse(text: &str) -> Result<u128, IdError> {
    let error = || IdError { text: text.to_owned() };
    if text.len() != ID_LENGTH {
        return Err(error());
    }
    text.bytes().try_fold(0u128, |value, byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'z' => byte - b'a' + 10,
            _ => return Err(error()),
        };
        value.checked_mul(36).and_then(|v| v.checked_add(u128::from(digit))).ok_or_else(error)
    })
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u128);

        impl $name {
            /// The id made of these random bits.
            #[must_use]
            pub const fn from_bits(bits: u128) -> Self {
                Self(bits)
            }

            /// The bits that the id was made of.
            #[must_use]
            pub const fn bits(self) -> u128 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                format(self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                format(self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                parse(text).map(Self)
            }
        }
    )*};
}

ids! {
    /// Names a node; also in its certificate.
    NodeId
    /// Names a service.
    ServiceId
    /// Names a task: one attempt to run one container.
    TaskId
    /// Names a network.
    NetworkId
    /// Names a stack.
    StackId
    /// Names a version of a secret or config.
    PayloadId
    /// Names a single container of a node.
    ContainerId
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_back_as_written() {
        for bits in [0, 1, 35, 36, u128::from(u64::MAX), u128::MAX] {
            let id = TaskId::from_bits(bits);
            let text = id.to_string();
            assert_eq!(text.len(), ID_LENGTH);
            assert_eq!(text.parse(), Ok(id));
        }
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for text in [
            "",
            "abc",
            "ABCDEFGHIJKLMNOPQRSTUVWXY",
            "zzzzzzzzzzzzzzzzzzzzzzzzz",
            "é0000000000000000000000000",
        ] {
            assert!(text.parse::<NodeId>().is_err(), "{text}");
        }
    }
}
