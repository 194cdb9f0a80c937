//! Tables: every special range and every spelling of an address, with a resolver that says what it is told and a
//! connector that records what it is asked for. What is refused must never get as far as that.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Mutex;

use futures_util::future::{BoxFuture, FutureExt};
use ipnet::IpNet;

use super::special::{SPECIAL_V4, SPECIAL_V6, special};
use super::*;

const PUBLIC: [IpAddr; 3] = [
    IpAddr::V4(Ipv4Addr::new(93, 184, 215, 14)),
    IpAddr::V6(Ipv6Addr::new(0x2606, 0x4700, 0, 0, 0, 0, 0, 0x1111)),
    IpAddr::V4(Ipv4Addr::new(8, 8, 8, 8)),
];

/// Gives one answer after another, and the last one for ever.
#[derive(Default)]
struct Answers {
    answers: Mutex<Vec<Vec<IpAddr>>>,
    asked: Mutex<Vec<String>>,
}

impl Resolve for Answers {
    fn resolve(&self, name: &str) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        self.asked.lock().unwrap().push(name.to_owned());
        let mut answers = self.answers.lock().unwrap();
        let answer = if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() };
        std::future::ready(Ok(answer)).boxed()
    }
}

/// A client between such a resolver and such a connector, where no TCP connection ever comes about.
struct Outside {
    client: HttpClient,
    resolver: Arc<Answers>,
    dialled: Arc<Mutex<Vec<String>>>,
}

impl Outside {
    fn new(rules: &[&str], answers: &[&[IpAddr]]) -> Self {
        let resolver = Arc::new(Answers::default());
        *resolver.answers.lock().unwrap() = answers.iter().map(|answer| answer.to_vec()).collect();
        let dialled: Arc<Mutex<Vec<String>>> = Arc::default();
        let record = Arc::clone(&dialled);
        let dial: Dial = Arc::new(move |address| {
            record.lock().unwrap().push(address.to_string());
            std::future::ready(Err(io::ErrorKind::ConnectionRefused.into())).boxed()
        });
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(ring).with_safe_default_protocol_versions().unwrap();
        let tls = tls.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
        let allow = rules.iter().map(|rule| rule.parse().unwrap()).collect();
        let options = OutboundOptions { allow, ..OutboundOptions::default() };
        let client = HttpClient::with_dial(options, Arc::default(), resolver.clone(), Some(tls), dial);
        Self { client, resolver, dialled }
    }

    /// Every call ends with an error here.
    async fn call(&self, url: &str) -> OutboundError {
        self.client.send(HttpMethod::Post, url, "x").await.unwrap_err()
    }

    /// What was connected to since the last time.
    fn dialled(&self) -> Vec<String> {
        std::mem::take(&mut self.dialled.lock().unwrap())
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.resolver.asked.lock().unwrap())
    }

    fn answer_from_now(&self, addresses: &[IpAddr]) {
        *self.resolver.answers.lock().unwrap() = vec![addresses.to_vec()];
    }
}

/// The first and the last address of every special range, and the IPv4 ones in every way to write them inside IPv6.
fn special_addresses() -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    for net in SPECIAL_V4.iter().map(|(net, _)| *net) {
        for inner in [net.network(), net.broadcast()] {
            let [a, b, c, d] = inner.octets();
            let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            addresses.push(inner.into());
            addresses.push(Ipv6Addr::new(0, 0, 0, 0, 0, 0, high, low).into());
            addresses.push(inner.to_ipv6_mapped().into());
            addresses.push(Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, high, low).into());
            addresses.push(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low).into());
            addresses.push(Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, high, low).into());
            addresses.push(Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1).into());
        }
    }
    for net in SPECIAL_V6.iter().map(|(net, _)| IpNet::from(*net)) {
        addresses.extend([net.network(), net.broadcast()]);
    }
    // What is not given out yet.
    for unassigned in ["4000::1", "8000::", "e000::", "100:0:0:1::1"] {
        addresses.push(unassigned.parse().unwrap());
    }
    addresses
}

fn in_url(address: IpAddr) -> String {
    if address.is_ipv6() { format!("[{address}]") } else { address.to_string() }
}

fn refused_as(error: &OutboundError) -> Option<(IpAddr, &'static str)> {
    match error {
        OutboundError::Refused(Refusal::Address { address, range, .. }) => Some((*address, range)),
        _ => None,
    }
}

#[tokio::test]
async fn every_special_range_is_refused_by_its_address_and_by_a_name_and_never_dialled() {
    let outside = Outside::new(&["*:*", "elsewhere.example:*"], &[&[]]);
    let addresses = special_addresses();
    assert!(addresses.len() > 250, "{}", addresses.len());
    for address in addresses {
        let range = special(address).unwrap_or_else(|| panic!("{address} is public"));
        outside.answer_from_now(&[address]);
        for host in [in_url(address), "name.example".to_owned(), "NAME.example.".to_owned()] {
            for (scheme, port) in [("http", ""), ("https", ""), ("http", ":9000"), ("https", ":80")] {
                let url = format!("{scheme}://{host}{port}/");
                let error = outside.call(&url).await;
                assert_eq!(refused_as(&error), Some((address, range)), "{url} at {address}: {error}");
            }
        }
        assert_eq!(outside.dialled(), [""; 0], "{address}");
        assert_eq!(outside.asked(), ["name.example"; 8], "a name is asked for once per call, an address never");
    }
}

#[tokio::test]
async fn a_rule_for_exactly_that_place_opens_it_and_no_other() {
    for address in special_addresses() {
        let host = in_url(address);
        for (rule, url) in [
            (format!("{host}:9000"), format!("http://{host}:9000/")),
            (format!("{host}:9000"), "http://name.example:9000/".to_owned()),
            ("name.example:9000".to_owned(), "http://name.example:9000/".to_owned()),
        ] {
            let outside = Outside::new(&[&rule], &[&[address]]);
            let error = outside.call(&url).await;
            assert!(matches!(error, OutboundError::Connect(_)), "{url} with {rule}: {error}");
            assert_eq!(outside.dialled(), [format!("{host}:9000")], "{url} with {rule}");
            for other in ["http://[::ffff:172.31.0.9]:9000/", "http://172.31.0.9:9000/", "http://other.example:9001/"] {
                let error = outside.call(other).await;
                assert!(matches!(error, OutboundError::Refused(_)), "{other} with {rule}: {error}");
            }
            assert_eq!(outside.dialled(), [""; 0], "{rule}");
        }
    }
}

#[tokio::test]
async fn one_special_address_among_public_ones_refuses_the_call_wherever_it_stands() {
    let outside = Outside::new(&["*:*"], &[&[]]);
    for address in special_addresses() {
        for place in 0..=PUBLIC.len() {
            let mut answer = PUBLIC.to_vec();
            answer.insert(place, address);
            outside.answer_from_now(&answer);
            let error = outside.call("https://name.example/").await;
            assert_eq!(refused_as(&error).map(|(refused, _)| refused), Some(address), "{answer:?}: {error}");
        }
    }
    assert_eq!(outside.dialled(), [""; 0]);
    outside.answer_from_now(&PUBLIC);
    outside.call("https://name.example/").await;
    let all = ["93.184.215.14:443", "[2606:4700::1111]:443", "8.8.8.8:443"];
    assert_eq!(outside.dialled(), all, "and without it each is tried in its turn");
}

/// A name that says something else each time it is asked: what was judged is what is connected to.
#[tokio::test]
async fn a_name_that_changes_between_calls_is_judged_each_time_by_what_it_says_then() {
    let inside = IpAddr::from([10, 0, 0, 1]);
    let [first, second, third] = PUBLIC;
    let outside = Outside::new(&[], &[&[first], &[inside], &[second], &[inside, third], &[third], &[inside]]);
    let mut dialled = Vec::new();
    for _ in 0..6 {
        let error = outside.call("http://rebinding.example/").await;
        dialled.push(match outside.dialled().as_slice() {
            [] => {
                assert_eq!(refused_as(&error), Some((inside, "private")));
                None
            }
            [one] => Some(one.clone()),
            more => panic!("{more:?}"),
        });
    }
    let public = |address: &str| Some(address.to_owned());
    let expected = [public("93.184.215.14:80"), None, public("[2606:4700::1111]:80"), None, public("8.8.8.8:80"), None];
    assert_eq!(dialled, expected);
    assert_eq!(outside.asked().len(), 6, "asked once per connection, so that it can't answer twice");
}

/// What becomes of a host in a URL.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    /// Refused before anybody is asked.
    BadUrl,
    /// Read as an address.
    Address(&'static str),
    /// Read as a name, which is this one.
    Name(&'static str),
}

/// Every way to write an address that somebody reads as one, and names that look like it.
const SPELLINGS: &[(&str, &str, Fate)] = &[
    // The usual spelling, and what is the same one.
    ("usual", "127.0.0.1", Fate::Address("127.0.0.1")),
    ("dot at the end", "127.0.0.1.", Fate::Address("127.0.0.1")),
    ("brackets", "[::1]", Fate::Address("::1")),
    ("long", "[0000:0000:0000:0000:0000:0000:0000:0001]", Fate::Address("::1")),
    ("zeros", "[0:0:0:0:0:0:0:1]", Fate::Address("::1")),
    ("mapped", "[::ffff:127.0.0.1]", Fate::Address("::ffff:127.0.0.1")),
    ("mapped, in hex", "[::FFFF:7F00:1]", Fate::Address("::ffff:127.0.0.1")),
    ("compatible", "[::127.0.0.1]", Fate::Address("::7f00:1")),
    ("NAT64", "[64:ff9b::127.0.0.1]", Fate::Address("64:ff9b::7f00:1")),
    ("6to4", "[2002:7f00:1::]", Fate::Address("2002:7f00:1::")),
    ("unspecified", "0.0.0.0", Fate::Address("0.0.0.0")),
    ("unspecified, IPv6", "[::]", Fate::Address("::")),
    // Names.
    ("a name", "localhost", Fate::Name("localhost")),
    ("a name with a dot at its end", "LocalHost.", Fate::Name("localhost")),
    ("an address in front of a name", "127.0.0.1.nip.example", Fate::Name("127.0.0.1.nip.example")),
    ("hex that is not at the end", "0x7f.example", Fate::Name("0x7f.example")),
    ("letters that are hex", "7f000001.a", Fate::Name("7f000001.a")),
    // One number for all of it.
    ("decimal", "2130706433", Fate::BadUrl),
    ("decimal with a dot at the end", "2130706433.", Fate::BadUrl),
    ("hex", "0x7f000001", Fate::BadUrl),
    ("hex in capitals", "0X7F000001", Fate::BadUrl),
    ("hex without digits", "0x", Fate::BadUrl),
    ("octal", "017700000001", Fate::BadUrl),
    ("more than 32 bits", "4429184945", Fate::BadUrl),
    ("nothing", "0", Fate::BadUrl),
    // Each part by itself.
    ("octal parts", "0177.0.0.01", Fate::BadUrl),
    ("hex parts", "0x7f.0x0.0x0.0x1", Fate::BadUrl),
    ("mixed parts", "0x7f.0.0.1", Fate::BadUrl),
    ("hex at the end", "127.0.0.0x1", Fate::BadUrl),
    ("leading zero", "127.0.0.01", Fate::BadUrl),
    ("leading zeros", "127.000.000.001", Fate::BadUrl),
    ("two parts", "127.1", Fate::BadUrl),
    ("three parts", "127.0.1", Fate::BadUrl),
    ("five parts", "127.0.0.1.1", Fate::BadUrl),
    ("part too large", "127.0.0.256", Fate::BadUrl),
    ("two dots at the end", "127.0.0.1..", Fate::BadUrl),
    ("dot in front", ".127.0.0.1", Fate::BadUrl),
    ("sign", "+127.0.0.1", Fate::BadUrl),
    ("blank in front", " 127.0.0.1", Fate::BadUrl),
    ("name with a number at its end", "example.127", Fate::BadUrl),
    // Brackets and zones.
    ("no brackets", "::1", Fate::BadUrl),
    ("one bracket", "[::1", Fate::BadUrl),
    ("something behind", "[::1]0", Fate::BadUrl),
    ("IPv4 in brackets", "[127.0.0.1]", Fate::BadUrl),
    ("a name in brackets", "[localhost]", Fate::BadUrl),
    ("a zone", "[fe80::1%lo]", Fate::BadUrl),
    ("an encoded zone", "[fe80::1%25lo]", Fate::BadUrl),
    ("octal inside", "[::ffff:0177.0.0.1]", Fate::BadUrl),
    ("a prefix", "[::1/128]", Fate::BadUrl),
    // Another host than the one that is seen.
    ("user", "8.8.8.8@127.0.0.1", Fate::BadUrl),
    ("user and password", "8.8.8.8:80@127.0.0.1", Fate::BadUrl),
    ("encoded user", "8.8.8.8%40127.0.0.1", Fate::BadUrl),
    ("two users", "a@8.8.8.8@127.0.0.1", Fate::BadUrl),
    ("user, address last", "127.0.0.1@8.8.8.8", Fate::BadUrl),
    ("backslash", "8.8.8.8\\@127.0.0.1", Fate::BadUrl),
    ("backslash as a slash", "127.0.0.1\\8.8.8.8", Fate::BadUrl),
    ("backslash at the end", "127.0.0.1\\", Fate::BadUrl),
    ("NUL", "127.0.0.1\0.example.com", Fate::BadUrl),
    ("line end", "127.0.0.1\r\nHost: example.com", Fate::BadUrl),
    ("tab", "127.0\t.0.1", Fate::BadUrl),
    // Encoded, and characters that become others where somebody normalises them.
    ("percent", "%31%32%37%2e0.0.1", Fate::BadUrl),
    ("percent dots", "127%2E0%2E0%2E1", Fate::BadUrl),
    ("full-width digits", "\u{ff11}\u{ff12}\u{ff17}.0.0.1", Fate::BadUrl),
    ("circled digits", "\u{2460}\u{2461}\u{2466}.0.0.1", Fate::BadUrl),
    ("superscript digits", "\u{b9}\u{b2}7.0.0.1", Fate::BadUrl),
    ("ideographic dots", "127\u{3002}0\u{3002}0\u{3002}1", Fate::BadUrl),
    ("full-width dots", "127\u{ff0e}0\u{ff0e}0\u{ff0e}1", Fate::BadUrl),
    ("soft hyphen", "127.0.0\u{ad}.1", Fate::BadUrl),
    ("zero-width blank", "127.0.0.1\u{200b}", Fate::BadUrl),
    ("full-width letters", "\u{ff4c}ocalhost", Fate::BadUrl),
    ("Kelvin sign", "\u{212a}.example", Fate::BadUrl),
    ("Arabic digits", "\u{661}\u{662}\u{667}.0.0.1", Fate::BadUrl),
];

/// The resolver answers as one would that reads these as addresses: nothing of it may ever be connected to.
#[tokio::test]
async fn every_spelling_ends_at_the_same_judgement() {
    let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
    for (what, host, fate) in SPELLINGS {
        for (url, port) in [
            (format!("http://{host}/"), 80),
            (format!("https://{host}/path?query#part"), 443),
            (format!("HTTP://{host}:80"), 80),
            (format!("http://{host}:9000?query"), 9000),
        ] {
            let outside = Outside::new(&["*:*"], &[&[loopback]]);
            let error = outside.call(&url).await;
            match fate {
                Fate::BadUrl => {
                    assert!(matches!(error, OutboundError::BadUrl { .. }), "{what}: {url:?}: {error}");
                    assert_eq!(outside.asked(), [""; 0], "{what}: {url:?}");
                }
                Fate::Address(address) => {
                    let address = address.parse().unwrap();
                    assert_eq!(refused_as(&error).map(|(at, _)| at), Some(address), "{what}: {url:?}: {error}");
                    assert_eq!(outside.asked(), [""; 0], "{what}: {url:?}");
                }
                Fate::Name(name) => {
                    assert_eq!(refused_as(&error), Some((loopback, "loopback")), "{what}: {url:?}: {error}");
                    assert_eq!(outside.asked(), [*name], "{what}: {url:?}");
                }
            }
            assert_eq!(outside.dialled(), [""; 0], "{what}: {url:?}");

            // Where everything is allowed, it is still not connected to anything but what it says.
            let open = Outside::new(&["0.0.0.0/0:*", "[::/0]:*"], &[&[loopback]]);
            let error = open.call(&url).await;
            let expected = match fate {
                Fate::BadUrl => Vec::new(),
                Fate::Address(address) => vec![format!("{}:{port}", in_url(address.parse().unwrap()))],
                Fate::Name(_) => vec![format!("127.0.0.1:{port}")],
            };
            assert_eq!(open.dialled(), expected, "{what}: {url:?}: {error}");
        }
    }
}
