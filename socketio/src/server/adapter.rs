//! Who is in which room, and how a broadcast reaches them: the contract.

mod memory;

use std::sync::Arc;

pub(super) use self::memory::Memory;

use super::outgoing::Outgoing;
use super::socket::{Room, Socket, SocketId};

/// Whom a broadcast is for.
#[derive(Clone, Debug, Default)]
pub(super) struct Target {
    /// Sockets in any of these rooms, each once; everyone if empty. Each socket is also in a room named by its id.
    pub(super) rooms: Vec<Room>,
    /// Sockets in any of these rooms are left out.
    pub(super) except_rooms: Vec<Room>,
    /// These sockets are left out.
    pub(super) except: Vec<SocketId>,
    /// Only sockets of this instance.
    pub(super) local: bool,
}

/// The rooms of one namespace.
///
/// Rooms come into being with their first member and go with their last. No method waits; an adapter that spans
/// instances queues what it has to send.
pub(super) trait Adapter: Send + Sync + std::fmt::Debug + 'static {
    /// Adds a socket that has just connected.
    fn add(&self, socket: &Socket);

    /// Removes a socket from all its `rooms` and from the namespace.
    fn remove(&self, socket: &Socket, rooms: &[Room]);

    /// Puts a socket into a room, where it may be already.
    fn join(&self, socket: &Socket, room: Room);

    /// Takes a socket out of a room, where it need not be.
    fn leave(&self, socket: &Socket, room: &str);

    /// Sends a packet to all sockets of a target, in order with other broadcasts from the same task.
    ///
    /// Recipients that are too far behind are disconnected; those that are not ready are passed over if `volatile`.
    fn broadcast(&self, packet: &Outgoing, target: &Target, volatile: bool);

    /// Returns this instance's sockets of a target.
    fn sockets(&self, target: &Target) -> Vec<Socket>;

    /// Returns how many sockets of this instance are in the namespace.
    fn len(&self) -> usize;

    /// Returns how many rooms have members in this instance.
    fn rooms(&self) -> usize;
}

/// Makes the adapter of each namespace.
pub(super) fn memory() -> Arc<dyn Adapter> {
    Arc::new(Memory::default())
}
