//! The protocol `slung.v1`: many events a message, each message answered. The one place where its frames are read and
//! written, for the server and for producers.

use slung_model::SeriesKey;

use crate::wire::{self, WireError};

/// The name of the protocol in `Sec-WebSocket-Protocol`.
pub const NAME: &str = "slung.v1";
/// The longest message of a producer unless configured otherwise, bytes: 4 MiB.
pub const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The kind byte of a message with events, which follow it back to back, each as [`wire::encode_event`] writes it.
pub const EVENTS: u8 = 0;
/// The kind byte of a message with many points of one series.
pub const BLOCK: u8 = 1;

const DATA: u8 = 0;
const HELLO: u8 = 1;
const ACK: u8 = 2;
const NACK: u8 = 3;

/// What the reason of a [`Nack`] may take, bytes; a longer one is cut.
const REASON_BYTES_MAX: usize = 512;
/// One point in a block: a timestamp and a value.
const POINT_BYTES: usize = 16;

/// Many points of one series, still in the bytes that they came in.
///
/// ```
/// use slung_model::SeriesKey;
/// use slung_net::v1;
///
/// let mut message = Vec::new();
/// v1::encode_block(&SeriesKey::new("temp", ["sensor=1"])?, &[(1, 20.5), (2, 21.0)], &mut message);
/// let block = v1::decode_block(&message[1..])?;
/// assert_eq!(block.points().collect::<Vec<_>>(), [(1, 20.5), (2, 21.0)]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BlockRef<'a> {
    key: &'a [u8],
    timestamps: &'a [u8],
    values: &'a [u8],
}

impl<'a> BlockRef<'a> {
    /// The bytes that name the series, as in an event. Not looked at yet: [`wire::decode_key`] does.
    pub fn key_bytes(&self) -> &'a [u8] {
        self.key
    }

    /// How many points there are, at least 1.
    pub fn len(&self) -> usize {
        self.timestamps.len() / 8
    }

    /// Never.
    pub fn is_empty(&self) -> bool {
        self.timestamps.is_empty()
    }

    /// Timestamp (microseconds since 1970) and value of each point, as sent: neither is validated.
    pub fn points(&self) -> impl Iterator<Item = (i64, f64)> + use<'a> {
        let timestamps = self.timestamps.as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes));
        timestamps.zip(self.values.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes)))
    }
}

/// Reads what follows the kind byte of a block: the lengths fit, and nothing is too much.
///
/// # Errors
/// [`WireError`] where the block is short, long, without a point, or its key is over a limit.
pub fn decode_block(payload: &[u8]) -> Result<BlockRef<'_>, WireError> {
    let key_end = wire::key_end(payload, 0)?;
    let (key, rest) = payload.split_at(key_end);
    let Some((count, points)) = rest.split_first_chunk() else {
        return Err(WireError::Short { need: key_end + 4, have: payload.len() });
    };
    let count = u32::from_le_bytes(*count) as usize;
    if count == 0 {
        return Err(WireError::NoEvents);
    }
    let need = count.saturating_mul(POINT_BYTES);
    match points.len() {
        have if have < need => Err(WireError::Short { need: need.saturating_add(key_end + 4), have: payload.len() }),
        have if have > need => Err(WireError::Long { end: key_end + 4 + need, have: payload.len() }),
        _ => {
            let (timestamps, values) = points.split_at(count * 8);
            Ok(BlockRef { key, timestamps, values })
        }
    }
}

/// Appends a whole message with points of one series to `out`: timestamps in microseconds since 1970, and values.
///
/// # Panics
/// With more than [`u32::MAX`] points.
pub fn encode_block(key: &SeriesKey, points: &[(i64, f64)], out: &mut Vec<u8>) {
    out.push(BLOCK);
    key.encode(out);
    let count = u32::try_from(points.len()).expect("a block has fewer points than that");
    out.extend_from_slice(&count.to_le_bytes());
    points.iter().for_each(|(timestamp, _)| out.extend_from_slice(&timestamp.to_le_bytes()));
    points.iter().for_each(|(_, value)| out.extend_from_slice(&value.to_le_bytes()));
}

/// A binary frame to a producer.
///
/// ```
/// use slung_net::v1::Reply;
///
/// let ack = Reply::Ack { through: 7 };
/// let mut frame = Vec::new();
/// ack.encode(&mut frame);
/// assert_eq!(frame, [2, 7, 0, 0, 0, 0, 0, 0, 0]);
/// assert_eq!(Reply::decode(&frame), Some(ack));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply<'a> {
    /// Bytes from a workflow that are not UTF-8; text comes as a text frame.
    Data(&'a [u8]),
    /// The first frame.
    Hello(Hello),
    /// Every message up to and including this one is durable, or was refused by a nack before.
    Ack {
        /// The number of the message.
        through: u64,
    },
    /// One message is refused, all of it.
    Nack {
        /// The number of the message.
        number: u64,
        /// Why; see [`NackCode`].
        code: u16,
        /// Whether the same message may be taken later.
        retryable: bool,
        /// The same in words.
        reason: &'a str,
    },
}

/// What the server says first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    /// Messages that may be unanswered; beyond it the server stops reading.
    pub window: u32,
    /// The longest message, bytes.
    pub message_bytes_max: u32,
    /// How long a commit collects events, milliseconds; an ack takes about that long under load.
    pub commit_interval_ms: u32,
}

/// Why a message is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum NackCode {
    /// Not a message of the format.
    Malformed = 1,
    /// Too many bytes, or more points than can be stored at once.
    TooBig = 2,
    /// A new series, and there are too many already.
    TooManySeries = 3,
    /// The disk is full, or storage refuses for another reason of its own.
    Storage = 4,
    /// The producer may not do this.
    NotAllowed = 5,
    /// A timestamp is outside of the accepted range.
    Timestamp = 6,
    /// A value is NaN or infinite.
    NotFinite = 7,
}

impl<'a> Reply<'a> {
    /// Appends the frame's payload to `out`. A reason is cut at 512 bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Data(data) => {
                out.push(DATA);
                out.extend_from_slice(data);
            }
            Self::Hello(Hello { window, message_bytes_max, commit_interval_ms }) => {
                out.push(HELLO);
                for number in [window, message_bytes_max, commit_interval_ms] {
                    out.extend_from_slice(&number.to_le_bytes());
                }
            }
            Self::Ack { through } => {
                out.push(ACK);
                out.extend_from_slice(&through.to_le_bytes());
            }
            Self::Nack { number, code, retryable, reason } => {
                out.push(NACK);
                out.extend_from_slice(&number.to_le_bytes());
                out.extend_from_slice(&code.to_le_bytes());
                out.push(retryable.into());
                out.extend_from_slice(&reason.as_bytes()[..reason.floor_char_boundary(REASON_BYTES_MAX)]);
            }
        }
    }

    /// Reads a binary frame of the server; `None` where it is none of this protocol, or of a kind that is not known.
    pub fn decode(frame: &'a [u8]) -> Option<Self> {
        let (kind, rest) = frame.split_first()?;
        match *kind {
            DATA => Some(Self::Data(rest)),
            HELLO => {
                let (numbers, []) = rest.as_chunks() else { return None };
                let [window, message_bytes_max, commit_interval_ms] = *numbers else { return None };
                let [window, message_bytes_max, commit_interval_ms] =
                    [window, message_bytes_max, commit_interval_ms].map(u32::from_le_bytes);
                Some(Self::Hello(Hello { window, message_bytes_max, commit_interval_ms }))
            }
            ACK => Some(Self::Ack { through: u64::from_le_bytes(rest.try_into().ok()?) }),
            NACK => {
                let (number, rest) = rest.split_first_chunk()?;
                let (code, rest) = rest.split_first_chunk()?;
                let (retryable, reason) = rest.split_first()?;
                Some(Self::Nack {
                    number: u64::from_le_bytes(*number),
                    code: u16::from_le_bytes(*code),
                    retryable: *retryable != 0,
                    reason: std::str::from_utf8(reason).ok()?,
                })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_read_as_they_were_written() {
        let hello = Hello { window: 1, message_bytes_max: 0x0400_0000, commit_interval_ms: 5 };
        for (reply, hex) in [
            (Reply::Data(&[0xff, 0]), "00ff00"),
            (Reply::Data(&[]), "00"),
            (Reply::Hello(hello), "01010000000000000405000000"),
            (Reply::Ack { through: 0x0102_0304_0506_0708 }, "020807060504030201"),
            (Reply::Nack { number: 2, code: 4, retryable: true, reason: "é" }, "030200000000000000040001c3a9"),
            (Reply::Nack { number: 3, code: 1, retryable: false, reason: "" }, "03030000000000000001 0000"),
        ] {
            let hex = hex.replace(' ', "");
            let mut frame = Vec::new();
            reply.encode(&mut frame);
            assert_eq!(frame.iter().map(|byte| format!("{byte:02x}")).collect::<String>(), hex, "{reply:?}");
            assert_eq!(Reply::decode(&frame), Some(reply));
            // Shorter it is another one of the kinds without a fixed length, or nothing.
            for end in 0..frame.len() {
                assert_ne!(Reply::decode(&frame[..end]), Some(reply), "{end}");
            }
        }
        for none in [&[][..], &[4], &[9, 9], &[2], &[2, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[1; 12], &[3; 11]] {
            assert_eq!(Reply::decode(none), None, "{none:?}");
        }
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let reason = "é".repeat(400);
        let mut frame = Vec::new();
        Reply::Nack { number: 1, code: 1, retryable: false, reason: &reason }.encode(&mut frame);
        let Some(Reply::Nack { reason: cut, .. }) = Reply::decode(&frame) else { panic!("{frame:?}") };
        assert!(cut.len() == REASON_BYTES_MAX && reason.starts_with(cut));
    }

    #[test]
    fn blocks_that_are_none_are_refused() {
        let key = SeriesKey::new("temp", ["a=1"]).unwrap();
        let mut message = Vec::new();
        encode_block(&key, &[(-1, 0.5), (2, -3.0)], &mut message);
        let payload = &message[1..];
        let block = decode_block(payload).unwrap();
        assert_eq!((block.len(), block.points().last()), (2, Some((2, -3.0))));
        assert_eq!(wire::decode_key(block.key_bytes()).unwrap(), key);
        for end in 0..payload.len() {
            assert!(matches!(decode_block(&payload[..end]), Err(WireError::Short { .. })), "{end}");
        }
        let long = [payload, &[0]].concat();
        assert_eq!(decode_block(&long), Err(WireError::Long { end: payload.len(), have: payload.len() + 1 }));
        // A count that can't be, and none at all.
        let count_at = payload.len() - 36;
        let counted = |count: u32| [&payload[..count_at], &count.to_le_bytes(), &payload[count_at + 4..]].concat();
        assert!(matches!(decode_block(&counted(u32::MAX)), Err(WireError::Short { .. })));
        assert_eq!(decode_block(&counted(0)), Err(WireError::NoEvents));
    }
}
