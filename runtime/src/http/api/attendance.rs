//! `GET /api/v1/classrooms/{id}/attendance` lists when each agent entered, when it left, and why, as JSON or CSV.
//!
//! Invariant: only one page is in memory, however long the history is. The next page is read when the client has taken
//! the page before, and no resource of the database is held meanwhile. If an answer cannot be finished, its connection
//! is cut, so that the answer never looks complete.
use std::{borrow::Cow, collections::HashSet, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, future::ready, stream};
use http_body_util::{BodyExt, StreamBody};
use hyper::{Response, StatusCode, body::Frame, header};
use rollcall_schema::{AgentId, ClassroomId, LessonId, SessionId, UserId};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::http::{
    admin::Admin,
    call::Call,
    reply::{BodyError, HttpError, Streamed},
    times::{moment, shown},
};
use rollcall_store::{HistoryPosition, Moment, Store, StoreError, Visit, VisitEnd};

/// How many sessions are read at once.
const PAGE: usize = 1000;
/// For how long a page of a list that has begun is requested again while the database is away or busy.
const RETRY_LIMIT: Duration = Duration::from_secs(10);
/// The pause between two such requests.
const PAUSE: Duration = Duration::from_millis(250);

/// The columns, which are also the members of each JSON object.
const COLUMNS: [&str; 7] = ["session_id", "agent_id", "user_id", "lesson_id", "entered_at", "left_at", "reason"];

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Format {
    #[default]
    Json,
    Csv,
}

/// The query: sessions that existed at some time between `from` and `to`, as JSON or CSV.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Query {
    from: Option<Moment>,
    to: Option<Moment>,
    format: Format,
}

impl Query {
    fn of(call: &Call<'_>) -> Result<Self, HttpError> {
        let time = |name: &str| call.url.text(name)?.map(|text| moment(name, &text)).transpose();
        let format = match call.url.text("format")?.as_deref() {
            None | Some("json") => Format::Json,
            Some("csv") => Format::Csv,
            Some(_) => return Err(HttpError::bad("format must be json or csv")),
        };
        Ok(Self { from: time("from")?, to: time("to")?, format })
    }

    fn includes(&self, visit: &Visit) -> bool {
        let after = |from| visit.end.as_ref().is_none_or(|end| end.at > from);
        self.to.is_none_or(|to| visit.entered < to) && self.from.is_none_or(after)
    }
}

/// Lists the sessions that existed at some time between `from` and `to`. The first page is read before the answer
/// begins, so that the client gets an error if the database is away.
pub(super) async fn list(admin: &Admin, call: &Call<'_>) -> Result<Streamed, HttpError> {
    let (classroom, query) = (call.url.classroom()?, Query::of(call)?);
    let (format, mut text) = (query.format, Text { format: query.format, is_empty: true });
    let (store, place) = (Arc::clone(&admin.store), Place::Present(SessionId(0)));
    let mut pages = Pages { store, classroom, query, place, present: HashSet::new() };
    let first = pages.next().await.map_err(|error| admin.refusal(&error))?.unwrap_or_default();
    let begun = [text.begin(), text.page(&first)].concat();
    let rest = stream::unfold(Some((pages, text)), |state| async move {
        let (mut pages, mut text) = state?;
        match pages.next_in_time().await {
            Ok(Some(page)) => Some((Ok(Frame::data(text.page(&page).into())), Some((pages, text)))),
            Ok(None) => Some((Ok(Frame::data(text.end().into())), None)),
            Err(error) => {
                tracing::warn!(%error, "an attendance list breaks off");
                Some((Err(BodyError::from("the list breaks off")), None))
            }
        }
    });
    let body = stream::once(ready(Ok(Frame::data(Bytes::from(begun))))).chain(rest);
    let mut reply = Response::new(StreamBody::new(body).boxed_unsync());
    *reply.status_mut() = StatusCode::OK;
    let kind = match format {
        Format::Json => "application/json",
        Format::Csv => "text/csv; charset=utf-8",
    };
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    Ok(reply)
}

/// Where the next page begins.
enum Place {
    Present(SessionId),
    Past(HistoryPosition),
    End,
}

/// Reads first the sessions that are live, then the sessions that have ended. A session that ends meanwhile is found
/// twice, but listed once.
struct Pages {
    store: Arc<dyn Store>,
    classroom: ClassroomId,
    query: Query,
    place: Place,
    /// The sessions that were live when the list began.
    present: HashSet<SessionId>,
}

impl Pages {
    /// Returns the next page of the sessions that the query includes, which may be empty, or [`None`] after the last
    /// page.
    async fn next(&mut self) -> Result<Option<Vec<Visit>>, StoreError> {
        let mut page = match self.place {
            Place::Present(after) => {
                let page = self.store.present(self.classroom, after, PAGE).await?;
                self.present.extend(page.iter().map(|visit| visit.session));
                self.place = match page.last() {
                    Some(last) if page.len() == PAGE => Place::Present(last.session),
                    _ => Place::Past(self.start()),
                };
                page
            }
            Place::Past(after) => {
                let mut page = self.store.past(self.classroom, after, PAGE).await?;
                let last = page.last().filter(|_| page.len() == PAGE);
                let last = last.and_then(|last| Some((last.end.as_ref()?.at, last.session)));
                self.place =
                    last.map_or(Place::End, |(ended, session)| Place::Past(HistoryPosition { ended, session }));
                page.retain(|visit| !self.present.contains(&visit.session));
                page
            }
            Place::End => return Ok(None),
        };
        page.retain(|visit| self.query.includes(visit));
        Ok(Some(page))
    }

    /// Returns the next page, as [`Pages::next`] does. While the database does not answer, it is asked again, because a
    /// client cannot request the rest of a list that has begun.
    async fn next_in_time(&mut self) -> Result<Option<Vec<Visit>>, StoreError> {
        let began = Instant::now();
        loop {
            match self.next().await {
                Err(StoreError::Unavailable(_) | StoreError::Overloaded) if began.elapsed() < RETRY_LIMIT => {
                    sleep(PAUSE).await;
                }
                answered => return answered,
            }
        }
    }

    /// Returns the position before the first session that ended after `from`.
    fn start(&self) -> HistoryPosition {
        HistoryPosition { ended: self.query.from.unwrap_or_default(), session: SessionId(i64::MAX) }
    }
}

/// The text of the answer, which is written part by part.
struct Text {
    format: Format,
    /// Whether no session has been written yet.
    is_empty: bool,
}

impl Text {
    fn begin(&self) -> Vec<u8> {
        match self.format {
            Format::Json => b"[".to_vec(),
            Format::Csv => records([COLUMNS.map(Cow::Borrowed)]),
        }
    }

    fn page(&mut self, page: &[Visit]) -> Vec<u8> {
        match self.format {
            Format::Json => self.json(page),
            Format::Csv => records(page.iter().map(record)),
        }
    }

    fn end(&self) -> Vec<u8> {
        match self.format {
            Format::Json => b"]\n".to_vec(),
            Format::Csv => Vec::new(),
        }
    }

    fn json(&mut self, page: &[Visit]) -> Vec<u8> {
        let mut text = Vec::new();
        for visit in page {
            if !std::mem::take(&mut self.is_empty) {
                text.push(b',');
            }
            let line = Line {
                session_id: visit.session,
                agent_id: &visit.agent,
                user_id: &visit.user,
                lesson_id: visit.lesson.as_ref(),
                entered_at: shown(visit.entered),
                left_at: visit.end.as_ref().map(|end| shown(end.at)),
                reason: visit.end.as_ref().map(|end| end.reason.as_str()),
            };
            serde_json::to_writer(&mut text, &line).expect("texts and numbers are JSON");
        }
        text
    }
}

#[derive(Serialize)]
struct Line<'a> {
    session_id: SessionId,
    agent_id: &'a AgentId,
    user_id: &'a UserId,
    lesson_id: Option<&'a LessonId>,
    entered_at: String,
    left_at: Option<String>,
    reason: Option<&'a str>,
}

/// Returns the records as lines of CSV.
fn records<'a>(records: impl IntoIterator<Item = [Cow<'a, str>; COLUMNS.len()]>) -> Vec<u8> {
    let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    for record in records {
        writer.write_record(record.iter().map(|field| field.as_bytes())).expect("memory takes every record");
    }
    writer.into_inner().expect("memory takes every record")
}

fn record(Visit { session, agent, user, lesson, entered, end }: &Visit) -> [Cow<'_, str>; COLUMNS.len()] {
    let (left, reason) = match end {
        Some(VisitEnd { at, reason }) => (shown(*at), reason.as_str()),
        None => Default::default(),
    };
    [
        session.to_string().into(),
        plain(agent.as_str()),
        plain(user.as_str()),
        plain(lesson.as_ref().map_or("", LessonId::as_str)),
        shown(*entered).into(),
        left.into(),
        plain(reason),
    ]
}

/// Puts an apostrophe before a field that a spreadsheet would take for a formula, because strangers choose user ids.
/// The apostrophe makes the field a text.
fn plain(field: &str) -> Cow<'_, str> {
    if field.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{field}").into() } else { field.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spreadsheet_finds_no_formula() {
        for formula in ["=1+1", "+1", "-1", "@SUM(1)", "\t=1", "\r=1"] {
            assert_eq!(plain(formula), format!("'{formula}"));
        }
        assert_eq!(plain("web.=1.example.org"), "web.=1.example.org");
    }
}
