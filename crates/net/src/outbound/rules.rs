//! Where workflows may call: public addresses on the ports of the web, unless the operator says no, and what he names.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use ipnet::IpNet;

use super::special::special;
use super::target::{Host, Target, parse_host, parse_port};

/// The ports that need no rule.
const WEB_PORTS: [u16; 2] = [80, 443];

/// What `--allow-host` names: `HOST[:PORT]`, where HOST is a host name, a pattern such as `*.example.com`, an address, or
/// a network such as `10.1.0.0/16`, and PORT a number or `*`; without one it is 80 and 443. An IPv6 address or network
/// with a port is put in brackets.
///
/// A rule with a name allows every address that the name resolves to: it trusts whoever answers for the name. A rule
/// with an address or network allows what lies in it, whatever name led there.
///
/// In a pattern, `*` stands for one or more whole labels, at the left only: `*.example.com` means `a.example.com` and
/// `b.a.example.com`, but not `example.com`, and `*` alone every name. A pattern allows public addresses only: whoever can
/// make a name below it could otherwise make one that leads inside.
///
/// ```
/// use slung_net::AllowRule;
/// for rule in ["localhost:9000", "*.example.com:8443", "10.1.0.0/16:*", "192.168.1.20", "[fd00::/8]:8080", "::1"] {
///     assert_eq!(rule.parse::<AllowRule>()?.to_string(), rule);
/// }
/// # Ok::<(), slung_net::RuleError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowRule {
    place: Place,
    ports: Ports,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Name(String),
    /// What comes behind the `*`, with its dot; nothing for every name.
    Names(String),
    Net(IpNet),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ports {
    Web,
    Any,
    One(u16),
}

/// Why a text is no rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no rule of the form HOST[:PORT], such as localhost:9000, *.example.com, 10.1.0.0/16:8080 or \
     [fd00::/8]:*: {what}"
)]
pub struct RuleError {
    /// The text.
    pub text: String,
    /// What is wrong with it.
    pub what: String,
}

/// Why a call is not allowed; says what to set for it to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The address is not a public one.
    #[error("{host} is at {address}, a special address ({range}); --allow-host {host}:{port} allows it")]
    Address {
        /// The host as the URL has it.
        host: String,
        /// The port.
        port: u16,
        /// The address that is refused, of several perhaps.
        address: IpAddr,
        /// What the range is called that it lies in.
        range: &'static str,
    },
    /// The port is not one of the web's.
    #[error("port {port} of {host} is neither 80 nor 443; --allow-host {host}:{port} allows it")]
    Port {
        /// The host as the URL has it.
        host: String,
        /// The port.
        port: u16,
    },
    /// The address is a public one, and those need a rule too ([`OutboundOptions::allow_public`] is false).
    ///
    /// [`OutboundOptions::allow_public`]: crate::OutboundOptions::allow_public
    #[error("{host} is not named (allow_public is false); --allow-host {host}:{port} allows it")]
    Unnamed {
        /// The host as the URL has it.
        host: String,
        /// The port.
        port: u16,
    },
}

impl AllowRule {
    fn allows(&self, target: &Target, address: IpAddr) -> bool {
        let ports = match self.ports {
            Ports::Web => WEB_PORTS.contains(&target.port),
            Ports::Any => true,
            Ports::One(port) => port == target.port,
        };
        let place = match &self.place {
            Place::Name(name) => matches!(&target.host, Host::Name(host) if host == name),
            Place::Names(end) => {
                let below = |host: &str| host.len() > end.len() && host.ends_with(end);
                matches!(&target.host, Host::Name(host) if below(host)) && special(address).is_none()
            }
            Place::Net(net) => net.contains(&address),
        };
        ports && place
    }
}

/// Everything that is allowed.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    pub(super) named: Arc<[AllowRule]>,
    /// Public addresses on the ports of the web need no rule.
    pub(super) public: bool,
}

impl Rules {
    /// Whether that target may be called at those addresses, which are all that its host has.
    ///
    /// # Errors
    /// [`Refusal`] for the first that may not: one refused address refuses the call, or the order in which a name
    /// server gives them would decide.
    pub(super) fn judge(&self, target: &Target, addresses: &[IpAddr]) -> Result<(), Refusal> {
        for address in addresses {
            if self.named.iter().any(|rule| rule.allows(target, *address)) {
                continue;
            }
            let (host, port) = (target.host.to_string(), target.port);
            if let Some(range) = special(*address) {
                return Err(Refusal::Address { host, port, address: *address, range });
            }
            if !self.public {
                return Err(Refusal::Unnamed { host, port });
            }
            if !WEB_PORTS.contains(&port) {
                return Err(Refusal::Port { host, port });
            }
        }
        Ok(())
    }
}

impl FromStr for AllowRule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        parse(text).map_err(|what| RuleError { text: text.to_owned(), what })
    }
}

fn parse(text: &str) -> Result<AllowRule, String> {
    // An IPv6 address without brackets has no port.
    if text.matches(':').count() > 1 && !text.starts_with('[') {
        return Ok(AllowRule { place: parse_place(text)?, ports: Ports::Web });
    }
    let (place, port) = match text.rsplit_once(':') {
        Some((place, port)) if !port.ends_with(']') => (place, Some(port)),
        _ => (text, None),
    };
    let ports = match port {
        None => Ports::Web,
        Some("*") => Ports::Any,
        Some(port) => Ports::One(parse_port(port)?),
    };
    let place = place.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(place);
    Ok(AllowRule { place: parse_place(place)?, ports })
}

fn parse_place(text: &str) -> Result<Place, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(Place::Net(address.into()));
    }
    if text.contains('/') {
        let net = text.parse::<IpNet>().map_err(|error| format!("{text}: {error}"))?;
        return match net.trunc() {
            exact if exact == net => Ok(Place::Net(net)),
            exact => Err(format!("{net} has bits behind its prefix, {exact} has none")),
        };
    }
    if text == "*" {
        return Ok(Place::Names(String::new()));
    }
    let (pattern, text) = text.strip_prefix("*.").map_or((false, text), |end| (true, end));
    match parse_host(text)? {
        Host::Name(end) if pattern => Ok(Place::Names(format!(".{end}"))),
        Host::Name(name) => Ok(Place::Name(name)),
        Host::Ip(address) if pattern => Err(format!("a name comes behind the *, and {address} is an address")),
        Host::Ip(address) => Ok(Place::Net(address.into())),
    }
}

/// As it is written on the command line.
impl fmt::Display for AllowRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = match &self.place {
            Place::Name(name) => name.clone(),
            Place::Names(end) => format!("*{end}"),
            Place::Net(net) if net.prefix_len() == net.max_prefix_len() => net.addr().to_string(),
            Place::Net(net) => net.to_string(),
        };
        let port = match self.ports {
            Ports::Web => return f.write_str(&place),
            Ports::Any => "*".to_owned(),
            Ports::One(port) => port.to_string(),
        };
        if place.contains(':') { write!(f, "[{place}]:{port}") } else { write!(f, "{place}:{port}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> AllowRule {
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    fn judged(url: &str, addresses: &[&str], rules: &[&str], public: bool) -> Result<(), Refusal> {
        let addresses: Vec<IpAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
        let named = rules.iter().map(|text| rule(text)).collect();
        Rules { named, public }.judge(&Target::parse(url).unwrap(), &addresses)
    }

    fn verdict(url: &str, addresses: &[&str], rules: &[&str]) -> Result<(), Refusal> {
        judged(url, addresses, rules, true)
    }

    #[test]
    fn rules_are_read_and_written() {
        for (text, written) in [
            ("LOCALHOST:9000", "localhost:9000"),
            ("example.com.", "example.com"),
            ("127.0.0.1/32:80", "127.0.0.1:80"),
            ("[::1]", "::1"),
            ("[::1]:9000", "[::1]:9000"),
            ("fd00::/8", "fd00::/8"),
            ("0.0.0.0/0:*", "0.0.0.0/0:*"),
            ("*", "*"),
            ("*:8443", "*:8443"),
            ("*.EXAMPLE.com.:*", "*.example.com:*"),
        ] {
            assert_eq!(rule(text).to_string(), written);
        }
        for text in [
            "",
            ":80",
            "localhost:",
            "localhost:0",
            "localhost:080",
            "localhost:http",
            "**",
            "*.",
            "*example.com",
            "a*.example.com",
            "a.*.example.com",
            "*.*.example.com",
            "example.*",
            "*.10.0.0.1",
            "*.0.0.1",
            "*.[::1]",
            "*/8",
            "*.example.com/24",
            "?.example.com",
            "a b",
            "10.0.0.0/33",
            "10.1.0.0/8",
            "fd00::/8:80",
            "0x7f.1",
            "127.1",
            "http://localhost",
            "localhost/path",
            "user@localhost",
            "[::1",
            "::1]:80",
            "[fe80::1%eth0]:80",
            "b\u{fc}cher.example",
        ] {
            assert!(text.parse::<AllowRule>().is_err(), "{text:?} is read as {:?}", text.parse::<AllowRule>());
        }
    }

    #[test]
    fn public_addresses_need_a_rule_for_other_ports_only() {
        assert_eq!(verdict("http://a.example/", &["8.8.8.8", "2606:4700::1111"], &[]), Ok(()));
        assert_eq!(verdict("http://a.example:443/", &["8.8.8.8"], &[]), Ok(()));
        let refused =
            verdict("http://a.example:8080/", &["8.8.8.8"], &["b.example:8080", "a.example", "a.example:8081"]);
        assert_eq!(refused, Err(Refusal::Port { host: "a.example".into(), port: 8080 }));
        for allowed in ["a.example:8080", "a.example:*", "8.8.8.8:8080", "8.8.8.0/24:8080", "0.0.0.0/0:*"] {
            assert_eq!(verdict("http://a.example:8080/", &["8.8.8.8"], &[allowed]), Ok(()), "{allowed}");
        }
    }

    #[test]
    fn special_addresses_need_a_rule() {
        let refused = verdict("http://localhost:9000/", &["127.0.0.1"], &["localhost", "localhost:9001", "127.0.0.1"]);
        let message = "localhost is at 127.0.0.1, a special address (loopback); --allow-host localhost:9000 allows it";
        assert_eq!(refused.unwrap_err().to_string(), message);
        for allowed in ["localhost:9000", "localhost:*", "127.0.0.1:9000", "127.0.0.0/8:*"] {
            assert_eq!(verdict("http://localhost:9000/", &["127.0.0.1"], &[allowed]), Ok(()), "{allowed}");
        }
        assert_eq!(verdict("http://localhost/", &["127.0.0.1"], &["localhost"]), Ok(()));
        // A name is not its suffix, and an IPv4 network has no IPv6 addresses in it.
        assert!(verdict("http://a.localhost/", &["127.0.0.1"], &["localhost"]).is_err());
        assert!(verdict("http://[::ffff:127.0.0.1]/", &["::ffff:127.0.0.1"], &["127.0.0.0/8:*"]).is_err());
        let refused = verdict("http://[::1]:9000/", &["::1"], &[]).unwrap_err().to_string();
        assert!(refused.ends_with("--allow-host [::1]:9000 allows it"), "{refused}");
    }

    #[test]
    fn a_pattern_means_names_below_it_at_public_addresses() {
        let allowed = |host: &str, address: &str, rule: &str| {
            verdict(&format!("http://{host}:8443/"), &[address], &[rule]).is_ok()
        };
        for host in ["a.example.com", "b.a.example.com", "A.Example.COM.", "xn--bcher-kva.example.com"] {
            assert!(allowed(host, "8.8.8.8", "*.example.com:8443"), "{host}");
            assert!(allowed(host, "2606:4700::1111", "*.example.com:*"), "{host}");
            assert!(allowed(host, "8.8.8.8", "*:8443"), "{host}");
        }
        for host in ["example.com", "aexample.com", "a.example.com.evil.test", "example", "com", "a.example.org"] {
            assert!(!allowed(host, "8.8.8.8", "*.example.com:8443"), "{host}");
        }
        for rule in ["*.example.com", "*.example.com:8080", "*.b.example.com:*", "*:80"] {
            assert!(!allowed("a.example.com", "8.8.8.8", rule), "{rule}");
        }
        // An address has no labels.
        assert!(!allowed("8.8.8.8", "8.8.8.8", "*:8443"));
        // Whoever answers for the names below may say what he likes, and gets no further inside.
        for inside in ["10.0.0.1", "127.0.0.1", "169.254.169.254", "::1", "::ffff:8.8.8.8"] {
            for rule in ["*.example.com:*", "*:*"] {
                assert!(!allowed("a.example.com", inside, rule), "{inside} by {rule}");
            }
            assert!(allowed("a.example.com", inside, "a.example.com:*"), "{inside} by its exact name");
        }
        assert!(verdict("http://a.example.com/", &["8.8.8.8", "10.0.0.1"], &["*.example.com:*"]).is_err());
        assert_eq!(
            verdict("http://a.example.com/", &["8.8.8.8", "10.0.0.1"], &["*.example.com", "10.0.0.1"]),
            Ok(()),
            "each address by a rule of its own"
        );
    }

    #[test]
    fn without_public_addresses_only_what_is_named_is_allowed() {
        let named = &["hooks.example.com", "*.api.example.com:8443", "9.9.9.0/24", "10.0.0.1:80"];
        let verdict = |url: &str, address: &str| judged(url, &[address], named, false);
        for (url, address) in [
            ("http://hooks.example.com/", "8.8.8.8"),
            ("https://hooks.example.com/", "10.9.9.9"),
            ("https://a.api.example.com:8443/", "8.8.8.8"),
            ("http://9.9.9.9/", "9.9.9.9"),
            ("http://elsewhere.example/", "9.9.9.9"),
            ("http://10.0.0.1/", "10.0.0.1"),
        ] {
            assert_eq!(verdict(url, address), Ok(()), "{url}");
        }
        for (url, host, port) in [
            ("http://example.com/", "example.com", 80),
            ("https://8.8.8.8/", "8.8.8.8", 443),
            ("http://hooks.example.com:8080/", "hooks.example.com", 8080),
            ("https://a.api.example.com/", "a.api.example.com", 443),
        ] {
            assert_eq!(verdict(url, "8.8.8.8"), Err(Refusal::Unnamed { host: host.into(), port }), "{url}");
        }
        let message = "example.com is not named (allow_public is false); --allow-host example.com:80 allows it";
        assert_eq!(verdict("http://example.com/", "8.8.8.8").unwrap_err().to_string(), message);
        assert!(matches!(verdict("http://a.api.example.com:8443/", "10.0.0.1"), Err(Refusal::Address { .. })));
        assert!(judged("http://example.com/", &["9.9.9.9", "8.8.8.8"], named, false).is_err());
    }

    #[test]
    fn one_refused_address_refuses_the_call() {
        assert!(verdict("http://a.example/", &["8.8.8.8", "10.0.0.1"], &[]).is_err());
        assert!(verdict("http://a.example/", &["10.0.0.1", "8.8.8.8"], &[]).is_err());
        assert_eq!(verdict("http://a.example/", &["10.0.0.1", "8.8.8.8"], &["10.0.0.0/8"]), Ok(()));
        assert!(verdict("http://a.example/", &["10.0.0.1", "192.168.0.1"], &["10.0.0.0/8"]).is_err());
    }
}
