use proptest::prelude::*;

use super::*;

const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[test]
fn names_get_the_defaults_that_docker_gives_them() {
    let digest = format!("sha256:{HEX}");
    for (text, full, familiar) in [
        ("nginx", "docker.io/library/nginx:latest", "nginx:latest"),
        ("nginx:1.27", "docker.io/library/nginx:1.27", "nginx:1.27"),
        ("grafana/loki", "docker.io/grafana/loki:latest", "grafana/loki:latest"),
        ("index.docker.io/library/a", "docker.io/library/a:latest", "a:latest"),
        ("docker.io/a", "docker.io/library/a:latest", "a:latest"),
        ("localhost/a", "localhost/a:latest", "localhost/a:latest"),
        ("localhost:5000/a/b:c", "localhost:5000/a/b:c", "localhost:5000/a/b:c"),
        ("[::1]:5000/a", "[::1]:5000/a:latest", "[::1]:5000/a:latest"),
        ("[fd00::1]/a", "[fd00::1]/a:latest", "[fd00::1]/a:latest"),
        ("ghcr.io/a__b/c--d/e.f:V1_x-y.z", "ghcr.io/a__b/c--d/e.f:V1_x-y.z", ""),
        ("FOO/a", "FOO/a:latest", "FOO/a:latest"),
    ] {
        let reference: Reference = text.parse().unwrap();
        assert_eq!(reference.to_string(), full, "{text}");
        if !familiar.is_empty() {
            assert_eq!(reference.familiar(), familiar, "{text}");
        }
    }
    let both: Reference = format!("a:1@{digest}").parse().unwrap();
    assert_eq!((both.tag(), both.digest().unwrap().hex()), (Some("1"), HEX));
    let pinned: Reference = format!("a@{digest}").parse().unwrap();
    assert_eq!(pinned.tag(), None);
    assert_eq!(pinned.familiar(), format!("a@{digest}"));
}

#[test]
fn wrong_names_say_which_part_is_wrong() {
    for (text, word) in [
        ("", "empty"),
        ("Nginx", "upper-case"),
        ("a:", "tag"),
        ("a:-x", "tag"),
        ("a:b:c", "tag"),
        ("a/", "repository"),
        ("/a", "repository"),
        ("a//b", "repository"),
        ("a..b", "repository"),
        ("a___b", "repository"),
        ("-a", "repository"),
        ("a/../b", "repository"),
        ("a b", "repository"),
        ("https://a.b/c", "registry"),
        ("a.b:x/c", "registry"),
        ("a.b:70000/c", "registry"),
        ("[::1/c", "registry"),
        ("[::1]x/c.d:/y", "registry"),
        (".b/c", "registry"),
        ("a@sha256:abc", "digest"),
        ("a@", "digest"),
        (HEX, "id"),
        (&format!("a.b/{}", "c".repeat(256)), "longer"),
        (&format!("a:{}", "c".repeat(129)), "tag"),
    ] {
        let error = text.parse::<Reference>().unwrap_err().to_string();
        assert!(error.contains(word), "{text}: {error}");
    }
}

proptest! {
    #[test]
    fn any_text_parses_or_not_without_a_panic(text in "\\PC{0,80}") {
        let _ = text.parse::<Reference>();
    }

    #[test]
    fn both_forms_of_a_reference_mean_the_same(
        text in "([a-z]{1,5}(\\.[a-z]{2}|:[1-9][0-9]{2})/)?[a-z0-9]{1,6}([._-][a-z0-9]{1,3})?(/[a-z]{1,4}){0,2}(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,8})?"
    ) {
        let reference: Reference = text.parse().unwrap();
        prop_assert_eq!(&reference.to_string().parse::<Reference>().unwrap(), &reference);
        prop_assert_eq!(&reference.familiar().parse::<Reference>().unwrap(), &reference);
    }
}
