//! Addresses of backends, and the certificates for connections to them.
use std::path::PathBuf;

use rollcall_base::{
    BackendUrl, Check,
    tls::{ClientCertificate, ClientTls},
};

use super::{
    names::Setting,
    source::{Given, Source},
};

/// Returns the backend's address. If the address comes from a file, it is read again for each connection.
pub(super) fn backend(setting: &Setting, given: &Given, check: Check) -> Result<BackendUrl, String> {
    check(&given.text)?;
    Ok(match &given.file {
        Some(path) => BackendUrl::in_file(&given.text, setting.name, path.clone(), check),
        None => BackendUrl::new(given.text.as_str()),
    })
}

/// Returns the PEM files of these settings: the authorities, which replace those of the machine, the client's
/// certificate, and its key.
pub(super) fn client_tls(source: &mut Source<'_>, [ca_file, certificate, key]: [&'static Setting; 3]) -> ClientTls {
    let mut file = |setting| source.optional(setting, |text| Ok(PathBuf::from(text)));
    let (ca_file, chain, private) = (file(ca_file), file(certificate), file(key));
    match (&chain, &private) {
        (Some(_), None) => source.fault(key, format!("is needed with {}", certificate.name)),
        (None, Some(_)) => source.fault(certificate, format!("is needed with {}", key.name)),
        _ => {}
    }
    let certificate = chain.zip(private).map(|(chain, key)| ClientCertificate { chain, key });
    ClientTls { system_roots: ca_file.is_none(), ca_file, certificate }
}
