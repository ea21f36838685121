//! What the policy says of an outflow, asked in the transaction that stores it; explained later; and tried on
//! what was planned before.

pub mod store;

use std::collections::BTreeMap;

use alloy::primitives::Address;
use sqlx::PgConnection;
use time::{Duration, OffsetDateTime};

use super::{Intent, IntentError, IntentKind};
use crate::officer;
use crate::policy::{self, APPROVALS_EXPIRE_MINUTES, Facts, Left, Outflow, Policy, PolicyError, PolicyRow, Standing, Terms, Verdict};
use crate::units::{ChainId, IntentId};

/// What leaves with an intent.
pub fn outflow_of(intent: &Intent) -> Outflow {
    Outflow { kind: intent.kind, asset: intent.amount.asset, units: intent.amount.units, to: intent.to }
}

/// The intent on the terms of the policy in force; a refusal if it may not leave. Without a policy the intent
/// keeps the number of officers it came with. A cancel goes by the policy of what it cancels.
pub(super) async fn judge(connection: &mut PgConnection, intent: &Intent) -> Result<Intent, IntentError> {
    // Outflows of a chain are counted one after the other, so that two at once cannot share what is left.
    store::lock_limits(connection, intent.chain()).await?;
    let row = match (intent.kind, intent.policy) {
        (IntentKind::Cancel, Some(policy)) => Some(policy::store::get(connection, policy).await?),
        (IntentKind::Cancel, None) => None,
        (IntentKind::Sweep | IntentKind::Release | IntentKind::Refund | IntentKind::Fuel, _) => {
            policy::store::find_in_force(connection).await?
        }
    };
    let Some(row) = row else {
        return Ok(Intent { policy: None, approvals_expire_minutes: APPROVALS_EXPIRE_MINUTES, ..intent.clone() });
    };
    let terms = decide(connection, &row, intent).await?;
    let Terms { approvals, approvals_expire_minutes } = terms;
    Ok(Intent { policy: Some(row.id), approvals_required: approvals, approvals_expire_minutes, ..intent.clone() })
}

async fn decide(connection: &mut PgConnection, row: &PolicyRow, intent: &Intent) -> Result<Terms, IntentError> {
    let facts = facts(connection, &row.policy, &outflow_of(intent), None).await?;
    let at_least = if intent.kind == IntentKind::Cancel { intent.approvals_required } else { 1 };
    match row.policy.evaluate(outflow_of(intent), &facts, at_least).verdict {
        Verdict::Allowed(terms) => Ok(terms),
        Verdict::Refused(refusals) => Err(PolicyError::Refused { policy: row.id, refusals }.into()),
    }
}

/// What is true of an outflow now. `but` is left out of what has left: an intent does not stand in its own way.
pub async fn facts(connection: &mut PgConnection, policy: &Policy, outflow: &Outflow, but: Option<IntentId>) -> Result<Facts, IntentError> {
    let now = officer::proposal::store::clock(connection).await?;
    let standing = policy::store::get_standing(connection, outflow.asset.chain, outflow.to).await?;
    let (mut left, mut left_to_recipient) = (Left::default(), Left::default());
    for hours in policy.windows(outflow.asset) {
        for sums in store::list_left(connection, outflow, hours, but).await? {
            left.add(hours, sums.kind, sums.units);
            left_to_recipient.add(hours, sums.kind, sums.to_recipient_units);
        }
    }
    Ok(Facts { now, standing, left, left_to_recipient })
}

/// One intent of the past, as a dry run looks at it.
#[derive(Clone, Debug)]
pub struct Past {
    pub intent: IntentId,
    pub outflow: Outflow,
    pub at: OffsetDateTime,
    /// It was given up, or nothing of it happened.
    pub undone: bool,
    pub approvals_required: u8,
}

/// What a policy would have said of the past, oldest first. Whatever it would have let leave counts towards its
/// limits from the instant it was planned; addresses stand as they stand now.
pub fn replay(policy: &Policy, past: &[Past], standings: &BTreeMap<(ChainId, Address), Standing>) -> Vec<Verdict> {
    let mut verdicts: Vec<Verdict> = Vec::with_capacity(past.len());
    for (place, one) in past.iter().enumerate() {
        let (mut left, mut left_to_recipient) = (Left::default(), Left::default());
        for hours in policy.windows(one.outflow.asset) {
            let since = one.at.saturating_sub(Duration::hours(i64::from(hours)));
            let counted = past[..place].iter().zip(&verdicts).filter(|(earlier, verdict)| {
                earlier.at > since
                    && !earlier.undone
                    && earlier.outflow.asset == one.outflow.asset
                    && matches!(verdict, Verdict::Allowed(_))
            });
            for (earlier, _) in counted {
                left.add(hours, earlier.outflow.kind, earlier.outflow.units);
                if earlier.outflow.to == one.outflow.to {
                    left_to_recipient.add(hours, earlier.outflow.kind, earlier.outflow.units);
                }
            }
        }
        let standing = standings.get(&(one.outflow.asset.chain, one.outflow.to)).copied().unwrap_or(Standing::Unlisted);
        let at_least = if one.outflow.kind == IntentKind::Cancel { one.approvals_required } else { 1 };
        verdicts.push(policy.evaluate(one.outflow, &Facts { now: one.at, standing, left, left_to_recipient }, at_least).verdict);
    }
    verdicts
}

#[cfg(test)]
mod tests {
    use alloy::primitives::U256;
    use time::macros::datetime;
    use uuid::Uuid;

    use super::*;
    use crate::chains::ChainBook;
    use crate::units::{Asset, AssetId};

    const T0: OffsetDateTime = datetime!(2027-01-01 00:30 UTC);

    fn limited(hours: u32, max: u32) -> Policy {
        let book = ChainBook::parse(include_str!("../../chains.toml")).unwrap();
        let text = format!(
            "[[rule]]\nname = \"r\"\nkinds = [\"release\"]\nchain = 1\nasset = \"USDC\"\napprovals = 1\ndestinations = \"any\"\n\
             [[rule.limit]]\nhours = {hours}\nmax = \"{max}\""
        );
        policy::parse(&text, &book).unwrap()
    }

    fn past(policy: &Policy, minutes: i64, units: u64, undone: bool) -> Past {
        let AssetId { chain, asset: Asset::Token(contract) } = policy.rules[0].asset else { panic!("a token") };
        let outflow = Outflow {
            kind: IntentKind::Release,
            asset: AssetId { chain, asset: Asset::Token(contract) },
            units: U256::from(units * 1_000_000),
            to: Address::repeat_byte(1),
        };
        Past { intent: IntentId(Uuid::nil()), outflow, at: T0 + Duration::minutes(minutes), undone, approvals_required: 1 }
    }

    #[test]
    fn s6_a_window_rolls_and_does_not_reset_on_the_hour() {
        let policy = limited(1, 100);
        // Twenty minutes before the hour, and after it: a window that resets would let 200 through.
        let rows: Vec<Past> = [(10, 100, false), (35, 100, false), (69, 1, false), (70, 100, false)]
            .into_iter()
            .map(|(minutes, units, undone)| past(&policy, minutes, units, undone))
            .collect();
        let allowed: Vec<bool> =
            replay(&policy, &rows, &BTreeMap::new()).iter().map(|verdict| matches!(verdict, Verdict::Allowed(_))).collect();
        assert_eq!(allowed, [true, false, false, true]);
    }

    #[test]
    fn s6_a_limit_of_each_recipient_counts_only_what_went_there() {
        let book = ChainBook::parse(include_str!("../../chains.toml")).unwrap();
        let text = "[[rule]]\nname = \"r\"\nkinds = [\"release\"]\nchain = 1\nasset = \"USDC\"\napprovals = 1\ndestinations = \"any\"\n\
             [[rule.limit]]\nhours = 24\nmax = \"100\"\nper_recipient = true\n[[rule.limit]]\nhours = 24\nmax = \"250\"";
        let policy = policy::parse(text, &book).unwrap();
        let to = |place: u8, minutes, units| {
            let one = past(&policy, minutes, units, false);
            Past { outflow: Outflow { to: Address::repeat_byte(place), ..one.outflow }, ..one }
        };
        // Each has a hundred of its own, and all together two hundred and fifty.
        let rows = [to(1, 0, 60), to(1, 1, 41), to(2, 2, 100), to(1, 3, 40), to(3, 4, 51), to(3, 5, 50)];
        let allowed: Vec<bool> =
            replay(&policy, &rows, &BTreeMap::new()).iter().map(|verdict| matches!(verdict, Verdict::Allowed(_))).collect();
        assert_eq!(allowed, [true, false, true, true, false, true]);
    }

    #[test]
    fn s6_what_was_given_up_does_not_count() {
        let policy = limited(24, 100);
        let rows = [past(&policy, 0, 100, true), past(&policy, 1, 100, false), past(&policy, 2, 1, false)];
        let verdicts = replay(&policy, &rows, &BTreeMap::new());
        assert!(matches!(verdicts[1], Verdict::Allowed(_)) && matches!(verdicts[2], Verdict::Refused(_)), "{verdicts:?}");
    }
}
