//! Tokens signed with the shared secret, for `rollcall token` and the first run.
use jsonwebtoken::{EncodingKey, Header};
use rollcall_schema::{Audience, ClassroomId, JsonObject, LessonId, Role, UserId};
use serde::Serialize;

use super::unix_now;
use rollcall_base::Secret;

/// The claims of a token to sign.
#[derive(Clone, Debug)]
pub struct TokenSpec {
    /// `iss`; must not be an issuer with a JWKS, whose tokens only its own keys sign.
    pub issuer: String,
    /// `sub`.
    pub user: UserId,
    /// `aud`.
    pub audience: Audience,
    /// `role`.
    pub role: Role,
    /// How long it is valid.
    pub lifetime: std::time::Duration,
    /// `lesson_id`.
    pub lesson_id: Option<LessonId>,
    /// `classroom_ids`; empty: any.
    pub classroom_ids: Vec<ClassroomId>,
    /// `lesson_ids`; empty: any.
    pub lesson_ids: Vec<LessonId>,
    /// `info`.
    pub info: Option<JsonObject>,
}

/// Why no token was signed.
#[derive(Debug, thiserror::Error)]
#[error("the token cannot be signed: {0}")]
pub struct MintError(#[from] jsonwebtoken::errors::Error);

#[derive(Serialize)]
struct Body<'a> {
    iss: &'a str,
    aud: &'a Audience,
    sub: &'a UserId,
    exp: u64,
    role: Role,
    #[serde(skip_serializing_if = "Option::is_none")]
    lesson_id: Option<&'a LessonId>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    classroom_ids: &'a [ClassroomId],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    lesson_ids: &'a [LessonId],
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<&'a JsonObject>,
}

/// Signs a token.
///
/// # Errors
/// [`MintError`], where the secret cannot sign.
pub fn mint(secret: &Secret, spec: &TokenSpec) -> Result<String, MintError> {
    let body = Body {
        iss: &spec.issuer,
        aud: &spec.audience,
        sub: &spec.user,
        exp: unix_now().saturating_add(spec.lifetime.as_secs()),
        role: spec.role,
        lesson_id: spec.lesson_id.as_ref(),
        classroom_ids: &spec.classroom_ids,
        lesson_ids: &spec.lesson_ids,
        info: spec.info.as_ref(),
    };
    let key = EncodingKey::from_secret(secret.reveal().as_bytes());
    Ok(jsonwebtoken::encode(&Header::default(), &body, &key)?)
}
