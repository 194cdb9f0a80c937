//! RFC 6455 as a table: what a producer sends behind the handshake, byte for byte, and what the server makes of it.
//!
//! Every row is sent in one write and in small pieces, as it must not matter how bytes arrive. Where the server is more
//! patient than the RFC, or tells another code than a reader might expect, the row says why.

use std::io::ErrorKind;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::OwnedReadHalf;
use tokio::time::timeout;

use crate::backend::PATIENCE;
use crate::rig::{Rig, ws_frame};

const FIN: u8 = 0x80;
const RSV1: u8 = 0x40;
const RSV2: u8 = 0x20;
const RSV3: u8 = 0x10;
const CONTINUED: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;

/// The limit of the plain protocol.
const MESSAGE_BYTES_MAX: usize = 256 * 1024;

/// One event, which is stored as one point.
const EVENT: &[u8] = br#"{"series":"a","value":1}"#;

/// How it ends.
#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    /// It goes on: a ping that follows is answered.
    Open,
    /// The server closes and says why, with this code.
    Told(u16),
    /// The server answers a close frame by the same code and reason, and is done.
    Answered(u16, &'static str),
    /// The same where there is no code.
    AnsweredEmpty,
}

struct Case {
    what: String,
    sent: Vec<u8>,
    /// What the pongs bring that are sent back, in their order.
    pongs: Vec<Vec<u8>>,
    /// How many events are stored.
    stored: usize,
    /// How many messages are refused as no events, which leaves the connection open.
    refused: u64,
    end: End,
}

/// Nothing comes back but the end, nothing is stored and nothing refused.
fn case(what: impl Into<String>, sent: impl IntoIterator<Item = Vec<u8>>, end: End) -> Case {
    let sent = sent.into_iter().collect::<Vec<_>>().concat();
    Case { what: what.into(), sent, pongs: Vec::new(), stored: 0, refused: 0, end }
}

impl Case {
    fn stored(self, stored: usize) -> Self {
        Self { stored, ..self }
    }

    fn refused(self, refused: u64) -> Self {
        Self { refused, ..self }
    }

    fn pongs(self, pongs: &[&[u8]]) -> Self {
        Self { pongs: pongs.iter().map(|pong| pong.to_vec()).collect(), ..self }
    }
}

fn whole(opcode: u8, payload: &[u8]) -> Vec<u8> {
    ws_frame(FIN | opcode, payload)
}

/// Not the last one of its message.
fn part(opcode: u8, payload: &[u8]) -> Vec<u8> {
    ws_frame(opcode, payload)
}

/// Parts of one message, which are cut where it says.
fn parts(opcode: u8, payload: &[u8], cuts: &[usize]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut from = 0;
    for (index, cut) in cuts.iter().enumerate() {
        bytes.extend(part(if index == 0 { opcode } else { CONTINUED }, &payload[from..*cut]));
        from = *cut;
    }
    bytes.extend(whole(if cuts.is_empty() { opcode } else { CONTINUED }, &payload[from..]));
    bytes
}

fn closing(code: u16, reason: &[u8]) -> Vec<u8> {
    whole(CLOSE, &[&code.to_be_bytes()[..], reason].concat())
}

/// A frame with its length in 2 or 8 bytes, whether it needs them or not, and with a mask of its own.
fn spelled(first: u8, length: &[u8], mask: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let marker = if length.len() == 2 { 126 } else { 127 };
    let masked = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
    [&[first, FIN | marker], length, &mask].concat().into_iter().chain(masked).collect()
}

/// An event whose text has exactly that many bytes.
fn event_of(bytes: usize) -> Vec<u8> {
    let mut event = EVENT.to_vec();
    event.resize(bytes, b' ');
    event
}

fn unmasked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first, u8::try_from(payload.len()).unwrap()];
    frame.extend(payload);
    frame
}

fn fragments() -> Vec<Case> {
    use End::{Answered, Open, Told};
    let every_byte: Vec<usize> = (1..EVENT.len()).collect();
    let big = vec![b' '; MESSAGE_BYTES_MAX / 2 + 1];
    vec![
        case("one frame", [whole(TEXT, EVENT)], Open).stored(1),
        case("two messages", [whole(TEXT, EVENT), whole(TEXT, EVENT)], Open).stored(2),
        case("two parts", [parts(TEXT, EVENT, &[7])], Open).stored(1),
        case("a part for each byte", [parts(TEXT, EVENT, &every_byte)], Open).stored(1),
        case("an empty first part", [parts(TEXT, EVENT, &[0])], Open).stored(1),
        case("an empty last part", [parts(TEXT, EVENT, &[EVENT.len()])], Open).stored(1),
        case("empty parts everywhere", [parts(TEXT, EVENT, &[0, 0, 3, 3, 3, 9, EVENT.len()])], Open).stored(1),
        case("nothing but empty parts", [parts(TEXT, b"", &[0, 0])], Open).refused(1),
        case("an empty text", [whole(TEXT, b"")], Open).refused(1),
        case("an empty binary", [whole(BINARY, b"")], Open).refused(1),
        case("a binary in parts", [parts(BINARY, b"not an event", &[2, 5])], Open).refused(1),
        case("parts of two messages one after the other", [parts(TEXT, EVENT, &[1]), parts(TEXT, EVENT, &[2])], Open)
            .stored(2),
        case("a ping between parts", [part(TEXT, &EVENT[..9]), whole(PING, b"p"), whole(0, &EVENT[9..])], Open)
            .stored(1)
            .pongs(&[b"p"]),
        case("a pong between parts", [part(TEXT, &EVENT[..9]), whole(PONG, b"p"), whole(0, &EVENT[9..])], Open)
            .stored(1),
        case(
            "many pings between parts",
            [part(TEXT, &EVENT[..9]), whole(PING, b"1"), whole(PING, b""), part(0, b""), whole(PING, b"3")]
                .into_iter()
                .chain([whole(0, &EVENT[9..])]),
            Open,
        )
        .stored(1)
        .pongs(&[b"1", b"", b"3"]),
        case("a close between parts", [part(TEXT, &EVENT[..9]), closing(1000, b""), whole(0, &EVENT[9..])], {
            Answered(1000, "")
        }),
        case("a message without an end, and then a close", [part(TEXT, EVENT), closing(1001, b"")], Answered(1001, "")),
        case("a last part of nothing", [whole(CONTINUED, EVENT)], Told(1002)),
        case("a part of nothing", [part(CONTINUED, EVENT)], Told(1002)),
        case("a part behind a whole message", [whole(TEXT, EVENT), whole(CONTINUED, EVENT)], Told(1002)).stored(1),
        case("a part too many", [parts(TEXT, EVENT, &[3]), whole(CONTINUED, b"")], Told(1002)).stored(1),
        case("a text within a text", [part(TEXT, &EVENT[..9]), whole(TEXT, EVENT)], Told(1002)),
        case("a binary within a text", [part(TEXT, &EVENT[..9]), whole(BINARY, EVENT)], Told(1002)),
        case("a text that starts within a binary", [part(BINARY, &EVENT[..9]), part(TEXT, EVENT)], Told(1002)),
        case("a text within a text, all parts", [part(TEXT, b""), part(TEXT, b"")], Told(1002)),
        case("parts that together are too big", [part(BINARY, &big), whole(0, &big)], Told(1009)).refused(1),
        case("parts that together are too big, and no end", [part(BINARY, &big), part(0, &big)], Told(1009)).refused(1),
        case("parts that together are as big as allowed", [parts(TEXT, &event_of(MESSAGE_BYTES_MAX), &[1000])], Open)
            .stored(1),
    ]
}

fn control_frames() -> Vec<Case> {
    use End::{Open, Told};
    let all_bytes: Vec<u8> = (0..125).map(|byte| byte * 2 + 1).collect();
    let pings: Vec<Vec<u8>> = (0..20).map(|number| vec![number; usize::from(number)]).collect();
    let pong_refs: Vec<&[u8]> = pings.iter().map(Vec::as_slice).collect();
    vec![
        case("a ping", [whole(PING, b"payload")], Open).pongs(&[b"payload"]),
        case("a ping without payload", [whole(PING, b"")], Open).pongs(&[b""]),
        case("a ping that is not UTF-8", [whole(PING, b"\xff\x00\xfe")], Open).pongs(&[b"\xff\x00\xfe"]),
        case("a ping of 125 bytes", [whole(PING, &all_bytes)], Open).pongs(&[&all_bytes]),
        case("a ping of 126 bytes", [whole(PING, &[b'x'; 126])], Told(1002)),
        case("a ping of 65,536 bytes", [whole(PING, &[b'x'; 65_536])], Told(1002)),
        // As with messages, see below.
        case("a ping whose length is spelled too long", [spelled(FIN | PING, &[0, 1], [1; 4], b"x")], Open)
            .pongs(&[b"x"]),
        case("twenty pings", pings.iter().map(|ping| whole(PING, ping)), Open).pongs(&pong_refs),
        case("a ping between events", [whole(TEXT, EVENT), whole(PING, b"x"), whole(TEXT, EVENT)], Open)
            .stored(2)
            .pongs(&[b"x"]),
        case("a ping in parts", [part(PING, b"x"), whole(CONTINUED, b"y")], Told(1002)),
        case("a ping in parts within a message", [part(TEXT, EVENT), part(PING, b"x")], Told(1002)),
        case("a pong that nobody asked for", [whole(PONG, b"x")], Open),
        case("a pong without payload", [whole(PONG, b"")], Open),
        case("a pong of 125 bytes", [whole(PONG, &[b'x'; 125])], Open),
        case("a pong of 126 bytes", [whole(PONG, &[b'x'; 126])], Told(1002)),
        case("a pong in parts", [part(PONG, b"x")], Told(1002)),
        case("pongs without an end", vec![whole(PONG, b"x"); 1_000], Open),
        case("a close in parts", [part(CLOSE, &1000_u16.to_be_bytes())], Told(1002)),
    ]
}

fn first_bytes() -> Vec<Case> {
    use End::Told;
    let mut cases = Vec::new();
    for opcode in [0x3, 0x4, 0x5, 0x6, 0x7, 0xb, 0xc, 0xd, 0xe, 0xf] {
        let what = format!("the reserved opcode {opcode:#x}");
        cases.push(case(what, [whole(TEXT, EVENT), whole(opcode, b""), whole(TEXT, EVENT)], Told(1002)).stored(1));
        let what = format!("the reserved opcode {opcode:#x}, not the last, within a message");
        cases.push(case(what, [part(TEXT, EVENT), part(opcode, b"x"), whole(CONTINUED, b"")], Told(1002)));
    }
    for (bits, name) in [
        (RSV1, "1"),
        (RSV2, "2"),
        (RSV3, "3"),
        (RSV1 | RSV2, "1 and 2"),
        (RSV2 | RSV3, "2 and 3"),
        (RSV1 | RSV2 | RSV3, "1 to 3"),
    ] {
        for (opcode, kind) in [(TEXT, "text"), (BINARY, "binary"), (PING, "ping"), (PONG, "pong"), (CLOSE, "close")] {
            let what = format!("reserved bits {name} on a {kind}");
            cases.push(case(what, [whole(bits | opcode, b"")], Told(1002)));
        }
        let what = format!("reserved bits {name} on the last part");
        cases.push(case(what, [part(TEXT, EVENT), whole(bits, b"")], Told(1002)));
    }
    cases
}

fn masks_and_lengths() -> Vec<Case> {
    use End::{Open, Told};
    let mut cases = Vec::new();
    for mask in [[0; 4], [0xff; 4], [1, 0, 0, 0], [0, 0, 0, 1], [0x7b, 0x22, 0x73, 0x65]] {
        let length = u16::try_from(EVENT.len()).unwrap().to_be_bytes();
        let what = format!("masked by {mask:02x?}");
        // The RFC has a length in as few bytes as possible. Nothing is ambiguous about others, so they are read.
        cases.push(case(what, [spelled(FIN | TEXT, &length, mask, EVENT)], Open).stored(1));
    }
    for (what, frame) in [
        ("a text", unmasked(FIN | TEXT, EVENT)),
        ("a binary", unmasked(FIN | BINARY, EVENT)),
        ("an empty text", unmasked(FIN | TEXT, b"")),
        ("a ping", unmasked(FIN | PING, b"x")),
        ("a pong", unmasked(FIN | PONG, b"")),
        ("a close", unmasked(FIN | CLOSE, &1000_u16.to_be_bytes())),
        ("a part", unmasked(TEXT, EVENT)),
    ] {
        cases.push(case(format!("without a mask: {what}"), [whole(TEXT, EVENT), frame], Told(1002)).stored(1));
    }
    let last_unmasked = [part(TEXT, &EVENT[..5]), unmasked(FIN, &EVENT[5..])];
    cases.push(case("without a mask: the last part", last_unmasked, Told(1002)));
    for bytes in [124, 125, 126, 127, 128, 255, 256, 65_534, 65_535, 65_536, 65_537, MESSAGE_BYTES_MAX] {
        cases.push(case(format!("{bytes} bytes"), [whole(TEXT, &event_of(bytes))], Open).stored(1));
    }
    let length8 = |bytes: u64| bytes.to_be_bytes();
    let event_length = EVENT.len() as u64;
    let over = MESSAGE_BYTES_MAX as u64 + 1;
    cases.extend([
        // As above.
        case("a short length in 8 bytes", [spelled(FIN | TEXT, &length8(event_length), [5; 4], EVENT)], Open).stored(1),
        case("65,535 in 8 bytes", [spelled(FIN | TEXT, &length8(65_535), [5; 4], &event_of(65_535))], Open).stored(1),
        case("no length, in 2 bytes", [spelled(FIN | TEXT, &[0, 0], [5; 4], b"")], Open).refused(1),
        case("no length, in 8 bytes", [spelled(FIN | TEXT, &length8(0), [5; 4], b"")], Open).refused(1),
        case("one byte too many", [whole(TEXT, &event_of(MESSAGE_BYTES_MAX + 1))], Told(1009)).refused(1),
        case("a binary with one byte too many", [whole(BINARY, &event_of(MESSAGE_BYTES_MAX + 1))], Told(1009))
            .refused(1),
        // Told before any of it has come.
        case("a length over the limit", [spelled(FIN | TEXT, &length8(over), [5; 4], b"")], Told(1009)).refused(1),
        case("4 GiB", [spelled(FIN | BINARY, &length8(1 << 32), [5; 4], b"")], Told(1009)).refused(1),
        case("the longest length", [spelled(FIN | BINARY, &length8(u64::MAX >> 1), [5; 4], b"")], Told(1009))
            .refused(1),
        // No length at all by the RFC, which names no code for it: too big it is as well.
        case("the top bit", [spelled(FIN | BINARY, &length8(1 << 63), [5; 4], b"")], Told(1009)).refused(1),
        case("all bits", [spelled(FIN | TEXT, &length8(u64::MAX), [5; 4], b"")], Told(1009)).refused(1),
        case("a length over the limit, not the last", [spelled(TEXT, &length8(over), [5; 4], b"")], Told(1009))
            .refused(1),
    ]);
    cases
}

/// Bytes within a text, and whether they are UTF-8.
const UTF8: &[(&str, &[u8], bool)] = &[
    ("two bytes", "é".as_bytes(), true),
    ("three bytes", "\u{20ac}".as_bytes(), true),
    ("four bytes", "\u{1f600}".as_bytes(), true),
    ("a word", "κόσμε".as_bytes(), true),
    ("the first of two bytes", b"\xc2\xa0", true),
    ("the last of two bytes", b"\xdf\xbf", true),
    ("the first of three bytes", b"\xe0\xa0\x80", true),
    ("the last before the surrogates", b"\xed\x9f\xbf", true),
    ("the first behind the surrogates", b"\xee\x80\x80", true),
    ("the replacement character", b"\xef\xbf\xbd", true),
    ("a noncharacter", b"\xef\xbf\xbf", true),
    ("the byte order mark", b"\xef\xbb\xbf", true),
    ("the first of four bytes", b"\xf0\x90\x80\x80", true),
    ("the last character there is", b"\xf4\x8f\xbf\xbf", true),
    ("a noncharacter of four bytes", b"\xf0\x9f\xbf\xbe", true),
    ("one beyond the last character", b"\xf4\x90\x80\x80", false),
    ("a continuation alone", b"\x80", false),
    ("the last continuation alone", b"\xbf", false),
    ("continuations", b"\x80\xbf\x80\xbf", false),
    ("a first byte of two alone", b"\xc3", false),
    ("a first byte of two before a blank", b"\xc3 ", false),
    ("two bytes of three", b"\xe2\x82", false),
    ("three bytes of four", b"\xf0\x9f\x98", false),
    ("a blank within three bytes", b"\xe2 \x82\xac", false),
    ("a slash in two bytes", b"\xc0\xaf", false),
    ("NUL in two bytes", b"\xc0\x80", false),
    ("a letter in two bytes", b"\xc1\xbf", false),
    ("a slash in three bytes", b"\xe0\x80\xaf", false),
    ("a slash in four bytes", b"\xf0\x80\x80\xaf", false),
    ("the longest that is too long", b"\xe0\x9f\xbf", false),
    ("the longest of four that is too long", b"\xf0\x8f\xbf\xbf", false),
    ("five bytes", b"\xf8\x88\x80\x80\x80", false),
    ("six bytes", b"\xfc\x84\x80\x80\x80\x80", false),
    ("0xfe", b"\xfe", false),
    ("0xff", b"\xff", false),
    ("the first surrogate", b"\xed\xa0\x80", false),
    ("the last surrogate", b"\xed\xbf\xbf", false),
    ("a pair of surrogates", b"\xed\xa0\xbd\xed\xb8\x80", false),
];

fn texts() -> Vec<Case> {
    use End::{Open, Told};
    let mut cases = Vec::new();
    for (what, bytes, valid) in UTF8 {
        let event = [&br#"{"series":"n"#[..], bytes, br#"","value":1}"#].concat();
        let starts = event.iter().position(|byte| !byte.is_ascii()).unwrap();
        let (end, stored, refused) = if *valid { (Open, 1, 0) } else { (Told(1007), 0, 1) };
        let mut add = |what: String, sent: Vec<u8>| {
            cases.push(case(what, [sent], end).stored(stored).refused(refused));
        };
        add(format!("UTF-8: {what}"), whole(TEXT, &event));
        for cut in 1..bytes.len() {
            add(format!("UTF-8: {what}, cut behind byte {cut}"), parts(TEXT, &event, &[starts + cut]));
        }
        let each: Vec<usize> = (1..event.len()).collect();
        add(format!("UTF-8: {what}, in parts of one byte"), parts(TEXT, &event, &each));
    }
    cases.extend([
        // Refused as soon as it is known, and not when the message is complete.
        case("a first part that is not UTF-8, and no other", [part(TEXT, b"{\xff")], Told(1007)).refused(1),
        case("a second part that goes on wrongly", [part(TEXT, b"{\xc3"), part(0, b"(")], Told(1007)).refused(1),
        case("a message that ends within a character", [whole(TEXT, b"{\xe2\x82")], Told(1007)).refused(1),
        case("parts that end within a character", [part(TEXT, b"{\xe2"), whole(0, b"\x82")], Told(1007)).refused(1),
        case("an empty last part within a character", [part(TEXT, b"{\xe2"), whole(0, b"")], Told(1007)).refused(1),
        case("a ping within a character", [part(TEXT, b"\xc3"), whole(PING, b"\xff"), whole(0, b"\xa9")], Open)
            .pongs(&[b"\xff"])
            .refused(1),
        case("a binary that is not UTF-8", [whole(BINARY, b"\xff\xfe")], Open).refused(1),
    ]);
    cases
}

fn close_frames() -> Vec<Case> {
    use End::{Answered, AnsweredEmpty, Told};
    let mut cases = Vec::new();
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 3000, 3999, 4000, 4999] {
        cases.push(case(format!("close code {code}"), [closing(code, b"bye")], Answered(code, "bye")));
    }
    // 1014 (a bad gateway) was registered long after the RFC; the library does not know it, and no producer is a gateway.
    for code in [0, 1, 999, 1004, 1005, 1006, 1014, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
        cases.push(case(format!("close code {code}, which nobody may send"), [closing(code, b"bye")], Told(1002)));
    }
    cases.extend([
        case("a close frame without a code", [whole(CLOSE, b"")], AnsweredEmpty),
        case("a code without a reason", [closing(1000, b"")], Answered(1000, "")),
        case("a close frame of one byte", [whole(CLOSE, b"\x03")], Told(1002)),
        case("a reason beyond ASCII", [closing(1000, "κόσμε".as_bytes())], Answered(1000, "κόσμε")),
        case("the longest reason", [closing(1000, LONGEST.as_bytes())], Answered(1000, LONGEST)),
        case("a reason too long", [closing(1000, &[b'x'; 124])], Told(1002)),
        case("a reason that is not UTF-8", [closing(1000, b"\xff")], Told(1007)).refused(1),
        case("a reason that ends within a character", [closing(1000, b"bye\xe2\x82")], Told(1007)).refused(1),
        case("a reason with a surrogate", [closing(1000, b"\xed\xa0\x80")], Told(1007)).refused(1),
        case("events before it", [whole(TEXT, EVENT), whole(TEXT, EVENT), closing(1000, b"")], Answered(1000, ""))
            .stored(2),
        case("an event behind it", [closing(1000, b""), whole(TEXT, EVENT)], Answered(1000, "")),
        case("a ping behind it", [closing(1000, b""), whole(PING, b"x")], Answered(1000, "")),
        case("another one behind it", [closing(1000, b"a"), closing(1001, b"b")], Answered(1000, "a")),
        case("what is no frame behind it", [closing(1000, b""), b"GET / HTTP/1.1\r\n\r\n".to_vec()], {
            Answered(1000, "")
        }),
        case("a ping before it", [whole(PING, b"x"), closing(1000, b"")], Answered(1000, "")).pongs(&[b"x"]),
        case("something else than a frame", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()], Told(1002)),
        case("an event behind what breaks the protocol", [whole(0x3, b""), whole(TEXT, EVENT)], Told(1002)),
    ]);
    cases
}

/// 123 bytes, what fits beside a code.
const LONGEST: &str = "012345678901234567890123456789012345678901234567890123456789\
    012345678901234567890123456789012345678901234567890123456789012";

/// How the bytes of a case are written.
#[derive(Debug, Clone, Copy)]
enum Written {
    AtOnce,
    /// So many bytes at a time, with a turn for the server in between.
    InPieces(usize),
}

const LAST_PING: &[u8] = b"are you there?";

/// The frames that come back until the connection ends, or until the pong to the last ping: opcode and payload of each.
/// None of them may break a rule itself.
async fn frames(tcp: &mut OwnedReadHalf, what: &str) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    loop {
        let mut head = [0; 2];
        match tcp.read_exact(&mut head).await {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return frames,
            // The last word was said, and what came behind the peer's last word is not read any more.
            Err(error)
                if error.kind() == ErrorKind::ConnectionReset && frames.last().is_some_and(|it| it.0 == CLOSE) =>
            {
                return frames;
            }
            Err(error) => panic!("{what}: {error} after {frames:?}"),
        }
        assert!(head[0] & 0xf0 == FIN && head[1] < 126, "{what}: a frame that starts with {head:02x?}");
        let mut payload = vec![0; usize::from(head[1])];
        tcp.read_exact(&mut payload).await.unwrap();
        frames.push((head[0] & 0xf, payload));
        if frames.last().is_some_and(|(opcode, payload)| *opcode == PONG && payload == LAST_PING) {
            return frames;
        }
    }
}

async fn check(case: &Case, written: Written) {
    let what = format!("{} ({written:?})", case.what);
    let rig = Rig::start().await;
    let tcp = rig.raw_producer().await;
    tcp.set_nodelay(true).unwrap();
    let (mut back, mut to) = tcp.into_split();
    let mut sent = case.sent.clone();
    if case.end == End::Open {
        sent.extend(whole(PING, LAST_PING));
    }
    let writing = tokio::spawn(async move {
        let piece_bytes = if let Written::InPieces(bytes) = written { bytes } else { sent.len() };
        for piece in sent.chunks(piece_bytes) {
            // The server may close before it has read all.
            if to.write_all(piece).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        to
    });
    let frames = timeout(PATIENCE, frames(&mut back, &what)).await;
    let mut frames = frames.unwrap_or_else(|_| panic!("{what}: no end"));
    drop((back, writing.await.unwrap()));

    let last = frames.pop().unwrap_or_else(|| panic!("{what}: the end came without a word"));
    match (case.end, last) {
        (End::Open, (PONG, payload)) => assert_eq!(payload, LAST_PING, "{what}"),
        (End::AnsweredEmpty, (CLOSE, payload)) => assert_eq!(payload, b"", "{what}"),
        (End::Answered(code, reason), (CLOSE, payload)) => {
            assert_eq!(payload, [&code.to_be_bytes(), reason.as_bytes()].concat(), "{what}");
        }
        (End::Told(code), (CLOSE, payload)) => {
            let told = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
            assert_eq!(told, Some(code), "{what}: {}", String::from_utf8_lossy(&payload));
            assert!(payload.len() > 2 && std::str::from_utf8(&payload[2..]).is_ok(), "{what}: {payload:?}");
        }
        (end, last) => panic!("{what}: {last:?}, and not {end:?}"),
    }
    let pongs: Vec<_> = case.pongs.iter().map(|pong| (PONG, pong.clone())).collect();
    assert_eq!(frames, pongs, "{what}");
    rig.backend.until("the producer is gone", |state| state.closed == [1]).await;
    assert_eq!(rig.backend.values(), vec![1.0; case.stored], "{what}");
    assert_eq!(rig.backend.refused_total(), case.refused, "{what}");
}

async fn check_all(cases: &[Case]) {
    for case in cases {
        check(case, Written::AtOnce).await;
        // Byte by byte where that takes no time, so that every cut there is happens.
        let small = case.sent.len() < 1_000;
        check(case, Written::InPieces(if small { 1 } else { 10_007 })).await;
    }
}

#[test]
fn the_table_is_long_enough() {
    let tables = [fragments(), control_frames(), first_bytes(), masks_and_lengths(), texts(), close_frames()];
    let cases: std::collections::HashSet<_> = tables.iter().flatten().map(|case| &case.what).collect();
    assert_eq!(cases.len(), tables.iter().map(Vec::len).sum::<usize>(), "each under its own name");
    assert!(cases.len() > 300, "{}", cases.len());
}

#[tokio::test]
async fn fragments_make_messages() {
    check_all(&fragments()).await;
}

#[tokio::test]
async fn control_frames_come_at_any_time_and_are_small() {
    check_all(&control_frames()).await;
}

#[tokio::test]
async fn reserved_bits_and_opcodes_break_the_protocol() {
    check_all(&first_bytes()).await;
}

#[tokio::test]
async fn every_frame_is_masked_and_no_longer_than_allowed() {
    check_all(&masks_and_lengths()).await;
}

#[tokio::test]
async fn texts_are_utf8_wherever_they_are_cut() {
    check_all(&texts()).await;
}

#[tokio::test]
async fn close_frames_are_answered() {
    check_all(&close_frames()).await;
}
