//! Signs tokens with the shared secret, for `rollcall token` and the first run.
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::hmac;
use rollcall_schema::{Audience, ClassroomId, JsonObject, LessonId, Role, UserId};
use serde::Serialize;

use super::unix_now;
use rollcall_base::Secret;

const HEADER: &str = r#"{"typ":"JWT","alg":"HS256"}"#;

/// The claims of a token to sign.
#[derive(Clone, Debug)]
pub struct TokenSpec {
    /// The claim `iss`. It must not be an issuer with a JWKS, because only that issuer's own keys sign its tokens.
    pub issuer: String,
    /// The claim `sub`.
    pub user: UserId,
    /// The claim `aud`.
    pub audience: Audience,
    /// The claim `role`.
    pub role: Role,
    /// How long the token is valid.
    pub lifetime: std::time::Duration,
    /// The claim `lesson_id`.
    pub lesson_id: Option<LessonId>,
    /// The claim `classroom_ids`. If it is empty, the bearer may enter any classroom.
    pub classroom_ids: Vec<ClassroomId>,
    /// The claim `lesson_ids`. If it is empty, the bearer may join any lesson.
    pub lesson_ids: Vec<LessonId>,
    /// The claim `info`.
    pub info: Option<JsonObject>,
}

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
#[must_use]
pub fn mint(secret: &Secret, spec: &TokenSpec) -> String {
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
    let claims = serde_json::to_vec(&body).expect("texts and numbers can be written as JSON");
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(HEADER), URL_SAFE_NO_PAD.encode(claims));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.reveal().as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(hmac::sign(&key, message.as_bytes())))
}
