//! Passkeys: asking for one, judging what comes back.
//!
//! Every ceremony asks that the key verify its person (a PIN, a finger), so that a passkey is two factors
//! in one touch. RS256 is not accepted: the verifier would, but its RSA is the one dependency with an
//! advisory, and no key that we meet needs it.

use webauthn_rs::prelude::{
    AuthenticationResult, COSEAlgorithm, COSEKeyType, CreationChallengeResponse, CredentialID, DiscoverableAuthentication, Passkey,
    PasskeyAuthentication, PasskeyRegistration, PublicKeyCredential, RegisterPublicKeyCredential, RequestChallengeResponse, Url, Uuid,
    Webauthn, WebauthnBuilder, WebauthnError,
};

use super::Person;
use crate::console::ConsoleOptions;

/// Why a passkey was not accepted: for the log, never for whoever presented it.
#[derive(Debug, thiserror::Error)]
pub(in crate::console) enum PasskeyError {
    #[error("the verifier refused it")]
    Verifier(#[from] WebauthnError),
    #[error("its algorithm is {0}; only ES256 and ES384 are accepted")]
    Algorithm(String),
    #[error("it did not verify its person")]
    NotVerified,
    #[error("the ceremony is unknown, answered already, or too old")]
    NoCeremony,
    #[error("the ceremony belongs to another session")]
    OtherSession,
    #[error("there is no such passkey, or it was revoked")]
    Unknown,
    #[error("its person is not an active officer")]
    NotAnOfficer,
    #[error("the link was used, ended or is too old")]
    Invitation,
}

impl PasskeyError {
    /// Whether the key's counter went back, as that of a copied key does.
    pub(in crate::console) fn is_copied_key(&self) -> bool {
        matches!(self, Self::Verifier(WebauthnError::CredentialPossibleCompromise))
    }
}

/// The verifier of our origin.
pub(in crate::console) fn verifier(options: &ConsoleOptions) -> Result<Webauthn, WebauthnError> {
    let origin = Url::parse(options.origin()).map_err(|_| WebauthnError::InvalidRPOrigin)?;
    WebauthnBuilder::new(options.rp_id(), &origin)?.rp_name("amanatd").build()
}

/// Asks a browser for a new passkey that needs no user name later.
pub(in crate::console) fn ask_new(
    verifier: &Webauthn,
    person: &Person,
    known: Vec<CredentialID>,
) -> Result<(serde_json::Value, PasskeyRegistration), PasskeyError> {
    let name = person.email.as_deref().unwrap_or(&person.name);
    let (asked, state) = verifier.start_passkey_registration(person.id.0, name, &person.name, Some(known))?;
    Ok((discoverable(&asked), state))
}

/// The verifier's question with what it does not ask by itself: a key that is found without a user name,
/// and no algorithm that we would refuse afterwards.
fn discoverable(asked: &CreationChallengeResponse) -> serde_json::Value {
    let mut asked = serde_json::to_value(asked).unwrap_or_default();
    let options = &mut asked["publicKey"];
    options["authenticatorSelection"]["residentKey"] = "required".into();
    options["authenticatorSelection"]["requireResidentKey"] = true.into();
    if let Some(algorithms) = options["pubKeyCredParams"].as_array_mut() {
        algorithms.retain(|algorithm| algorithm["alg"] == -7 || algorithm["alg"] == -35);
    }
    asked
}

pub(in crate::console) fn check_new(
    verifier: &Webauthn,
    answer: &RegisterPublicKeyCredential,
    state: &PasskeyRegistration,
) -> Result<Passkey, PasskeyError> {
    let passkey = verifier.finish_passkey_registration(answer, state)?;
    check_algorithm(&passkey)?;
    Ok(passkey)
}

/// Asks whoever is there for any passkey of ours.
pub(in crate::console) fn ask_anybody(verifier: &Webauthn) -> Result<(RequestChallengeResponse, DiscoverableAuthentication), PasskeyError> {
    let (mut asked, state) = verifier.start_discoverable_authentication()?;
    // A button asks for it, not a text field.
    asked.mediation = None;
    Ok((asked, state))
}

/// Whose passkey an answer claims to be: nothing is believed of it yet.
pub(in crate::console) fn claimed(verifier: &Webauthn, answer: &PublicKeyCredential) -> Result<(Uuid, String), PasskeyError> {
    let (user, credential) = verifier.identify_discoverable_authentication(answer)?;
    Ok((user, key_id(credential)))
}

/// Asks one person, with their own passkeys.
pub(in crate::console) fn ask_person(
    verifier: &Webauthn,
    passkeys: &[Passkey],
) -> Result<(RequestChallengeResponse, PasskeyAuthentication), PasskeyError> {
    Ok(verifier.start_passkey_authentication(passkeys)?)
}

/// What was asked, of anybody or of one person.
#[derive(Debug)]
pub(in crate::console) enum Asked {
    Anybody(DiscoverableAuthentication),
    Person(PasskeyAuthentication),
}

/// Judges an answer against the passkey as it is stored; the passkey comes back with its new counter.
pub(in crate::console) fn check(
    verifier: &Webauthn,
    answer: &PublicKeyCredential,
    asked: Asked,
    mut passkey: Passkey,
) -> Result<Passkey, PasskeyError> {
    check_algorithm(&passkey)?;
    let result: AuthenticationResult = match asked {
        Asked::Anybody(state) => verifier.finish_discoverable_authentication_v2(answer, state, &passkey)?,
        Asked::Person(state) => {
            // The ceremony holds the passkeys as they were when it began. The counter that was stored since
            // counts too.
            let result = verifier.finish_passkey_authentication(answer, &state)?;
            let stored = counter_of(&passkey);
            if stored > 0 && result.counter() <= stored {
                return Err(WebauthnError::CredentialPossibleCompromise.into());
            }
            result
        }
    };
    if !result.user_verified() {
        return Err(PasskeyError::NotVerified);
    }
    // `None` is a passkey that the answer is not of.
    passkey.update_credential(&result).ok_or(PasskeyError::Unknown)?;
    Ok(passkey)
}

fn check_algorithm(passkey: &Passkey) -> Result<(), PasskeyError> {
    match passkey.cred_algorithm() {
        COSEAlgorithm::ES256 | COSEAlgorithm::ES384 => Ok(()),
        other => Err(PasskeyError::Algorithm(format!("{other:?}"))),
    }
}

/// How a passkey is named in `user_passkeys`.
pub(in crate::console) fn key_id(credential: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(credential)
}

/// The public point, uncompressed (SEC1).
pub(in crate::console) fn public_point(passkey: &Passkey) -> Vec<u8> {
    match &passkey.get_public_key().key {
        COSEKeyType::EC_EC2(point) => {
            let (x, y): (&[u8], &[u8]) = (point.x.as_ref(), point.y.as_ref());
            [&[4], x, y].concat()
        }
        // Refused before it is stored.
        _ => Vec::new(),
    }
}

/// Uses so far, as the key counts them; synchronised passkeys stay at 0.
pub(in crate::console) fn counter_of(passkey: &Passkey) -> u32 {
    let counter = serde_json::to_value(passkey).ok().and_then(|value| value["cred"]["counter"].as_u64());
    counter.and_then(|counter| u32::try_from(counter).ok()).unwrap_or(0)
}
