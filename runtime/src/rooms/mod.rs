//! The rooms of this node, and the way of an event from the bus to the workers of a room's members.
mod agent_mark;
mod delivery;
mod dispatch;
mod key;
mod namespaces;
mod registry;
mod socketio_frames;

pub use self::{
    agent_mark::AgentMark,
    delivery::Delivery,
    key::RoomKey,
    namespaces::{Namespace, Namespaces},
    registry::{Follower, RoomCommand, RoomHold, RoomWorkers, Rooms},
};

#[cfg(test)]
mod tests;
