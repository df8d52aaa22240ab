//! Messages to packets; holds a binary packet until its attachments are there.

use bytes::Bytes;
use bytestring::ByteString;

use crate::error::DecodeError;
use crate::json;
use crate::packet::{Header, Packet};

/// The limits of a [`Decoder`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecoderConfig {
    /// Attachments in one packet. Default: 10, as in socket.io-parser 4.2.7 (CVE-2026-33151).
    pub max_attachments: u32,
    /// Bytes a binary packet may have, text and attachments together, while it is being received.
    ///
    /// Default: `None`. A server derives it from the largest message it takes, so that each attachment and the text may be
    /// as large as that: 11,000,000 bytes with the other limits at their defaults. A decoder alone takes 4,000,000, four
    /// messages of the size Engine.IO takes by default.
    pub max_binary_bytes: Option<usize>,
    /// Bytes in the name of a namespace. Default: 255.
    pub max_namespace_bytes: usize,
}

impl Default for DecoderConfig {
    fn default() -> Self {
        Self { max_attachments: 10, max_binary_bytes: None, max_namespace_bytes: 255 }
    }
}

impl DecoderConfig {
    /// Fills in what is derived from the largest message of the transport, where it is not set.
    #[cfg(feature = "server")]
    pub(crate) fn derive(&mut self, max_message_bytes: usize) {
        let messages = usize::try_from(self.max_attachments).unwrap_or(usize::MAX).saturating_add(1);
        self.max_binary_bytes.get_or_insert(max_message_bytes.saturating_mul(messages));
    }
}

/// Of a decoder that knows nothing of its transport.
const DEFAULT_BINARY_BYTES: usize = 4_000_000;

/// Turns the messages of one peer, in order, into packets; serves either side of a connection.
///
/// An error is the end of the stream: the half-received packet is gone, and the protocol says to close.
#[derive(Debug, Default)]
pub struct Decoder {
    config: DecoderConfig,
    // Boxed: most connections never see a binary packet, and none sees many.
    partial: Option<Box<Partial>>,
}

#[derive(Debug)]
struct Partial {
    packet: Packet,
    missing: u32,
    bytes: usize,
}

impl Decoder {
    /// A decoder with these limits.
    #[must_use]
    pub const fn new(config: DecoderConfig) -> Self {
        Self { config, partial: None }
    }

    /// Takes a text message; answers with a packet unless its attachments are still to come.
    ///
    /// # Errors
    /// [`DecodeError`] for everything the grammar or a limit forbids, and for text where an attachment was due.
    pub fn text(&mut self, message: ByteString) -> Result<Option<Packet>, DecodeError> {
        if let Some(partial) = self.partial.take() {
            return Err(DecodeError::TextBetweenAttachments { missing: partial.missing });
        }
        let header = Header::parse(&message)?;
        if header.attachments > self.config.max_attachments {
            return Err(DecodeError::TooManyAttachments { limit: self.config.max_attachments });
        }
        let (length, limit) = (header.namespace(&message).len(), self.config.max_namespace_bytes);
        if length > limit {
            return Err(DecodeError::NamespaceTooLong { length, limit });
        }
        let packet = Packet::new(message, header)?;
        if header.attachments == 0 {
            return Ok(Some(packet));
        }
        self.begin(packet, header.attachments)?;
        Ok(None)
    }

    /// Takes a binary message; answers with a packet if it was the last attachment.
    ///
    /// # Errors
    /// [`DecodeError::UnsolicitedBinary`] where none was due, [`DecodeError::BinaryTooLarge`] for one too large.
    pub fn binary(&mut self, attachment: Bytes) -> Result<Option<Packet>, DecodeError> {
        let mut partial = self.partial.take().ok_or(DecodeError::UnsolicitedBinary)?;
        partial.bytes = partial.bytes.saturating_add(attachment.len());
        self.within_limit(partial.bytes)?;
        partial.packet.attach(attachment);
        partial.missing -= 1;
        if partial.missing == 0 {
            return Ok(Some(partial.packet));
        }
        self.partial = Some(partial);
        Ok(None)
    }

    /// The packet whose attachments are still to come.
    #[must_use]
    pub fn partial(&self) -> Option<&Packet> {
        self.partial.as_ref().map(|partial| &partial.packet)
    }

    fn begin(&mut self, packet: Packet, missing: u32) -> Result<(), DecodeError> {
        let bytes = packet.text_bytes();
        self.within_limit(bytes)?;
        if let Some(array) = packet.array() {
            if !json::is_valid(array) {
                return Err(DecodeError::Json);
            }
            json::check_placeholders(array, missing)?;
        }
        self.partial = Some(Box::new(Partial { packet, missing, bytes }));
        Ok(())
    }

    fn within_limit(&self, bytes: usize) -> Result<(), DecodeError> {
        let limit = self.config.max_binary_bytes.unwrap_or(DEFAULT_BINARY_BYTES);
        if bytes > limit { Err(DecodeError::BinaryTooLarge { limit }) } else { Ok(()) }
    }
}
