//! Series keys: the parts, the bytes, the limits.

use proptest::prelude::*;
use slung_model::{DecodeError, KeyError, NAME_BYTES_MAX, SeriesKey, TAG_BYTES_MAX, TAGS_MAX};

fn key(name: &str, tags: &[&str]) -> SeriesKey {
    SeriesKey::new(name, tags).expect("a valid key")
}

fn encoded(key: &SeriesKey) -> Vec<u8> {
    let mut bytes = Vec::new();
    key.encode(&mut bytes);
    bytes
}

/// The sample of the wire format, from the series name length on.
const SAMPLE: [u8; 28] = [
    0x04, 0x00, 0x02, 0x00, 0x74, 0x65, 0x6d, 0x70, //
    0x08, 0x00, 0x73, 0x65, 0x6e, 0x73, 0x6f, 0x72, 0x3d, 0x31, //
    0x08, 0x00, 0x65, 0x6e, 0x76, 0x3d, 0x70, 0x72, 0x6f, 0x64,
];

#[test]
fn the_sample_of_the_wire_format() {
    let (decoded, taken) = SeriesKey::decode(&SAMPLE).unwrap();
    assert_eq!(taken, SAMPLE.len());
    assert_eq!(decoded, key("temp", &["sensor=1", "env=prod"]));
    assert_eq!(decoded.name(), "temp");
    assert_eq!(decoded.tags().collect::<Vec<_>>(), ["env=prod", "sensor=1"]);
    assert_eq!(decoded.to_string(), "temp{env=prod,sensor=1}");
    // Its own bytes have the tags in order.
    assert_eq!(encoded(&decoded), [&SAMPLE[..8], &SAMPLE[18..], &SAMPLE[8..18]].concat());
}

#[test]
fn a_key_may_be_followed_by_others() {
    let mut bytes = SAMPLE.to_vec();
    bytes.extend_from_slice(b"more");
    assert_eq!(SeriesKey::decode(&bytes).unwrap().1, SAMPLE.len());
}

#[test]
fn every_shorter_piece_of_the_sample_is_short() {
    for end in 0..SAMPLE.len() {
        let error = SeriesKey::decode(&SAMPLE[..end]).unwrap_err();
        let DecodeError::Short { need, have } = error else { panic!("{end} bytes: {error}") };
        assert_eq!(have, end);
        assert!(end < need && need <= SAMPLE.len(), "{need} needed of {end}");
    }
}

#[test]
fn compared_by_its_parts() {
    let distinct = [
        key("a", &[]),
        key("a", &[""]),
        key("a", &["", "b"]),
        key("a", &["b"]),
        key("a", &["b", "c"]),
        key("a", &["bc"]),
        key("a", &["c"]),
        key("a b", &[]),
        key("a,b=1", &[]),
        key("ab", &[]),
    ];
    for (index, one) in distinct.iter().enumerate() {
        for (other_index, other) in distinct.iter().enumerate() {
            // They stand in order: by name first, then tag by tag.
            assert_eq!(one.cmp(other), index.cmp(&other_index), "{one} and {other}");
        }
    }
    assert_eq!(key("a", &["b", "a", "b"]), key("a", &["a", "b"]));
}

#[test]
fn carries_exactly_its_tags() {
    let key = key("temp", &["sensor=1", "", "muted"]);
    assert_eq!(key.tags().len(), 3);
    for tag in ["sensor=1", "", "muted"] {
        assert!(key.has_tag(tag), "{tag}");
    }
    for tag in ["sensor=", "sensor=11", "temp", "Muted", "muted\0sensor=1", "\0"] {
        assert!(!key.has_tag(tag), "{tag:?}");
    }
    assert!(!self::key("temp", &[]).has_tag(""));
    assert_eq!(format!("{key:?}"), r#"SeriesKey { name: "temp", tags: ["", "muted", "sensor=1"] }"#);
}

#[test]
fn limits_are_reached_but_not_passed() {
    let long_name = "n".repeat(NAME_BYTES_MAX);
    let long_tags: Vec<String> = (0..TAGS_MAX).map(|n| format!("{n:02}{}", "t".repeat(TAG_BYTES_MAX - 2))).collect();
    let largest = SeriesKey::new(&long_name, &long_tags).unwrap();
    assert_eq!(largest.tags().collect::<Vec<_>>(), long_tags);
    let bytes = encoded(&largest);
    assert_eq!(bytes.len(), 4 + NAME_BYTES_MAX + TAGS_MAX * (2 + TAG_BYTES_MAX));
    assert_eq!(SeriesKey::decode(&bytes), Ok((largest, bytes.len())));

    let none: [&str; 0] = [];
    assert_eq!(SeriesKey::new("", none), Err(KeyError::EmptyName));
    assert_eq!(SeriesKey::new(&"n".repeat(NAME_BYTES_MAX + 1), none), Err(KeyError::NameTooLong(NAME_BYTES_MAX + 1)));
    // Duplicates count, and an iterator without an end is not followed.
    assert_eq!(SeriesKey::new("n", std::iter::repeat("same")), Err(KeyError::TooManyTags(TAGS_MAX + 1)));
    assert_eq!(
        SeriesKey::new("n", [&long_tags[0], &"t".repeat(TAG_BYTES_MAX + 1)]),
        Err(KeyError::TagTooLong { index: 1, bytes: TAG_BYTES_MAX + 1 })
    );
}

#[test]
fn control_characters_are_refused() {
    for c in ['\0', '\t', '\n', '\u{1f}', '\u{7f}', '\u{85}', '\u{9f}'] {
        let character = u32::from(c);
        let none: [&str; 0] = [];
        assert_eq!(SeriesKey::new(&format!("a{c}"), none), Err(KeyError::ControlCharacter { tag: None, character }));
        let in_tag = SeriesKey::new("a", ["fine", &format!("{c}b")]);
        assert_eq!(in_tag, Err(KeyError::ControlCharacter { tag: Some(1), character }));
    }
    let error = SeriesKey::new("a", ["b\0"]).unwrap_err();
    assert_eq!(error.to_string(), "control character U+0000 in tag 0");
}

#[test]
fn bytes_beyond_a_limit_are_refused_before_they_are_there() {
    let decode = |bytes: &[u8]| SeriesKey::decode(bytes).unwrap_err();
    assert_eq!(decode(&[0, 0, 0, 0]), DecodeError::Key(KeyError::EmptyName));
    assert_eq!(decode(&[0x01, 0x04, 0, 0]), DecodeError::Key(KeyError::NameTooLong(1025)));
    assert_eq!(decode(&[1, 0, 65, 0]), DecodeError::Key(KeyError::TooManyTags(65)));
    assert_eq!(decode(&[0xff; 4]), DecodeError::Key(KeyError::NameTooLong(65_535)));
    let tag_too_long = DecodeError::Key(KeyError::TagTooLong { index: 0, bytes: 1025 });
    assert_eq!(decode(&[1, 0, 1, 0, b'n', 0x01, 0x04]), tag_too_long);
    assert_eq!(decode(&[2, 0, 0, 0, b'n', 0xff]), DecodeError::NotUtf8 { at: 5 });
    assert_eq!(decode(&[1, 0, 1, 0, b'n', 2, 0, b't', 0xc3]), DecodeError::NotUtf8 { at: 8 });
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-c=]{0,4}", "\\PC{0,12}"]
}

proptest! {
    #[test]
    fn bytes_round_trip(name in "[a-c]{1,3}|[^\\pC]{1,12}", tags in prop::collection::vec(text(), 0..10), rest: Vec<u8>) {
        let Ok(key) = SeriesKey::new(&name, &tags) else {
            // `\PC` and `\pC` are about more than control characters, never about fewer.
            return Err(TestCaseError::fail("a key of printable characters was refused"));
        };
        prop_assert_eq!(key.name(), &name);
        let mut expected = tags.clone();
        expected.sort();
        expected.dedup();
        prop_assert_eq!(key.tags().collect::<Vec<_>>(), expected);
        prop_assert!(tags.iter().all(|tag| key.has_tag(tag)));
        let mut bytes = encoded(&key);
        let length = bytes.len();
        bytes.extend(rest);
        prop_assert_eq!(SeriesKey::decode(&bytes), Ok((key, length)));
    }

    #[test]
    fn arbitrary_bytes_are_a_key_or_an_error(mut bytes: Vec<u8>, small: bool) {
        if small && bytes.len() >= 4 {
            // Lengths that have a chance to fit.
            (bytes[0], bytes[1], bytes[2], bytes[3]) = (bytes[0] % 8, 0, bytes[2] % 4, 0);
        }
        if let Ok((key, taken)) = SeriesKey::decode(&bytes) {
            prop_assert!(taken <= bytes.len());
            prop_assert_eq!(SeriesKey::decode(&encoded(&key)).map(|(again, _)| again), Ok(key));
        }
    }

    #[test]
    fn a_changed_sample_is_a_key_or_an_error(at in 0..SAMPLE.len(), byte: u8) {
        let mut bytes = SAMPLE;
        bytes[at] = byte;
        if let Ok((key, taken)) = SeriesKey::decode(&bytes) {
            prop_assert!(taken <= bytes.len());
            prop_assert!(!key.name().is_empty());
        }
    }
}
