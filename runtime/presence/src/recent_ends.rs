//! Sessions that ended a moment ago.
//!
//! A database that loses its last commits may lose the end of a session together with its beginning. Then neither a row
//! nor a connection says that the session existed, but other services and clients may have got its entered.
//!
//! Invariant: the ends of the last [`KEPT`] are kept, but at most [`MAX`], so memory is bounded.
use std::{collections::VecDeque, sync::Arc, time::Duration};

use parking_lot::Mutex;
use rollcall_store::Remembered;
use tokio::time::Instant;

/// How long an end is kept. A replica that may be promoted is behind by less than this.
const KEPT: Duration = Duration::from_secs(30);
/// The maximum number of ends. Each costs some 300 bytes.
const MAX: usize = 10_000;

/// The recent ends. It is cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct RecentEnds(Arc<Mutex<VecDeque<(Instant, Remembered)>>>);

impl RecentEnds {
    pub(crate) fn add(&self, session: Remembered) {
        let now = Instant::now();
        let mut ends = self.0.lock();
        while ends.len() >= MAX || ends.front().is_some_and(|(at, _)| now.duration_since(*at) > KEPT) {
            ends.pop_front();
        }
        ends.push_back((now, session));
    }

    /// Returns the ends of the last [`KEPT`], with their present ages.
    #[must_use]
    pub fn all(&self) -> Vec<Remembered> {
        let ends = self.0.lock();
        let recent = ends.iter().filter(|(at, _)| at.elapsed() <= KEPT);
        recent.map(|(at, session)| Remembered { age: session.age + at.elapsed(), ..session.clone() }).collect()
    }
}

#[cfg(test)]
mod tests {
    use rollcall_schema::{AgentId, ClassroomId, LeftReason, SessionId, Sid};
    use uuid::Uuid;

    use super::*;

    fn ended(session: i64) -> Remembered {
        let agent = AgentId::parse("web.alice.example.org").expect("an agent");
        Remembered {
            session: SessionId(session),
            classroom: ClassroomId(Uuid::nil()),
            user: agent.user(),
            agent,
            sid: Sid::random(),
            lesson: None,
            sets_state: false,
            age: Duration::from_secs(1),
            reason: LeftReason::Closed,
            resume_id: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn ends_are_kept_for_a_while_and_not_too_many() {
        let ends = RecentEnds::default();
        ends.add(ended(1));
        tokio::time::advance(KEPT / 2).await;
        ends.add(ended(2));
        let ages = || ends.all().into_iter().map(|end| (end.session.0, end.age.as_secs())).collect::<Vec<_>>();
        assert_eq!(ages(), [(1, 16), (2, 1)]);
        tokio::time::advance(KEPT / 2 + Duration::from_secs(1)).await;
        assert_eq!(ages(), [(2, 17)]);
        (3..=2 + MAX as i64).for_each(|session| ends.add(ended(session)));
        assert_eq!((ends.all().len(), ends.all()[0].session), (MAX, SessionId(3)));
    }
}
