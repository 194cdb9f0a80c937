//! The event's JSON, as documented and as others may write it.

use proptest::prelude::*;
use slung_abi::{Event, EventRef, limits};

#[test]
fn the_documented_example() {
    let json = r#"{"timestamp":1700000000000000,"value":21.5,"tags":["env=prod","sensor=1"],"producers":[7]}"#;
    let event: Event = serde_json::from_str(json).unwrap();
    let expected = Event {
        timestamp: 1_700_000_000_000_000,
        value: 21.5,
        tags: vec!["env=prod".into(), "sensor=1".into()],
        producers: vec![7],
        ..Event::default()
    };
    assert_eq!(event, expected);
    assert_eq!(serde_json::to_string(&event).unwrap(), json);
}

#[test]
fn unknown_fields_are_ignored_and_lists_may_be_missing() {
    let event: Event =
        serde_json::from_str(r#"{"later":{"a":[1]},"value":-0.5,"timestamp":-9007199254740991,"count":3,"sum":1e3}"#)
            .unwrap();
    let expected =
        Event { timestamp: -9_007_199_254_740_991, value: -0.5, sum: Some(1000.0), count: Some(3), ..Event::default() };
    assert_eq!(event, expected);
    for wrong in [r#"{"value":1}"#, r#"{"timestamp":1}"#, r#"{"timestamp":1,"value":null}"#, "[]", ""] {
        assert!(serde_json::from_str::<Event>(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn the_longest_event_fits_its_limit() {
    let tag = "\"".repeat(1_024);
    let tags = vec![tag.as_str(); 64];
    let producers = vec![u64::MAX; limits::PRODUCERS_MAX];
    let event = EventRef {
        timestamp: i64::MIN,
        value: -f64::MIN_POSITIVE,
        tags: &tags,
        producers: &producers,
        sum: Some(-f64::MIN_POSITIVE),
        count: Some(u64::MAX),
    };
    let bytes = serde_json::to_vec(&event).unwrap().len();
    assert!(bytes < 220_000, "{bytes}: what EVENT_BYTES_MAX says of it is wrong");
    const { assert!(220_000 < limits::EVENT_BYTES_MAX) }
}

proptest! {
    #[test]
    fn both_forms_write_the_same(
        timestamp in any::<i64>(), value in -1e15..1e15_f64, tags in prop::collection::vec(".{0,12}", 0..5),
        producers in prop::collection::vec(any::<u64>(), 0..5), state in prop::option::of((-1e9..1e9_f64, any::<u64>())),
    ) {
        let (sum, count) = state.unzip();
        let borrowed: Vec<&str> = tags.iter().map(String::as_str).collect();
        let by_ref = serde_json::to_string(
            &EventRef { timestamp, value, tags: &borrowed, producers: &producers, sum, count }).unwrap();
        let owned = Event { timestamp, value, tags: tags.clone(), producers: producers.clone(), sum, count };
        prop_assert_eq!(&by_ref, &serde_json::to_string(&owned).unwrap());
        let back: Event = serde_json::from_str(&by_ref).unwrap();
        prop_assert_eq!((back.timestamp, back.tags, back.producers, back.count),
            (timestamp, tags, producers, count));
        // serde_json reads most numbers exactly, and the rest to the last bit but one (its `float_roundtrip` is off).
        prop_assert!((back.value - value).abs() <= value.abs() * f64::EPSILON);
    }
}
