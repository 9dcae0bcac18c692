//! Authentication: tokens, the keys that check them, and the authorization service (PROTOCOL 6 and 10).
//!
//! Invariant: [`Claims`] exist only for a token whose signature was checked with a key of its own issuer and that key's
//! algorithm. Nothing in a token's header chooses an algorithm, an address or a file.
mod development;
mod hook;
mod jwks;
mod key_set;
mod keyring;
mod lookup;
mod mint;
mod refusals;
mod rotation;
mod token;

#[cfg(test)]
mod tests;

use rollcall_schema::{Audience, ClassroomId, JsonObject, LessonId, Role, UserId};

pub use development::development_secret;
pub use hook::{Action, Hook, HookError, HookOptions};
pub use jwks::{JwksError, Location};
pub use key_set::{KeySet, Sources};
pub use keyring::{Keyring, KeyringError};
pub use mint::{TokenSpec, mint};

/// What a checked token says about its bearer. Claims are small, because every connection keeps them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// The claim `sub`.
    pub user: UserId,
    /// The claim `aud`.
    pub audience: Audience,
    /// The claim `role`.
    pub role: Role,
    /// The claim `exp`. The token is expired from this second (Unix time) on.
    pub expires: u64,
    /// The classrooms and lessons that the bearer may enter, and `info`. `None` if the bearer may enter any classroom
    /// and lesson, and there is no `info`.
    pub limits: Option<Box<Grants>>,
}

/// The claims that only some tokens have: the classrooms and lessons that the bearer is limited to, and the object that
/// everybody there receives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    /// The lesson to join if the client names none.
    pub lesson_id: Option<LessonId>,
    /// Only these classrooms may be entered.
    pub classroom_ids: Option<Box<[ClassroomId]>>,
    /// Only these lessons may be joined.
    pub lesson_ids: Option<Box<[LessonId]>>,
    /// Everybody in the classroom receives this object unchanged.
    pub info: Option<JsonObject>,
}

impl Claims {
    /// Returns whether the bearer may enter the classroom.
    #[must_use]
    pub fn admits_classroom(&self, classroom: ClassroomId) -> bool {
        let list = self.limits.as_ref().and_then(|limits| limits.classroom_ids.as_ref());
        list.is_none_or(|list| list.contains(&classroom))
    }

    /// Returns whether the bearer may join the lesson.
    #[must_use]
    pub fn admits_lesson(&self, lesson: &LessonId) -> bool {
        let list = self.limits.as_ref().and_then(|limits| limits.lesson_ids.as_ref());
        list.is_none_or(|list| list.contains(lesson))
    }

    /// Returns the lesson to join if the client names none.
    #[must_use]
    pub fn lesson(&self) -> Option<&LessonId> {
        self.limits.as_ref().and_then(|limits| limits.lesson_id.as_ref())
    }

    /// Returns the object about the bearer that everybody in the classroom receives.
    #[must_use]
    pub fn info(&self) -> Option<&JsonObject> {
        self.limits.as_ref().and_then(|limits| limits.info.as_ref())
    }

    /// Returns whether the token is expired at the time `now`, in Unix seconds.
    #[must_use]
    pub fn expired(&self, now: u64) -> bool {
        now >= self.expires
    }
}

/// Why a token is refused. A client gets `unauthenticated` for every permanent reason. The difference is for the
/// operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// There is no token.
    #[error("there is no token")]
    Missing,
    /// The token is not three parts of base64url with JSON objects in the first two, or it is too long.
    #[error("the token is malformed")]
    Malformed,
    /// The header has a parameter that is never followed: `jku`, `x5u`, `jwk`, `x5c` or `crit`.
    #[error("the token's header has a forbidden parameter")]
    Header,
    /// No key is configured for the issuer `iss`.
    #[error("the token's issuer is not configured")]
    Issuer,
    /// The issuer has no key with this `kid`.
    #[error("the token's key is unknown")]
    Key,
    /// The gateway does not know whether the issuer has such a key, because its keys could not be loaded or were loaded
    /// too recently.
    #[error("the issuer's keys cannot be looked up now")]
    KeysUnavailable,
    /// The header's `alg` is not the key's algorithm.
    #[error("the token's algorithm is not its key's")]
    Algorithm,
    /// The signature was not made with the key.
    #[error("the token's signature is wrong")]
    Signature,
    /// The time `exp` has passed.
    #[error("the token has expired")]
    Expired,
    /// `nbf` or `iat` is in the future.
    #[error("the token is not valid yet")]
    Early,
    /// A claim is missing or invalid.
    #[error("a claim of the token is missing or invalid")]
    Claim,
    /// `info` is not a JSON object, or is too long.
    #[error("the token's info is no JSON object of at most 1024 bytes")]
    Info,
    /// Not exactly one audience in `aud` is in `ROLLCALL_AUDIENCES`.
    #[error("the token is for another audience")]
    Audience,
}

impl AuthError {
    /// Returns whether the same token may be accepted later.
    #[must_use]
    pub fn is_temporary(self) -> bool {
        self == Self::KeysUnavailable
    }

    /// Returns what the client is told about the reason. The text contains nothing that helps a forger.
    #[must_use]
    pub fn detail(self) -> Option<&'static str> {
        match self {
            Self::Missing => Some("token missing"),
            Self::Malformed => Some("token malformed"),
            Self::Expired => Some("token expired"),
            // The token is genuine, so the developer of its issuer may read this text.
            Self::Info => Some("info: a JSON object of at most 1024 bytes"),
            _ => None,
        }
    }

    /// Returns the value of the label `reason` of the metric `tokens_refused_total`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Header => "header",
            Self::Issuer => "issuer",
            Self::Key => "key",
            Self::KeysUnavailable => "keys_unavailable",
            Self::Algorithm => "algorithm",
            Self::Signature => "signature",
            Self::Expired => "expired",
            Self::Early => "early",
            Self::Claim => "claim",
            Self::Info => "info",
            Self::Audience => "audience",
        }
    }
}

/// Returns the Unix time in seconds, or 0 if the clock is before 1970. With 0, every `nbf` is in the future.
#[must_use]
pub fn unix_now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
