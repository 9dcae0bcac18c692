//! Parses a token in two steps: first the parts that are needed to choose a key, then, when the signature is checked,
//! the claims.
//!
//! Invariant: before the signature is checked, `iss` is the only claim that is read, and the parser keeps only the
//! decoded parts in memory.
use std::borrow::Cow;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::Algorithm;
use rollcall_schema::{Audience, ClassroomId, JsonObject, LessonId, Role, UserId, read_object};
use serde::{Deserialize, Deserializer, de::IgnoredAny};
use serde_json::value::RawValue;

use super::{AuthError, Claims, Grants};

/// The longest token that is parsed, in bytes.
pub(super) const MAX_TOKEN: usize = 16 * 1024;

/// The last second that a number in JSON represents exactly. A later `exp` is a mistake.
const LAST_SECOND: f64 = 9_007_199_254_740_991.0;

/// A token whose signature is not checked yet.
#[derive(Debug)]
pub(super) struct Unchecked<'a> {
    /// The signed text, `header.claims`.
    pub(super) message: &'a [u8],
    /// The third part of the token, still encoded.
    pub(super) signature: &'a str,
    /// The header's algorithm, which must be the key's algorithm.
    pub(super) algorithm: Algorithm,
    /// The name of the issuer's key.
    pub(super) kid: Option<String>,
    /// The issuer.
    pub(super) issuer: String,
    claims: Vec<u8>,
}

#[derive(Deserialize)]
struct Header<'a> {
    #[serde(borrow)]
    alg: Cow<'a, str>,
    #[serde(default, deserialize_with = "present")]
    kid: Option<String>,
    #[serde(default, deserialize_with = "present")]
    jku: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "present")]
    x5u: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "present")]
    x5c: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "present")]
    jwk: Option<IgnoredAny>,
    #[serde(default, deserialize_with = "present")]
    crit: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Issued {
    iss: String,
}

#[derive(Deserialize)]
struct Body<'a> {
    sub: UserId,
    aud: Audiences,
    exp: f64,
    #[serde(default, deserialize_with = "present")]
    nbf: Option<f64>,
    #[serde(default, deserialize_with = "present")]
    iat: Option<f64>,
    #[serde(default, deserialize_with = "present")]
    role: Option<Role>,
    #[serde(default, deserialize_with = "present")]
    lesson_id: Option<LessonId>,
    #[serde(default, deserialize_with = "present")]
    classroom_ids: Option<Box<[ClassroomId]>>,
    #[serde(default, deserialize_with = "present")]
    lesson_ids: Option<Box<[LessonId]>>,
    #[serde(borrow, default, deserialize_with = "present")]
    info: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audiences {
    One(Audience),
    /// Some audiences may be of other services, whose names need not be valid here.
    Several(Vec<String>),
}

impl Audiences {
    /// Returns the audience that is accepted.
    fn choose(self, admitted: &[Audience]) -> Result<Audience, AuthError> {
        match self {
            Self::One(audience) if admitted.is_empty() || admitted.contains(&audience) => Ok(audience),
            Self::One(_) => Err(AuthError::Audience),
            Self::Several(texts) => match &texts[..] {
                [] => Err(AuthError::Claim),
                [text] => Self::One(Audience::parse(text).map_err(|_| AuthError::Claim)?).choose(admitted),
                texts => {
                    let mut ours = texts.iter().filter_map(|text| admitted.iter().find(|ours| ours.as_str() == text));
                    match (ours.next(), ours.next()) {
                        (Some(audience), None) => Ok(audience.clone()),
                        _ => Err(AuthError::Audience),
                    }
                }
            },
        }
    }
}

/// The rules that claims are checked against.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules<'a> {
    /// The audiences that are accepted. If the list is empty, any audience is accepted.
    pub(super) audiences: &'a [Audience],
    /// How far the issuer's clock may be ahead of the gateway's, in seconds.
    pub(super) leeway: u64,
    /// The current time in Unix seconds.
    pub(super) now: u64,
}

/// Reads a field that is present, which must have its type. Otherwise `null` instead of a list of classrooms would mean
/// "any classroom".
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

impl<'a> Unchecked<'a> {
    /// Parses the header and the issuer.
    pub(super) fn parse(token: &'a str) -> Result<Self, AuthError> {
        if token.len() > MAX_TOKEN {
            return Err(AuthError::Malformed);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(AuthError::Malformed)?;
        let (header, claims) = message.split_once('.').ok_or(AuthError::Malformed)?;
        let header = decode(header)?;
        let header: Header<'_> = object(&header)?;
        if header.jku.is_some()
            || header.x5u.is_some()
            || header.x5c.is_some()
            || header.jwk.is_some()
            || header.crit.is_some()
        {
            return Err(AuthError::Header);
        }
        let algorithm = match header.alg.as_ref() {
            "HS256" => Algorithm::HS256,
            "ES256" => Algorithm::ES256,
            "RS256" => Algorithm::RS256,
            "EdDSA" => Algorithm::EdDSA,
            _ => return Err(AuthError::Algorithm),
        };
        let claims = decode(claims)?;
        let Issued { iss: issuer } = object(&claims)?;
        Ok(Self { message: message.as_bytes(), signature, algorithm, kid: header.kid, issuer, claims })
    }

    /// Reads the claims. The caller has checked the signature.
    pub(super) fn claims(&self, rules: Rules<'_>) -> Result<Claims, AuthError> {
        let body: Body<'_> = object(&self.claims).map_err(|_| AuthError::Claim)?;
        let expires = second(body.exp, f64::floor)?;
        // There is no leeway for `exp`, because a token must not be valid for longer than its issuer said.
        if rules.now >= expires {
            return Err(AuthError::Expired);
        }
        for start in [body.nbf, body.iat].into_iter().flatten() {
            if rules.now.saturating_add(rules.leeway) < second(start, f64::ceil)? {
                return Err(AuthError::Early);
            }
        }
        let audience = body.aud.choose(rules.audiences)?;
        let info = body.info.map(|info| JsonObject::parse(info.get()).map_err(|_| AuthError::Info)).transpose()?;
        let limits =
            Grants { lesson_id: body.lesson_id, classroom_ids: body.classroom_ids, lesson_ids: body.lesson_ids, info };
        let limits = (limits != Grants::default()).then(|| Box::new(limits));
        Ok(Claims { user: body.sub, audience, role: body.role.unwrap_or_default(), expires, limits })
    }
}

fn decode(part: &str) -> Result<Vec<u8>, AuthError> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| AuthError::Malformed)
}

/// Reads a JSON object, of which every part must be UTF-8, also the parts that are skipped.
fn object<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, AuthError> {
    let json = std::str::from_utf8(json).map_err(|_| AuthError::Malformed)?;
    read_object(json).map_err(|_| AuthError::Malformed)
}

/// Reads a NumericDate (RFC 7519), which may have a fraction.
fn second(number: f64, round: fn(f64) -> f64) -> Result<u64, AuthError> {
    if !(0.0..=LAST_SECOND).contains(&number) {
        return Err(AuthError::Claim);
    }
    // The check above limits the range, and `round` returns an integer.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    Ok(round(number) as u64)
}
