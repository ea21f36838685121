//! What becomes of an intent after the device answered: its bytes go to the daemon, or the intent goes back.

use std::time::Duration;

use super::super::console::{legible, say};
use super::{Outcome, RoundError, Station, is_over};
use crate::api::ClientError;
use crate::api::wire::DeclineIntent;
use crate::intent::Intent;
use crate::signing::{DeviceError, SignedTx};
use crate::units::{Disposition, IntentId};

/// A person pressed for these bytes, so they are handed in more than once: within about 30 s, plus what the
/// client waits for each answer.
const ATTEMPTS: u32 = 6;
const PAUSE_MIN: Duration = Duration::from_secs(1);

impl Station {
    /// Hands the bytes in. Each attempt is the same call: same bytes, same key.
    pub(super) async fn deliver(&self, intent: &Intent, signed: &SignedTx) -> Outcome {
        let key = format!("signature-{}-{}", intent.id, signed.hash());
        let mut pause = PAUSE_MIN;
        let mut attempt = 1;
        // Ends with an answer, or after the last attempt.
        loop {
            let error = match self.client.submit_signature(intent.id, signed.raw().clone(), &key).await {
                Ok(done) => {
                    say(format!("signed: {} is {}, tx {}", intent.kind.name(), legible(&done.state), signed.hash()));
                    return Outcome::Signed;
                }
                Err(error) => error,
            };
            let reason = legible(&error.to_string());
            if !error.is_retryable() {
                say(format!("intent {}: {reason}. Its signature, tx {}, is not with the daemon", intent.id, signed.hash()));
                return Outcome::Unfinished;
            }
            if attempt == ATTEMPTS {
                say(format!(
                    "intent {}: its signature could not be handed in ({reason}). Running again finishes it: the same fields give the same bytes",
                    intent.id
                ));
                return Outcome::Unfinished;
            }
            tracing::warn!(intent.id = %intent.id, tx.hash = %signed.hash(), attempt, "the signature was not taken, trying again: {reason}");
            tokio::time::sleep(pause).await;
            pause *= 2;
            attempt += 1;
        }
    }

    /// An intent that certainly has no signature goes back; one that may have one stays with this station.
    pub(super) async fn not_signed(&self, id: IntentId, error: DeviceError) -> Result<Outcome, RoundError> {
        let reason = legible(&error.to_string());
        let comes_again = error.may_have_signed()
            || error.disposition() == Disposition::Retry
            || matches!(error, DeviceError::TimedOut { .. } | DeviceError::Cancelled { .. });
        if error.may_have_signed() {
            say(format!("intent {id}: {reason}. A signature may exist: it stays with this station; running again finishes it"));
        } else {
            let back = match self.client.decline(id, &DeclineIntent::of(&self.name, &error.to_string())).await {
                Ok(_) => "it is back in the queue".to_owned(),
                Err(ClientError::Refused(problem)) => format!("the daemon does not take it back: {}", legible(&problem.detail)),
                Err(unheard) => format!("the daemon has not heard of it ({}); running again takes it up", legible(&unheard.to_string())),
            };
            let later = if comes_again { "" } else { "; this station asks again once it is started again" };
            say(format!("intent {id}: {reason}. Nothing was signed; {back}{later}"));
        }
        if is_over(&error) {
            return Err(error.into());
        }
        Ok(if comes_again { Outcome::Unfinished } else { Outcome::Refused })
    }
}
