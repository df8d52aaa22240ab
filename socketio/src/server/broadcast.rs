//! Choosing recipients, then sending to all of them.

use super::adapter::Target;
use super::namespace::Namespace;
use super::outgoing::Outgoing;
use super::socket::{Room, Socket};
use crate::{Arguments, UsageError};

/// A choice of recipients, narrowed step by step. Each step returns a new choice.
#[derive(Clone, Debug)]
#[must_use]
pub struct Broadcast {
    namespace: Namespace,
    target: Target,
    volatile: bool,
}

impl Broadcast {
    pub(super) fn new(namespace: Namespace, target: Target) -> Self {
        Self { namespace, target, volatile: false }
    }

    /// Adds a room: sockets in any of the rooms named are meant.
    pub fn to(mut self, room: impl Into<Room>) -> Self {
        self.target.rooms.push(room.into());
        self
    }

    /// Leaves out the sockets of a room, or one socket by its id.
    pub fn except(mut self, room: impl Into<Room>) -> Self {
        self.target.except_rooms.push(room.into());
        self
    }

    /// Restricts the choice to clients of this instance.
    pub fn local(mut self) -> Self {
        self.target.local = true;
        self
    }

    /// Lets the event be dropped for clients that are not ready for it at once.
    pub fn volatile(mut self) -> Self {
        self.volatile = true;
        self
    }

    /// Sends an event to everyone chosen. It is encoded once.
    ///
    /// # Errors
    /// [`UsageError`] for a reserved name, or arguments that cannot be serialised; then nobody got anything.
    pub fn emit(&self, name: &str, arguments: impl Arguments) -> Result<(), UsageError> {
        let packet = Outgoing::event(self.namespace.name(), None, name, arguments)?;
        self.namespace.shared().adapter().broadcast(&packet, &self.target, self.volatile);
        Ok(())
    }

    /// Returns the sockets chosen, of this instance.
    pub fn sockets(&self) -> Vec<Socket> {
        self.namespace.shared().adapter().sockets(&self.target)
    }

    /// Puts everyone chosen into a room.
    pub fn join(&self, room: impl Into<Room>) {
        let room = room.into();
        for socket in self.sockets() {
            socket.join(Room::clone(&room));
        }
    }

    /// Takes everyone chosen out of a room.
    pub fn leave(&self, room: &str) {
        for socket in self.sockets() {
            socket.leave(room);
        }
    }

    /// Disconnects everyone chosen from the namespace, or with `close` from the server.
    pub fn disconnect(&self, close: bool) {
        for socket in self.sockets() {
            socket.disconnect(close);
        }
    }
}
