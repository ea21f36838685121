//! How far deposit indices may be issued before that is noted outside of the database. Pure.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use super::DerivedAddress;
use crate::units::TrezorAccountId;

/// By account, the index from which on nothing may be issued yet. Without any, nothing is noted and nothing limited.
/// Clones share it.
#[derive(Clone, Debug, Default)]
pub struct IssueLimit(Arc<RwLock<Option<BTreeMap<TrezorAccountId, u32>>>>);

impl IssueLimit {
    pub fn set(&self, below: BTreeMap<TrezorAccountId, u32>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(below);
    }

    /// Whether an address may be handed out now. One of an account that is newer than the last note may not, for a
    /// second.
    pub fn allows(&self, address: &DerivedAddress) -> bool {
        match &*self.0.read().unwrap_or_else(PoisonError::into_inner) {
            None => true,
            Some(below) => below.get(&address.account).is_some_and(|below| address.path.index.get() < *below),
        }
    }
}
