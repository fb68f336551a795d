//! Addresses of people: kept, cut to their network, or left out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::{Value, json};

use super::{MARK, settings::Ip};

/// `{{auto}}` as the user's address is the one that the event came from.
pub(crate) fn fill(event: &mut Value, client: Option<IpAddr>) {
    let Some(of) = event.as_object_mut() else { return };
    let asked = of
        .get("user")
        .and_then(|user| user.get("ip_address"))
        .map(|ip| ip.as_str().is_some_and(|ip| ip.trim() == "{{auto}}"));
    // Browsers' SDKs leave it out, and say so.
    let inferred = || {
        of.get("sdk").and_then(|sdk| sdk.pointer("/settings/infer_ip")).and_then(Value::as_str)
            == Some("auto")
    };
    if !asked.unwrap_or_else(inferred) {
        return;
    }
    let user = of.entry("user").or_insert_with(|| json!({}));
    if user.is_null() {
        *user = json!({});
    }
    let Some(user) = user.as_object_mut() else { return };
    match client {
        Some(client) => user.insert("ip_address".to_owned(), client.to_string().into()),
        None => user.remove("ip_address"),
    };
}

/// Is a field of this name an address of somebody?
pub(super) fn is_name(name: &str) -> bool {
    const NAMES: &[&str] = &[
        "ip_address",
        "ip",
        "remote_addr",
        "remote-addr",
        "client_ip",
        "x-forwarded-for",
        "x-real-ip",
        "x-client-ip",
        "cf-connecting-ip",
        "true-client-ip",
        "fly-client-ip",
        "forwarded",
        "http_x_forwarded_for",
        "http_x_real_ip",
        "http_forwarded",
    ];
    NAMES.iter().any(|other| other.eq_ignore_ascii_case(name))
}

impl Ip {
    /// None: it stays as it is.
    pub(super) fn apply(self, text: &str) -> Option<Value> {
        match self {
            Self::Keep => None,
            Self::Drop => (text != MARK && !text.is_empty()).then(|| Value::from(MARK)),
            Self::Anonymise => {
                let parts: Vec<_> = text.split(',').map(|part| anonymous(part.trim())).collect();
                let all = parts.join(", ");
                (all != text).then(|| Value::from(all))
            }
        }
    }

    /// Of a text that is nothing but an address.
    pub(super) fn whole(self, text: &str) -> Option<Value> {
        if self == Self::Keep || text.len() > 45 {
            return None;
        }
        text.parse::<IpAddr>().ok()?;
        self.apply(text)
    }
}

/// Of the network only: 24 bits of version 4, 48 of version 6. What is no address is masked.
fn anonymous(text: &str) -> String {
    let bare = text.parse().or_else(|_| {
        let host = text.rsplit_once(':').map_or(text, |(host, _)| host);
        host.trim_matches(['[', ']']).parse()
    });
    match bare {
        Ok(IpAddr::V4(ip)) => v4(ip).to_string(),
        Ok(IpAddr::V6(ip)) => match ip.to_ipv4_mapped() {
            Some(ip) => v4(ip).to_string(),
            None => {
                let bits = ip.to_bits() & (u128::MAX << 80);
                Ipv6Addr::from_bits(bits).to_string()
            }
        },
        Err(_) if text.is_empty() => String::new(),
        Err(_) => MARK.to_owned(),
    }
}

fn v4(ip: Ipv4Addr) -> Ipv4Addr {
    Ipv4Addr::from_bits(ip.to_bits() & 0xffff_ff00)
}
