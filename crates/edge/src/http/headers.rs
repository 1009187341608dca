//! Which header fields pass, by RFC 9110 section 7.6.1 and RFC 9112.

use std::net::{IpAddr, SocketAddr};

use hyper::HeaderMap;
use hyper::header::{
    CONNECTION, EXPECT, FORWARDED, HOST, HeaderName, HeaderValue, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE,
};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Fields about one connection only. `Trailer` is not among them: it belongs to the body.
const HOP_BY_HOP: [HeaderName; 6] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Fields that only a proxy an application trusts may set, and this edge trusts no client to be one. `Proxy` would
/// become `HTTP_PROXY` in a CGI's environment (<https://httpoxy.org>).
const CLAIMS: [HeaderName; 9] = [
    FORWARDED,
    FORWARDED_FOR,
    FORWARDED_HOST,
    FORWARDED_PROTO,
    HeaderName::from_static("x-forwarded-port"),
    HeaderName::from_static("x-forwarded-prefix"),
    HeaderName::from_static("x-real-ip"),
    HeaderName::from_static("proxy"),
    PROXY_AUTHORIZATION,
];

/// Whether the body, if any, is framed in a way that we pass on as it is meant: not at all, or `chunked` and no other
/// coding, once.
pub(super) fn plainly_framed(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    codings.next().is_none_or(|coding| coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"))
        && codings.next().is_none()
}

/// Makes a client's request headers those of the request to the upstream. True: an upgrade is asked for.
pub(super) fn forward_request(headers: &mut HeaderMap, peer: SocketAddr, host: Option<&HeaderValue>) -> bool {
    let upgrade = upgrade_asked(headers);
    let trailers = tokens(headers, &TE).any(|token| token.eq_ignore_ascii_case("trailers"));
    strip(headers);
    for claim in &CLAIMS {
        headers.remove(claim);
    }
    // 100 Continue is ours to send: the upstream reads the body as soon as we pass it on.
    if headers.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        headers.remove(EXPECT);
    }
    if let Some(protocol) = &upgrade {
        headers.insert(UPGRADE, protocol.clone());
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.append(CONNECTION, HeaderValue::from_static("te"));
    }
    headers.insert(FORWARDED_FOR, address_value(peer.ip()));
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
    if let Some(host) = host {
        headers.insert(FORWARDED_HOST, host.clone());
        headers.insert(HOST, host.clone());
    }
    upgrade.is_some()
}

/// Makes an upstream's response headers those of the response to the client. An upgrade's pass.
pub(super) fn forward_response(headers: &mut HeaderMap, upgraded: bool) {
    let protocol = headers.get(UPGRADE).filter(|_| upgraded).cloned();
    strip(headers);
    if let Some(protocol) = protocol {
        headers.insert(UPGRADE, protocol);
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
}

/// The protocol to upgrade to, where the client asks for one. Not HTTP/2: a tunnel of further requests would go past
/// everything that is decided for each request here.
fn upgrade_asked(headers: &HeaderMap) -> Option<HeaderValue> {
    let asked = tokens(headers, &CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade"));
    let http = |protocol: &str| protocol.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("h2"));
    let mut protocols = headers.get_all(UPGRADE).iter();
    let protocol = protocols.next().filter(|_| asked && protocols.next().is_none())?;
    (!tokens(headers, &UPGRADE).any(http)).then(|| protocol.clone())
}

fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = tokens(headers, &CONNECTION)
        .filter(|token| !["close", "keep-alive", "upgrade"].iter().any(|usual| token.eq_ignore_ascii_case(usual)))
        .filter_map(|token| HeaderName::from_bytes(token.as_bytes()).ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// The members of a comma-separated field.
fn tokens<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h str> + use<'h> {
    let values = headers.get_all(name).into_iter();
    values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).map(str::trim)
}

fn address_value(address: IpAddr) -> HeaderValue {
    HeaderValue::try_from(address.to_canonical().to_string()).expect("an address is made of visible ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields.iter().map(|&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    fn check(from: &[(&'static str, &'static str)], expected: &[(&'static str, &'static str)], upgrade: bool) {
        let mut headers = map(from);
        let host = HeaderValue::from_static("web.localhost");
        let asked = forward_request(&mut headers, "[::ffff:10.1.2.3]:5".parse().unwrap(), Some(&host));
        let mut wanted = map(expected);
        wanted.extend(map(&[
            ("host", "web.localhost"),
            ("x-forwarded-for", "10.1.2.3"),
            ("x-forwarded-host", "web.localhost"),
            ("x-forwarded-proto", "http"),
        ]));
        assert_eq!((headers, asked), (wanted, upgrade), "{from:?}");
    }

    #[test]
    fn requests() {
        check(&[], &[], false);
        check(&[("accept", "*/*"), ("keep-alive", "5"), ("connection", "close")], &[("accept", "*/*")], false);
        check(&[("connection", "X-Secret, close"), ("x-secret", "1"), ("x-open", "2")], &[("x-open", "2")], false);
        check(&[("connection", "x-forwarded-for, host")], &[], false);
        check(&[("x-forwarded-for", "6.6.6.6"), ("forwarded", "for=6.6.6.6"), ("proxy", "evil")], &[], false);
        check(&[("transfer-encoding", "chunked"), ("trailer", "x-sum")], &[("trailer", "x-sum")], false);
        check(&[("te", "gzip, trailers")], &[("te", "trailers"), ("connection", "te")], false);
        check(&[("expect", "100-Continue")], &[], false);
        let websocket = [("connection", "upgrade"), ("upgrade", "websocket")];
        check(&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")], &websocket, true);
        check(&[("upgrade", "websocket")], &[], false);
        let h2c = [("connection", "Upgrade, HTTP2-Settings"), ("upgrade", "h2c"), ("http2-settings", "AAMAAABk")];
        check(&h2c, &[], false);
        check(&[("connection", "upgrade"), ("upgrade", "websocket, H2C")], &[], false);
    }

    #[test]
    fn framing() {
        for (codings, plain) in [
            (&[][..], true),
            (&["chunked"], true),
            (&["Chunked "], true),
            (&["gzip, chunked"], false),
            (&["chunked", "chunked"], false),
        ] {
            let headers = codings.iter().map(|&coding| (TRANSFER_ENCODING, HeaderValue::from_static(coding)));
            assert_eq!(plainly_framed(&headers.collect()), plain, "{codings:?}");
        }
    }
}
