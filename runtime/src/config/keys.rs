//! Settings of the keys that tokens are checked with.
use std::{collections::HashSet, io, net::SocketAddr, path::PathBuf};

use super::{Database, names, source::Source, value};
use crate::auth::{Sources, development_secret};

/// The configured keys, or the file of the development secret if no key is configured.
#[derive(Clone, Debug)]
pub struct TokenKeys {
    /// The configured keys.
    pub sources: Sources,
    /// The file of the development secret. `None` if a key is configured.
    pub development: Option<PathBuf>,
}

impl TokenKeys {
    /// Reads the settings. If `needed`, the command checks or signs tokens. Then it is a fault if no key is configured,
    /// unless only this machine can connect.
    pub(super) fn read(source: &mut Source<'_>, needed: bool, listen: SocketAddr, database: &Database) -> Self {
        let faults = source.faults.len();
        let hs256 = source.secret(&names::HS256_SECRET);
        let hs256_previous = source.secret(&names::HS256_PREVIOUS_SECRET);
        if hs256_previous.is_some() && hs256.is_none() {
            source.fault(&names::HS256_PREVIOUS_SECRET, format!("is of no use without {}", names::HS256_SECRET.name));
        }
        let jwks = source.optional(&names::JWKS, |text| value::list(text, value::issuer)).unwrap_or_default();
        let mut seen = HashSet::new();
        for (issuer, _) in &jwks {
            if !seen.insert(issuer) {
                source.fault(&names::JWKS, format!("names the issuer {issuer:?} twice"));
            }
        }
        let configured = hs256.is_some() || !jwks.is_empty() || source.faults.len() > faults;
        if !configured && needed && !listen.ip().is_loopback() {
            let jwks = names::JWKS.name;
            let problem = format!("no key is configured, and others can reach {listen}: set this, or {jwks}");
            source.fault(&names::HS256_SECRET, problem);
        }
        let sources = Sources {
            hs256,
            hs256_previous,
            jwks,
            audiences: source
                .optional(&names::AUDIENCES, |text| value::list(text, value::audience))
                .unwrap_or_default(),
            refresh: source.value(&names::JWKS_REFRESH, value::time_limit),
            cooldown: source.value(&names::JWKS_COOLDOWN, value::time_limit),
            leeway: source.value(&names::TOKEN_LEEWAY, value::duration),
        };
        Self { sources, development: (!configured).then(|| development_file(database)) }
    }

    /// Returns the sources for the keyring. The first run creates the development secret.
    ///
    /// # Errors
    /// Returns an error if the file of the development secret cannot be created or read.
    pub fn load(&self) -> io::Result<Sources> {
        let mut sources = self.sources.clone();
        if let Some(path) = &self.development {
            let secret = development_secret(path).map_err(|error| {
                io::Error::new(error.kind(), format!("the development secret {}: {error}", path.display()))
            })?;
            sources.hs256 = Some(secret);
        }
        Ok(sources)
    }
}

/// Returns the path of the development secret. It is beside the database, so that the secret stays the same for the
/// same data.
fn development_file(database: &Database) -> PathBuf {
    match database {
        Database::Sqlite(path) => {
            let mut path = path.clone().into_os_string();
            path.push(".secret");
            PathBuf::from(path)
        }
        Database::Postgres(_) => PathBuf::from("rollcall.secret"),
    }
}
