//! Who may ask the HTTP server, and over what: a bearer token (RFC 6750) and a TLS certificate, both from files that can be read
//! again while the server runs. Where the files are is the configuration's.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;
use subtle::ConstantTimeEq;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, InconsistentKeys, ServerConfig};

use crate::config::{Metrics, Tls};

/// What is in force. New connections and requests see what was put in force last.
#[derive(Default)]
pub struct Access(RwLock<Arc<Secrets>>);

/// What was read from the files.
#[derive(Default)]
pub struct Secrets {
    token: Option<Vec<u8>>,
    tls: Option<TlsAcceptor>,
}

/// A file that cannot be used. The text names its key, its path and what is wrong.
#[derive(Debug, thiserror::Error)]
#[error("{key} = {path:?}: {text}")]
pub struct AccessError {
    key: &'static str,
    path: PathBuf,
    text: String,
}

/// Bytes of a token file. A longer one is something else.
const TOKEN_FILE_MAX: u64 = 4096;

impl Access {
    /// Access as these files have it.
    #[must_use]
    pub fn new(secrets: Secrets) -> Access {
        Access(RwLock::new(Arc::new(secrets)))
    }

    /// From now on it is as other files have it.
    pub fn replace(&self, secrets: Secrets) {
        *self.0.write() = Arc::new(secrets);
    }

    /// What makes TLS of a connection, if it is to be.
    pub(super) fn tls(&self) -> Option<TlsAcceptor> {
        self.0.read().tls.clone()
    }

    /// Whether a request with this Authorization header may see the metrics. How long that takes depends on the length of the
    /// token only.
    pub(super) fn allows(&self, authorization: Option<&[u8]>) -> bool {
        let secrets = Arc::clone(&self.0.read());
        let Some(token) = &secrets.token else { return true };
        authorization.and_then(bearer).is_some_and(|given| given.ct_eq(token).into())
    }
}

impl Secrets {
    /// Reads the files that the configuration names.
    ///
    /// # Errors
    /// The first one that cannot be read, or is not what it should be.
    pub fn read(metrics: &Metrics) -> Result<Secrets, AccessError> {
        let token = metrics.token_file.as_deref().map(read_token).transpose()?;
        let tls = metrics.tls.as_ref().map(read_tls).transpose()?;
        Ok(Secrets { token, tls })
    }
}

impl AccessError {
    fn new(key: &'static str, path: &Path, text: impl ToString) -> AccessError {
        AccessError { key, path: path.to_owned(), text: text.to_string() }
    }

    /// The key of the configuration, and the rest of the text.
    pub(crate) fn into_parts(self) -> (String, String) {
        (self.key.to_owned(), format!("{}: {}", self.path.display(), self.text))
    }
}

/// The token of an Authorization header.
fn bearer(authorization: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = authorization.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(rest.trim_ascii())
}

fn read_token(path: &Path) -> Result<Vec<u8>, AccessError> {
    let wrong = |text: &str| AccessError::new("metrics.token_file", path, text);
    let mut text = Vec::new();
    let read = File::open(path).and_then(|file| file.take(TOKEN_FILE_MAX + 1).read_to_end(&mut text));
    read.map_err(|error| wrong(&error.to_string()))?;
    if text.len() as u64 > TOKEN_FILE_MAX {
        return Err(wrong("longer than a token can be (4096 bytes)"));
    }
    let token = text.trim_ascii();
    // RFC 6750 §2.1, b64token.
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(byte);
    match token {
        [] => Err(wrong("there is no token in it")),
        token if token.iter().all(fits) => Ok(token.to_vec()),
        _ => Err(wrong("a token has one line of A-Z a-z 0-9 - . _ ~ + / =")),
    }
}

fn read_tls(Tls { cert, key }: &Tls) -> Result<TlsAcceptor, AccessError> {
    let wrong_cert = |text: String| AccessError::new("metrics.tls_cert", cert, text);
    let wrong_key = |text: String| AccessError::new("metrics.tls_key", key, text);
    let certificates = CertificateDer::pem_file_iter(cert).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = certificates.map_err(|error| wrong_cert(pem_text(&error)))?;
    if certificates.is_empty() {
        return Err(wrong_cert("there is no certificate in it (PEM)".to_owned()));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong_key(pem_text(&error)))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider has what these versions need")
        .with_no_client_auth()
        .with_single_cert(certificates, private);
    let mut config = config.map_err(|error| match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            wrong_key(format!("it is not the key of the certificate in {}", cert.display()))
        }
        rustls::Error::InvalidCertificate(error) => wrong_cert(error.to_string()),
        error => wrong_key(error.to_string()),
    })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn pem_text(error: &pem::Error) -> String {
    match error {
        pem::Error::Io(error) if error.kind() == io::ErrorKind::NotFound => "there is no such file".to_owned(),
        pem::Error::Io(error) => error.to_string(),
        pem::Error::NoItemsFound => "there is no private key in it (PEM)".to_owned(),
        error => format!("no PEM file: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_token(text: &str) -> Result<Access, AccessError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, text).unwrap();
        let metrics = Metrics { token_file: Some(path), ..Metrics::default() };
        Secrets::read(&metrics).map(Access::new)
    }

    #[test]
    fn token_is_wanted_whole_and_by_its_scheme() {
        let access = with_token("s3cret-Token==\n").unwrap();
        for (given, allowed) in [
            (Some("Bearer s3cret-Token=="), true),
            (Some("bearer  s3cret-Token== "), true),
            (Some("Bearer s3cret-Token="), false),
            (Some("Bearer s3cret-Token==="), false),
            (Some("Bearer S3cret-Token=="), false),
            (Some("Bearer "), false),
            (Some("Bearer"), false),
            (Some("Basic s3cret-Token=="), false),
            (Some("s3cret-Token=="), false),
            (Some(""), false),
            (None, false),
        ] {
            assert_eq!(access.allows(given.map(str::as_bytes)), allowed, "{given:?}");
        }
        access.replace(Secrets::default());
        assert!(access.allows(None), "no token is configured any more");
    }

    #[test]
    fn token_files_that_hold_no_token_are_named() {
        for (text, wrong) in [
            ("", "there is no token in it"),
            (" \n", "there is no token in it"),
            ("two words", "one line of"),
            ("two\nlines", "one line of"),
            ("ü", "one line of"),
            (&*"x".repeat(4097), "longer than"),
        ] {
            let error = with_token(text).err().unwrap().to_string();
            assert!(error.starts_with("metrics.token_file = \"") && error.contains(wrong), "{error}");
        }
        let metrics = Metrics { token_file: Some("/nowhere/token".into()), ..Metrics::default() };
        let error = Secrets::read(&metrics).err().unwrap().to_string();
        assert!(error.starts_with("metrics.token_file = \"/nowhere/token\": No such file"), "{error}");
    }
}
