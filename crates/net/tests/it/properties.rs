//! Bytes that nobody chose.

use proptest::collection::vec;
use proptest::prelude::*;
use slung_model::SeriesKey;
use slung_net::wire::{self, WireError};

use crate::targets;

fn keys() -> impl Strategy<Value = SeriesKey> {
    let text = || "[^\\p{Cc}]{0,20}";
    ("[^\\p{Cc}]{1,20}", vec(text(), 0..6)).prop_map(|(name, tags)| SeriesKey::new(&name, tags).unwrap())
}

fn finite() -> impl Strategy<Value = f64> {
    any::<u64>().prop_map(f64::from_bits).prop_filter("finite", |value| value.is_finite())
}

proptest! {
    /// Random bytes seldom get past the lengths; these do.
    #[test]
    fn an_event_with_some_bytes_changed_is_an_event_or_an_error(
        timestamp in any::<i64>(), value in finite(), key in keys(),
        changes in vec((any::<proptest::sample::Index>(), any::<u8>()), 0..4), cut in any::<proptest::sample::Index>(),
        more in vec(any::<u8>(), 0..3),
    ) {
        let mut frame = Vec::new();
        wire::encode_event(timestamp, value, &key, &mut frame);
        frame.extend(more);
        for (at, byte) in changes {
            let at = at.index(frame.len());
            frame[at] = byte;
        }
        targets::plain_frame(&frame);
        targets::plain_frame(&frame[..cut.index(frame.len())]);
    }

    #[test]
    fn what_is_encoded_is_decoded(timestamp in any::<i64>(), value in finite(), key in keys()) {
        let mut frame = Vec::new();
        wire::encode_event(timestamp, value, &key, &mut frame);
        let event = wire::decode_event(&frame).unwrap();
        prop_assert_eq!(event.timestamp(), timestamp);
        prop_assert_eq!(event.value().to_bits(), value.to_bits());
        prop_assert_eq!(event.series(), key.name());
        prop_assert!(event.tags().eq(key.tags()));
        prop_assert_eq!(event.to_key(), key);
    }

    #[test]
    fn every_prefix_of_an_event_is_short(value in finite(), key in keys()) {
        let mut frame = Vec::new();
        wire::encode_event(0, value, &key, &mut frame);
        for end in 0..frame.len() {
            // A cut within a character is first of all not UTF-8 only where its part is complete, which no prefix's is.
            prop_assert!(matches!(wire::decode_event(&frame[..end]), Err(WireError::Short { .. })), "{end}");
        }
    }

    #[test]
    fn any_text_is_a_json_event_or_an_error(text in any::<String>(), cut in any::<proptest::sample::Index>()) {
        let _ = wire::decode_json_event(&text);
        let whole = r#"{"timestamp":1700000000000000,"value":21.5,"series":"temp","tags":["sensor=1"]}"#;
        let _ = wire::decode_json_event(&whole[..cut.index(whole.len())]);
    }

    #[test]
    fn json_keeps_every_bit(timestamp in any::<Option<i64>>(), value in finite(), key in keys()) {
        let tags: Vec<&str> = key.tags().collect();
        let json = serde_json::json!({"timestamp": timestamp, "value": value, "series": key.name(), "tags": tags});
        let text = json.to_string();
        let event = wire::decode_json_event(&text).unwrap();
        prop_assert_eq!(event.timestamp, timestamp);
        prop_assert_eq!(event.value.to_bits(), value.to_bits());
        prop_assert_eq!(event.key, key);
    }
}
