//! Which addresses a webhook may reach: those of the public internet, over HTTPS, and what the operator allows
//! besides. Whoever names an endpoint must not be able to make the daemon call its own network. Pure.

use std::net::IpAddr;

use ipnet::IpNet;
use reqwest::Url;

/// Networks of IPv4 that are not the public internet (IANA IPv4 Special-Purpose Address Registry, with
/// multicast and the old class E).
const V4: [&str; 15] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
];
/// All that is given out of IPv6 for the public internet, and what in it is not (IANA IPv6 Special-Purpose
/// Address Registry): protocol assignments with Teredo, documentation, 6to4.
const V6_GLOBAL: &str = "2000::/3";
const V6: [&str; 4] = ["2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"];

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GuardError {
    #[error("url {0:?} is not of the form https://host/path")]
    Form(String),
    #[error("url {0:?}: leave user name and password out; deliveries are signed")]
    Credentials(String),
    #[error("url {0:?}: use https; http is only for networks in webhooks.allowed_networks")]
    Plain(String),
    #[error("{0} is not an address of the public internet; if it is meant, list its network in webhooks.allowed_networks")]
    Private(IpAddr),
}

/// What the operator allows besides the public internet.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    allowed: Vec<IpNet>,
}

impl Guard {
    pub fn new(allowed: Vec<IpNet>) -> Self {
        Self { allowed }
    }

    /// Checks a URL as it is written: its form, and its host where that is an address. A host's name is
    /// checked by its addresses each time it is called.
    pub fn read(&self, text: &str) -> Result<Url, GuardError> {
        let shown = || text.chars().take(200).collect::<String>();
        let url = Url::parse(text).map_err(|_| GuardError::Form(shown()))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() || text.len() > 2_000 {
            return Err(GuardError::Form(shown()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(GuardError::Credentials(url.host_str().unwrap_or_default().to_owned()));
        }
        if url.scheme() == "http" && self.allowed.is_empty() {
            return Err(GuardError::Plain(shown()));
        }
        if let Some(address) = literal(&url) {
            self.check(address, url.scheme() == "https")?;
        }
        Ok(url)
    }

    /// Whether an address may be called.
    pub fn check(&self, address: IpAddr, tls: bool) -> Result<(), GuardError> {
        let address = address.to_canonical();
        if self.allowed.iter().any(|network| network.contains(&address)) {
            return Ok(());
        }
        if !is_public(address) {
            return Err(GuardError::Private(address));
        }
        if tls { Ok(()) } else { Err(GuardError::Plain(address.to_string())) }
    }
}

/// The address that a URL names instead of a host, if it does.
fn literal(url: &Url) -> Option<IpAddr> {
    url.host_str()?.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

fn is_public(address: IpAddr) -> bool {
    let inside =
        |networks: &[&str]| networks.iter().any(|network| network.parse::<IpNet>().is_ok_and(|network| network.contains(&address)));
    match address {
        IpAddr::V4(_) => !inside(&V4),
        IpAddr::V6(_) => inside(&[V6_GLOBAL]) && !inside(&V6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn z_ssrf_only_the_public_internet_is_reached() {
        let guard = Guard::default();
        for good in ["https://shop.example/hooks?x=1", "https://93.184.216.34/", "https://[2606:2800:220:1::1]:8443/x"] {
            assert!(guard.read(good).is_ok(), "{good}");
        }
        for private in [
            "https://127.0.0.1/",
            "https://127.1/",
            "https://0x7f000001/",
            "https://2130706433/",
            "https://10.1.2.3/",
            "https://172.31.0.1/",
            "https://192.168.1.1/",
            "https://169.254.169.254/latest/meta-data",
            "https://100.100.100.200/",
            "https://0.0.0.0/",
            "https://[::1]/",
            "https://[::]/",
            "https://[fe80::1]/",
            "https://[fd00:ec2::254]/",
            "https://[::ffff:127.0.0.1]/",
            "https://[64:ff9b::7f00:1]/",
            "https://[2002:7f00:1::]/",
            "https://[2001::1]/",
            "https://[ff02::1]/",
            "https://224.0.0.1/",
            "https://255.255.255.255/",
            "https://198.18.0.1/",
        ] {
            assert!(matches!(guard.read(private), Err(GuardError::Private(_))), "{private}: {:?}", guard.read(private));
        }
        assert!(matches!(guard.read("http://shop.example/"), Err(GuardError::Plain(_))));
        assert!(matches!(guard.read("https://user:secret@shop.example/"), Err(GuardError::Credentials(_))));
        for bad in ["", "shop.example", "ftp://shop.example/", "https://", "file:///etc/passwd", "https:///x"] {
            let read = guard.read(bad);
            // `https:///x` is read as the host x by the URL standard.
            assert!(read.is_err() || read.as_ref().is_ok_and(|url| url.host_str() == Some("x")), "{bad}: {read:?}");
        }
    }

    #[test]
    fn z_ssrf_an_allowed_network_is_reached_in_the_clear_and_no_other_is() {
        let guard = Guard::new(vec!["127.0.0.0/8".parse().unwrap()]);
        assert!(guard.read("http://127.0.0.1:8080/").is_ok());
        assert!(guard.read("http://[::ffff:127.0.0.1]/").is_ok());
        assert!(matches!(guard.read("http://10.0.0.1/"), Err(GuardError::Private(_))));
        assert!(matches!(guard.read("http://93.184.216.34/"), Err(GuardError::Plain(_))));
        // A name in the clear: its addresses are looked at when it is called.
        assert!(guard.read("http://localhost/").is_ok());
        assert!(matches!(guard.check("93.184.216.34".parse().unwrap(), false), Err(GuardError::Plain(_))));
    }

    #[test]
    fn every_network_of_the_lists_is_one() {
        for network in V4.iter().chain(&V6).chain([&V6_GLOBAL]) {
            assert!(network.parse::<IpNet>().is_ok(), "{network}");
        }
    }
}
