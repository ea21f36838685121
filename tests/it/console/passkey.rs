//! A security key as a browser would speak to it, in memory: P-256, a counter, and faults on demand.

use std::sync::atomic::{AtomicU32, Ordering};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as URL;
use p256::ecdsa::signature::Signer;
use p256::ecdsa::{Signature, SigningKey};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const PRESENT: u8 = 0x01;
const VERIFIED: u8 = 0x04;
const ATTESTED: u8 = 0x40;

pub(crate) struct SoftKey {
    key: SigningKey,
    id: Vec<u8>,
    user: Vec<u8>,
    counter: AtomicU32,
}

/// What goes wrong with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// The person was present and not verified.
    Unverified,
    /// The page that asked was another one.
    Origin,
    /// The signature is over something else.
    Signature,
    /// The counter is the one of its first use.
    Counter,
    /// Another challenge is answered.
    Challenge,
}

impl SoftKey {
    /// A key made for a question, and the answer that enrols it.
    pub(crate) fn enrol(options: &Value, origin: &str, fault: Fault) -> (Self, Value) {
        let mut random = [0; 48];
        getrandom::fill(&mut random).unwrap();
        let key = SigningKey::from_slice(&random[..32]).unwrap();
        let options = &options["publicKey"];
        let user = URL.decode(options["user"]["id"].as_str().unwrap()).unwrap();
        let made = Self { key, id: random[32..].to_vec(), user, counter: AtomicU32::new(1) };
        let point = made.key.verifying_key().to_sec1_point(false);
        let point = point.as_bytes();
        // EC2, ES256, P-256, x, y.
        let mut cose = vec![0xa5, 0x01, 0x02, 0x03, 0x26, 0x20, 0x01, 0x21, 0x58, 0x20];
        cose.extend_from_slice(&point[1..33]);
        cose.extend_from_slice(&[0x22, 0x58, 0x20]);
        cose.extend_from_slice(&point[33..65]);
        let flags = ATTESTED | flags(fault);
        let mut data = made.head(options["rp"]["id"].as_str().unwrap(), flags, 1);
        data.extend_from_slice(&[0; 16]);
        data.extend_from_slice(&u16::try_from(made.id.len()).unwrap().to_be_bytes());
        data.extend_from_slice(&made.id);
        data.extend_from_slice(&cose);
        // {"fmt": "none", "attStmt": {}, "authData": …}
        let mut object = vec![0xa3, 0x63];
        object.extend_from_slice(b"fmt\x64none\x67attStmt\xa0\x68authData");
        object.extend_from_slice(&[0x58, u8::try_from(data.len()).unwrap()]);
        object.extend_from_slice(&data);
        let client = client_data("webauthn.create", options, origin, fault);
        let answer = json!({
            "id": URL.encode(&made.id), "rawId": URL.encode(&made.id), "type": "public-key", "extensions": {},
            "response": { "attestationObject": URL.encode(object), "clientDataJSON": URL.encode(client) },
        });
        (made, answer)
    }

    /// The answer to a question.
    pub(crate) fn answer(&self, options: &Value, origin: &str, fault: Fault) -> Value {
        let options = &options["publicKey"];
        let counter = match fault {
            Fault::Counter => 1,
            _ => self.counter.fetch_add(1, Ordering::Relaxed) + 1,
        };
        let data = self.head(options["rpId"].as_str().unwrap(), flags(fault), counter);
        let client = client_data("webauthn.get", options, origin, fault);
        let mut signed = data.clone();
        signed.extend_from_slice(&Sha256::digest(client.as_bytes()));
        if fault == Fault::Signature {
            signed.push(0);
        }
        let signature: Signature = self.key.sign(&signed);
        json!({
            "id": URL.encode(&self.id), "rawId": URL.encode(&self.id), "type": "public-key", "extensions": {},
            "response": {
                "authenticatorData": URL.encode(data), "clientDataJSON": URL.encode(client),
                "signature": URL.encode(signature.to_der().as_bytes()), "userHandle": URL.encode(&self.user),
            },
        })
    }

    fn head(&self, relying_party: &str, flags: u8, counter: u32) -> Vec<u8> {
        let mut data = Sha256::digest(relying_party.as_bytes()).to_vec();
        data.push(flags);
        data.extend_from_slice(&counter.to_be_bytes());
        data
    }
}

fn flags(fault: Fault) -> u8 {
    if fault == Fault::Unverified { PRESENT } else { PRESENT | VERIFIED }
}

fn client_data(kind: &str, options: &Value, origin: &str, fault: Fault) -> String {
    let origin = if fault == Fault::Origin { "https://evil.example" } else { origin };
    let challenge = if fault == Fault::Challenge { URL.encode([7; 32]) } else { options["challenge"].as_str().unwrap().to_owned() };
    json!({ "type": kind, "challenge": challenge, "origin": origin, "crossOrigin": false }).to_string()
}
