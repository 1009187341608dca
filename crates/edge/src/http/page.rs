//! What the edge says itself: short, plain, and what to do next.

use std::fmt::Write;

use hyper::header::{ACCEPT, ALLOW, CONNECTION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};

use super::body::ResponseBody;
use super::connection::Turn;
use super::host::Unclear;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");

/// An answer of the edge's own.
#[derive(Debug)]
pub(super) struct Page {
    status: StatusCode,
    text: String,
    html: bool,
}

impl Page {
    fn plain(status: StatusCode, mut text: String) -> Self {
        text.push('\n');
        Self { status, text, html: false }
    }

    /// 400: it cannot be told whom the request is for.
    pub(super) fn unclear(why: &Unclear) -> Self {
        Self::plain(StatusCode::BAD_REQUEST, format!("{why}; send one Host, such as NAME.localhost"))
    }

    /// 501: a body in a coding other than `chunked`.
    pub(super) fn coding() -> Self {
        let text = "the request's Transfer-Encoding is not passed on; send the body chunked or with a Content-Length";
        Self::plain(StatusCode::NOT_IMPLEMENTED, text.into())
    }

    /// 405: CONNECT.
    pub(super) fn connect() -> Self {
        let text = "CONNECT is refused: the edge leads to services, not to other hosts; send the request itself";
        Self::plain(StatusCode::METHOD_NOT_ALLOWED, text.into())
    }

    /// 404: no service of the name, or none without a name. A browser gets links, to the port in `host`.
    pub(super) fn unknown(host: &str, names: &[&str], headers: &HeaderMap) -> Self {
        let status = StatusCode::NOT_FOUND;
        let port = host.rsplit_once(':').map_or("", |(_, port)| port);
        let port = if port.bytes().all(|byte| byte.is_ascii_digit()) { port } else { "" };
        let colon = if port.is_empty() { "" } else { ":" };
        let what = match host {
            "" => "the request names no service".to_owned(),
            host => format!("there is no service at {host}"),
        };
        if names.is_empty() {
            return Self::plain(status, format!("{what}: none is up; start one with `sampan up DIRECTORY`"));
        }
        let accepts = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
        if !accepts.is_some_and(|accept| accept.contains("text/html")) {
            let urls: Vec<_> = names.iter().map(|name| format!("http://{name}.localhost{colon}{port}/")).collect();
            return Self::plain(status, format!("{what}; there is {}", urls.join(", ")));
        }
        let mut text = format!(
            "<!doctype html><meta charset=utf-8><title>No such service</title>\n<p>{}. There is:\n<ul>\n",
            escape(&what)
        );
        for name in names {
            let _ = writeln!(text, "<li><a href=\"http://{name}.localhost{colon}{port}/\">{name}</a>");
        }
        text.push_str("</ul>\n");
        Self { status, text, html: true }
    }

    /// 503: the service has no ready replica.
    pub(super) fn none_ready(service: &str) -> Self {
        let text = format!(
            "service {service} has no ready replica at the moment; try again, or see `sampan ps` and `sampan logs {service}`"
        );
        Self::plain(StatusCode::SERVICE_UNAVAILABLE, text)
    }

    /// 502: no replica took the request.
    pub(super) fn failed(service: &str, replica: &str, why: &str) -> Self {
        let text = format!("replica {replica} of service {service} did not answer: {why}; see `sampan logs {service}`");
        Self::plain(StatusCode::BAD_GATEWAY, text)
    }

    /// 504: a replica took the request and did not answer.
    pub(super) fn late(service: &str, replica: &str, seconds: u64) -> Self {
        let text = format!(
            "replica {replica} of service {service} did not begin to answer within {seconds} s; see `sampan logs {service}`"
        );
        Self::plain(StatusCode::GATEWAY_TIMEOUT, text)
    }

    /// As a response.
    pub(super) fn respond(self, turn: Turn) -> Response<ResponseBody> {
        let mut response = Response::new(ResponseBody::text(self.text, turn));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, if self.html { HTML } else { TEXT });
        match self.status {
            StatusCode::SERVICE_UNAVAILABLE => drop(headers.insert(RETRY_AFTER, HeaderValue::from_static("1"))),
            // Whoever sent what we do not understand may mean the bytes after it in a way that we do not either.
            StatusCode::BAD_REQUEST | StatusCode::NOT_IMPLEMENTED | StatusCode::METHOD_NOT_ALLOWED => {
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            _ => {}
        }
        if self.status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
        }
        response
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_hosts() {
        let text = |host, names: &[&str]| Page::unknown(host, names, &HeaderMap::new()).text;
        assert_eq!(
            text("x.localhost:8080", &["a", "b"]),
            "there is no service at x.localhost:8080; there is http://a.localhost:8080/, http://b.localhost:8080/\n"
        );
        assert_eq!(
            text("localhost", &[]),
            "there is no service at localhost: none is up; start one with `sampan up DIRECTORY`\n"
        );
        assert_eq!(text("", &["a"]), "the request names no service; there is http://a.localhost/\n");

        let browser = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("text/html,*/*"))]);
        let page = Page::unknown("<b>:80", &["a"], &browser);
        assert!(page.html && page.text.contains("at &lt;b&gt;:80. "), "{}", page.text);
        assert!(page.text.contains("<a href=\"http://a.localhost:80/\">a</a>"), "{}", page.text);
    }
}
