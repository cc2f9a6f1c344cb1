//! The keys of `[metrics]`. Whether the files are there and what is in them is found out when they are read.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use super::file::read_path;
use super::problem::Reason;
use super::reader::{Problems, Section};

/// The HTTP port: metrics and health.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// Address of the HTTP server that answers `/metrics`; default 127.0.0.1:9464.
    pub listen: SocketAddr,
    /// A file with the bearer token that `/metrics` then wants; default none.
    pub token_file: Option<PathBuf>,
    /// With what to speak TLS; default not at all.
    pub tls: Option<Tls>,
}

/// The files of a TLS certificate, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The certificate, and those that it hangs on.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics { listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9464), token_file: None, tls: None }
    }
}

pub(super) fn read(root: &mut Section<'_>, problems: &mut Problems) -> Option<Metrics> {
    let mut section = root.table("metrics", problems);
    let listen = match section.take("listen") {
        None => Some(Metrics::default().listen),
        Some(field) => field.string(problems).and_then(|text| {
            let listen = text.parse().ok();
            if listen.is_none() {
                problems.at(field.place(), Reason::NotAnAddress);
            }
            listen
        }),
    };
    let token_file = read_file(&mut section, "token_file", problems);
    let tls = read_tls(&mut section, problems);
    section.finish(problems);
    Some(Metrics { listen: listen?, token_file: token_file?, tls: tls? })
}

/// A path that may be absent.
fn read_file(section: &mut Section<'_>, key: &'static str, problems: &mut Problems) -> Option<Option<PathBuf>> {
    match section.take(key) {
        None => Some(None),
        Some(field) => read_path(&field, problems).map(Some),
    }
}

/// Both files, or none.
fn read_tls(section: &mut Section<'_>, problems: &mut Problems) -> Option<Option<Tls>> {
    let (cert, key) = (section.take("tls_cert"), section.take("tls_key"));
    let (cert, key) = match (cert, key) {
        (None, None) => return Some(None),
        (Some(cert), Some(key)) => (cert, key),
        (Some(alone), None) => {
            problems.at(alone.place(), Reason::NeedsKey { other: "tls_key" });
            return None;
        }
        (None, Some(alone)) => {
            problems.at(alone.place(), Reason::NeedsKey { other: "tls_cert" });
            return None;
        }
    };
    let (cert, key) = (read_path(&cert, problems), read_path(&key, problems));
    Some(Some(Tls { cert: cert?, key: key? }))
}
