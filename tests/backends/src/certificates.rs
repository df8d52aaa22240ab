//! Certificates for servers that speak TLS.

use std::io;
use std::path::Path;
use std::process::Command;

use crate::finish;

/// Makes an authority and a certificate from it. A server may not use the authority's own.
pub(crate) fn make_certificates(directory: &Path) -> io::Result<()> {
    let file = |name: &str| directory.join(name).display().to_string();
    let make = |certificate: &str, key: &str, about: &str| {
        let mut command = Command::new("openssl");
        command.args("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2".split(' '));
        command.args(["-out", &file(certificate), "-keyout", &file(key)]).args(about.split(' '));
        command
    };
    finish(&mut make(AUTHORITY, "authority.key", "-subj /CN=authority"))?;
    let about =
        "-subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -addext basicConstraints=CA:FALSE";
    let mut certificate = make(CERTIFICATE, KEY, about);
    finish(certificate.args(["-CA", &file(AUTHORITY), "-CAkey", &file("authority.key")]))?;
    Ok(())
}

/// The authority, whom to trust.
pub(crate) const AUTHORITY: &str = "authority.pem";
/// What the server shows, for `localhost` and `127.0.0.1`.
pub(crate) const CERTIFICATE: &str = "server.pem";
/// Its key.
pub(crate) const KEY: &str = "server.key";
