//! The interface by which presence reaches the connections of this node, which a crate above it has.
use async_trait::async_trait;
use rollcall_schema::{LessonId, SessionError, Sid};

/// The connections of this node.
#[async_trait]
pub trait Connections: Send + Sync + 'static {
    /// Ends a connection, if it is still on this node.
    async fn close(&self, sid: Sid, error: SessionError);
    /// Takes a connection out of this lesson, if it is still on this node and in the lesson.
    async fn leave_lesson(&self, sid: Sid, lesson: LessonId);
    /// Ends all connections.
    async fn close_all(&self, error: SessionError);
    /// Returns which of these connections are no longer on this node.
    async fn ended(&self, sids: Vec<Sid>) -> Vec<Sid>;
}
