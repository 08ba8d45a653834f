//! How messages are framed: a length (u32, big endian) and that many bytes of JSON, without any I/O.

use serde::{Serialize, de::DeserializeOwned};

use crate::protocol::{MAX_FRAME, OLDEST, PROTOCOL};

/// Bytes before the JSON.
const HEAD: usize = 4;

/// Why bytes are not a frame. After any of these the connection is of no use: close it.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The message or the announced length is above [`MAX_FRAME`].
    #[error("a frame of {length} bytes is longer than {MAX_FRAME}")]
    TooLong {
        /// Its length.
        length: usize,
    },
    /// The message cannot be written as JSON.
    #[error("a message cannot be written as JSON")]
    Encode(#[source] serde_json::Error),
    /// The JSON is none of the messages that this version knows.
    #[error("not a message of protocol versions {OLDEST} to {PROTOCOL}: {source}")]
    Decode {
        /// What the parser says.
        source: serde_json::Error,
        /// The `id` of the call, where it could be read: it can be answered even so.
        id: Option<u64>,
    },
}

/// One message as a frame.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, FrameError> {
    let mut frame = vec![0; HEAD];
    serde_json::to_writer(&mut frame, message).map_err(FrameError::Encode)?;
    let length = frame.len() - HEAD;
    let head = u32::try_from(length).ok().filter(|_| length <= MAX_FRAME).ok_or(FrameError::TooLong { length })?;
    frame[..HEAD].copy_from_slice(&head.to_be_bytes());
    Ok(frame)
}

/// Collects bytes as they arrive and gives messages back.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// Bytes of `buffer` that were given back already.
    read: usize,
}

impl Decoder {
    /// One without any bytes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds bytes from the other side.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.read == self.buffer.len() {
            self.buffer.clear();
            self.read = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next message, or none before more bytes have arrived. After [`FrameError::Decode`] the frame is skipped
    /// and the next one can be read; after [`FrameError::TooLong`] nothing can.
    #[allow(clippy::should_implement_trait, reason = "an iterator has one type of item and no errors")]
    pub fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        let rest = &self.buffer[self.read..];
        let Some((head, body)) = rest.split_first_chunk::<HEAD>() else { return Ok(None) };
        let length = u32::from_be_bytes(*head) as usize;
        if length > MAX_FRAME {
            return Err(FrameError::TooLong { length });
        }
        let Some(body) = body.get(..length) else { return Ok(None) };
        let message = serde_json::from_slice(body).map_err(|source| FrameError::Decode { source, id: id_of(body) });
        self.read += HEAD + length;
        if self.read == self.buffer.len() {
            // A long frame's memory is not kept for ever: the supervisor lives for months.
            self.buffer = Vec::new();
            self.read = 0;
        } else if self.read > MAX_FRAME {
            self.buffer.drain(..self.read);
            self.read = 0;
        }
        message.map(Some)
    }
}

/// The `id` of a call of which nothing else is understood.
fn id_of(body: &[u8]) -> Option<u64> {
    #[derive(serde::Deserialize)]
    struct OnlyId {
        id: u64,
    }
    serde_json::from_slice::<OnlyId>(body).ok().map(|only| only.id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Call, Request};

    #[test]
    fn frames_come_back_whatever_the_pieces() {
        let calls: Vec<Call> =
            (0..50).map(|id| Call { id, request: Request::Permit { seq: id, deadline_us: id * 1000 } }).collect();
        let bytes: Vec<u8> = calls.iter().flat_map(|call| encode(call).unwrap()).collect();
        for size in [1, 2, 3, 5, 7, 64, 1000, bytes.len()] {
            let mut decoder = Decoder::new();
            let mut seen = Vec::new();
            for piece in bytes.chunks(size) {
                decoder.push(piece);
                while let Some(call) = decoder.next::<Call>().unwrap() {
                    seen.push(call);
                }
            }
            assert_eq!(seen, calls, "pieces of {size}");
        }
    }

    #[test]
    fn unknown_fields_are_ignored_and_unknown_requests_named_with_their_id() {
        let mut decoder = Decoder::new();
        for text in [
            r#"{"id":1,"request":{"op":"status","later":true},"more":[]}"#,
            r#"{"id":2,"request":{"op":"from_the_future"}}"#,
            r#"{"id":3,"request":{"op":"status"}}"#,
        ] {
            decoder.push(&u32::try_from(text.len()).unwrap().to_be_bytes());
            decoder.push(text.as_bytes());
        }
        assert_eq!(decoder.next::<Call>().unwrap().unwrap().id, 1);
        let error = decoder.next::<Call>().unwrap_err();
        assert!(matches!(&error, FrameError::Decode { id: Some(2), .. }), "{error:?}");
        assert!(error.to_string().contains("versions 1 to 1"), "{error}");
        assert_eq!(decoder.next::<Call>().unwrap().unwrap().id, 3);
        assert!(decoder.next::<Call>().unwrap().is_none());
    }

    #[test]
    fn too_long_is_refused_on_both_sides() {
        assert!(matches!(encode(&"x".repeat(MAX_FRAME)), Err(FrameError::TooLong { .. })));
        let mut decoder = Decoder::new();
        decoder.push(&u32::MAX.to_be_bytes());
        assert!(matches!(decoder.next::<Call>(), Err(FrameError::TooLong { .. })));
    }
}
