//! Where the console is: its origin, which passkeys are bound to, and whether it listens apart.

use std::net::SocketAddr;

use webauthn_rs::prelude::Url;

/// Checked options.
#[derive(Clone, Debug)]
pub struct ConsoleOptions {
    origin: String,
    rp_id: String,
    /// An address of its own; without it, the API's.
    pub listen: Option<SocketAddr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.remedy())]
pub enum ConsoleOptionsError {
    Form,
    NotSecure,
    Number,
    RelyingParty,
}

impl ConsoleOptionsError {
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::Form => "use scheme and host as officers' browsers show them, without a path, such as https://custody.example.com",
            Self::NotSecure => "use https; passkeys serve over http on localhost only",
            Self::Number => "use a name; passkeys are not bound to an address of numbers",
            Self::RelyingParty => "use the origin's host or a domain above it",
        }
    }
}

impl ConsoleOptions {
    /// The relying party's id is the origin's host if it is not given.
    pub fn new(origin: &str, rp_id: Option<&str>) -> Result<Self, ConsoleOptionsError> {
        let url = Url::parse(origin).map_err(|_| ConsoleOptionsError::Form)?;
        // As a browser writes an origin: no path, nobody's name, no default port, lower case.
        if url.origin().ascii_serialization() != origin {
            return Err(ConsoleOptionsError::Form);
        }
        let host = url.domain().ok_or(ConsoleOptionsError::Number)?.to_owned();
        let local = host == "localhost" || host.ends_with(".localhost");
        match url.scheme() {
            "https" => {}
            "http" if local => {}
            _ => return Err(ConsoleOptionsError::NotSecure),
        }
        let rp_id = rp_id.unwrap_or(&host);
        let above = host.strip_suffix(rp_id).is_some_and(|before| before.is_empty() || before.ends_with('.'));
        if !above || rp_id.is_empty() || (!local && !rp_id.contains('.')) {
            return Err(ConsoleOptionsError::RelyingParty);
        }
        Ok(Self { origin: origin.to_owned(), rp_id: rp_id.to_owned(), listen: None })
    }

    pub fn origin(&self) -> &str {
        &self.origin
    }

    pub fn rp_id(&self) -> &str {
        &self.rp_id
    }

    pub(super) fn is_secure(&self) -> bool {
        self.origin.starts_with("https://")
    }

    /// What a browser that is where it should be sends as `Host`.
    pub(super) fn authority(&self) -> &str {
        self.origin.split_once("://").map_or("", |(_, authority)| authority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn z7_an_origin_is_a_name_over_tls_or_this_machine() {
        let of = |origin: &str, rp_id| ConsoleOptions::new(origin, rp_id).map(|options| options.rp_id);
        assert_eq!(of("https://custody.example.com", None).as_deref(), Ok("custody.example.com"));
        assert_eq!(of("https://custody.example.com:8443", Some("example.com")).as_deref(), Ok("example.com"));
        assert_eq!(of("http://localhost:8700", None).as_deref(), Ok("localhost"));
        use ConsoleOptionsError as E;
        for (origin, rp_id, error) in [
            ("custody.example.com", None, E::Form),
            ("https://custody.example.com/", None, E::Form),
            ("https://custody.example.com:443", None, E::Form),
            ("https://Custody.example.com", None, E::Form),
            ("https://a@custody.example.com", None, E::Form),
            ("https://custody.example.com/console", None, E::Form),
            ("http://custody.example.com", None, E::NotSecure),
            ("ftp://localhost", None, E::NotSecure),
            ("http://127.0.0.1:8700", None, E::Number),
            ("https://[::1]", None, E::Number),
            ("https://custody.example.com", Some("xample.com"), E::RelyingParty),
            ("https://custody.example.com", Some("com"), E::RelyingParty),
            ("https://custody.example.com", Some(""), E::RelyingParty),
            ("https://custody.example.com", Some("other.example"), E::RelyingParty),
        ] {
            assert_eq!(of(origin, rp_id), Err(error), "{origin} {rp_id:?}");
        }
    }
}
