//! `GET /health/live` and `GET /health/ready`.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use http::StatusCode;
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::{Answer, failure_with, success};

/// How a backend answered when it was last asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    /// What the backend is to the server, as in `store`.
    pub backend: &'static str,
    /// Whether it answered.
    pub ok: bool,
    /// How long the answer took, or the failure.
    pub latency: Duration,
}

impl Check {
    /// Asks a backend. Why it failed goes to the log, not to the caller, who may be anyone.
    pub async fn of<E: fmt::Display>(backend: &'static str, ping: impl Future<Output = Result<(), E>>) -> Self {
        let began = Instant::now();
        let answer = ping.await;
        if let Err(error) = &answer {
            tracing::warn!(backend, %error, "a backend is down");
        }
        Self { backend, ok: answer.is_ok(), latency: began.elapsed() }
    }
}

/// The last check of the backends.
///
/// A check costs each backend a write, and anyone may ask for one. So requests that come at the same time share one check,
/// and checks begin at least 100 ms after each other. No request gets a result that is older than itself.
#[derive(Debug, Default)]
pub struct Readiness(Mutex<Option<Checked>>);

#[derive(Debug)]
struct Checked {
    began: Instant,
    checks: Vec<Check>,
}

impl Readiness {
    /// Returns how the backends are by now. Asks them by `ask`, unless another request does so.
    pub async fn checks(&self, ask: impl AsyncFnOnce() -> Vec<Check>) -> Vec<Check> {
        let came = Instant::now();
        let mut last = self.0.lock().await;
        if let Some(Checked { began, checks }) = &*last {
            if *began >= came {
                return checks.clone();
            }
            tokio::time::sleep_until(*began + SPACING).await;
        }
        let began = Instant::now();
        let checks = ask().await;
        *last = Some(Checked { began, checks: checks.clone() });
        checks
    }
}

/// Time from the beginning of one check to the next, at the least.
const SPACING: Duration = Duration::from_millis(100);

/// Answers that the process runs. It asks no backend: restarting the process would not mend one.
pub fn live() -> Answer {
    success(StatusCode::OK, &Live { status: "live" })
}

/// Answers whether requests should be sent here: every backend answers, and the server is not stopping.
///
/// 200, else 503; both list each backend with its latency in milliseconds.
pub fn ready(checks: &[Check], is_draining: bool) -> Answer {
    let backends = checks
        .iter()
        .map(|check| {
            let status = if check.ok { "up" } else { "down" };
            (check.backend, Backend { status, latency_ms: (check.latency.as_secs_f64() * 1e6).round() / 1e3 })
        })
        .collect();
    let down: Vec<_> = checks.iter().filter(|check| !check.ok).map(|check| check.backend).collect();
    if is_draining {
        let data = Ready { status: "draining", backends };
        failure_with(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", "the server is stopping", Some(&data))
    } else if down.is_empty() {
        success(StatusCode::OK, &Ready { status: "ready", backends })
    } else {
        let data = Ready { status: "unavailable", backends };
        let message = format!("not answering: {}", down.join(", "));
        failure_with(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", &message, Some(&data))
    }
}

#[derive(Serialize)]
struct Live {
    status: &'static str,
}

#[derive(Serialize)]
struct Ready {
    status: &'static str,
    backends: BTreeMap<&'static str, Backend>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Backend {
    status: &'static str,
    latency_ms: f64,
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use http_body_util::BodyExt;
    use serde_json::{Value, json};

    use super::*;
    use crate::store::StoreError;

    async fn body(answer: Answer) -> Value {
        serde_json::from_slice(&answer.into_body().collect().await.unwrap().to_bytes()).unwrap()
    }

    fn check(backend: &'static str, ok: bool) -> Check {
        Check { backend, ok, latency: Duration::from_micros(1500) }
    }

    #[tokio::test]
    async fn a_running_process_is_live() {
        let answer = live();
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(body(answer).await, json!({ "success": true, "data": { "status": "live" } }));
    }

    #[tokio::test]
    async fn a_server_whose_backends_answer_is_ready() {
        let answer = ready(&[check("store", true)], false);
        assert_eq!(answer.status(), StatusCode::OK);
        let data = json!({ "status": "ready", "backends": { "store": { "status": "up", "latencyMs": 1.5 } } });
        assert_eq!(body(answer).await, json!({ "success": true, "data": data }));
    }

    #[tokio::test]
    async fn a_backend_that_is_down_makes_it_503() {
        let answer = ready(&[check("store", false), check("state", true)], false);
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        let expected = json!({
            "success": false,
            "error": { "code": "UNAVAILABLE", "message": "not answering: store" },
            "data": {
                "status": "unavailable",
                "backends": {
                    "store": { "status": "down", "latencyMs": 1.5 },
                    "state": { "status": "up", "latencyMs": 1.5 },
                },
            },
        });
        assert_eq!(body(answer).await, expected);
    }

    #[tokio::test]
    async fn a_stopping_server_is_503_even_with_all_backends_up() {
        let answer = ready(&[check("store", true)], true);
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(body(answer).await["data"]["status"], "draining");
    }

    #[tokio::test(start_paused = true)]
    async fn requests_share_a_check_that_is_no_older_than_they_are() {
        let readiness = Readiness::default();
        let (asked, is_up) = (Cell::new(0), Cell::new(true));
        let checks = async || {
            let ask = async || {
                asked.set(asked.get() + 1);
                let is_up = is_up.get();
                tokio::time::sleep(Duration::from_millis(10)).await;
                vec![check("store", is_up)]
            };
            readiness.checks(ask).await[0].ok
        };
        // The first asks; the others come at the same time, or while it is answered, and share the next check.
        let began = Instant::now();
        let late = async || {
            tokio::time::sleep(Duration::from_millis(5)).await;
            is_up.set(false);
            checks().await
        };
        assert_eq!(tokio::join!(checks(), late(), late()), (true, false, false), "what came later sees what is later");
        assert_eq!(asked.get(), 2);
        assert!(began.elapsed() >= SPACING, "checks are apart: {:?}", began.elapsed());
        is_up.set(true);
        assert!(checks().await, "it heals");
        assert_eq!(asked.get(), 3);
    }

    #[tokio::test]
    async fn a_check_tells_whether_the_backend_answered() {
        assert!(Check::of("store", async { Ok::<_, StoreError>(()) }).await.ok);
        assert!(!Check::of("store", async { Err(StoreError::Unavailable("disk".to_owned())) }).await.ok);
    }
}
