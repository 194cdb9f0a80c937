//! The book's page on the wire format, held against the code.

use slung_model::{AHEAD_MICROS_MAX, NAME_BYTES_MAX, SeriesKey, TAG_BYTES_MAX, TAGS_MAX};
use slung_net::ServerOptions;
use slung_net::v1::{self, Reply};
use slung_net::wire::{decode_event, decode_key, encode_event};

const PAGE: &str = include_str!("../../../../docs/format/wire.md");

/// The bytes of each dump on the page, in order.
fn dumps() -> Vec<Vec<u8>> {
    let dump = |rest: &str| {
        let dump = rest.split("```").next().expect("its end");
        dump.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).expect("hex")).collect()
    };
    PAGE.split("```text\n").skip(1).map(dump).collect()
}

#[test]
fn the_dump_is_the_event_that_it_is_said_to_be() {
    let bytes = dumps().remove(0);
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
fn the_dumps_of_v1_are_what_they_are_said_to_be() {
    let [event, message, block, hello, ack, nack] = dumps().try_into().expect("six dumps");
    assert_eq!(message, [&[v1::EVENTS], &event[..]].concat());
    assert_eq!(block[0], v1::BLOCK);
    let points = v1::decode_block(&block[1..]).unwrap();
    assert_eq!(decode_key(points.key_bytes()).unwrap(), decode_event(&event).unwrap().to_key());
    let at = 1_700_000_000_000_000;
    assert_eq!(points.points().collect::<Vec<_>>(), [(at, 21.5), (at + 1_000_000, 21.75)]);
    let default = ServerOptions::default();
    let told = v1::Hello {
        window: default.v1_window,
        message_bytes_max: u32::try_from(default.v1_message_bytes_max).unwrap(),
        commit_interval_ms: 5,
    };
    let refused = Reply::Nack { number: 8, code: 7, retryable: false, reason: "event 2: value NaN is not finite" };
    for (dump, reply) in [(hello, Reply::Hello(told)), (ack, Reply::Ack { through: 7 }), (nack, refused)] {
        assert_eq!(Reply::decode(&dump), Some(reply));
        let mut written = Vec::new();
        reply.encode(&mut written);
        assert_eq!(written, dump);
    }
}

#[test]
fn the_limits_are_those_of_the_code() {
    let ServerOptions { message_bytes_max, v1_message_bytes_max, .. } = ServerOptions::default();
    let (kib, mib) = (message_bytes_max / 1024, v1_message_bytes_max / 1024 / 1024);
    for row in [
        format!("| series name | 1 to {NAME_BYTES_MAX} bytes |"),
        format!("| tags | {TAGS_MAX}, of {TAG_BYTES_MAX} bytes each |"),
        format!("| message | {kib} KiB, in `slung.v1` {mib} MiB |"),
        format!("at most {} hours ahead", AHEAD_MICROS_MAX / 3_600_000_000),
    ] {
        // The page groups digits.
        assert!(PAGE.replace("1,024", "1024").contains(&row), "the page does not say: {row}");
    }
}
