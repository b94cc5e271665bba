//! Authentication at registries: challenges (RFC 9110, 11.6.1) and Docker's token protocol
//! (distribution, docs/spec/auth/token.md).

use serde::Deserialize;

use super::config::Credentials;

/// What a registry wants to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

/// What a request carries.
#[derive(Clone)]
pub(super) enum Authorization {
    None,
    Basic(Credentials),
    Bearer(String),
}

impl Authorization {
    pub(super) fn add_to(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match self {
            Self::None => request,
            Self::Basic(Credentials { username, password }) => {
                request.basic_auth(username, Some(password))
            }
            Self::Bearer(token) => request.bearer_auth(token),
        }
    }
}

/// A token server's answer: one of the two fields is set.
#[derive(Deserialize)]
pub(super) struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
}

impl TokenAnswer {
    pub(super) fn into_token(self) -> Option<String> {
        self.token.or(self.access_token).filter(|token| !token.is_empty())
    }
}

/// The first challenge of `WWW-Authenticate` headers that is understood.
pub(super) fn challenge<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Challenge> {
    let mut basic = None;
    for header in headers {
        let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            basic = Some(Challenge::Basic);
        } else if scheme.eq_ignore_ascii_case("bearer") {
            let parameters = parameters(rest);
            let get = |name: &str| {
                let mut found = parameters.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
                found.next().map(|(_, value)| value.clone())
            };
            if let Some(realm) = get("realm") {
                return Some(Challenge::Bearer {
                    realm,
                    service: get("service"),
                    scope: get("scope"),
                });
            }
        }
    }
    basic
}

/// `key=value` and `key="value"`, with commas between and, inside quotes, backslashes.
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((key, after)) = rest.split_once('=') {
        let key = key.trim_matches([' ', ',', '\t']).to_owned();
        let after = after.trim_start();
        let mut value = String::new();
        if let Some(quoted) = after.strip_prefix('"') {
            let mut characters = quoted.char_indices();
            let mut end = quoted.len();
            while let Some((at, character)) = characters.next() {
                match character {
                    '"' => {
                        end = at + 1;
                        break;
                    }
                    '\\' => value.extend(characters.next().map(|(_, character)| character)),
                    other => value.push(other),
                }
            }
            rest = &quoted[end..];
        } else {
            let end = after.find(',').unwrap_or(after.len());
            value.push_str(after[..end].trim());
            rest = &after[end..];
        }
        found.push((key, value));
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn challenges_of_real_registries() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/nginx:pull,push""#;
        assert_eq!(
            challenge([hub].into_iter()),
            Some(Challenge::Bearer {
                realm: "https://auth.docker.io/token".into(),
                service: Some("registry.docker.io".into()),
                scope: Some("repository:library/nginx:pull,push".into()),
            })
        );
        assert_eq!(challenge([r#"Basic realm="a \"b\"""#].into_iter()), Some(Challenge::Basic));
        let both = ["Basic realm=x", "bearer realm=http://a/t , service = \"s\""];
        let Some(Challenge::Bearer { realm, service, scope }) = challenge(both.into_iter()) else {
            panic!("a token is preferred to a password");
        };
        assert_eq!((realm.as_str(), service.as_deref(), scope), ("http://a/t", Some("s"), None));
        assert_eq!(challenge(["Negotiate", "Bearer service=x", ""].into_iter()), None);
    }

    proptest! {
        #[test]
        fn any_header_is_read_or_refused(text in "(Bearer )?[ -~]{0,60}") {
            let _ = challenge([text.as_str()].into_iter());
        }
    }
}
