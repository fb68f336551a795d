//! Where a request comes from. A forwarding header is what anybody may write: only what a trusted proxy
//! added to it counts.

use std::net::IpAddr;

use http::HeaderMap;
use ipnet::IpNet;
use loom_core::config::Env;

/// The proxies in front of this server, and the header that they keep.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    trusted: Vec<IpNet>,
    header: Header,
}

/// One of them: a proxy that keeps the one hands on what the client wrote into the other.
#[derive(Clone, Copy, Debug, Default)]
enum Header {
    #[default]
    XForwardedFor,
    Forwarded,
}

impl Proxies {
    pub(crate) fn load(env: &mut Env) -> Self {
        let name = "LOOM_SERVER_TRUSTED_PROXIES";
        let mut trusted = Vec::new();
        for item in env.list(name) {
            match network(&item) {
                Some(network) => trusted.push(network),
                None => env.problem(
                    name,
                    format!("`{item}` is neither an address nor a network, as 10.0.0.0/8"),
                ),
            }
        }
        let header = env.choice(
            "LOOM_SERVER_FORWARDED_HEADER",
            "x-forwarded-for",
            &[("x-forwarded-for", Header::XForwardedFor), ("forwarded", Header::Forwarded)],
        );
        Self { trusted, header: header.unwrap_or_default() }
    }

    /// The right-most hop that is no trusted proxy; the peer, unless that is one.
    pub(crate) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        // A dual-stack socket shows an IPv4 peer as an IPv6 one.
        let mut client = peer.to_canonical();
        if !self.trusts(client) {
            return client;
        }
        let name = match self.header {
            Header::XForwardedFor => "x-forwarded-for",
            Header::Forwarded => "forwarded",
        };
        let lines: Vec<&str> =
            headers.get_all(name).iter().map(|line| line.to_str().unwrap_or_default()).collect();
        let hops = lines.iter().rev().flat_map(|line| line.rsplit(','));
        for hop in hops {
            let hop = match self.header {
                Header::XForwardedFor => address(hop),
                Header::Forwarded => forwarded_for(hop).and_then(address),
            };
            // `unknown`, a name, nonsense: whoever is before it is the last that we know.
            let Some(hop) = hop else { break };
            client = hop;
            if !self.trusts(client) {
                break;
            }
        }
        client
    }

    fn trusts(&self, ip: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(&ip))
    }
}

fn network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

/// `192.0.2.1`, `192.0.2.1:4711`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:4711`.
fn address(hop: &str) -> Option<IpAddr> {
    let hop = hop.trim().trim_matches('"');
    let bare = match hop.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?.0,
        None => match hop.split_once(':') {
            Some((v4, port)) if !port.contains(':') => v4,
            _ => hop,
        },
    };
    bare.parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
}

/// The `for` of one element of `Forwarded` (RFC 7239).
fn forwarded_for(element: &str) -> Option<&str> {
    element.split(';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(header: Header) -> Proxies {
        let trusted = ["10.0.0.0/8", "2001:db8:ffff::/48", "127.0.0.1"];
        Proxies { trusted: trusted.iter().map(|text| network(text).unwrap()).collect(), header }
    }

    fn client(proxies: &Proxies, peer: &str, lines: &[(&'static str, &str)]) -> String {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        proxies.client(peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn a_peer_that_is_no_trusted_proxy_is_the_client_whatever_it_writes() {
        let lines = [("x-forwarded-for", "198.51.100.7"), ("forwarded", "for=198.51.100.7")];
        assert_eq!(client(&proxies(Header::XForwardedFor), "192.0.2.1", &lines), "192.0.2.1");
        assert_eq!(client(&Proxies::default(), "127.0.0.1", &lines), "127.0.0.1");
        assert_eq!(client(&Proxies::default(), "::ffff:192.0.2.1", &lines), "192.0.2.1");
    }

    #[test]
    fn the_right_most_hop_that_is_not_trusted_counts() {
        let proxies = proxies(Header::XForwardedFor);
        for (value, expected) in [
            ("198.51.100.7", "198.51.100.7"),
            // The client wrote the first one itself.
            ("1.2.3.4, 198.51.100.7", "198.51.100.7"),
            ("1.2.3.4,198.51.100.7 , 10.2.3.4", "198.51.100.7"),
            ("198.51.100.7:4711", "198.51.100.7"),
            ("2001:db8::5", "2001:db8::5"),
            ("[2001:db8::5]:4711", "2001:db8::5"),
            ("2001:db8::5, 2001:db8:ffff::1", "2001:db8::5"),
            ("::ffff:198.51.100.7", "198.51.100.7"),
            // All of them ours: the farthest.
            ("10.9.9.9, 10.2.3.4", "10.9.9.9"),
            ("198.51.100.7, unknown, 10.2.3.4", "10.2.3.4"),
            ("198.51.100.7, evil", "10.0.0.1"),
            ("", "10.0.0.1"),
        ] {
            let found = client(&proxies, "10.0.0.1", &[("x-forwarded-for", value)]);
            assert_eq!(found, expected, "{value}");
        }
        let lines = [("x-forwarded-for", "1.2.3.4"), ("x-forwarded-for", "198.51.100.7")];
        assert_eq!(client(&proxies, "10.0.0.1", &lines), "198.51.100.7");
    }

    #[test]
    fn the_header_that_is_not_kept_by_the_proxy_is_not_believed() {
        let lines = [("x-forwarded-for", "1.2.3.4"), ("forwarded", "for=5.6.7.8")];
        assert_eq!(client(&proxies(Header::XForwardedFor), "127.0.0.1", &lines), "1.2.3.4");
        assert_eq!(client(&proxies(Header::Forwarded), "127.0.0.1", &lines), "5.6.7.8");
    }

    #[test]
    fn forwarded_is_read_as_rfc_7239_writes_it() {
        let proxies = proxies(Header::Forwarded);
        for (value, expected) in [
            ("for=198.51.100.7;proto=https;by=10.0.0.1", "198.51.100.7"),
            ("proto=https; For=\"[2001:db8::5]:4711\"", "2001:db8::5"),
            ("for=1.2.3.4, for=198.51.100.7, for=10.1.1.1", "198.51.100.7"),
            ("for=_hidden", "127.0.0.1"),
            ("proto=https", "127.0.0.1"),
        ] {
            let found = client(&proxies, "127.0.0.1", &[("forwarded", value)]);
            assert_eq!(found, expected, "{value}");
        }
    }
}
