//! Signatures of Standard Webhooks: HMAC-SHA256 over id, time and body. Pure.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

/// How many random bytes a new secret has; the standard allows 24 to 64.
pub const SECRET_BYTES: usize = 32;
const PREFIX: &str = "whsec_";

/// What sender and receiver share. It proves who sent a webhook; no money moves by it.
#[derive(Clone)]
pub struct SigningSecret(Zeroizing<Vec<u8>>);

impl SigningSecret {
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// As the receiver's library takes it. Shown once, when it is made.
    pub fn expose(&self) -> String {
        format!("{PREFIX}{}", STANDARD.encode(self.0.as_slice()))
    }

    /// `v1,` and the base64 of the code.
    fn sign(&self, content: &str) -> String {
        let mut code = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        code.update(content.as_bytes());
        format!("v1,{}", STANDARD.encode(code.finalize().into_bytes()))
    }
}

impl std::fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SigningSecret(hidden)")
    }
}

/// The header `webhook-signature`: one signature for each secret, the newest first.
pub(super) fn header(secrets: &[SigningSecret], id: &str, unix_seconds: i64, body: &str) -> String {
    let content = format!("{id}.{unix_seconds}.{body}");
    secrets.iter().map(|secret| secret.sign(&content)).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example that the standard's own libraries are tested with.
    #[test]
    fn y6_the_standards_example_signs_as_it_says() {
        let secret = SigningSecret::new(STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap());
        let signed = header(&[secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, r#"{"test": 2432232314}"#);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn y6_while_a_secret_is_replaced_both_sign() {
        let (old, new) = (SigningSecret::new(vec![1; 32]), SigningSecret::new(vec![2; 32]));
        let both = header(&[new.clone(), old.clone()], "msg_1", 7, "{}");
        assert_eq!(both, format!("{} {}", header(&[new], "msg_1", 7, "{}"), header(&[old], "msg_1", 7, "{}")));
    }

    #[test]
    fn y7_a_secret_does_not_print_itself() {
        assert_eq!(format!("{:?}", SigningSecret::new(vec![7; 32])), "SigningSecret(hidden)");
        assert!(SigningSecret::new(vec![7; 32]).expose().starts_with("whsec_Bwc"));
    }
}
