//! Which addresses are not the public internet, and what each range is called.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

const fn v4(a: u8, b: u8, c: u8, prefix: u8, name: &'static str) -> (Ipv4Net, &'static str) {
    (Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, 0), prefix), name)
}

const fn v6(segments: [u16; 6], prefix: u8, name: &'static str) -> (Ipv6Net, &'static str) {
    let [a, b, c, d, e, f] = segments;
    (Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, 0, 0), prefix), name)
}

/// The IPv4 special-purpose registry of IANA (RFC 6890 and its updates), with multicast. Also what the registry calls
/// globally reachable (anycast of AS112 and AMT): no web server is meant to be there.
pub(super) const SPECIAL_V4: &[(Ipv4Net, &str)] = &[
    v4(0, 0, 0, 8, "unspecified (this network)"),
    v4(10, 0, 0, 8, "private"),
    v4(100, 64, 0, 10, "shared by carriers (CGNAT)"),
    v4(127, 0, 0, 8, "loopback"),
    v4(169, 254, 0, 16, "link-local"),
    v4(172, 16, 0, 12, "private"),
    v4(192, 0, 0, 24, "reserved for protocols"),
    v4(192, 0, 2, 24, "documentation"),
    v4(192, 31, 196, 24, "AS112"),
    v4(192, 52, 193, 24, "AMT"),
    v4(192, 88, 99, 24, "6to4 relay"),
    v4(192, 168, 0, 16, "private"),
    v4(192, 175, 48, 24, "AS112"),
    v4(198, 18, 0, 15, "benchmarking"),
    v4(198, 51, 100, 24, "documentation"),
    v4(203, 0, 113, 24, "documentation"),
    v4(224, 0, 0, 4, "multicast"),
    v4(240, 0, 0, 4, "reserved"),
];

/// The part of IPv6 that is given out as public addresses; all else is refused, whatever it will be one day.
const GLOBAL_UNICAST: Ipv6Net = v6([0x2000, 0, 0, 0, 0, 0], 3, "").0;

/// The IPv6 special-purpose registry of IANA, with site-local, multicast, and the ways to write an IPv4 address inside
/// an IPv6 one. The first row that fits names an address.
pub(super) const SPECIAL_V6: &[(Ipv6Net, &str)] = &[
    (Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 128), "unspecified"),
    (Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128), "loopback"),
    v6([0, 0, 0, 0, 0, 0], 96, "IPv4-compatible"),
    v6([0, 0, 0, 0, 0, 0xffff], 96, "IPv4-mapped"),
    v6([0, 0, 0, 0, 0xffff, 0], 96, "IPv4-translated"),
    v6([0x64, 0xff9b, 0, 0, 0, 0], 96, "NAT64"),
    v6([0x64, 0xff9b, 1, 0, 0, 0], 48, "NAT64"),
    v6([0x100, 0, 0, 0, 0, 0], 64, "discard only"),
    v6([0x2001, 0, 0, 0, 0, 0], 32, "Teredo"),
    v6([0x2001, 2, 0, 0, 0, 0], 48, "benchmarking"),
    v6([0x2001, 0, 0, 0, 0, 0], 23, "reserved for protocols"),
    v6([0x2001, 0xdb8, 0, 0, 0, 0], 32, "documentation"),
    v6([0x2002, 0, 0, 0, 0, 0], 16, "6to4"),
    v6([0x2620, 0x4f, 0x8000, 0, 0, 0], 48, "AS112"),
    v6([0x3fff, 0, 0, 0, 0, 0], 20, "documentation"),
    v6([0x5f00, 0, 0, 0, 0, 0], 16, "segment routing"),
    v6([0xfc00, 0, 0, 0, 0, 0], 7, "unique local (private)"),
    v6([0xfe80, 0, 0, 0, 0, 0], 10, "link-local"),
    v6([0xfec0, 0, 0, 0, 0, 0], 10, "site-local"),
    v6([0xff00, 0, 0, 0, 0, 0], 8, "multicast"),
];

/// What kind of special address it is; `None` for a public one.
pub(super) fn special(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => SPECIAL_V4.iter().find(|(range, _)| range.contains(&address)).map(|(_, name)| *name),
        IpAddr::V6(address) => {
            let named = SPECIAL_V6.iter().find(|(range, _)| range.contains(&address)).map(|(_, name)| *name);
            named.or_else(|| (!GLOBAL_UNICAST.contains(&address)).then_some("reserved"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One row per range: an address in it (first, last or some in between), and what it is called.
    const INSIDE: &[(&str, &str)] = &[
        ("0.0.0.0", "unspecified (this network)"),
        ("0.255.255.255", "unspecified (this network)"),
        ("10.0.0.0", "private"),
        ("10.255.255.255", "private"),
        ("100.64.0.0", "shared by carriers (CGNAT)"),
        ("100.127.255.255", "shared by carriers (CGNAT)"),
        ("127.0.0.1", "loopback"),
        ("127.255.255.255", "loopback"),
        ("169.254.169.254", "link-local"),
        ("172.16.0.0", "private"),
        ("172.31.255.255", "private"),
        ("192.0.0.0", "reserved for protocols"),
        ("192.0.0.170", "reserved for protocols"),
        ("192.0.2.1", "documentation"),
        ("192.31.196.1", "AS112"),
        ("192.52.193.1", "AMT"),
        ("192.88.99.1", "6to4 relay"),
        ("192.168.0.0", "private"),
        ("192.168.255.255", "private"),
        ("192.175.48.6", "AS112"),
        ("198.18.0.0", "benchmarking"),
        ("198.19.255.255", "benchmarking"),
        ("198.51.100.7", "documentation"),
        ("203.0.113.255", "documentation"),
        ("224.0.0.1", "multicast"),
        ("239.255.255.255", "multicast"),
        ("240.0.0.1", "reserved"),
        ("255.255.255.255", "reserved"),
        ("::", "unspecified"),
        ("::1", "loopback"),
        ("::2", "IPv4-compatible"),
        ("::127.0.0.1", "IPv4-compatible"),
        ("::8.8.8.8", "IPv4-compatible"),
        ("::ffff:127.0.0.1", "IPv4-mapped"),
        ("::ffff:8.8.8.8", "IPv4-mapped"),
        ("::ffff:0:127.0.0.1", "IPv4-translated"),
        ("64:ff9b::10.0.0.1", "NAT64"),
        ("64:ff9b:1:ffff::1", "NAT64"),
        ("100::1", "discard only"),
        ("100:0:0:1::1", "reserved"),
        ("2001::1", "Teredo"),
        ("2001:0:ffff:ffff:ffff:ffff:ffff:ffff", "Teredo"),
        ("2001:2::1", "benchmarking"),
        ("2001:3::1", "reserved for protocols"),
        ("2001:4:112::1", "reserved for protocols"),
        ("2001:10::1", "reserved for protocols"),
        ("2001:20::1", "reserved for protocols"),
        ("2001:30::1", "reserved for protocols"),
        ("2001:1ff:ffff::1", "reserved for protocols"),
        ("2001:db8::1", "documentation"),
        ("2002:7f00:1::1", "6to4"),
        ("2620:4f:8000::1", "AS112"),
        ("3fff::1", "documentation"),
        ("3fff:fff:ffff::1", "documentation"),
        ("4000::1", "reserved"),
        ("5f00::1", "segment routing"),
        ("8000::1", "reserved"),
        ("fc00::1", "unique local (private)"),
        ("fdff:ffff::1", "unique local (private)"),
        ("fe80::1", "link-local"),
        ("febf::1", "link-local"),
        ("fec0::1", "site-local"),
        ("feff::1", "site-local"),
        ("ff02::1", "multicast"),
        ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "multicast"),
    ];

    /// Public ones, most of them right beside a special range.
    const OUTSIDE: &[&str] = &[
        "1.0.0.0",
        "1.1.1.1",
        "8.8.8.8",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.0",
        "169.253.255.255",
        "169.255.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "191.255.255.255",
        "192.0.1.0",
        "192.0.3.0",
        "192.31.195.255",
        "192.31.197.0",
        "192.52.192.255",
        "192.52.194.0",
        "192.88.98.255",
        "192.88.100.0",
        "192.167.255.255",
        "192.169.0.0",
        "192.175.47.255",
        "192.175.49.0",
        "198.17.255.255",
        "198.20.0.0",
        "198.51.99.255",
        "198.51.101.0",
        "203.0.112.255",
        "203.0.114.0",
        "223.255.255.255",
        "2000::1",
        "2001:200::1",
        "2001:db7::1",
        "2001:db9::1",
        "2001:4860:4860::8888",
        "2003::1",
        "2606:4700::1111",
        "2620:4f:7fff::1",
        "2620:4f:8001::1",
        "3ffe::1",
        "3fff:1000::1",
    ];

    #[test]
    fn every_special_range_is_known_by_its_name() {
        for (address, name) in INSIDE {
            assert_eq!(special(address.parse().unwrap()), Some(*name), "{address}");
        }
    }

    #[test]
    fn every_range_of_the_tables_has_a_row_in_the_test() {
        let inside: Vec<IpAddr> = INSIDE.iter().map(|(address, _)| address.parse().unwrap()).collect();
        let v4 = SPECIAL_V4.iter().map(|(range, _)| ipnet::IpNet::from(*range));
        for range in v4.chain(SPECIAL_V6.iter().map(|(range, _)| ipnet::IpNet::from(*range))) {
            assert!(inside.iter().any(|address| range.contains(address)), "{range}");
        }
    }

    #[test]
    fn the_neighbours_are_public() {
        for address in OUTSIDE {
            assert_eq!(special(address.parse().unwrap()), None, "{address}");
        }
    }
}
