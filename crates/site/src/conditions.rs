//! Conditional requests (RFC 9110 §13): whether what the client has is still so.

use std::time::SystemTime;

use hyper::HeaderMap;
use hyper::header::{HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE};

/// What tells two representations apart.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Validators<'a> {
    /// A strong entity tag, with its quotes.
    pub(crate) tag: &'a str,
    /// When it was changed last, in whole seconds, where that is known: else conditions about it do not count.
    pub(crate) modified: Option<SystemTime>,
}

/// What the conditions come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is sent.
    Send,
    /// The client has it: 304.
    NotModified,
    /// The client wants it only if it were another: 412.
    Failed,
}

impl Validators<'_> {
    /// Weighs a request's conditions in the order of §13.2.2.
    pub(crate) fn judge(&self, headers: &HeaderMap) -> Verdict {
        let holds = if headers.contains_key(IF_MATCH) {
            self.is_listed(headers, IF_MATCH, false)
        } else {
            self.modified.zip(date(headers, IF_UNMODIFIED_SINCE)).is_none_or(|(modified, since)| modified <= since)
        };
        if !holds {
            return Verdict::Failed;
        }
        let has_it = if headers.contains_key(IF_NONE_MATCH) {
            self.is_listed(headers, IF_NONE_MATCH, true)
        } else {
            self.modified.zip(date(headers, IF_MODIFIED_SINCE)).is_some_and(|(modified, since)| modified <= since)
        };
        if has_it { Verdict::NotModified } else { Verdict::Send }
    }

    /// Whether a range may be sent: the client's part is of this representation, or it says nothing of that (§13.1.5).
    pub(crate) fn is_range_of_this(&self, headers: &HeaderMap) -> bool {
        let Some(value) = headers.get(IF_RANGE) else { return true };
        let Ok(text) = value.to_str() else { return false };
        match date(headers, IF_RANGE) {
            Some(date) => self.modified == Some(date),
            None => text.trim() == self.tag,
        }
    }

    /// Whether the tag is in a list of them; `*` is any. A weak one (`W/"…"`) is the same only where `weak` comparison
    /// will do (§8.8.3.2).
    fn is_listed(&self, headers: &HeaderMap, name: HeaderName, weak: bool) -> bool {
        let lists = headers.get_all(name);
        lists
            .iter()
            .filter_map(|value| value.to_str().ok())
            .any(|list| list.trim() == "*" || tags(list).any(|(is_weak, tag)| tag == self.tag && (weak || !is_weak)))
    }
}

/// The tags of a list, with their quotes, and whether each is weak. A tag may have a comma in it.
fn tags(list: &str) -> impl Iterator<Item = (bool, &str)> {
    let mut rest = list;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let is_weak = rest.starts_with("W/");
        let tag = rest.strip_prefix("W/").unwrap_or(rest);
        let end = tag.strip_prefix('"')?.find('"')? + 2;
        rest = &tag[end..];
        Some((is_weak, &tag[..end]))
    })
}

fn date(headers: &HeaderMap, name: HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(name)?.to_str().ok()?.trim()).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hyper::header::HeaderValue;

    use super::*;

    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const THEN: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    fn validators() -> Validators<'static> {
        Validators { tag: "\"a,b\"", modified: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777)) }
    }

    fn headers(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn verdicts() {
        use Verdict::{Failed, NotModified, Send};
        for (pairs, expected) in [
            (&[][..], Send),
            (&[(IF_NONE_MATCH, "\"a,b\"")], NotModified),
            (&[(IF_NONE_MATCH, "\"x\", W/\"a,b\"")], NotModified),
            (&[(IF_NONE_MATCH, "*")], NotModified),
            (&[(IF_NONE_MATCH, "\"a\"")], Send),
            (&[(IF_NONE_MATCH, "a,b")], Send),
            (&[(IF_NONE_MATCH, "")], Send),
            (&[(IF_MODIFIED_SINCE, THEN)], NotModified),
            (&[(IF_MODIFIED_SINCE, AFTER)], NotModified),
            (&[(IF_MODIFIED_SINCE, BEFORE)], Send),
            (&[(IF_MODIFIED_SINCE, "yesterday")], Send),
            // the tag says more than the time
            (&[(IF_NONE_MATCH, "\"x\""), (IF_MODIFIED_SINCE, THEN)], Send),
            (&[(IF_MATCH, "\"a,b\"")], Send),
            (&[(IF_MATCH, "*")], Send),
            (&[(IF_MATCH, "\"x\"")], Failed),
            (&[(IF_MATCH, "W/\"a,b\"")], Failed),
            (&[(IF_UNMODIFIED_SINCE, BEFORE)], Failed),
            (&[(IF_UNMODIFIED_SINCE, THEN)], Send),
            (&[(IF_MATCH, "\"a,b\""), (IF_UNMODIFIED_SINCE, BEFORE)], Send),
            (&[(IF_MATCH, "\"a,b\""), (IF_NONE_MATCH, "\"a,b\"")], NotModified),
        ] {
            assert_eq!(validators().judge(&headers(pairs)), expected, "{pairs:?}");
        }
    }

    #[test]
    fn without_a_time_only_the_tag_counts() {
        let validators = Validators { modified: None, ..validators() };
        for (pairs, expected) in [
            (&[(IF_MODIFIED_SINCE, AFTER)][..], Verdict::Send),
            (&[(IF_UNMODIFIED_SINCE, BEFORE)], Verdict::Send),
            (&[(IF_NONE_MATCH, "\"a,b\"")], Verdict::NotModified),
        ] {
            assert_eq!(validators.judge(&headers(pairs)), expected, "{pairs:?}");
        }
        assert!(!validators.is_range_of_this(&headers(&[(IF_RANGE, THEN)])));
    }

    #[test]
    fn a_range_is_of_what_the_client_has() {
        for (value, expected) in
            [("\"a,b\"", true), ("W/\"a,b\"", false), ("\"x\"", false), (THEN, true), (AFTER, false), (BEFORE, false)]
        {
            assert_eq!(validators().is_range_of_this(&headers(&[(IF_RANGE, value)])), expected, "{value}");
        }
        assert!(validators().is_range_of_this(&HeaderMap::new()));
    }

    proptest::proptest! {
        #[test]
        fn strangers_lists_end(list in "([\"W/, a-]|\\PC){0,60}") {
            proptest::prop_assert!(tags(&list).count() <= list.len());
        }
    }
}
