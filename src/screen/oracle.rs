//! The sanctions oracle on a chain: `isSanctioned(address)`, asked of as many endpoints as must agree, at the
//! newest block that they share.

use std::collections::BTreeSet;
use std::sync::Arc;

use alloy::primitives::{Address, Bytes};
use alloy::sol_types::SolCall;
use futures_util::future::BoxFuture;

use super::policy::ScreenerKind;
use super::screener::{Answer, Screener, Subject};
use crate::rpc::{Node, RpcError};
use crate::units::BlockRef;

alloy::sol! {
    function isSanctioned(address account) returns (bool);
}

#[derive(Debug)]
pub(super) struct Oracle {
    pub(super) node: Arc<Node>,
    pub(super) contract: Address,
}

impl Oracle {
    async fn ask(&self, addresses: &[Address]) -> Result<(BlockRef, BTreeSet<Address>), RpcError> {
        let at = self.node.head().await?.block;
        let question = |account: &Address| (self.contract, Bytes::from(isSanctionedCall { account: *account }.abi_encode()));
        let questions: Vec<(Address, Bytes)> = addresses.iter().map(question).collect();
        let flags = self.node.flags(&questions, at).await?;
        Ok((at, addresses.iter().zip(flags).filter(|(_, sanctioned)| *sanctioned).map(|(address, _)| *address).collect()))
    }

    async fn screen_all(&self, subjects: &[Subject]) -> Vec<Answer> {
        let addresses: BTreeSet<Address> = subjects.iter().flat_map(Subject::addresses).collect();
        match self.ask(&addresses.into_iter().collect::<Vec<_>>()).await {
            Ok((at, sanctioned)) => subjects
                .iter()
                .map(|subject| Answer::Screened {
                    hits: subject.addresses().into_iter().filter(|address| sanctioned.contains(address)).collect(),
                    evidence: serde_json::json!({
                        "oracle": self.contract, "block_number": at.number.0, "block_hash": at.hash, "addresses": subject.addresses(),
                    }),
                })
                .collect(),
            Err(error) => {
                tracing::warn!(
                    chain.id = self.node.chain().get(),
                    error = &error as &dyn std::error::Error,
                    "the sanctions oracle was not answered for"
                );
                vec![Answer::Unavailable { reason: error.to_string() }; subjects.len()]
            }
        }
    }
}

impl Screener for Oracle {
    fn kind(&self) -> ScreenerKind {
        ScreenerKind::Oracle
    }

    fn screen<'a>(&'a self, subjects: &'a [Subject]) -> BoxFuture<'a, Vec<Answer>> {
        Box::pin(self.screen_all(subjects))
    }
}
