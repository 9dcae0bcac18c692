//! Addresses of clients, and of the proxies whose header names the client.
use std::{
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
};

use hyper::{
    HeaderMap,
    header::{FORWARDED, HeaderName},
};

use super::forwarded;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// A network like `10.0.0.0/8` or `2001:db8::/32`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    first: u128,
    mask: u128,
}

/// Returns an address as a number. An IPv4 address becomes the mapped IPv6 address, so that both spellings are one
/// client.
fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

impl Network {
    /// Returns whether the address is in the network.
    #[must_use]
    pub fn has(&self, address: IpAddr) -> bool {
        number(address) & self.mask == self.first
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not an address or network, like 10.0.0.0/8 or 2001:db8::1");
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let (width, prefix) = if address.is_ipv4() { (32, 96) } else { (128, 0) };
        let bits = bits.map_or(Ok(width), str::parse).map_err(|_| wrong())?;
        if bits > width {
            return Err(wrong());
        }
        let mask = u128::MAX.checked_shl(128 - (prefix + bits)).unwrap_or(0);
        Ok(Self { first: number(address) & mask, mask })
    }
}

/// The unit that counts as one client: an IPv4 address, or the /64 that an IPv6 subscriber has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subscriber(u128);

/// Returns the client of an address. Returns `None` for loopback, from which load tests and local proxies connect,
/// unless `loopback`.
pub(crate) fn subscriber(address: IpAddr, loopback: bool) -> Option<Subscriber> {
    let canonical = address.to_canonical();
    match canonical {
        _ if canonical.is_loopback() && !loopback => None,
        IpAddr::V4(_) => Some(Subscriber(number(canonical))),
        IpAddr::V6(address) => Some(Subscriber(Ipv6Addr::to_bits(address) & !u128::from(u64::MAX))),
    }
}

/// The proxies whose header is trusted.
#[derive(Clone, Debug)]
pub struct Proxies {
    /// The networks of trusted proxies.
    pub trusted: Vec<Network>,
    /// The header with the client's address: `forwarded` (RFC 7239), or else a header with addresses separated by
    /// commas, the nearest last.
    pub header: HeaderName,
}

impl Proxies {
    /// Returns whether the address belongs to a trusted proxy.
    #[must_use]
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.has(address))
    }

    /// Returns the client's address: of the addresses on the request's way, the nearest that does not belong to a
    /// trusted proxy. Entries of the header before that address are not used.
    #[must_use]
    pub fn client(&self, remote: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = remote;
        let mut hops = self.hops(headers);
        while self.trusts(client)
            && let Some(Some(hop)) = hops.next()
        {
            client = hop;
        }
        client
    }

    /// Returns the hops that the header names, the nearest first. An element is `None` for a hop that is not an
    /// address.
    fn hops<'a>(&self, headers: &'a HeaderMap) -> Box<dyn Iterator<Item = Option<IpAddr>> + 'a> {
        let lines = headers.get_all(&self.header).iter().rev().map(|line| line.to_str().unwrap_or_default());
        if self.header == FORWARDED {
            return Box::new(
                lines.flat_map(|line| forwarded::hops(line).unwrap_or_else(|| vec![None]).into_iter().rev()),
            );
        }
        Box::new(lines.flat_map(|line| line.rsplit(',').map(|hop| forwarded::address(hop.trim()))))
    }

    /// Returns whether a client that is not a trusted proxy sent a proxy's header.
    pub(super) fn is_ignored(&self, remote: IpAddr, headers: &HeaderMap) -> bool {
        let sent = headers.contains_key(&self.header) || headers.contains_key(X_FORWARDED_FOR);
        sent && !self.trusts(remote)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_network_has_its_addresses_and_no_others() {
        for (text, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("10.1.2.3", "10.1.2.3", "10.1.2.4"),
            ("192.168.1.77/24", "::ffff:192.168.1.1", "192.168.2.1"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("0.0.0.0/0", "8.8.8.8", "2001:db8::1"),
            ("::/0", "2001:db8::1", "::"),
        ] {
            assert!(network(text).has(address(inside)), "{text} {inside}");
            assert!(text == "::/0" || !network(text).has(address(outside)), "{text} {outside}");
        }
        for wrong in ["", "10.0.0.0/33", "10.0.0/8", "::/129", "10.0.0.0/", "10.0.0.0/-1", "localhost"] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_ipv6_subscriber_is_a_64() {
        assert_eq!(subscriber(address("2001:db8::1"), false), subscriber(address("2001:db8::ffff:1:2:3"), false));
        assert_ne!(subscriber(address("2001:db8::1"), false), subscriber(address("2001:db8:0:1::1"), false));
        assert_ne!(subscriber(address("1.2.3.4"), false), subscriber(address("1.2.3.5"), false));
        assert_eq!(subscriber(address("1.2.3.4"), false), subscriber(address("::ffff:1.2.3.4"), false));
        for loopback in ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(subscriber(address(loopback), false), None);
        }
    }

    #[test]
    fn only_trusted_proxies_say_who_the_client_is() {
        let header = HeaderName::from_static("x-forwarded-for");
        let proxies = Proxies { trusted: vec![network("10.0.0.0/8")], header: header.clone() };
        let client = |remote: &str, lines: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(&header, line.parse().unwrap());
            }
            proxies.client(address(remote), &headers).to_string()
        };
        assert_eq!(client("10.0.0.1", &["1.2.3.4"]), "1.2.3.4");
        assert_eq!(client("10.0.0.1", &["6.6.6.6, 1.2.3.4, 10.0.0.2"]), "1.2.3.4", "the nearest stranger");
        assert_eq!(client("10.0.0.1", &["6.6.6.6", "1.2.3.4"]), "1.2.3.4");
        assert_eq!(client("9.9.9.9", &["1.2.3.4"]), "9.9.9.9", "an untrusted proxy is not believed");
        assert_eq!(client("10.0.0.1", &["6.6.6.6, 1.2.3.4:5678"]), "1.2.3.4", "with its port");
        assert_eq!(client("10.0.0.1", &["[2001:db8::1]:5678"]), "2001:db8::1");
        assert_eq!(client("10.0.0.1", &["[2001:db8::1]"]), "2001:db8::1");
        for none in ["nonsense", "", ",", "1.2.3.4,", "fe80::1%eth0", "1.2.3", "1.2.3.4 5.6.7.8", "unknown"] {
            assert_eq!(client("10.0.0.1", &[none]), "10.0.0.1", "{none:?}");
        }
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn the_header_of_rfc_7239_is_walked_from_the_nearest_hop() {
        let proxies = Proxies { trusted: vec![network("10.0.0.0/8"), network("fd00::/8")], header: FORWARDED };
        let client = |lines: &[&'static str]| {
            let headers = lines.iter().map(|line| (FORWARDED, line.parse().unwrap())).collect();
            proxies.client(address("10.0.0.1"), &headers).to_string()
        };
        assert_eq!(client(&["for=6.6.6.6, for=1.2.3.4;proto=https, for=10.0.0.2"]), "1.2.3.4");
        assert_eq!(client(&["for=6.6.6.6", "for=\"[2001:db8::1]:4711\"", "for=\"[fd00::1]\""]), "2001:db8::1");
        assert_eq!(client(&["for=6.6.6.6, for=unknown, for=10.0.0.2"]), "10.0.0.2", "a hop that is not known");
        assert_eq!(client(&["for=\", for=6.6.6.6"]), "10.0.0.1", "a quote left open");
        assert_eq!(client(&["for=\"", "for=6.6.6.6"]), "6.6.6.6", "on a line of its own it hides nothing");
        assert_eq!(client(&[]), "10.0.0.1");
    }
}
