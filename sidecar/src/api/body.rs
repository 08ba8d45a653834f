//! The bodies of requests: whole, not too long, and in time.

use std::time::Duration;

use futures::{Stream, StreamExt};
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use hyper::body::Buf;

use super::Answer;
use super::commands::Command;

/// Longest body: a failsafe call with the slots of a large Patroni cluster.
const LIMIT: usize = 64 * 1024;
/// Longest configuration: it has to fit into the annotations of one object, all of which may have 256 KiB.
const CONFIG_LIMIT: usize = 192 * 1024;

/// Reads a command's body within `time`; one that needs none gets nothing.
pub async fn read<B: Buf>(
    command: Command,
    headers: &HeaderMap,
    time: Duration,
    body: impl Stream<Item = Result<B, warp::Error>>,
) -> Result<Vec<u8>, Answer> {
    if !command.has_body() {
        return Ok(Vec::new());
    }
    let limit = match command {
        Command::PatchConfig | Command::ReplaceConfig => CONFIG_LIMIT,
        _ => LIMIT,
    };
    let announced = headers.get(CONTENT_LENGTH).map(|length| length.to_str().ok().and_then(|text| text.parse().ok()));
    let announced: usize = match announced {
        Some(Some(length)) => length,
        Some(None) => return Err(Answer::text(400, "Content-Length is no number")),
        None if command.body_is_optional() && !headers.contains_key(TRANSFER_ENCODING) => return Ok(Vec::new()),
        None => return Err(Answer::text(411, "Content-Length is required")),
    };
    if announced > limit {
        return Err(Answer::text(413, format!("the body is too long: {limit} bytes are the limit")));
    }
    let whole = async {
        let mut body = std::pin::pin!(body);
        let mut bytes = Vec::with_capacity(announced);
        while let Some(chunk) = body.next().await {
            let mut chunk = chunk.map_err(|_| Answer::text(400, "the body ends too early"))?;
            while chunk.has_remaining() && bytes.len() <= limit {
                let part = chunk.chunk();
                let length = part.len();
                bytes.extend_from_slice(part);
                chunk.advance(length);
            }
        }
        Ok(bytes)
    };
    tokio::time::timeout(time, whole).await.unwrap_or_else(|_| Err(Answer::text(408, "the body takes too long")))
}
