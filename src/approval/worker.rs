//! Ends approvals whose time has passed.

use super::{ApprovalError, store};
use crate::db::Database;
use crate::units::{Outcomes, Progress};

/// How many intents one tick looks at.
const INTENTS_PER_TICK: i64 = 100;

/// Ends expired approvals of every chain, by the database's clock.
#[derive(Debug)]
pub struct Lapser {
    pub db: Database,
}

impl Lapser {
    pub async fn tick(&self) -> Result<Progress, ApprovalError> {
        let mut connection = self.db.connection().await?;
        let lapsed = store::list_lapsed(&mut connection, INTENTS_PER_TICK).await?;
        drop(connection);
        let mut outcomes = Outcomes::new();
        for id in lapsed {
            let revised = self.db.unit(move |connection| Box::pin(async move { store::lapse(connection, id).await })).await;
            if !outcomes.note(revised.map(|revised| Progress::of(revised.is_some())), ApprovalError::disposition) {
                break;
            }
        }
        outcomes.finish()
    }
}
