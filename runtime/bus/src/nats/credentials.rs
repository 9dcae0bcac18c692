//! The credentials for NATS: a user and password or a token in NATS_URL, a `.creds` file, or an nkey seed.
//!
//! Invariant: a seed never leaves this process. The server gets a signature of the nonce that it chose for the
//! connection.
use async_nats::Auth;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use nkeys::KeyPair;
use serde::Serialize;

use super::NatsError;

/// The credentials in CONNECT.
#[derive(Serialize)]
pub(super) struct Login {
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pass: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    auth_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jwt: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nkey: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sig: Option<String>,
}

/// A key, and the token (JWT) that says what its user may do.
pub(super) struct Key {
    pair: KeyPair,
    jwt: Option<String>,
}

/// All credentials of this process.
pub(super) struct Credentials {
    /// The user and password, or the token, in the URL.
    pub(super) auth: Auth,
    pub(super) key: Option<Key>,
}

impl Credentials {
    /// Returns the credentials for the client library, for a server that chose this nonce.
    pub(super) fn auth(&self, nonce: &[u8]) -> Result<Auth, NatsError> {
        let mut auth = self.auth.clone();
        if let Some(Key { pair, jwt }) = &self.key {
            let signature = pair.sign(nonce).map_err(|_| NatsError::Credentials("its seed cannot sign"))?;
            auth.signature = Some(signature);
            auth.jwt = jwt.clone();
            auth.nkey = jwt.is_none().then(|| pair.public_key());
        }
        Ok(auth)
    }

    /// Returns the credentials for CONNECT, for a server that chose this nonce.
    pub(super) fn login(&self, nonce: &[u8]) -> Result<Login, NatsError> {
        let Auth { username: user, password: pass, token: auth_token, jwt, nkey, signature, .. } = self.auth(nonce)?;
        Ok(Login {
            user,
            pass,
            auth_token,
            jwt,
            nkey,
            sig: signature.map(|signature| URL_SAFE_NO_PAD.encode(signature)),
        })
    }

    /// Returns the name of the credentials that a server refuses, for the error.
    pub(super) fn name(&self) -> &'static str {
        match (&self.key, &self.auth) {
            (Some(Key { jwt: Some(_), .. }), _) => "the user of ROLLCALL_NATS_CREDS",
            (Some(_), _) => "the nkey of ROLLCALL_NATS_CREDS",
            (None, Auth { username: Some(_), .. }) => "the user and password of NATS_URL",
            (None, Auth { token: Some(_), .. }) => "the token of NATS_URL",
            (None, _) => "a client without credentials (NATS_URL and ROLLCALL_NATS_CREDS have none)",
        }
    }
}

impl Key {
    /// Reads the text of a `.creds` file, or an nkey seed. The error repeats no part of it.
    pub(super) fn read(text: &str) -> Result<Self, &'static str> {
        let jwt = part(text, "BEGIN NATS USER JWT-----");
        let seed = match (jwt, part(text, "BEGIN USER NKEY SEED-----")) {
            (Some(_), Some(seed)) => seed,
            (Some(_), None) => return Err("no NKEY SEED follows the JWT: write the whole .creds file"),
            (None, Some(_)) => return Err("no USER JWT stands before the seed: write the whole .creds file"),
            (None, None) => text.trim(),
        };
        let pair = KeyPair::from_seed(seed).ok().filter(|_| seed.starts_with("SU"));
        let pair = pair.ok_or(
            "write the text of a .creds file or a user's nkey seed (SU...); ROLLCALL_NATS_CREDS_FILE names a file",
        )?;
        Ok(Self { pair, jwt: jwt.map(str::to_owned) })
    }
}

/// Returns the word after the line that begins a part of the file.
fn part<'a>(text: &'a str, begin: &str) -> Option<&'a str> {
    text.split_once(begin)?.1.split_whitespace().next()
}

/// Checks the text of ROLLCALL_NATS_CREDS.
///
/// # Errors
/// Returns what to write instead.
pub fn check_credentials(text: &str) -> Result<(), String> {
    Key::read(text).map(drop).map_err(str::to_owned)
}
