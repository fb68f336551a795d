//! Requests to places that somebody named: only to public addresses, unless the operator allows more.
//!
//! A name is checked after it was resolved, by the very resolver that connects, so that nothing can
//! change in between. No redirects are followed and no proxy is used, which would both lead around it.

use std::{
    error::Error as StdError,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use ipnet::IpNet;
use reqwest::{
    ClientBuilder, Method, RequestBuilder, Url,
    dns::{Addrs, Name, Resolve, Resolving},
};

/// A request that must not be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Neither http nor https, or without a host.
    NotHttp,
    /// The host is, or leads to, an address that is not public.
    Private(String),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotHttp => f.write_str("this is not an http(s) URL with a host"),
            Self::Private(host) => write!(
                f,
                "{host} leads to no public address; LOOM_SERVER_OUTBOUND_ALLOW lists networks that are allowed all the same"
            ),
        }
    }
}

impl StdError for Refused {}

impl Refused {
    /// The refusal behind a failed request, if that is why it failed.
    pub fn of(error: &reqwest::Error) -> Option<&Self> {
        let mut next: Option<&(dyn StdError + 'static)> = Some(error);
        while let Some(error) = next {
            if let Some(refused) = error.downcast_ref() {
                return Some(refused);
            }
            next = error.source();
        }
        None
    }
}

/// Which addresses may be connected to. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Guard(Arc<[IpNet]>);

impl Guard {
    /// Public addresses and these networks.
    pub fn new(allow: impl IntoIterator<Item = IpNet>) -> Self {
        Self(allow.into_iter().collect())
    }

    /// May this address be connected to?
    pub fn allows(&self, address: IpAddr) -> bool {
        let address = embedded_v4(address).map_or(address, IpAddr::V4);
        self.0.iter().any(|network| network.contains(&address)) || is_public(address)
    }

    /// Is it an http(s) URL, and if its host is an address, an allowed one? A name is looked at when
    /// it is resolved.
    ///
    /// # Errors
    /// When it must not be asked for.
    pub fn check(&self, url: &Url) -> Result<(), Refused> {
        let host = url.host_str().filter(|_| matches!(url.scheme(), "http" | "https"));
        let host = host.ok_or(Refused::NotHttp)?;
        // An IPv6 address stands in brackets.
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        match bare.parse() {
            Ok(address) if !self.allows(address) => Err(Refused::Private(host.to_owned())),
            _ => Ok(()),
        }
    }

    /// A client whose every connection goes through this guard.
    ///
    /// # Errors
    /// When the client cannot be built.
    pub fn client(
        &self,
        configure: impl FnOnce(ClientBuilder) -> ClientBuilder,
    ) -> reqwest::Result<Client> {
        let http = configure(reqwest::Client::builder())
            .dns_resolver(Arc::new(self.clone()))
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()?;
        Ok(Client { http, guard: self.clone() })
    }
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.clone();
        Box::pin(async move {
            let host = name.as_str();
            let resolved: Vec<SocketAddr> = tokio::net::lookup_host((host, 0)).await?.collect();
            let allowed: Vec<_> =
                resolved.into_iter().filter(|address| guard.allows(address.ip())).collect();
            if allowed.is_empty() {
                return Err(Refused::Private(host.to_owned()).into());
            }
            let allowed: Addrs = Box::new(allowed.into_iter());
            Ok(allowed)
        })
    }
}

/// A client that makes no request past its [`Guard`]. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    guard: Guard,
}

impl Client {
    /// Begins a request.
    ///
    /// # Errors
    /// When it must not be made.
    pub fn request(&self, method: Method, url: Url) -> Result<RequestBuilder, Refused> {
        self.guard.check(&url)?;
        Ok(self.http.request(method, url))
    }
}

/// The IPv4 address that an IPv6 one leads to: mapped, NAT64 (RFC 6052), 6to4.
fn embedded_v4(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(address) = address else { return None };
    let [a, b, c, d, e, f, g, h] = address.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match (a, b, c, d, e, f) {
        (0, 0, 0, 0, 0, 0xffff) | (0x64, 0xff9b, 0, 0, 0, 0) => Some(v4(g, h)),
        (0x2002, ..) => Some(v4(b, c)),
        _ => None,
    }
}

/// Networks of IPv4 that are not the public internet, by IANA's registry of special addresses.
const NOT_PUBLIC_V4: &[(Ipv4Addr, u8)] = &[
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    // Carrier-grade NAT, and the metadata service of one cloud.
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    // The host's own agent at one cloud, although the address is a public one.
    (Ipv4Addr::new(168, 63, 129, 16), 32),
    // Link-local, and the metadata services of the other clouds.
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    // Multicast, reserved, broadcast.
    (Ipv4Addr::new(224, 0, 0, 0), 3),
];

/// Within the one block of IPv6 that is public: protocols (Teredo among them), examples.
const NOT_PUBLIC_V6: &[(Ipv6Addr, u8)] = &[
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let bits = u32::from(address);
            !NOT_PUBLIC_V4.iter().any(|(network, length)| {
                (bits ^ u32::from(*network)).leading_zeros() >= u32::from(*length)
            })
        }
        IpAddr::V6(address) => {
            let bits = u128::from(address);
            bits >> 125 == 1
                && !NOT_PUBLIC_V6.iter().any(|(network, length)| {
                    (bits ^ u128::from(*network)).leading_zeros() >= u32::from(*length)
                })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_allowed_in_whatever_form_they_come() {
        let guard = Guard::new([]);
        for address in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "100.100.100.200",
            "127.0.0.1",
            "127.255.0.9",
            "168.63.129.16",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.168.1.1",
            "198.19.0.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2002:a9fe:a9fe::1",
            "2001::1",
            "2001:db8::1",
            "3fff::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "100::1",
            "5f00::1",
        ] {
            assert!(!guard.allows(address.parse().unwrap()), "{address}");
        }
        for address in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "223.255.255.255",
            "::ffff:1.1.1.1",
            "64:ff9b::101:101",
            "2002:101:101::1",
            "2606:4700::1111",
            "2a00:1450::1",
            "2001:200::1",
        ] {
            assert!(guard.allows(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn what_the_operator_allows_is_allowed_in_every_form_and_nothing_beside_it() {
        let guard = Guard::new(["10.1.0.0/16".parse().unwrap(), "fd00:1::/64".parse().unwrap()]);
        for address in ["10.1.2.3", "::ffff:10.1.2.3", "64:ff9b::a01:203", "fd00:1::5"] {
            assert!(guard.allows(address.parse().unwrap()), "{address}");
        }
        for address in ["10.2.0.1", "127.0.0.1", "fd00:1:0:1::5"] {
            assert!(!guard.allows(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn an_address_is_known_in_all_its_spellings() {
        let guard = Guard::new([]);
        for url in [
            "http://127.0.0.1/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://0177.0.0.1:81/",
            "https://[::1]/",
            "https://[::ffff:10.0.0.1]/",
            "http://169.254.169.254/latest",
            "http://127.1/",
            "http://0/",
        ] {
            let refused = guard.check(&url.parse().unwrap()).unwrap_err();
            assert!(matches!(refused, Refused::Private(_)), "{url}");
        }
        assert_eq!(guard.check(&"ftp://1.1.1.1/".parse().unwrap()), Err(Refused::NotHttp));
        assert_eq!(guard.check(&"https://1.1.1.1/".parse().unwrap()), Ok(()));
        assert_eq!(guard.check(&"https://example.com/".parse().unwrap()), Ok(()));
    }
}
