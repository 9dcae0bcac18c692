//! Answers requests to the clients' address that are not for the WebSocket: `/healthz`, and the list of agents in a
//! classroom, for a client's own token (PROTOCOL 9).
use std::sync::Arc;

use hyper::{HeaderMap, Method, StatusCode, header, http::request::Parts};
use rollcall_presence::{RosterForm, RosterRequest, Rosters};
use rollcall_websocket::CurrentOptions;

use super::{
    cors::with_cors,
    reply::{HttpError, Reply, text, with},
    url_parameters::UrlParameters,
};
use crate::{
    auth::{Action, AuthError, Hook, HookError, Keyring},
    limits::{EventLimits, Payer, admission::AdmissionError, network::Subscriber},
    url_query,
};

/// Answers requests to the clients' address.
pub struct Public {
    /// Checks tokens.
    pub keyring: Arc<Keyring>,
    /// Asks the authorization service.
    pub hook: Arc<Hook>,
    /// Reads the lists of agents.
    pub rosters: Rosters,
    /// Limits how often a user may ask, and how often an address without a valid token.
    pub rates: Arc<EventLimits>,
    /// Which pages may ask.
    pub pages: CurrentOptions,
}

impl Public {
    /// Answers a request that is not for the WebSocket. `client` is the client's address if addresses are limited.
    pub async fn answer(&self, client: Option<Subscriber>, head: &Parts) -> Reply {
        let path: Vec<&str> = head.uri.path().split('/').skip(1).collect();
        match path[..] {
            ["healthz"] => healthz(&head.method),
            ["api", "v1", "classrooms", classroom, "agents"] => {
                let answer =
                    async { self.agents(client, head, classroom).await.unwrap_or_else(|refusal| refusal.reply()) };
                let pages = Arc::clone(&self.pages.borrow());
                with_cors(&pages, head, answer).await
            }
            _ => HttpError::new(StatusCode::NOT_FOUND, "there is /ws, /healthz, and /api/v1/classrooms/{id}/agents")
                .reply(),
        }
    }

    async fn agents(&self, client: Option<Subscriber>, head: &Parts, classroom: &str) -> Result<Reply, HttpError> {
        if !matches!(head.method, Method::GET | Method::HEAD) {
            return Err(HttpError::method("GET, HEAD, OPTIONS"));
        }
        let query = head.uri.query().unwrap_or_default();
        let user = match token(&head.headers, query) {
            Some(token) => self.keyring.admit(token).await,
            None => Err(self.keyring.refuse_missing()),
        };
        let user = match user {
            Ok(user) => user,
            Err(error) if error.is_temporary() => return Err(HttpError::away("a key set")),
            Err(error) => {
                self.limit_rate(Payer::Guest(client))?;
                return Err(unauthenticated(error));
            }
        };
        self.limit_rate(Payer::User(&user.user, &user.audience))?;
        let (query, limit) = UrlParameters { path: vec![classroom], query }.roster_page()?;
        let denied = || HttpError::new(StatusCode::FORBIDDEN, "the token does not admit this classroom");
        if !user.admits_classroom(query.classroom) {
            return Err(denied());
        }
        match self.hook.admits(&user, query.classroom, Action::Read).await {
            Ok(true) => {}
            Ok(false) => return Err(denied()),
            Err(HookError::Busy | HookError::Away) => return Err(HttpError::away("the authorization service")),
        }
        let page = self.rosters.read(RosterRequest { query, limit, form: RosterForm::Listed }).await;
        let page = page.map_err(|error| {
            tracing::warn!(%error, "a client was asked to read the roster later");
            HttpError::away("the database")
        })?;
        Ok(with(StatusCode::OK, "application/json", page.agents.get().to_owned()))
    }

    fn limit_rate(&self, payer: Payer<'_>) -> Result<(), HttpError> {
        let refused = |_| HttpError {
            header: Some((header::RETRY_AFTER, "1")),
            ..HttpError::new(StatusCode::TOO_MANY_REQUESTS, "too many requests")
        };
        self.rates.request(payer).map_err(refused)
    }
}

fn healthz(method: &Method) -> Reply {
    match *method {
        Method::GET | Method::HEAD => text(StatusCode::OK, "ok\n"),
        _ => HttpError::method("GET").reply(),
    }
}

/// Returns the token of `Authorization: Bearer`, or else of `?access_token=`.
fn token<'a>(headers: &'a HeaderMap, query: &'a str) -> Option<&'a str> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
    });
    bearer.or_else(|| url_query::first(query, "access_token"))
}

fn unauthenticated(error: AuthError) -> HttpError {
    let detail = error.detail().unwrap_or("the token is not valid");
    HttpError { header: Some((header::WWW_AUTHENTICATE, "Bearer")), ..HttpError::new(StatusCode::UNAUTHORIZED, detail) }
}

/// Refuses a request for the WebSocket that is not admitted. The client may try again after a second.
#[must_use]
pub fn refusal(error: AdmissionError) -> Reply {
    let (status, detail) = match error {
        AdmissionError::Node | AdmissionError::Memory | AdmissionError::InFlight => {
            (StatusCode::SERVICE_UNAVAILABLE, "this node has as many connections as it takes")
        }
        AdmissionError::Client => (StatusCode::TOO_MANY_REQUESTS, "too many connections from this address"),
        AdmissionError::Unauthenticated => (StatusCode::SERVICE_UNAVAILABLE, "too many connections wait to be let in"),
        AdmissionError::Rate => (StatusCode::SERVICE_UNAVAILABLE, "too many connections at once"),
    };
    HttpError { header: Some((header::RETRY_AFTER, "1")), ..HttpError::new(status, detail) }.reply()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_when_to_come_again() {
        let errors = [AdmissionError::Node, AdmissionError::Client, AdmissionError::Unauthenticated];
        for error in errors.into_iter().chain([AdmissionError::InFlight, AdmissionError::Rate]) {
            assert_eq!(refusal(error).headers()["retry-after"], "1");
        }
    }

    #[test]
    fn the_header_wins_over_the_query() {
        let headers = |value: &str| [(header::AUTHORIZATION, value.parse().unwrap())].into_iter().collect();
        let none = HeaderMap::new();
        assert_eq!(token(&none, "limit=1&access_token=a.b.c"), Some("a.b.c"));
        assert_eq!(token(&headers("Bearer x.y.z"), "access_token=a.b.c"), Some("x.y.z"));
        assert_eq!(token(&headers("bearer  x.y.z "), ""), Some("x.y.z"));
        assert_eq!(token(&headers("Basic eDp5"), "access_token=a"), Some("a"));
        assert_eq!(token(&none, ""), None);
    }
}
