//! The server that is next to nothing but system calls: one thread, one loop over what is ready, one read and one write
//! per socket and turn, and nothing kept for a connection that idles but its socket.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::mem;
use std::str;
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};
use slab::Slab;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::packet::{CONNECTED, OPEN, PING, PING_INTERVAL, Packet};

pub(crate) fn serve(listener: std::net::TcpListener) -> io::Result<()> {
    let mut poll = Poll::new()?;
    let mut listener = TcpListener::from_std(listener);
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut events = Events::with_capacity(1024);
    let mut server = Server::default();
    let mut buffer = vec![0; READ_BYTES];
    let mut next_tick = Instant::now() + TICK;
    loop {
        match poll.poll(&mut events, Some(next_tick.saturating_duration_since(Instant::now()))) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        for event in &events {
            if event.token() == LISTENER {
                server.accept(&listener, poll.registry())?;
            } else {
                server.on_event(event, &mut buffer);
            }
        }
        if Instant::now() >= next_tick {
            next_tick += TICK;
            server.ping_some();
        }
    }
}

#[derive(Default)]
struct Server {
    connections: Slab<Connection>,
    /// The members of each room, by their keys in `connections`.
    rooms: Vec<Vec<usize>>,
    room_numbers: HashMap<String, usize>,
    /// Kept from read to read.
    answers: Vec<u8>,
    ticks: usize,
}

struct Connection {
    stream: TcpStream,
    open: bool,
    room: Option<usize>,
    /// The beginning of a frame or of a request, of which the rest has not come.
    unread: Vec<u8>,
    /// What the socket had no room for.
    unwritten: Vec<u8>,
}

impl Connection {
    /// Writes now what the socket has room for. An error shows again when reading, and is dealt with there.
    fn write(&mut self, bytes: &[u8]) {
        let written = if self.unwritten.is_empty() { self.stream.write(bytes).unwrap_or(0) } else { 0 };
        self.unwritten.extend_from_slice(&bytes[written..]);
    }

    fn write_unwritten(&mut self) {
        let unwritten = mem::take(&mut self.unwritten);
        if !unwritten.is_empty() {
            self.write(&unwritten);
        }
    }
}

impl Server {
    fn accept(&mut self, listener: &TcpListener, registry: &Registry) -> io::Result<()> {
        loop {
            let mut stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            stream.set_nodelay(true)?;
            let entry = self.connections.vacant_entry();
            registry.register(&mut stream, Token(entry.key()), Interest::READABLE | Interest::WRITABLE)?;
            entry.insert(Connection { stream, open: false, room: None, unread: Vec::new(), unwritten: Vec::new() });
        }
    }

    fn on_event(&mut self, event: &Event, buffer: &mut [u8]) {
        let key = event.token().0;
        let Some(connection) = self.connections.get_mut(key) else { return };
        if event.is_writable() {
            connection.write_unwritten();
        }
        let stays = !event.is_readable() || self.read(key, buffer);
        if !stays || event.is_read_closed() {
            let Connection { room, .. } = self.connections.remove(key);
            if let Some(room) = room {
                self.rooms[room].retain(|member| *member != key);
            }
        }
    }

    /// Takes all that has come, and answers it in one write; false if the connection has ended.
    fn read(&mut self, key: usize, buffer: &mut [u8]) -> bool {
        loop {
            let connection = &mut self.connections[key];
            let size = match connection.stream.read(buffer) {
                Ok(0) => return false,
                Ok(size) => size,
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            };
            let mut unread = mem::take(&mut connection.unread);
            let mut answers = mem::take(&mut self.answers);
            answers.clear();
            let end = if unread.is_empty() {
                self.take(key, &mut buffer[..size], &mut answers)
            } else {
                unread.extend_from_slice(&buffer[..size]);
                self.take(key, &mut unread, &mut answers)
            };
            let connection = &mut self.connections[key];
            if !answers.is_empty() {
                connection.write(&answers);
            }
            self.answers = answers;
            let Some(taken) = end else { return false };
            if unread.is_empty() {
                connection.unread = buffer[taken..size].to_vec();
            } else {
                unread.drain(..taken);
                connection.unread = unread;
            }
            if size < buffer.len() {
                return true;
            }
        }
    }

    /// Takes the request or the frames that `input` holds, and tells how many bytes these are; none at the end.
    fn take(&mut self, key: usize, input: &mut [u8], answers: &mut Vec<u8>) -> Option<usize> {
        let mut taken = 0;
        if !self.connections[key].open {
            taken = handshake(input, answers)?;
            self.connections[key].open = taken > 0;
        }
        while let Some((kind, data, rest)) = split_frame(&mut input[taken..]) {
            if kind != TEXT {
                push_frame(answers, CLOSE, "");
                return None;
            }
            self.on_packet(key, str::from_utf8(data).ok()?, answers);
            taken = input.len() - rest;
        }
        Some(taken)
    }

    fn on_packet(&mut self, key: usize, text: &str, answers: &mut Vec<u8>) {
        match Packet::parse(text) {
            Packet::Connect => push_frame(answers, TEXT, CONNECTED),
            Packet::Join { id, room } => {
                let rooms = self.room_numbers.len();
                let room = *self.room_numbers.entry(room.to_owned()).or_insert(rooms);
                self.rooms.resize_with(self.room_numbers.len(), Vec::new);
                self.rooms[room].push(key);
                self.connections[key].room = Some(room);
                push_frame(answers, TEXT, &format!("43/bench,{id}[]"));
            }
            Packet::Cast => {
                let Some(room) = self.connections[key].room else { return };
                let mut frame = Vec::new();
                push_frame(&mut frame, TEXT, text);
                for &member in &self.rooms[room] {
                    if member == key {
                        answers.extend_from_slice(&frame); // behind the answers it already has
                    } else {
                        self.connections[member].write(&frame);
                    }
                }
            }
            Packet::Echo { id, payload } => {
                push_head(answers, TEXT, "43/bench,".len() + id.len() + payload.len() + 2);
                for part in ["43/bench,", id, "[", payload, "]"] {
                    answers.extend_from_slice(part.as_bytes());
                }
            }
            Packet::Other => {}
        }
    }

    /// Pings the connections whose turn it is, so that each is pinged once in an interval.
    fn ping_some(&mut self) {
        let mut ping = Vec::new();
        push_frame(&mut ping, TEXT, PING);
        self.ticks += 1;
        let turn = self.ticks % PING_INTERVAL as usize;
        for (key, connection) in &mut self.connections {
            if connection.open && key % PING_INTERVAL as usize == turn {
                connection.write(&ping);
            }
        }
    }
}

/// Answers the request for a WebSocket, and tells its size: zero as long as it is not whole, none if it is not one.
fn handshake(input: &[u8], answers: &mut Vec<u8>) -> Option<usize> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut request = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(size) = request.parse(input).ok()? else { return Some(0) };
    let key = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case("Sec-WebSocket-Key"))?;
    let accept = derive_accept_key(key.value);
    let head =
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ";
    for part in [head, &accept, "\r\n\r\n"] {
        answers.extend_from_slice(part.as_bytes());
    }
    push_frame(answers, TEXT, OPEN);
    Some(size)
}

/// The first frame of `input`, if it is whole, without its mask: the byte it starts with, its data, and how many bytes
/// follow it.
fn split_frame(input: &mut [u8]) -> Option<(u8, &[u8], usize)> {
    let (head, size) = match *input {
        [_, 0xfe, a, b, ..] => (4, usize::from(u16::from_be_bytes([a, b]))),
        [_, 0xff, a, b, c, d, e, f, g, h, ..] => (10, u64::from_be_bytes([a, b, c, d, e, f, g, h]) as usize),
        [_, size @ 0x80..0xfe, ..] => (2, usize::from(size - 0x80)),
        _ => return None,
    };
    let rest = input.len().checked_sub(head + MASK_BYTES + size)?;
    let (mask, data) = input[head..].split_first_chunk_mut::<MASK_BYTES>()?;
    let data = &mut data[..size];
    for chunk in data.chunks_mut(MASK_BYTES) {
        chunk.iter_mut().zip(&*mask).for_each(|(byte, mask)| *byte ^= mask);
    }
    Some((input[0], &input[head + MASK_BYTES..head + MASK_BYTES + size], rest))
}

fn push_frame(output: &mut Vec<u8>, kind: u8, text: &str) {
    push_head(output, kind, text.len());
    output.extend_from_slice(text.as_bytes());
}

fn push_head(output: &mut Vec<u8>, kind: u8, size: usize) {
    match size {
        0..126 => output.extend_from_slice(&[kind, size as u8]),
        126..0x1_0000 => {
            output.extend_from_slice(&[kind, 126]);
            output.extend_from_slice(&(size as u16).to_be_bytes());
        }
        _ => {
            output.extend_from_slice(&[kind, 127]);
            output.extend_from_slice(&(size as u64).to_be_bytes());
        }
    }
}

const LISTENER: Token = Token(usize::MAX - 1); // the last one is mio's own

const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;
const MASK_BYTES: usize = 4;

/// One buffer serves all connections, so that it may be large.
const READ_BYTES: usize = 64 * 1024;

/// Each tick pings one in [`PING_INTERVAL`] connections.
const TICK: Duration = Duration::from_secs(1);
