//! The HTTP port of a serving process: health, a bearer token, TLS, and how both change with SIGHUP; what `ringside check` and
//! `serve` say of the files. Bounds and formats are tested beside the modules of the server.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use rustix::process::Signal;
use tests::live::PATIENCE;
use tests::live::exposition::{ask, fetch, fetch_with};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::place::{Place, Process, one_controller};

const TOKEN: &str = "Authorization: Bearer 6c1de0b1d7a94d8f";

fn with_metrics(keys: &str) -> String {
    one_controller(0).replace("[metrics]\n", &format!("[metrics]\n{keys}"))
}

/// A certificate for 127.0.0.1 in `NAME.pem` and its key in `NAME.key`.
fn certificate(place: &Place, name: &str) -> CertificateDer<'static> {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    fs::write(place.path(&format!("{name}.pem")), cert.pem()).unwrap();
    fs::write(place.path(&format!("{name}.key")), signing_key.serialize_pem()).unwrap();
    cert.into()
}

/// One request over TLS to a server that must have this certificate.
fn fetch_tls(addr: SocketAddr, trusted: &CertificateDer<'static>, path: &str, head: &[&str]) -> (String, String) {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::IpAddress(addr.ip().into());
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let client = ClientConnection::new(Arc::new(config), name).unwrap();
    ask(StreamOwned::new(client, stream), path, head)
}

fn status(head: &str) -> &str {
    head.split(' ').nth(1).unwrap()
}

fn reload(process: &mut Process) -> String {
    process.signal(Signal::HUP);
    process.wait_line("SIGHUP: ")
}

fn end(process: Process) {
    process.signal(Signal::TERM);
    assert_eq!(process.wait().code(), Some(0));
}

fn check(place: &Place, text: &str) -> (Option<i32>, String, String) {
    place.write(text);
    let file = place.path("ringside.toml");
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringside"));
    let output = command.args([Path::new("check"), Path::new("--config"), &file]).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn serving_target_is_alive_and_ready() {
    let place = Place::new();
    let process = place.serve(&one_controller(0));
    for path in ["/healthz", "/readyz"] {
        let (head, body) = fetch(process.metrics_addr(), path);
        assert_eq!((status(&head), body.as_str()), ("200", "ok\n"), "{path}");
    }
    end(process);
}

#[test]
fn metrics_want_the_token_of_the_file_which_sighup_reads_anew() {
    let place = Place::new();
    fs::write(place.path("token"), "6c1de0b1d7a94d8f\n").unwrap();
    let mut process = place.serve(&with_metrics("token_file = '{dir}/token'\n"));
    let addr = process.metrics_addr();
    let (head, body) = fetch(addr, "/metrics");
    assert_eq!(status(&head), "401");
    assert!(head.to_ascii_lowercase().contains("www-authenticate: bearer"), "{head}");
    assert!(!body.contains("ringside_"), "{body}");
    let (head, body) = fetch_with(addr, "/metrics", &[TOKEN]);
    assert!(status(&head) == "200" && body.contains("ringside_http_requests_total{path=\"/metrics\",code=\"401\"} 1"));
    for path in ["/healthz", "/readyz"] {
        assert_eq!(status(&fetch(addr, path).0), "200", "{path} wants no token");
    }

    fs::write(place.path("token"), "another").unwrap();
    assert_eq!(status(&fetch_with(addr, "/metrics", &[TOKEN]).0), "200", "not before it is told");
    reload(&mut process);
    assert_eq!(status(&fetch_with(addr, "/metrics", &[TOKEN]).0), "401");
    assert_eq!(status(&fetch_with(addr, "/metrics", &["authorization: bearer another"]).0), "200");

    fs::write(place.path("token"), "no token\n").unwrap();
    let said = reload(&mut process);
    assert!(said.contains("nothing is changed") && said.contains("metrics.token_file"), "{said}");
    let (_, body) = fetch_with(addr, "/metrics", &["authorization: bearer another"]);
    assert!(body.contains("ringside_reloads_total{result=\"done\"} 1\n"), "{body}");
    assert!(body.contains("ringside_reloads_total{result=\"refused\"} 1\n"), "{body}");
    end(process);
}

#[test]
fn metrics_are_served_over_tls_with_the_certificate_of_the_file() {
    let place = Place::new();
    let first = certificate(&place, "a");
    let second = certificate(&place, "b");
    let text = with_metrics("tls_cert = '{dir}/a.pem'\ntls_key = '{dir}/a.key'\n");
    let mut process = place.serve(&text);
    let addr = process.metrics_addr();
    let (head, body) = fetch_tls(addr, &first, "/metrics", &[]);
    assert!(status(&head) == "200" && body.contains("ringside_build_info"), "{head}");

    place.write(&text.replace("/a.", "/b."));
    reload(&mut process);
    assert_eq!(status(&fetch_tls(addr, &second, "/healthz", &[]).0), "200", "another certificate");

    place.write(&text.replace("/a.key", "/b.key"));
    let said = reload(&mut process);
    assert!(said.contains("metrics.tls_key") && said.contains("b.key"), "{said}");
    assert_eq!(status(&fetch_tls(addr, &second, "/healthz", &[]).0), "200", "nothing has changed");
    end(process);
}

#[test]
fn files_that_cannot_be_used_are_named_by_check_and_by_serve() {
    let place = Place::new();
    certificate(&place, "a");
    certificate(&place, "b");
    fs::write(place.path("empty"), "").unwrap();
    fs::write(place.path("text"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    for (keys, key, wrong) in [
        ("token_file = '{dir}/none'\n", "metrics.token_file", "none"),
        ("token_file = '{dir}/empty'\n", "metrics.token_file", "there is no token in it"),
        ("tls_cert = '{dir}/none'\ntls_key = '{dir}/a.key'\n", "metrics.tls_cert", "there is no such file"),
        ("tls_cert = '{dir}/empty'\ntls_key = '{dir}/a.key'\n", "metrics.tls_cert", "there is no certificate in it"),
        ("tls_cert = '{dir}/text'\ntls_key = '{dir}/a.key'\n", "metrics.tls_cert", "text"),
        ("tls_cert = '{dir}/a.pem'\ntls_key = '{dir}/a.pem'\n", "metrics.tls_key", "there is no private key in it"),
        ("tls_cert = '{dir}/a.pem'\ntls_key = '{dir}/b.key'\n", "metrics.tls_key", "is not the key of the certificate"),
    ] {
        let text = with_metrics(keys);
        let (code, _, stderr) = check(&place, &text);
        assert!(code == Some(2) && stderr.contains(key) && stderr.contains(wrong), "check of {keys}: {stderr}");
        let output = place.fails(&text);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && stderr.contains(key) && stderr.contains(wrong), "{keys}: {stderr}");
    }
    let key = KeyPair::generate().unwrap().serialize_pem();
    fs::write(place.path("other.key"), key).unwrap();
    let (code, stdout, stderr) = check(&place, &with_metrics("tls_cert = '{dir}/a.pem'\ntls_key = '{dir}/a.key'\n"));
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert!(stdout.contains("tls_cert = ") && stdout.contains("a.key"), "{stdout}");
}

#[test]
fn address_that_others_reach_is_warned_of_unless_it_is_safe() {
    let place = Place::new();
    certificate(&place, "a");
    fs::write(place.path("token"), "6c1de0b1d7a94d8f").unwrap();
    let (token, tls) = ("token_file = '{dir}/token'\n", "tls_cert = '{dir}/a.pem'\ntls_key = '{dir}/a.key'\n");
    let open = |keys: &str| with_metrics(keys).replace("127.0.0.1:0", "0.0.0.0:0");
    for (text, warned) in [
        (open(""), Some("can read the metrics")),
        (open(token), Some("in clear")),
        (open(tls), Some("set token_file")),
        (open(&format!("{token}{tls}")), None),
        (with_metrics(""), None),
    ] {
        let (code, stdout, stderr) = check(&place, &text);
        assert_eq!(code, Some(0), "{stderr}");
        let note = stdout.lines().find(|line| line.contains("note: metrics.listen"));
        assert_eq!(note.map(|line| line.contains(warned.unwrap_or_default())), warned.map(|_| true), "{stdout}");
    }
    for (text, warned) in [(open(""), true), (with_metrics(""), false)] {
        let process = place.serve(&text);
        assert_eq!(process.passed().iter().any(|line| line.contains("metrics.listen: everybody")), warned);
        end(process);
    }
}
