//! How presence reaches the connections of this node, which live above it.
use async_trait::async_trait;
use rollcall_schema::{LessonId, SessionError, Sid};

/// The connections of this node.
#[async_trait]
pub trait Connections: Send + Sync + 'static {
    /// Ends one, if it is still here.
    async fn close(&self, sid: Sid, error: SessionError);
    /// Takes one out of this lesson, if it is still here and in it.
    async fn leave_lesson(&self, sid: Sid, lesson: LessonId);
    /// Ends all of them.
    async fn close_all(&self, error: SessionError);
    /// Which of these connections are no longer on this node.
    async fn ended(&self, sids: Vec<Sid>) -> Vec<Sid>;
}
