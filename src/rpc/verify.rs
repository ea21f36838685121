//! At start: do the nodes agree with `chains.toml`? A token read with the wrong number of decimals is
//! wrong by a power of ten, so any difference is a refusal to start.

use alloy::primitives::Address;

use super::error::{Fault, RpcError};
use super::node::Node;
use crate::chains::ChainSpec;
use crate::units::{ChainId, Disposition};

#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error("the node of {name} (chain {chain}) cannot be compared with chains.toml")]
    Rpc {
        chain: ChainId,
        name: String,
        #[source]
        source: RpcError,
    },
    #[error(
        "chains.toml: {name} is chain {chain}, but {endpoint} is on chain {found}: correct the endpoint's URL, or the id; refusing to start"
    )]
    ChainId { chain: ChainId, name: String, endpoint: String, found: String },
    #[error(
        "chains.toml: {name} (chain {chain}): token {symbol} at {contract} has decimals = {file} in the file and {on_chain} on chain: \
         correct the file; refusing to start"
    )]
    Decimals { chain: ChainId, name: String, symbol: String, contract: Address, file: u8, on_chain: u8 },
    #[error("chains.toml: {name} (chain {chain}): there is no token at {contract}, listed as {symbol}; refusing to start")]
    NoToken { chain: ChainId, name: String, symbol: String, contract: Address },
}

impl VerifyError {
    /// A node that is away is waited for; one that contradicts the file is a reason to stop.
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Rpc { source, .. } => source.disposition(),
            Self::ChainId { .. } | Self::Decimals { .. } | Self::NoToken { .. } => Disposition::Stop,
        }
    }
}

impl Node {
    /// Compares chain id and every listed token's decimals with the book. An endpoint that is away is no
    /// difference, as long as another one answers: it proves its chain before its first answer counts.
    pub async fn verify(&self, spec: &ChainSpec) -> Result<(), VerifyError> {
        for endpoint in self.endpoints() {
            if let Err(Fault::WrongChain { found, .. }) = self.prove_chain(endpoint).await {
                let endpoint = endpoint.name().to_owned();
                return Err(VerifyError::ChainId { chain: spec.id, name: spec.name.clone(), endpoint, found });
            }
        }
        let unread = |source| VerifyError::Rpc { chain: spec.id, name: spec.name.clone(), source };
        // Also where no token is listed, somebody must have answered.
        self.chain_id().await.map_err(unread)?;
        for token in &spec.tokens {
            let on_chain = match self.token_decimals(token.contract).await {
                Ok(decimals) => decimals,
                Err(RpcError { fault: Fault::NotFound { .. } | Fault::Reverted { .. }, .. }) => {
                    return Err(VerifyError::NoToken {
                        chain: spec.id,
                        name: spec.name.clone(),
                        symbol: token.symbol.clone(),
                        contract: token.contract,
                    });
                }
                Err(source) => return Err(unread(source)),
            };
            if on_chain != token.decimals {
                return Err(VerifyError::Decimals {
                    chain: spec.id,
                    name: spec.name.clone(),
                    symbol: token.symbol.clone(),
                    contract: token.contract,
                    file: token.decimals,
                    on_chain,
                });
            }
        }
        Ok(())
    }
}
