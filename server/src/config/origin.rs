//! Which web origins may use the server.

/// The origins of `CORS_ORIGIN`; they rule HTTP answers and the WebSocket handshake alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedOrigins {
    /// Every origin.
    Any,
    /// These, each as a browser sends it: lower case, no default port, no path. Empty: only the server's own.
    Listed(Vec<String>),
}

impl AllowedOrigins {
    /// Reads `*`, or origins separated by commas; blanks around one and a slash after one are forgiven.
    ///
    /// `null`, the origin of sandboxed frames and local files, cannot be listed: every page can take it.
    pub fn parse(value: &str) -> Option<Self> {
        if value.trim() == "*" {
            return Some(Self::Any);
        }
        value.split(',').map(|origin| normal_origin(origin.trim())).collect::<Option<_>>().map(Self::Listed)
    }

    /// Tells whether a browser page of `origin` may use the server it reached under `host`, the `Host` header.
    ///
    /// The server's own origin is always allowed. Its scheme is not compared, for a proxy may have ended TLS.
    pub fn allows(&self, origin: &str, host: Option<&str>) -> bool {
        match self {
            Self::Any => true,
            Self::Listed(origins) => normal_origin(origin).is_some_and(|origin| {
                origins.contains(&origin) || host.is_some_and(|host| is_own_origin(&origin, host))
            }),
        }
    }
}

fn is_own_origin(origin: &str, host: &str) -> bool {
    origin.split_once("://").is_some_and(|(scheme, authority)| {
        matches!(scheme, "http" | "https")
            && normal_origin(&format!("{scheme}://{host}"))
                .is_some_and(|own| own.split_once("://").is_some_and(|(_, own)| own == authority))
    })
}

fn normal_origin(origin: &str) -> Option<String> {
    let origin = origin.strip_suffix('/').unwrap_or(origin).to_ascii_lowercase();
    let (scheme, authority) = origin.split_once("://")?;
    let (host, port) = split_port(authority)?;
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
    if !is_scheme || !is_origin_host(host) {
        return None;
    }
    match (scheme, port) {
        ("http", Some(80)) | ("https", Some(443)) | (_, None) => Some(format!("{scheme}://{host}")),
        (_, Some(port)) => Some(format!("{scheme}://{host}:{port}")),
    }
}

/// Splits `host[:port]`, where the host may be an IPv6 address in brackets.
fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let start_of_port = authority.rfind(']').unwrap_or(0);
    match authority[start_of_port..].find(':') {
        None => Some((authority, None)),
        Some(colon) => {
            let port = &authority[start_of_port + colon + 1..];
            let digits = port.bytes().all(|byte| byte.is_ascii_digit());
            Some((&authority[..start_of_port + colon], Some(port.parse().ok().filter(|_| digits)?)))
        }
    }
}

fn is_origin_host(host: &str) -> bool {
    match host.strip_prefix('[') {
        Some(address) => address.strip_suffix(']').is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok()),
        None => {
            !host.is_empty()
                && host.split('.').all(|label| !label.is_empty())
                && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_in_the_form_browsers_send() {
        let origins =
            AllowedOrigins::parse("https://Example.org/, http://localhost:5173,https://a.b:443,http://[::1]:80");
        let expected = ["https://example.org", "http://localhost:5173", "https://a.b", "http://[::1]"];
        assert_eq!(origins, Some(AllowedOrigins::Listed(expected.map(str::to_owned).to_vec())));
    }

    #[test]
    fn a_star_allows_every_origin() {
        assert_eq!(AllowedOrigins::parse(" * "), Some(AllowedOrigins::Any));
        assert!(AllowedOrigins::Any.allows("null", None));
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [
            "example.org",
            "null",
            "*,https://a.b",
            "https://*.a.b",
            "https://a.b,",
            "https://a.b,,https://c.d",
            "https://a.b/path",
            "https://a.b?x",
            "https://user@a.b",
            "https://a.b:99999",
            "https://a.b:+80",
            "https://",
            "https://a b",
            "://a.b",
            "https://a..b",
            "https://[::1",
            "https://[::1]x",
        ] {
            assert_eq!(AllowedOrigins::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_listed_origins_and_the_own_one_are_allowed() {
        let origins = AllowedOrigins::Listed(vec!["https://a.b".to_owned()]);
        assert!(origins.allows("https://a.b", Some("watch.example:4000")));
        assert!(origins.allows("HTTPS://A.B:443", None));
        assert!(origins.allows("http://watch.example:4000", Some("watch.example:4000")));
        assert!(origins.allows("https://watch.example", Some("Watch.Example:443")));
        assert!(!origins.allows("http://a.b", Some("watch.example:4000")));
        assert!(!origins.allows("http://watch.example", Some("watch.example:4000")));
        assert!(!origins.allows("https://a.b.evil.example", None));
        assert!(!origins.allows("null", Some("null")));
        assert!(!origins.allows("app://watch.example", Some("watch.example")));
    }
}
