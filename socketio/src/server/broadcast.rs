//! Choosing recipients, then sending to all of them.

use std::time::Duration;

use super::adapter::{ClusterError, Command, Target};
use super::cluster::{self, Acks, FetchError, RemoteSocket};
use super::namespace::Namespace;
use super::outgoing::Outgoing;
use super::socket::{Room, Socket};
use crate::{Arguments, FromArguments, UsageError};

/// A choice of recipients, narrowed step by step. Each step returns a new choice.
#[derive(Clone, Debug)]
#[must_use]
pub struct Broadcast {
    namespace: Namespace,
    target: Target,
}

impl Broadcast {
    pub(super) fn new(namespace: Namespace, target: Target) -> Self {
        Self { namespace, target }
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
        self.target.volatile = true;
        self
    }

    /// Sends an event to everyone chosen. It is encoded once, and never waits: what does not reach other instances is
    /// counted and logged by the [adapter](super::adapter).
    ///
    /// # Errors
    /// [`UsageError`] for a reserved name, or arguments that cannot be serialised; then nobody got anything.
    pub fn emit(&self, name: &str, arguments: impl Arguments) -> Result<(), UsageError> {
        let packet = Outgoing::event(self.namespace.name(), None, name, arguments)?;
        self.namespace.shared().broadcast(&packet, &self.target);
        Ok(())
    }

    /// Sends an event to everyone chosen, and waits until each has acknowledged it, for as long as `timeout`.
    ///
    /// # Errors
    /// Those of [`emit`](Self::emit). That some did not answer is no error: [`Acks`] says who.
    pub async fn emit_with_ack<T: FromArguments>(
        &self,
        name: &str,
        arguments: impl Arguments,
        timeout: Duration,
    ) -> Result<Acks<T>, UsageError> {
        cluster::emit_with_ack(&self.namespace, &self.target, name, arguments, timeout).await
    }

    /// Returns the sockets chosen, of this instance.
    pub fn sockets(&self) -> Vec<Socket> {
        self.namespace.shared().memory().sockets(&self.target)
    }

    /// Describes the sockets chosen, of all instances.
    ///
    /// # Errors
    /// [`FetchError`] where not every instance has answered in time, with the sockets of those that have.
    pub async fn fetch_sockets(&self) -> Result<Vec<RemoteSocket>, FetchError> {
        cluster::fetch_sockets(&self.namespace, &self.target).await
    }

    /// Puts everyone chosen into a room.
    ///
    /// # Errors
    /// [`ClusterError`] where the other instances will not learn of it; here it is done in any case.
    pub fn sockets_join(&self, room: impl Into<Room>) -> Result<(), ClusterError> {
        let room = room.into();
        for socket in self.sockets() {
            socket.join(Room::clone(&room));
        }
        self.command(Command::Join(&self.target, &[room]))
    }

    /// Takes everyone chosen out of a room.
    ///
    /// # Errors
    /// As [`sockets_join`](Self::sockets_join).
    pub fn sockets_leave(&self, room: impl Into<Room>) -> Result<(), ClusterError> {
        let room = room.into();
        for socket in self.sockets() {
            socket.leave(&room);
        }
        self.command(Command::Leave(&self.target, &[room]))
    }

    /// Disconnects everyone chosen from the namespace, or with `close` from the server.
    ///
    /// # Errors
    /// As [`sockets_join`](Self::sockets_join).
    pub fn disconnect_sockets(&self, close: bool) -> Result<(), ClusterError> {
        for socket in self.sockets() {
            socket.disconnect(close);
        }
        self.command(Command::Disconnect { target: &self.target, close })
    }

    fn command(&self, command: Command<'_>) -> Result<(), ClusterError> {
        match self.namespace.shared().adapter() {
            Some(adapter) if !self.target.local => adapter.command(command),
            Some(_) | None => Ok(()),
        }
    }
}
