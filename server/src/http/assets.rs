//! The reference page and the client library behind it, embedded into the binary.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::Full;
use sha2::{Digest, Sha256};

use super::{Answer, protect};
use crate::id;

/// One embedded file.
struct Asset {
    content_type: &'static str,
    body: &'static str,
}

const PAGE: Asset = Asset { content_type: "text/html; charset=utf-8", body: include_str!("../../web/index.html") };
const APP: Asset = Asset { content_type: JAVASCRIPT, body: include_str!("../../web/app.js") };
const CLIENT: Asset = Asset { content_type: JAVASCRIPT, body: include_str!("../../web/client.js") };
const PLAYER: Asset = Asset { content_type: JAVASCRIPT, body: include_str!("../../web/player.js") };
const STYLE: Asset = Asset { content_type: "text/css; charset=utf-8", body: include_str!("../../web/style.css") };
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// What the page may do: run our scripts, talk to us, and show media from wherever a room's source is.
const POLICY: &str = "default-src 'self'; media-src *; img-src 'self' data: https:; connect-src 'self' ws: wss:; \
                      frame-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// Finds the file under a path; `/r/CODE`, the link to a room, is the page as well.
///
/// The page names its files relative to itself, since a proxy may have it under any path. So they are beside `/r/CODE` too.
fn find(path: &str) -> Option<&'static Asset> {
    let file = path.strip_prefix("/r").filter(|file| file.contains('.')).unwrap_or(path);
    match file {
        "/" | "/index.html" => Some(&PAGE),
        "/app.js" => Some(&APP),
        "/client.js" => Some(&CLIENT),
        "/player.js" => Some(&PLAYER),
        "/style.css" => Some(&STYLE),
        _ => path.strip_prefix("/r/").filter(|code| id::is_room_code(code)).map(|_| &PAGE),
    }
}

/// Answers with a file of the page; `None` where there is none under this path.
///
/// Files are asked for anew each time and answered with 304 while they have not changed, so an update of the binary is
/// an update of the page.
pub fn answer(path: &str, request: &HeaderMap) -> Option<Answer> {
    let asset = find(path)?;
    let hash = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(asset.body));
    let tag = HeaderValue::try_from(format!("\"{hash}\"")).ok()?;
    let known = request.get(IF_NONE_MATCH).is_some_and(|known| known == tag);
    let mut answer =
        Response::new(Full::new(if known { Bytes::new() } else { Bytes::from_static(asset.body.as_bytes()) }));
    if known {
        *answer.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(asset.content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(ETAG, tag);
    protect(headers);
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_under_the_root_and_under_room_links() {
        for path in ["/", "/r/ABCD2345", "/r/abcd2345"] {
            let answer = answer(path, &HeaderMap::new()).unwrap();
            assert_eq!(answer.headers()[CONTENT_TYPE], "text/html; charset=utf-8", "{path}");
        }
        for path in ["/app.js", "/r/app.js", "/r/player.js", "/r/style.css"] {
            assert!(answer(path, &HeaderMap::new()).is_some(), "{path}");
        }
        for path in ["/r/", "/r/index.htm", "/r/r/app.js", "/r/ABC", "/r/ABCD2345/x", "/../Cargo.toml", "/nothing"] {
            assert!(answer(path, &HeaderMap::new()).is_none(), "{path}");
        }
    }

    #[test]
    fn a_file_that_is_known_is_not_sent_again() {
        let first = answer("/client.js", &HeaderMap::new()).unwrap();
        let mut request = HeaderMap::new();
        request.insert(IF_NONE_MATCH, first.headers()[ETAG].clone());
        assert_eq!(answer("/client.js", &request).unwrap().status(), StatusCode::NOT_MODIFIED);
        assert_eq!(answer("/app.js", &request).unwrap().status(), StatusCode::OK);
    }

    #[test]
    fn every_file_the_page_asks_for_is_there() {
        for reference in PAGE.body.split(['"', '\'']).filter(|text| text.starts_with('/') && text.contains('.')) {
            assert!(find(reference).is_some(), "{reference}");
        }
    }
}
