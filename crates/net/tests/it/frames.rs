//! Which messages are events, and what becomes of those that are not.

use slung_net::wire::EVENT_BYTES_MAX;
use tokio_tungstenite::tungstenite::Message;

use crate::backend::{Fake, NOW};
use crate::rig::{Rig, any_event, event};

/// The sample of the wire format.
const SAMPLE: [u8; 44] = [
    0x00, 0x40, 0x1e, 0x18, 0x24, 0x0a, 0x06, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x80, 0x35, 0x40, 0x04, 0x00, 0x02,
    0x00, 0x74, 0x65, 0x6d, 0x70, 0x08, 0x00, 0x73, 0x65, 0x6e, 0x73, 0x6f, 0x72, 0x3d, 0x31, 0x08, 0x00, 0x65, 0x6e,
    0x76, 0x3d, 0x70, 0x72, 0x6f, 0x64,
];

fn patched(at: usize, bytes: &[u8]) -> Message {
    let mut frame = SAMPLE.to_vec();
    frame[at..at + bytes.len()].copy_from_slice(bytes);
    Message::binary(frame)
}

/// Kinds of messages that are no event, and the label at which each is counted.
fn malformed() -> Vec<(Message, &'static str)> {
    let binary = |frame: Vec<u8>| Message::binary(frame);
    let too_many: Vec<&[u8]> = vec![b"t"; 65];
    vec![
        (binary(Vec::new()), "short"),
        (binary(vec![0]), "short"),
        (binary(SAMPLE[..19].to_vec()), "short"),
        (binary(SAMPLE[..20].to_vec()), "short"),
        (binary(SAMPLE[..23].to_vec()), "short"),
        (binary(SAMPLE[..25].to_vec()), "short"),
        (binary(SAMPLE[..43].to_vec()), "short"),
        (patched(18, &3_u16.to_le_bytes()), "short"),
        (patched(34, &9_u16.to_le_bytes()), "short"),
        (binary([&SAMPLE[..], b"x"].concat()), "long"),
        (patched(18, &1_u16.to_le_bytes()), "long"),
        (patched(34, &7_u16.to_le_bytes()), "long"),
        (binary([SAMPLE, SAMPLE].concat()), "long"),
        (patched(8, &f64::NAN.to_le_bytes()), "not_finite"),
        (patched(8, &f64::INFINITY.to_le_bytes()), "not_finite"),
        (patched(8, &f64::NEG_INFINITY.to_le_bytes()), "not_finite"),
        (binary(any_event(b"", &[b"a"], NOW, 1.0)), "empty_name"),
        (binary(any_event(&[b'n'; 1_025], &[], NOW, 1.0)), "name_too_long"),
        (patched(16, &u16::MAX.to_le_bytes()), "name_too_long"),
        (binary(any_event(b"a", &too_many, NOW, 1.0)), "too_many_tags"),
        (patched(18, &u16::MAX.to_le_bytes()), "too_many_tags"),
        (binary(any_event(b"a", &[b"ok", &[b't'; 1_025]], NOW, 1.0)), "tag_too_long"),
        (patched(24, &u16::MAX.to_le_bytes()), "tag_too_long"),
        (patched(20, &[0xff]), "not_utf8"),
        (patched(23, &[0xc3]), "not_utf8"),
        (patched(26, &[0xed, 0xa0, 0x80]), "not_utf8"),
        (binary(any_event(b"nul\0", &[], NOW, 1.0)), "control_character"),
        (binary(any_event(b"a", &[b"b\n"], NOW, 1.0)), "control_character"),
        (binary(any_event("a\u{85}".as_bytes(), &[], NOW, 1.0)), "control_character"),
        (patched(0, &i64::MAX.to_le_bytes()), "timestamp_out_of_range"),
        (patched(0, &i64::MIN.to_le_bytes()), "timestamp_out_of_range"),
        (patched(0, &(-(1_i64 << 53)).to_le_bytes()), "timestamp_out_of_range"),
        (patched(0, &(NOW + 24 * 3_600_000_000 + 1).to_le_bytes()), "timestamp_ahead"),
        (Message::text(""), "json"),
        (Message::text("not an event"), "json"),
        (Message::text(r#"{"series":"temp"}"#), "json"),
        (Message::text(r#"{"value":1}"#), "json"),
        (Message::text(r#"{"series":"temp","value":"1"}"#), "json"),
        (Message::text(r#"{"series":"temp","value":null}"#), "json"),
        (Message::text(r#"{"series":"temp","value":1e400}"#), "json"),
        (Message::text(r#"{"series":"temp","value":NaN}"#), "json"),
        (Message::text(r#"{"series":"temp","value":1,"timestamp":1.5}"#), "json"),
        (Message::text(r#"{"series":"temp","value":1,"timestamp":"now"}"#), "json"),
        (Message::text(r#"{"series":"temp","value":1,"timestmp":1700000000000000}"#), "json"),
        (Message::text(r#"{"series":"temp","value":1,"value":2}"#), "json"),
        (Message::text(r#"{"series":"temp","value":1,"tags":"a=b"}"#), "json"),
        (Message::text(r#"{"series":"temp","value":1} {"series":"temp","value":2}"#), "json"),
        (Message::text(r#"[{"series":"temp","value":1}]"#), "json"),
        (Message::text(r#"{"series":"","value":1}"#), "empty_name"),
        (Message::text(r#"{"series":"a\u0000","value":1}"#), "control_character"),
        (Message::text(r#"{"series":"temp","value":1,"timestamp":9007199254740992}"#), "timestamp_out_of_range"),
        (Message::text("\u{1}\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\u{1}\0\0\0"), "short"),
        (Message::text("\u{1}\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\u{1}\0\0\0aa"), "long"),
    ]
}

#[tokio::test]
async fn a_thousand_malformed_messages_are_counted_and_leave_nothing_behind() {
    let rig = Rig::start().await;
    let mut producer = rig.connect().await;
    let kinds = malformed();
    assert!(kinds.len() >= 20);
    for (message, _) in kinds.iter().cycle().take(1_000) {
        producer.send(message.clone()).await;
    }
    producer.barrier().await;
    assert_eq!(rig.backend.refused_total(), 1_000);
    for (_, label) in &kinds {
        let expected = kinds.iter().cycle().take(1_000).filter(|(_, other)| other == label).count();
        assert_eq!(rig.backend.refused(label), expected as u64, "{label}");
    }
    assert_eq!(rig.backend.state(|state| (state.stored.len(), state.resolved)), (0, 0), "nothing got through");

    // The connection has survived, and good events between bad ones are stored.
    for (message, _) in &kinds {
        producer.send(message.clone()).await;
        producer.event("temp", &["sensor=1"], NOW, 21.5).await;
    }
    producer.barrier().await;
    assert_eq!(rig.backend.values(), vec![21.5; kinds.len()]);
    let stats = rig.backend.counters.snapshot();
    assert_eq!(stats.messages, 1_000 + 2 * kinds.len() as u64);
    assert_eq!(stats.events, kinds.len() as u64);
}

#[tokio::test]
async fn the_sample_is_stored_and_counted() {
    let rig = Rig::start().await;
    let mut producer = rig.connect().await;
    producer.send(Message::binary(SAMPLE.to_vec())).await;
    producer.barrier().await;
    assert_eq!(event("temp", &["env=prod", "sensor=1"], NOW, 21.5).len(), SAMPLE.len());
    let stored = rig.backend.state(|state| state.stored.clone());
    let [(producer_id, point)] = stored[..] else { panic!("{stored:?}") };
    assert_eq!((producer_id, point.timestamp, point.value), (1, 1_700_000_000_000_000, 21.5));
    assert_eq!(rig.backend.series(), ["temp{env=prod,sensor=1}"]);
    let stats = rig.backend.counters.snapshot();
    assert_eq!((stats.messages, stats.message_bytes, stats.events, stats.batches), (1, 44, 1, 1));
}

#[tokio::test]
async fn the_limits_belong_to_what_is_accepted() {
    let rig = Rig::start().await;
    let mut producer = rig.connect().await;
    let (name, tag) = ("n".repeat(1_024), "t".repeat(1_021));
    let tags: Vec<String> = (0..64).map(|index| format!("{tag}{index:03}")).collect();
    let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
    let largest = event(&name, &tags, NOW, 1.0);
    assert_eq!(largest.len(), EVENT_BYTES_MAX);
    producer.send(Message::binary(largest)).await;
    for timestamp in [-(1 << 53) + 1, 0, NOW + 24 * 3_600_000_000] {
        producer.event("a", &[""], timestamp, 2.0).await;
    }
    for value in [f64::MAX, f64::MIN, f64::MIN_POSITIVE, -0.0, 5e-324] {
        producer.event("b", &[], NOW, value).await;
    }
    producer.barrier().await;
    assert_eq!(rig.backend.refused_total(), 0);
    let values = [1.0, 2.0, 2.0, 2.0, f64::MAX, f64::MIN, f64::MIN_POSITIVE, -0.0, 5e-324];
    assert_eq!(rig.backend.values(), values);
}

#[tokio::test]
async fn text_is_json_or_the_binary_layout() {
    let rig = Rig::start().await;
    let mut producer = rig.connect().await;
    for text in [
        r#"{"timestamp":1700000000000000,"value":21.5,"series":"temp","tags":["sensor=1"]}"#,
        " \r\n\t{ \"series\" : \"temp\", \"value\" : 22, \"tags\" : [\"sensor=1\",\"sensor=1\"],\"timestamp\":null}\n",
        r#"{"value":0.1,"series":"t\u00e9mp","tags":["a \"b\"","\ud83d\ude00"],"timestamp":-1}"#,
        // The last bit counts.
        r#"{"value":1.7976931348623157e308,"series":"temp"}"#,
        r#"{"value":2.2250738585072011e-308,"series":"temp","tags":[]}"#,
    ] {
        producer.send(Message::text(text)).await;
    }
    // Starts like JSON, but is not: 0x7b is the low byte of its timestamp.
    let ascii = String::from_utf8(any_event(b"old", &[b"client"], 0x0001_2345_6722_227b, 0.0)).unwrap();
    assert!(ascii.starts_with("{\"\""));
    producer.send(Message::text(ascii)).await;
    producer.send(Message::text(String::from_utf8(any_event("é".as_bytes(), &[], 0x7b, 0.0)).unwrap())).await;
    producer.barrier().await;

    assert_eq!(rig.backend.refused_total(), 0);
    assert_eq!(rig.backend.values(), [21.5, 22.0, 0.1, f64::MAX, 2.225_073_858_507_201e-308, 0.0, 0.0]);
    let series = rig.backend.series();
    assert_eq!(series[..3], ["temp{sensor=1}", "temp{sensor=1}", "témp{a \"b\",😀}"]);
    assert_eq!(series[3..], ["temp{}", "temp{}", "old{client}", "é{}"]);
    let timestamps: Vec<i64> =
        rig.backend.state(|state| state.stored.iter().map(|(_, point)| point.timestamp).collect());
    assert_eq!(timestamps[..3], [NOW, NOW, -1]);
}

/// There is one point per series and timestamp. With a clock that stands still, a hundred events without a timestamp
/// would have been one.
#[tokio::test]
async fn events_without_a_timestamp_each_get_their_own() {
    let rig = Rig::start().await;
    let mut producer = rig.connect().await;
    for value in 0..100 {
        producer.send(Message::text(format!(r#"{{"series":"a","value":{value}}}"#))).await;
    }
    producer.barrier().await;
    let timestamps: Vec<i64> =
        rig.backend.state(|state| state.stored.iter().map(|(_, point)| point.timestamp).collect());
    assert_eq!(timestamps, (NOW..NOW + 100).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_series_is_asked_for_once_whatever_the_order_of_its_tags() {
    let rig = Rig::start().await;
    let mut producer = rig.connect().await;
    for value in 0..10 {
        for tags in [&[&b"a"[..], b"b"][..], &[b"b", b"a"], &[b"a", b"b", b"a"]] {
            producer.send(Message::binary(any_event(b"s", tags, NOW, f64::from(value)))).await;
        }
        producer
            .send(Message::text(format!(r#"{{"series":"s","value":{value},"tags":["b","a"],"timestamp":1}}"#)))
            .await;
    }
    producer.barrier().await;
    assert_eq!(rig.backend.series(), vec!["s{a,b}"; 40]);
    // Once for each way in which it is written; JSON is looked up in the canonical one.
    assert_eq!(rig.backend.state(|state| state.resolved), 3);

    // Another connection has to ask for itself.
    let mut other = rig.connect().await;
    other.event("s", &["a", "b"], NOW, 1.0).await;
    other.barrier().await;
    assert_eq!(rig.backend.state(|state| (state.resolved, state.keys.len())), (4, 1));
}

#[tokio::test]
async fn what_the_backend_refuses_is_counted_and_the_rest_is_stored() {
    let rig = Rig::start().await;
    rig.backend.state(|state| (state.unwanted, state.series_max) = (Some(13.0), Some(1)));
    let mut producer = rig.connect().await;
    for value in [1.0, 13.0, 2.0, 13.0, 3.0] {
        producer.event("a", &[], NOW, value).await;
        producer.event("b", &[], NOW, value).await;
    }
    producer.barrier().await;
    assert_eq!(rig.backend.values(), [1.0, 2.0, 3.0]);
    assert_eq!((rig.backend.refused("backend"), rig.backend.refused("series_refused")), (2, 5));
}

/// Runs it with everything that is logged meanwhile on this thread as the answer.
async fn logged(run: impl AsyncFnOnce(&mut crate::rig::Ws)) -> String {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);
    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let rig = Rig::start().await;
    let mut producer = rig.connect().await;
    run(&mut producer).await;
    producer.barrier().await;
    let _: Arc<Fake> = rig.backend;
    let text = log.0.lock().unwrap().clone();
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn a_producer_with_the_wrong_unit_is_warned_of_once() {
    for (timestamp, unit) in [(NOW / 1_000, "milliseconds"), (NOW / 1_000_000 + 3_600, "seconds")] {
        let log = logged(async |producer| {
            for value in 0..10 {
                producer.event("a", &[], timestamp, f64::from(value)).await;
            }
        })
        .await;
        assert_eq!(log.matches(&format!("if it were {unit}")).count(), 1, "{log}");
    }
    let log = logged(async |producer| {
        for timestamp in [NOW, NOW - 86_400_000_000, 0, -1, 1_000_000, NOW / 3_000] {
            producer.event("a", &[], timestamp, 1.0).await;
        }
    })
    .await;
    assert!(!log.contains("if it were"), "{log}");
}

#[tokio::test]
async fn the_log_has_the_first_refusal_of_a_connection_only() {
    let log = logged(async |producer| {
        for _ in 0..10 {
            producer.send(Message::binary(SAMPLE[..30].to_vec())).await;
        }
    })
    .await;
    assert_eq!(log.matches("refused: the event is cut short: 34 bytes are needed, 30 are there").count(), 1, "{log}");
}
