//! Remarks on the HTTP port: who else can read it.

use super::Note;
use crate::config::Metrics;

pub(super) fn note(metrics: &Metrics) -> Option<Note> {
    let key = format!("metrics.listen = \"{}\"", metrics.listen);
    exposure(metrics).map(|text| Note { key, text: text.to_owned() })
}

/// What an operator should know of an address that others can reach; none if it is a loopback address, or safe.
#[must_use]
pub fn exposure(metrics: &Metrics) -> Option<&'static str> {
    if metrics.listen.ip().is_loopback() {
        return None;
    }
    match (&metrics.token_file, &metrics.tls) {
        (Some(_), Some(_)) => None,
        (Some(_), None) => Some(
            "other hosts can reach it, and the bearer token goes over the network in clear: set tls_cert and tls_key, too",
        ),
        (None, Some(_)) => Some("everybody who can reach it can read the metrics: set token_file, too"),
        (None, None) => Some(
            "everybody who can reach it can read the metrics, on their way, too: set token_file, tls_cert and tls_key, or \
             listen on a loopback address",
        ),
    }
}
