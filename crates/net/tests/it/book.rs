//! The book's page on the wire format, held against the code.

use slung_model::{AHEAD_MICROS_MAX, NAME_BYTES_MAX, SeriesKey, TAG_BYTES_MAX, TAGS_MAX};
use slung_net::ServerOptions;
use slung_net::wire::{decode_event, encode_event};

const PAGE: &str = include_str!("../../../../docs/format/wire.md");

#[test]
fn the_dump_is_the_event_that_it_is_said_to_be() {
    let dump = PAGE.split("```text\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a dump");
    let bytes: Vec<u8> = dump.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).expect("hex")).collect();
    assert!(PAGE.contains("timestamp 1700000000000000, value 21.5, series `temp`, tags `sensor=1`, `env=prod`"));
    assert!(PAGE.contains(&format!("is these {} bytes", bytes.len())));

    let event = decode_event(&bytes).unwrap();
    assert_eq!((event.timestamp(), event.value(), event.series()), (1_700_000_000_000_000, 21.5, "temp"));
    assert_eq!(event.tags().collect::<Vec<_>>(), ["sensor=1", "env=prod"]);

    // Written again it is the same event, with its tags in order.
    let mut written = Vec::new();
    let key = SeriesKey::new("temp", ["sensor=1", "env=prod"]).unwrap();
    encode_event(1_700_000_000_000_000, 21.5, &key, &mut written);
    assert_eq!((written.len(), &written[..26]), (bytes.len(), &bytes[..26]));
    assert_eq!(decode_event(&written).unwrap().to_key(), event.to_key());
}

#[test]
fn the_limits_are_those_of_the_code() {
    let kib = ServerOptions::default().message_bytes_max / 1024;
    for row in [
        format!("| series name | 1 to {NAME_BYTES_MAX} bytes |"),
        format!("| tags | {TAGS_MAX}, of {TAG_BYTES_MAX} bytes each |"),
        format!("| message | {kib} KiB |"),
        format!("at most {} hours ahead", AHEAD_MICROS_MAX / 3_600_000_000),
    ] {
        // The page groups digits.
        assert!(PAGE.replace("1,024", "1024").contains(&row), "the page does not say: {row}");
    }
}
