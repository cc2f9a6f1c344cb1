//! What the HTTP server answers: `/metrics`, and the two questions that Kubernetes asks.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::Answers;
use crate::metrics::Format;

/// The paths there are.
const PATHS: [&str; 4] = ["/metrics", "/healthz", "/readyz", "/"];

pub(super) fn router(answers: Arc<Answers>) -> Router {
    let count = middleware::from_fn_with_state(Arc::clone(&answers), count);
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/", get(index))
        .layer(count)
        .with_state(answers)
}

async fn count(State(answers): State<Arc<Answers>>, request: Request, next: Next) -> Response {
    let path = PATHS.into_iter().find(|path| *path == request.uri().path()).unwrap_or("other");
    let response = next.run(request).await;
    answers.exporter.watched().answered(path, response.status().as_u16());
    response
}

async fn metrics(State(answers): State<Arc<Answers>>, headers: HeaderMap) -> Response {
    if !answers.allows(&headers) {
        let challenge = [(WWW_AUTHENTICATE, "Bearer")];
        return (StatusCode::UNAUTHORIZED, challenge, "a bearer token is needed\n").into_response();
    }
    // Several lines of one name are one list (RFC 9110 §5.3).
    let accept: Vec<&str> = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let format = Format::accepted(&accept.join(","));
    ([(CONTENT_TYPE, format.content_type())], answers.exporter.text(format)).into_response()
}

/// Alive: this thread answers. What a restart does not mend is not asked here.
async fn healthz() -> &'static str {
    "ok\n"
}

/// Ready: front-ends can connect to every device, and every poller turns. Why not is told to those who may see the metrics.
async fn readyz(State(answers): State<Arc<Answers>>, headers: HeaderMap) -> Response {
    let reasons = answers.health.unready();
    if reasons.is_empty() {
        return "ok\n".into_response();
    }
    let told = if answers.allows(&headers) { reasons.join("\n") } else { "not ready".to_owned() };
    (StatusCode::SERVICE_UNAVAILABLE, told + "\n").into_response()
}

async fn index() -> &'static str {
    "ringside: see /metrics, /healthz, /readyz\n"
}

impl Answers {
    fn allows(&self, headers: &HeaderMap) -> bool {
        self.access.allows(headers.get(AUTHORIZATION).map(|value| value.as_bytes()))
    }
}
