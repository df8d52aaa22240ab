//! Which web origins may use a server: one rule for polling, WebSocket and whatever else the application serves.

use std::fmt;
use std::net::Ipv6Addr;

#[cfg(feature = "server")]
use http::header::{HOST, ORIGIN};
#[cfg(feature = "server")]
use http::request::Parts;
#[cfg(feature = "server")]
use http::{HeaderMap, HeaderName};

/// An origin as a browser writes it in the `Origin` header, in the form in which origins are compared: lower case, no
/// default port, no slash at the end.
///
/// Source: RFC 6454, section 6.2.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// Empty for `null`.
    scheme: String,
    /// Empty for `null` and `file://`.
    authority: String,
}

impl Origin {
    /// Reads `scheme://host`, `scheme://host:port`, `file://` or `null`; `None` for anything else. A slash at the end is
    /// ignored.
    ///
    /// `http`, `https`, `ws` and `wss` have default ports: `https://a.example:443` is `https://a.example`.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "null" {
            return Some(Self { scheme: String::new(), authority: String::new() });
        }
        let (scheme, authority) = text.split_once("://")?;
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let scheme = scheme.to_ascii_lowercase();
        if !is_scheme(&scheme) {
            return None;
        }
        let authority = match authority {
            "" if scheme == "file" => String::new(),
            authority => normal_authority(authority, default_port(&scheme))?,
        };
        Some(Self { scheme, authority })
    }

    /// Returns `true` if the origin is that of a server which was addressed as `host`, the value of a `Host` header.
    ///
    /// Host and port decide, since a proxy in front may have ended TLS; `ws` and `wss`, which clients outside of browsers
    /// send, are `http` and `https` here. An origin of any other scheme is never the server's own.
    fn is_of(&self, host: &str) -> bool {
        let port = default_port(&self.scheme);
        port.is_some() && normal_authority(host, port).is_some_and(|own| own == self.authority)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.scheme.as_str() {
            "" => f.write_str("null"),
            scheme => write!(f, "{scheme}://{}", self.authority),
        }
    }
}

/// Which origins may use a server, beside the server's own, which always may, and requests without an `Origin` header,
/// which no browser sends from a page of another site.
///
/// The reference server leaves this to the browser; we answer status 403 on every transport, since a WebSocket
/// handshake is not subject to CORS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origins {
    /// The server's own only; no CORS headers are sent. The default.
    #[default]
    Own,
    /// Any origin; answers carry `Access-Control-Allow-Origin: *`.
    Any,
    /// These origins; answers carry the request's origin and allow credentials.
    ///
    /// `null` stands for every sandboxed frame, whatever site it is of, and `file://` for every local file: list them only
    /// where requests are authenticated by other means than cookies.
    List(Vec<Origin>),
}

impl Origins {
    /// Reads `*`, or origins separated by commas, each as in [`Origin::parse`]; blanks around one are ignored. `None`
    /// where one of them is no origin.
    pub fn parse(text: &str) -> Option<Self> {
        if text.trim() == "*" {
            return Some(Self::Any);
        }
        text.split(',').map(|origin| Origin::parse(origin.trim())).collect::<Option<_>>().map(Self::List)
    }

    /// Returns `true` if a request with this `Origin` header may come in, to a server that it addressed as `host`, the
    /// value of its `Host` header.
    pub fn allows(&self, origin: &str, host: Option<&str>) -> bool {
        let listed: &[Origin] = match self {
            Self::Any => return true,
            Self::Own => &[],
            Self::List(listed) => listed,
        };
        Origin::parse(origin)
            .is_some_and(|origin| listed.contains(&origin) || host.is_some_and(|host| origin.is_of(host)))
    }

    /// Returns `true` if a request may be served: it has no `Origin` header, or one that is allowed. Two of them are
    /// refused.
    ///
    /// The host of an absolute request target counts before the `Host` header, as RFC 9112, section 3.2.2, has it; with
    /// HTTP/2 there is no other.
    #[cfg(feature = "server")]
    pub fn allows_request(&self, request: &Parts) -> bool {
        if !request.headers.contains_key(ORIGIN) {
            return true;
        }
        let host = match request.uri.authority() {
            Some(authority) => Some(authority.as_str()),
            None => only(&request.headers, HOST),
        };
        only(&request.headers, ORIGIN).is_some_and(|origin| self.allows(origin, host))
    }
}

/// Returns a header's value, if there is exactly one, of visible ASCII.
#[cfg(feature = "server")]
fn only(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().filter(|_| values.next().is_none())?;
    value.to_str().ok()
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        _ => None,
    }
}

fn is_scheme(scheme: &str) -> bool {
    scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
}

/// Reads `host[:port]`, where the host may be an IPv6 address in brackets, and returns it without the default port.
fn normal_authority(authority: &str, default_port: Option<u16>) -> Option<String> {
    let start_of_port = authority.rfind(']').unwrap_or(0);
    let (host, port) = match authority[start_of_port..].find(':') {
        None => (authority, None),
        Some(colon) => {
            let (host, port) = authority.split_at(start_of_port + colon);
            let port = &port[1..];
            let digits = port.bytes().all(|byte| byte.is_ascii_digit());
            (host, Some(port.parse::<u16>().ok().filter(|_| digits)?))
        }
    };
    let host = normal_host(host)?;
    Some(match port.filter(|port| Some(*port) != default_port) {
        Some(port) => format!("{host}:{port}"),
        None => host,
    })
}

/// A name may end with the dot of the root, as browsers send it where the address bar has it.
fn normal_host(host: &str) -> Option<String> {
    if let Some(address) = host.strip_prefix('[') {
        let address: Ipv6Addr = address.strip_suffix(']')?.parse().ok()?;
        return Some(format!("[{address}]"));
    }
    let labels = host.strip_suffix('.').unwrap_or(host);
    let valid = labels.split('.').all(|label| !label.is_empty())
        && labels.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'));
    valid.then(|| host.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(text: &str) -> Option<String> {
        Origin::parse(text).map(|origin| origin.to_string())
    }

    #[test]
    fn an_origin_is_read_in_the_form_browsers_send() {
        for (text, expected) in [
            ("https://Example.org/", "https://example.org"),
            ("http://localhost:5173", "http://localhost:5173"),
            ("https://a.b:443", "https://a.b"),
            ("wss://a.b:443", "wss://a.b"),
            ("ws://a.b:80/", "ws://a.b"),
            ("http://a.b:443", "http://a.b:443"),
            ("http://[::1]:80", "http://[::1]"),
            ("http://[0:0::1]:81", "http://[::1]:81"),
            ("https://a.b.", "https://a.b."),
            ("app://obsidian.md", "app://obsidian.md"),
            ("chrome-extension://abcdef", "chrome-extension://abcdef"),
            ("capacitor://localhost:80", "capacitor://localhost:80"),
            ("file://", "file://"),
            ("FILE:///", "file://"),
            ("null", "null"),
        ] {
            assert_eq!(normal(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn nonsense_is_no_origin() {
        for bad in [
            "",
            "*",
            "Null",
            "example.org",
            "file:",
            "file:/",
            "file:////",
            "https://*.a.b",
            "https://a.b/path",
            "https://a.b//",
            "https://a.b?x",
            "https://user@a.b",
            "https://a.b:99999",
            "https://a.b:+80",
            "https://a.b:",
            "https://",
            "https:///",
            "https://.",
            "https://a b",
            "://a.b",
            "1a://a.b",
            "https://a..b",
            "https://a.b..",
            "https://.a.b",
            "https://[::1",
            "https://[::1]x",
            "https://[a.b]",
            "https://\u{e9}.example",
        ] {
            assert_eq!(Origin::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_list_is_a_star_or_origins() {
        let list = |origins: &[&str]| {
            Some(Origins::List(origins.iter().map(|origin| Origin::parse(origin).unwrap()).collect()))
        };
        assert_eq!(Origins::parse(" * "), Some(Origins::Any));
        assert_eq!(
            Origins::parse("https://a.b, http://c.d:81 ,null,file://"),
            list(&["https://a.b", "http://c.d:81", "null", "file://"])
        );
        for bad in ["", " ", "*,https://a.b", "https://a.b,", "https://a.b,,https://c.d"] {
            assert_eq!(Origins::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_own_origin_is_allowed_whatever_the_list() {
        for origins in [Origins::Own, Origins::Any, Origins::List(vec![])] {
            for (origin, host) in [
                ("http://watch.example:4000", "watch.example:4000"),
                ("https://Watch.example", "watch.example"),
                ("https://watch.example", "watch.example:443"),
                ("wss://watch.example", "watch.example:443"),
                ("wss://watch.example:443", "watch.example"),
                ("ws://watch.example", "Watch.Example:80"),
                ("http://[::1]:4000", "[::1]:4000"),
            ] {
                assert!(origins.allows(origin, Some(host)), "{origin} at {host}");
            }
        }
    }

    #[test]
    fn a_foreign_origin_needs_the_list_or_the_star() {
        let list = Origins::parse("https://App.example,wss://app.example:8443").unwrap();
        for (origin, own, listed) in [
            ("https://app.example", false, true),
            ("HTTPS://APP.EXAMPLE:443", false, true),
            ("wss://app.example:8443", false, true),
            ("wss://app.example", false, false),
            ("http://app.example", false, false),
            ("https://app.example.evil", false, false),
            ("https://watch.example:4001", false, false),
            ("http://watch.example", false, false),
            ("app://watch.example:4000", false, false),
            ("null", false, false),
            ("file://", false, false),
            ("", false, false),
        ] {
            assert_eq!(Origins::Own.allows(origin, Some("watch.example:4000")), own, "{origin}");
            assert_eq!(list.allows(origin, Some("watch.example:4000")), listed, "{origin}");
            assert!(Origins::Any.allows(origin, None), "{origin}");
            assert!(!Origins::Own.allows(origin, None), "{origin}");
        }
    }

    #[test]
    fn origins_without_a_host_are_allowed_only_where_they_are_listed() {
        for origin in ["null", "file://"] {
            let list = Origins::parse(origin).unwrap();
            assert!(list.allows(origin, None), "{origin}");
            for host in ["", "null", "file", "watch.example"] {
                assert!(!Origins::Own.allows(origin, Some(host)), "{origin} at {host:?}");
                assert!(!Origins::List(vec![]).allows(origin, Some(host)), "{origin} at {host:?}");
            }
        }
        assert!(!Origins::parse("null").unwrap().allows("file://", None));
        assert!(!Origins::parse("file://").unwrap().allows("null", None));
    }
}
