//! Networks that tasks are on.

use shoal_proto::v1::NetworkAttachmentSpec;

/// A name or id, or `name=NETWORK,alias=NAME,…`.
///
/// # Errors
/// Another form.
pub(super) fn parse(text: &str) -> Result<NetworkAttachmentSpec, String> {
    let mut attached = NetworkAttachmentSpec::default();
    if !text.contains('=') {
        text.clone_into(&mut attached.network_id);
    } else {
        for part in text.split(',') {
            match part.split_once('=') {
                Some(("name", name)) => name.clone_into(&mut attached.network_id),
                Some(("alias", alias)) if !alias.is_empty() => {
                    attached.aliases.push(alias.to_owned());
                }
                _ => return Err(format!("{part:?} is neither name=NETWORK nor alias=NAME")),
            }
        }
    }
    match attached.network_id.as_str() {
        "" => Err("the network has no name".to_owned()),
        _ => Ok(attached),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_a_name_and_perhaps_aliases() {
        assert_eq!(parse("front").unwrap().network_id, "front");
        let long = parse("name=front,alias=web,alias=www").unwrap();
        assert_eq!((long.network_id.as_str(), long.aliases.len()), ("front", 2));
        for wrong in ["", "alias=web", "name=", "name=a,alias=", "name=a,driver-opt=x=y"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
