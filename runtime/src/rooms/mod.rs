//! Rooms of this node: which there are, and the way of an event from the bus to the workers of a room's members.
mod agent_mark;
mod delivery;
mod dispatch;
mod key;
mod registry;

pub use self::{
    agent_mark::AgentMark,
    delivery::Delivery,
    key::RoomKey,
    registry::{Follower, RoomCommand, RoomHold, RoomWorkers, Rooms},
};

#[cfg(test)]
mod tests;
