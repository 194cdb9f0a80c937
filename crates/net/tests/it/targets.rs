//! What a stranger can send, each as a plain function of bytes that panics where something does not hold. Proptest runs
//! them over the files in `tests/corpus`, cargo-fuzz drives them from `fuzz/`, which includes this file.

use slung_model::{Query, SeriesKey};
use slung_net::v1::{self, Reply};
use slung_net::wire;

pub(crate) type Target = fn(&[u8]);

/// Each with the name of its folder in the corpus.
pub(crate) const TARGETS: [(&str, Target); 4] =
    [("plain_frame", plain_frame), ("v1_frame", v1_frame), ("json_event", json_event), ("query", query)];

/// A binary message of the plain protocol. What is right for `decode_event` must be right for the model, which says what
/// a key is, and the other way round.
pub(crate) fn plain_frame(frame: &[u8]) {
    let ours = wire::decode_event(frame);
    let finite = frame.get(8..16).is_some_and(|bytes| f64::from_le_bytes(bytes.try_into().unwrap()).is_finite());
    let theirs = frame.get(16..).and_then(|key| SeriesKey::decode(key).ok());
    let theirs = theirs.filter(|(_, used)| finite && 16 + used == frame.len());
    match (ours, theirs) {
        (Ok(event), Some((key, _))) => {
            assert_eq!(event.to_key(), key);
            assert_eq!(event.key_bytes(), &frame[16..]);
            assert_eq!(wire::decode_key(event.key_bytes()), Ok(key.clone()));
            assert_eq!(wire::event_end(frame), Ok(frame.len()));
            let mut again = Vec::new();
            wire::encode_event(event.timestamp(), event.value(), &key, &mut again);
            // Tags may have come in another order, or twice.
            assert!(again.len() <= frame.len() && again[..16] == frame[..16]);
            assert_eq!(wire::decode_event(&again).unwrap().to_key(), key);
        }
        (Err(_), None) => {}
        (ours, theirs) => panic!("{ours:?}, but the model says {theirs:?}"),
    }
}

/// A binary message of `slung.v1`, of a producer and of the server.
pub(crate) fn v1_frame(frame: &[u8]) {
    match frame.split_first() {
        Some((&v1::EVENTS, events)) => v1_events(events),
        Some((&v1::BLOCK, block)) => v1_block(block),
        _ => {}
    }
    if let Some(reply) = Reply::decode(frame) {
        let mut again = Vec::new();
        reply.encode(&mut again);
        match (reply, Reply::decode(&again)) {
            // A longer reason is cut.
            (Reply::Nack { number, code, reason, .. }, Some(Reply::Nack { number: n, code: c, reason: cut, .. })) => {
                assert!((number, code) == (n, c) && reason.starts_with(cut), "{reply:?}");
            }
            (reply, again) => assert_eq!(again, Some(reply)),
        }
    }
}

fn v1_events(mut rest: &[u8]) {
    while !rest.is_empty() {
        let Ok(end) = wire::event_end(rest) else { return };
        let event;
        (event, rest) = rest.split_at(end);
        plain_frame(event);
        if let Err(error) = wire::decode_event(event) {
            let of_a_length = matches!(error, wire::WireError::Short { .. } | wire::WireError::Long { .. });
            assert!(!of_a_length, "its lengths are right: {error}");
        }
    }
}

fn v1_block(payload: &[u8]) {
    let Ok(block) = v1::decode_block(payload) else { return };
    let points: Vec<(i64, f64)> = block.points().collect();
    assert!(!block.is_empty() && points.len() == block.len());
    assert_eq!(payload.len(), block.key_bytes().len() + 4 + 16 * points.len());
    let Ok(key) = wire::decode_key(block.key_bytes()) else { return };
    let mut again = Vec::new();
    v1::encode_block(&key, &points, &mut again);
    let again = v1::decode_block(&again[1..]).unwrap();
    assert_eq!(wire::decode_key(again.key_bytes()), Ok(key));
    let bits = |(timestamp, value): (i64, f64)| (timestamp, value.to_bits());
    assert!(again.points().map(bits).eq(block.points().map(bits)));
}

/// A text message.
pub(crate) fn json_event(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    let Ok(event) = wire::decode_json_event(text) else { return };
    assert!(event.value.is_finite());
    // Nothing is both, so that it does not matter which is tried first.
    assert!(wire::decode_event(text.as_bytes()).is_err());
    let json: serde_json::Value = serde_json::from_str(text).unwrap();
    assert_eq!(json["series"], event.key.name());
    assert_eq!(json["value"].as_f64().map(f64::to_bits), Some(event.value.to_bits()));
    assert_eq!(json.get("timestamp").and_then(serde_json::Value::as_i64), event.timestamp);
    let tags: Vec<&str> = event.key.tags().collect();
    let again = serde_json::json!({
        "timestamp": event.timestamp, "value": event.value, "series": event.key.name(), "tags": tags
    });
    assert_eq!(wire::decode_json_event(&again.to_string()), Ok(event));
}

/// A query: it prints and parses to itself, or the error lies within it.
pub(crate) fn query(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    match Query::parse(text) {
        Ok(query) => {
            let printed = query.to_string();
            assert_eq!(Query::parse(&printed), Ok(query.clone()), "{printed}");
            assert!(query.series().is_sorted_by(|a, b| a < b), "{printed}");
        }
        Err(error) => {
            assert!(text.is_char_boundary(error.at), "{error} in {} bytes", text.len());
            assert!(!error.what.is_empty() && !error.what.contains(char::is_control), "{:?}", error.what);
        }
    }
}
