//! Whom a request is for: the authority it names, and what that means here.

use std::borrow::Cow;
use std::net::IpAddr;

use hyper::header::{HOST, HeaderValue};
use hyper::{HeaderMap, Method, Uri, Version};

/// What a request's authority means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Host<'a> {
    /// `NAME.localhost`: the service NAME, in lower case.
    Service(Cow<'a, str>),
    /// This machine by no name of a service: `localhost`, an address, or nothing (HTTP/1.0).
    Machine,
    /// Anything else.
    Foreign,
}

/// Why it cannot be told whom a request is for.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unclear {
    /// Two servers would choose differently.
    #[error("the request has more than one Host")]
    SeveralHosts,
    /// RFC 9112 section 3.2 wants one.
    #[error("the request has no Host")]
    NoHost,
    /// It is no host and port.
    #[error("the request's Host is not a host and port")]
    BadHost,
    /// Neither a path nor a whole address.
    #[error("the request's target is not a path")]
    BadTarget,
}

/// Finds the authority of a request and makes its target a path: an absolute target's authority takes the place of the
/// `Host` field (RFC 9112 section 3.2.2).
pub(super) fn settle(
    method: &Method,
    uri: &mut Uri,
    version: Version,
    headers: &HeaderMap,
) -> Result<Option<HeaderValue>, Unclear> {
    let mut hosts = headers.get_all(HOST).iter();
    let field = hosts.next();
    if hosts.next().is_some() {
        return Err(Unclear::SeveralHosts);
    }
    let field = match (field, uri.authority()) {
        (_, Some(authority)) => {
            if uri.scheme().is_none() || authority.as_str().contains('@') {
                return Err(Unclear::BadTarget);
            }
            Some(HeaderValue::try_from(authority.as_str()).map_err(|_| Unclear::BadHost)?)
        }
        (Some(field), None) => Some(field.clone()),
        (None, None) if version < Version::HTTP_11 => None,
        (None, None) => return Err(Unclear::NoHost),
    };
    let path = uri.path_and_query().cloned().ok_or(Unclear::BadTarget)?;
    if path.as_str() == "*" && *method != Method::OPTIONS {
        return Err(Unclear::BadTarget);
    }
    if uri.authority().is_some() {
        *uri = Uri::from(path);
    }
    Ok(field)
}

/// What the value of a `Host` field means.
pub(super) fn understand(field: &HeaderValue) -> Result<Host<'_>, Unclear> {
    let text = field.to_str().map_err(|_| Unclear::BadHost)?.trim();
    let name = without_port(text).ok_or(Unclear::BadHost)?;
    if let Some(literal) = name.strip_prefix('[') {
        let address = literal.strip_suffix(']').ok_or(Unclear::BadHost)?;
        return address.parse::<IpAddr>().map(|_| Host::Machine).map_err(|_| Unclear::BadHost);
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)) {
        return Err(Unclear::BadHost);
    }
    if name.is_empty() || name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok() {
        return Ok(Host::Machine);
    }
    match name.rsplit_once('.') {
        Some((service, top)) if top.eq_ignore_ascii_case("localhost") && !service.contains('.') => {
            let upper = service.bytes().any(|byte| byte.is_ascii_uppercase());
            Ok(Host::Service(if upper { service.to_ascii_lowercase().into() } else { service.into() }))
        }
        _ => Ok(Host::Foreign),
    }
}

/// The host of `host[:port]`. None: the port is no number.
fn without_port(text: &str) -> Option<&str> {
    let end = if text.starts_with('[') { text.find(']')? + 1 } else { text.find(':').unwrap_or(text.len()) };
    let (host, port) = text.split_at(end);
    let number = |port: &str| port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit());
    (port.is_empty() || port.strip_prefix(':').is_some_and(number)).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        let service = |name: &'static str| Ok(Host::Service(name.into()));
        for (field, expected) in [
            ("web.localhost", service("web")),
            ("web.localhost:8080", service("web")),
            ("Web.LOCALHOST.:8080", service("web")),
            ("web.localhost:", service("web")),
            ("localhost:8080", Ok(Host::Machine)),
            ("LocalHost.", Ok(Host::Machine)),
            ("127.0.0.1:8080", Ok(Host::Machine)),
            ("[::1]:8080", Ok(Host::Machine)),
            ("", Ok(Host::Machine)),
            ("a.web.localhost", Ok(Host::Foreign)),
            ("example.com", Ok(Host::Foreign)),
            ("web", Ok(Host::Foreign)),
            ("web.localhost:80x", Err(Unclear::BadHost)),
            ("web.localhost:8080:1", Err(Unclear::BadHost)),
            ("web.localhost/x", Err(Unclear::BadHost)),
            ("user@web.localhost", Err(Unclear::BadHost)),
            ("[::1", Err(Unclear::BadHost)),
            ("[web.localhost]", Err(Unclear::BadHost)),
        ] {
            assert_eq!(understand(&HeaderValue::from_static(field)), expected, "{field:?}");
        }
    }

    #[test]
    fn targets() {
        type Settled = Result<(&'static str, Option<&'static str>), Unclear>;
        let cases: [(&str, Version, &[&'static str], Settled); 9] = [
            ("/a?b", Version::HTTP_11, &["x"], Ok(("/a?b", Some("x")))),
            ("/", Version::HTTP_10, &[], Ok(("/", None))),
            ("/", Version::HTTP_11, &[], Err(Unclear::NoHost)),
            ("/", Version::HTTP_11, &["x", "x"], Err(Unclear::SeveralHosts)),
            ("http://y:8/a?b", Version::HTTP_11, &["x"], Ok(("/a?b", Some("y:8")))),
            ("http://y", Version::HTTP_11, &[], Ok(("/", Some("y")))),
            ("http://u@y/", Version::HTTP_11, &[], Err(Unclear::BadTarget)),
            ("y:8", Version::HTTP_11, &["x"], Err(Unclear::BadTarget)),
            ("*", Version::HTTP_11, &["x"], Err(Unclear::BadTarget)),
        ];
        for (target, version, hosts, expected) in cases {
            let mut uri: Uri = target.parse().unwrap();
            let headers = hosts.iter().map(|&host| (HOST, HeaderValue::from_static(host))).collect();
            let settled = settle(&Method::GET, &mut uri, version, &headers);
            let path = uri.to_string();
            let expected = expected.map(|(path, host)| (path.to_owned(), host.map(HeaderValue::from_static)));
            assert_eq!(settled.map(|host| (path, host)), expected, "{target} {hosts:?}");
        }
    }
}
