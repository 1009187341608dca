//! Record keys: `TENANT/KIND/NAME`.

/// Why a text is no key, in words that follow "the key … ".
pub(super) const RULE: &str = "must be TENANT/KIND/NAME: labels of lower-case letters, digits and '-' of at most 63 \
                               for the first two, at most 512 visible ASCII characters other than '/' for the last";

/// Whether a text is a whole key.
pub(super) fn is_key(text: &str) -> bool {
    let mut parts = text.split('/');
    matches!(
        (parts.next(), parts.next(), parts.next(), parts.next()),
        (Some(tenant), Some(kind), Some(name), None) if is_label(tenant) && is_label(kind) && is_name(name)
    )
}

/// What a whole key starts with: `TENANT/KIND/`.
pub(super) fn kind(key: &str) -> &str {
    key.rfind('/').map_or(key, |at| &key[..=at])
}

/// The least key past all that start with `prefix`: keys are ASCII, and hold no DEL.
pub(super) fn past(prefix: &str) -> String {
    format!("{prefix}\x7f")
}

fn is_label(part: &str) -> bool {
    (1..=63).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn is_name(part: &str) -> bool {
    (1..=512).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        for (text, valid) in [
            ("default/service/hello", true),
            ("default/image/a|b:1.0", true),
            ("default/service/", false),
            ("default//hello", false),
            ("default/service", false),
            ("default/service/a/b", false),
            ("Default/service/a", false),
            ("default/service/a b", false),
            ("default/service/\x7f", false),
            ("", false),
        ] {
            assert_eq!(is_key(text), valid, "{text:?}");
        }
    }
}
