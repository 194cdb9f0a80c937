//! What a URL means: scheme, host and port, read strictly; what two readers could read differently is refused.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hyper::Uri;

/// The longest URL, bytes: what servers commonly take.
const URL_BYTES_MAX: usize = 8 * 1024;
/// The longest host name, bytes (RFC 1035).
const NAME_BYTES_MAX: usize = 253;
/// The longest part of a host name between two dots, bytes (RFC 1035).
const LABEL_BYTES_MAX: usize = 63;

/// Where a call goes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Target {
    /// The whole URL, its host in the canonical spelling.
    pub(super) uri: Uri,
    pub(super) https: bool,
    pub(super) host: Host,
    pub(super) port: u16,
}

/// A host, each in one spelling only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Host {
    /// In lower case, without the dot at the end.
    Name(String),
    Ip(IpAddr),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Ip(IpAddr::V4(address)) => address.fmt(f),
            Self::Ip(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

impl Target {
    /// Reads an absolute URL.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        if url.len() > URL_BYTES_MAX {
            return Err(format!("it has {} bytes, at most {URL_BYTES_MAX} are allowed", url.len()));
        }
        if let Some(odd) = url.chars().find(|character| !character.is_ascii_graphic() || *character == '\\') {
            return Err(format!("{odd:?} must be percent-encoded (in a host name: written as punycode)"));
        }
        let (scheme, rest) = url.split_once("://").ok_or("it does not start with http:// or https://")?;
        let https = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            _ => return Err(format!("{scheme:?} is neither http nor https")),
        };
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err("user name and password do not belong there".to_owned());
        }
        let (host, port) = split_port(authority)?;
        let host = parse_host(host)?;
        let (scheme, default_port) = if https { ("https", 443) } else { ("http", 80) };
        let port = port.map_or(Ok(default_port), parse_port)?;
        let shown_port = if port == default_port { String::new() } else { format!(":{port}") };
        let slash = if path.starts_with('/') { "" } else { "/" };
        let uri = format!("{scheme}://{host}{shown_port}{slash}{path}");
        let uri = uri.parse().map_err(|error| format!("{error}"))?;
        Ok(Self { uri, https, host, port })
    }
}

/// Host and port of an authority; the host of an IPv6 address with its brackets.
fn split_port(authority: &str) -> Result<(&str, Option<&str>), String> {
    let host_end = match (authority.starts_with('['), authority.find(']')) {
        (true, Some(bracket)) => bracket + 1,
        (true, None) => return Err("the bracket of the address is not closed".to_owned()),
        (false, _) => authority.find(':').unwrap_or(authority.len()),
    };
    match authority.split_at(host_end) {
        (host, "") => Ok((host, None)),
        (host, port) => match port.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None => Err(format!("{port:?} cannot follow the address")),
        },
    }
}

/// In decimal, and in no other spelling than the usual one.
pub(super) fn parse_port(text: &str) -> Result<u16, String> {
    match text.parse::<u16>() {
        Ok(port) if port > 0 && port.to_string() == text => Ok(port),
        _ => Err(format!("{text:?} is no port (1 to 65535)")),
    }
}

/// An address in its usual spelling, or a name that cannot be taken for one.
pub(super) fn parse_host(text: &str) -> Result<Host, String> {
    if let Some(address) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let address = address.parse::<Ipv6Addr>();
        return address.map(|address| Host::Ip(address.into())).map_err(|_| format!("{text} is no IPv6 address"));
    }
    // The dot at the end says that the name is complete, which is what every name is taken for here.
    let name = text.strip_suffix('.').unwrap_or(text);
    if let Ok(address) = name.parse::<Ipv4Addr>() {
        return Ok(Host::Ip(address.into()));
    }
    if name.is_empty() {
        return Err("it has no host".to_owned());
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(format!("the host name has {} bytes, at most {NAME_BYTES_MAX} are allowed", name.len()));
    }
    for label in name.split('.') {
        let usual = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        if label.is_empty() || label.len() > LABEL_BYTES_MAX || !usual {
            return Err(format!("{text:?} is no host name"));
        }
    }
    // Resolvers read 127.1, 0x7f000001 and 017700000001 as addresses.
    let last = name.rsplit('.').next().unwrap_or_default();
    if last.bytes().all(|byte| byte.is_ascii_digit()) || last.starts_with("0x") || last.starts_with("0X") {
        return Err(format!("{text:?} is neither a host name nor an address in its usual spelling"));
    }
    Ok(Host::Name(name.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_what_is_called() {
        for (url, uri, host, port) in [
            ("http://example.com", "http://example.com/", "example.com", 80),
            ("https://example.com/a?b=c&d", "https://example.com/a?b=c&d", "example.com", 443),
            ("HTTP://EXAMPLE.com.:80/", "http://example.com/", "example.com", 80),
            ("https://example.com:8443?x", "https://example.com:8443/?x", "example.com", 8443),
            ("http://localhost:9000/a#part", "http://localhost:9000/a", "localhost", 9000),
            ("http://127.0.0.1/", "http://127.0.0.1/", "127.0.0.1", 80),
            ("http://127.0.0.1./", "http://127.0.0.1/", "127.0.0.1", 80),
            ("http://[::1]:8080/", "http://[::1]:8080/", "[::1]", 8080),
            ("http://[0:0:0:0:0:0:0:1]", "http://[::1]/", "[::1]", 80),
            ("http://[::FFFF:127.0.0.1]/", "http://[::ffff:127.0.0.1]/", "[::ffff:127.0.0.1]", 80),
            ("http://a_b.x-1.co:443/", "http://a_b.x-1.co:443/", "a_b.x-1.co", 443),
            ("http://xn--bcher-kva.example/", "http://xn--bcher-kva.example/", "xn--bcher-kva.example", 80),
            ("http://1.2.3.4.example/%2f", "http://1.2.3.4.example/%2f", "1.2.3.4.example", 80),
        ] {
            let target = Target::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"));
            assert_eq!(
                (target.uri.to_string().as_str(), target.host.to_string().as_str(), target.port),
                (uri, host, port),
                "{url}"
            );
        }
    }

    #[test]
    fn odd_spellings_are_refused_and_never_guessed() {
        let long_label = format!("http://{}.com/", "a".repeat(64));
        let long_name = format!("http://{}com/", "abcdefg.".repeat(32));
        let long_url = format!("http://example.com/{}", "a".repeat(URL_BYTES_MAX));
        for url in [
            "",
            "example.com",
            "//example.com/",
            "/path",
            "ftp://example.com/",
            "file:///etc/passwd",
            "ws://example.com/",
            "http:/example.com/",
            "http:example.com",
            "http://",
            "http:///path",
            "http://:80/",
            "http://./",
            "http://a..b/",
            // Another host than the one that is seen.
            "http://user@example.com/",
            "http://user:password@example.com/",
            "http://example.com@127.0.0.1/",
            "http://example.com\\@127.0.0.1/",
            "http://127.0.0.1\\.example.com/",
            "http:\\\\127.0.0.1/",
            "http://example.com%00.local/",
            "http://exa mple.com/",
            "http://example.com\t/",
            "http://example.com\r\nHost:x/",
            "http://%31%32%37.0.0.1/",
            "http://127%2e0.0.1/",
            // Addresses in spellings that some readers know.
            "http://2130706433/",
            "http://0x7f000001/",
            "http://0x7f.1/",
            "http://0X7F.0.0.0x1/",
            "http://017700000001/",
            "http://0177.0.0.1/",
            "http://127.1/",
            "http://127.0.1/",
            "http://127.0.0.01/",
            "http://127.0.0.256/",
            "http://127.0.0.1.1/",
            "http://1.2.3.4.5/",
            "http://0/",
            "http://00/",
            "http://127.0.0.1../",
            "http://+1.2.3.4/",
            "http://\u{ff11}\u{ff12}\u{ff17}.0.0.1/",
            "http://127\u{3002}0\u{3002}0\u{3002}1/",
            "http://\u{2460}.com/",
            "http://b\u{fc}cher.example/",
            "http://::1/",
            "http://[::1/",
            "http://::1]/",
            "http://[::1]x/",
            "http://[::1]80/",
            "http://[fe80::1%eth0]/",
            "http://[fe80::1%25eth0]/",
            "http://[127.0.0.1]/",
            "http://[example.com]/",
            "http://[]/",
            "http://[::g]/",
            "http://[v1.a]/",
            "http://[::ffff:0x7f.1]/",
            // Ports.
            "http://example.com:/",
            "http://example.com:0/",
            "http://example.com:080/",
            "http://example.com:+80/",
            "http://example.com:65536/",
            "http://example.com:80:80/",
            "http://example.com:http/",
            "http://example.com:8 0/",
            &long_label,
            &long_name,
            &long_url,
        ] {
            assert!(Target::parse(url).is_err(), "{url:?} is read as {:?}", Target::parse(url));
        }
    }
}
