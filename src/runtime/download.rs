//! HTTP for the set-up: one agent, retries, and files that are checked while they stream in.
//!
//! Proxies come from `ALL_PROXY`, `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` (ureq reads them). Certificates are
//! checked by the platform's verifier, which reads `SSL_CERT_FILE` and `SSL_CERT_DIR` on Linux and the BSDs; on
//! macOS and Windows it knows only the system's store, so there the file is loaded here.

use std::{
    fs::File,
    io::{Read, Seek, Write},
    path::Path,
    time::Duration,
};

use sha2::{Digest, Sha256};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig};

use super::{cache::hexadecimal, error::RuntimeError};

/// Called while a file comes in, with the bytes that are there and the bytes there will be.
pub type Progress<'a> = &'a dyn Fn(u64, u64);

/// Answers after which the same request may succeed: time-outs, rate limits, servers that are restarting.
const TRANSIENT: &[u16] = &[408, 425, 429, 500, 502, 503, 504];
/// The pauses between attempts; one attempt more than pauses.
const PAUSES: &[Duration] = &[
    Duration::from_millis(500),
    Duration::from_secs(2),
    Duration::from_secs(5),
];

/// What a file has to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected<'a> {
    /// Its size in bytes.
    pub size: u64,
    /// Its SHA-256 in lower-case hexadecimal.
    pub sha256: &'a str,
}

/// An HTTP client.
pub(super) struct Client {
    agent: ureq::Agent,
    pauses: Vec<Duration>,
}

/// A failed attempt, and whether another one makes sense.
struct Failure {
    again: bool,
    error: RuntimeError,
}

impl Client {
    pub fn new() -> Self {
        Self::with_pauses(PAUSES.to_vec())
    }

    pub fn with_pauses(pauses: Vec<Duration>) -> Self {
        let agent = ureq::Agent::config_builder()
            .user_agent(concat!("pab-patch/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(Duration::from_secs(20)))
            .timeout_connect(Some(Duration::from_secs(20)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            // No limit on the whole: a slow line is no failure, a silent one is.
            .timeout_per_read(Some(Duration::from_secs(60)))
            .tls_config(TlsConfig::builder().root_certs(root_certificates()).build())
            .build()
            .new_agent();
        Self { agent, pauses }
    }

    /// Fetches a file and checks size and hash as it comes in. Each attempt starts over in `target`.
    pub fn file(
        &self,
        url: &str,
        expected: Expected<'_>,
        (target, path): (&mut File, &Path),
        progress: Progress<'_>,
    ) -> Result<(), RuntimeError> {
        self.retrying(|attempts| {
            let failed = |source| Failure {
                again: false,
                error: RuntimeError::Cache {
                    action: "writing",
                    path: path.to_path_buf(),
                    source,
                },
            };
            target.set_len(0).and_then(|()| target.rewind()).map_err(failed)?;
            let body = self.get(url, attempts)?;
            let wrong = |expected: String, found: String| Failure {
                again: false,
                error: RuntimeError::WrongContent {
                    url: shown(url),
                    expected,
                    found,
                },
            };
            let sizes = |found: String| wrong(format!("{} bytes", expected.size), found);
            if let Some(announced) = body.content_length().filter(|announced| *announced != expected.size) {
                return Err(sizes(format!("{announced} bytes")));
            }
            // One byte more than expected is let through, to be told from a file of the right size.
            let mut reader = body
                .into_with_config()
                .limit(u64::MAX)
                .reader()
                .take(expected.size.saturating_add(1));
            let mut hash = Sha256::new();
            let mut buffer = vec![0; 1 << 16];
            let mut done = 0;
            loop {
                let count = reader
                    .read(&mut buffer)
                    .map_err(|error| broken(url, attempts, &error))?;
                let Some(read) = buffer.get(..count).filter(|read| !read.is_empty()) else {
                    break;
                };
                hash.update(read);
                target.write_all(read).map_err(failed)?;
                done += read.len() as u64;
                progress(done.min(expected.size), expected.size);
            }
            if done > expected.size {
                return Err(sizes("more".to_owned()));
            }
            if done < expected.size {
                return Err(broken(
                    url,
                    attempts,
                    &format!("the connection ended after {done} of {} bytes", expected.size),
                ));
            }
            let found = hexadecimal(&hash.finalize());
            if found != expected.sha256 {
                return Err(wrong(format!("SHA-256 {}", expected.sha256), found));
            }
            target.flush().and_then(|()| target.rewind()).map_err(failed)
        })
    }

    /// Fetches a text of at most `limit` bytes.
    pub fn text(&self, url: &str, limit: u64) -> Result<String, RuntimeError> {
        self.retrying(|attempts| {
            let body = self.get(url, attempts)?;
            body.into_with_config()
                .limit(limit)
                .lossy_utf8(true)
                .read_to_string()
                .map_err(|error| broken(url, attempts, &error))
        })
    }

    fn get(&self, url: &str, attempts: u32) -> Result<ureq::Body, Failure> {
        match self
            .agent
            .get(url)
            .header("Accept", "text/html, application/octet-stream, */*;q=0.1")
            .call()
        {
            Ok(response) => Ok(response.into_body()),
            Err(ureq::Error::StatusCode(status)) => Err(Failure {
                again: TRANSIENT.contains(&status),
                error: RuntimeError::HttpStatus {
                    url: shown(url),
                    status,
                },
            }),
            Err(error) => {
                // A wrong URL, proxy or certificate stays wrong.
                let again = !matches!(
                    error,
                    ureq::Error::BadUri(_)
                        | ureq::Error::InvalidProxyUrl
                        | ureq::Error::Rustls(_)
                        | ureq::Error::Tls(_)
                );
                Err(Failure {
                    again,
                    ..broken(url, attempts, &error)
                })
            }
        }
    }

    fn retrying<T>(&self, mut attempt: impl FnMut(u32) -> Result<T, Failure>) -> Result<T, RuntimeError> {
        let mut attempts = 1;
        for pause in &self.pauses {
            match attempt(attempts) {
                Ok(value) => return Ok(value),
                Err(failure) if failure.again => std::thread::sleep(*pause),
                Err(failure) => return Err(failure.error),
            }
            attempts += 1;
        }
        attempt(attempts).map_err(|failure| failure.error)
    }
}

fn broken(url: &str, attempts: u32, reason: &dyn std::fmt::Display) -> Failure {
    Failure {
        again: true,
        error: RuntimeError::Network {
            url: shown(url),
            attempts,
            reason: reason.to_string(),
        },
    }
}

/// A URL fit for messages: without user name and password.
pub(super) fn shown(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let authority = rest.split('/').next().unwrap_or(rest);
    match authority.rsplit_once('@') {
        Some((secret, _)) => format!("{scheme}://{}", rest.get(secret.len() + 1..).unwrap_or_default()),
        None => url.to_owned(),
    }
}

fn root_certificates() -> RootCerts {
    let file = if cfg!(any(windows, target_vendor = "apple")) {
        std::env::var_os("SSL_CERT_FILE")
    } else {
        None
    };
    let Some(pem) = file.and_then(|file| std::fs::read(file).ok()) else {
        return RootCerts::PlatformVerifier;
    };
    let certificates: Vec<Certificate<'static>> = ureq::tls::parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        RootCerts::PlatformVerifier
    } else {
        RootCerts::new_with_certs(&certificates)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_stay_out_of_messages() {
        assert_eq!(
            shown("https://user:p@ss@mirror.example/simple/"),
            "https://mirror.example/simple/"
        );
        assert_eq!(shown("https://mirror.example/a@b"), "https://mirror.example/a@b");
        assert_eq!(shown("nonsense"), "nonsense");
    }
}
