//! Answers over HTTP: `{ success: true, data }`, or `{ success: false, error: { code, message } }`.

pub mod assets;
pub mod health;
pub mod metrics;
pub mod rooms;

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, VARY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;
use socketio::engineio::Origins;

/// An answer whose body is whole.
pub type Answer = Response<Full<Bytes>>;

/// Answers that a request was done, with what it asked for.
pub fn success(status: StatusCode, data: &impl Serialize) -> Answer {
    json(status, &Success { success: true, data, token: None })
}

/// Answers that a request was done, with what it asked for and a token that the caller is to keep.
pub fn success_with_token(status: StatusCode, data: &impl Serialize, token: &str) -> Answer {
    json(status, &Success { success: true, data, token: Some(token) })
}

/// Answers that a request was not done; the message is for people, the code for programs.
pub fn failure(status: StatusCode, code: &str, message: &str) -> Answer {
    failure_with(status, code, message, None::<&()>)
}

/// Answers that a request was not done, with facts that belong to the failure.
pub fn failure_with(status: StatusCode, code: &str, message: &str, data: Option<&impl Serialize>) -> Answer {
    json(status, &Failure { success: false, error: Error { code, message }, data })
}

/// Answers that there is nothing under this path.
pub fn not_found() -> Answer {
    failure(StatusCode::NOT_FOUND, "NOT_FOUND", "there is nothing under this path")
}

/// Answers that the path has no such method; `allowed` lists those it has, as in `GET, POST`.
pub fn method_not_allowed(allowed: &'static str) -> Answer {
    let message = format!("allowed here is {allowed}");
    let mut answer = failure(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", &message);
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    answer
}

/// Answers with text of any kind that must be neither kept, nor sniffed, nor run.
pub fn text(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
    protect(headers);
    answer
}

/// Adds the headers every answer should have, pages included.
pub fn protect(headers: &mut HeaderMap) {
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
}

/// Lets a page of the request's origin read the answer, if the origin is allowed.
pub fn share(origins: &Origins, request: &Parts, answer: &mut HeaderMap) {
    // The answer differs by origin even where this one is refused, so no cache may mix them up.
    answer.append(VARY, HeaderValue::from_static("origin"));
    if let Some(origin) = request.headers.get(http::header::ORIGIN)
        && origins.allows_request(request)
    {
        answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    }
}

#[derive(Serialize)]
struct Success<'a, T> {
    success: bool,
    data: &'a T,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
}

#[derive(Serialize)]
struct Failure<'a, T> {
    success: bool,
    error: Error<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a T>,
}

#[derive(Serialize)]
struct Error<'a> {
    code: &'a str,
    message: &'a str,
}

fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    match serde_json::to_vec(value) {
        Ok(body) => text(status, "application/json", body),
        Err(error) => {
            tracing::error!(%error, "an answer could not be written as JSON");
            text(StatusCode::INTERNAL_SERVER_ERROR, "application/json", UNWRITABLE)
        }
    }
}

const UNWRITABLE: &str = r#"{"success":false,"error":{"code":"INTERNAL_ERROR","message":"the server failed"}}"#;

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use http::Request;
    use http_body_util::BodyExt;
    use serde_json::{Value, json};

    use super::*;

    async fn body(answer: Answer) -> Value {
        serde_json::from_slice(&answer.into_body().collect().await.unwrap().to_bytes()).unwrap()
    }

    #[tokio::test]
    async fn a_success_wraps_the_data() {
        let answer = success(StatusCode::CREATED, &json!({ "id": 1 }));
        assert_eq!(answer.status(), StatusCode::CREATED);
        assert_eq!(answer.headers()[CONTENT_TYPE], "application/json");
        assert_eq!(answer.headers()[X_CONTENT_TYPE_OPTIONS], "nosniff");
        assert_eq!(answer.headers()[CACHE_CONTROL], "no-store");
        assert_eq!(body(answer).await, json!({ "success": true, "data": { "id": 1 } }));
    }

    #[tokio::test]
    async fn a_token_stands_beside_the_data() {
        let answer = success_with_token(StatusCode::CREATED, &json!({ "id": 1 }), "t");
        assert_eq!(body(answer).await, json!({ "success": true, "data": { "id": 1 }, "token": "t" }));
    }

    #[tokio::test]
    async fn a_failure_wraps_code_and_message() {
        let answer = failure(StatusCode::FORBIDDEN, "UNAUTHORIZED", "not \"you\"");
        assert_eq!(answer.status(), StatusCode::FORBIDDEN);
        let expected = json!({ "success": false, "error": { "code": "UNAUTHORIZED", "message": "not \"you\"" } });
        assert_eq!(body(answer).await, expected);
    }

    #[tokio::test]
    async fn a_wrong_method_is_told_the_right_ones() {
        let answer = method_not_allowed("GET, POST");
        assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(answer.headers()[ALLOW], "GET, POST");
        assert_eq!(not_found().status(), StatusCode::NOT_FOUND);
    }

    #[tokio::test]
    async fn data_that_cannot_be_written_is_an_internal_error() {
        let answer = success(StatusCode::OK, &HashMap::from([(vec![1], 1)]));
        assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(body(answer).await["error"]["code"], "INTERNAL_ERROR");
    }

    #[test]
    fn only_pages_of_allowed_origins_may_read() {
        let origins = Origins::parse("https://a.b").unwrap();
        let shared = |given: &[&'static str]| {
            let mut request = Request::new(()).into_parts().0;
            for origin in given {
                request.headers.append(http::header::ORIGIN, HeaderValue::from_static(origin));
            }
            let mut answer = HeaderMap::new();
            share(&origins, &request, &mut answer);
            assert_eq!(answer[VARY], "origin");
            (origins.allows_request(&request), answer.get(ACCESS_CONTROL_ALLOW_ORIGIN).cloned())
        };
        assert_eq!(shared(&[]), (true, None));
        assert_eq!(shared(&["https://a.b"]), (true, Some(HeaderValue::from_static("https://a.b"))));
        assert_eq!(shared(&["https://c.d"]), (false, None));
        assert_eq!(shared(&["https://a.b", "https://c.d"]), (false, None));
    }
}
