//! The contracts of `contracts/`, compiled: stand-ins for the tokens, the call batcher and the
//! price feeds that amanatd meets on real chains. `scripts/compile-contracts --check` proves that
//! these bytes are what the sources compile to.

use alloy::primitives::{Bytes, I256};
use alloy::sol_types::SolConstructor;
use serde::Deserialize;

/// The interfaces that tests and the demo call.
// The macro's output is not ours to document.
#[allow(missing_docs)]
mod interfaces {
    alloy::sol! {
        /// What TestUsdc, TestUsdt and OddToken share, with the owner's handles of each.
        #[derive(Debug)]
        interface Token {
            event Transfer(address indexed from, address indexed to, uint256 value);

            function decimals() external view returns (uint8);
            function symbol() external view returns (string memory);
            function balanceOf(address account) external view returns (uint256);
            function transfer(address to, uint256 amount) external;
            function mint(address to, uint256 amount) external;

            // TestUsdc
            function blacklist(address account) external;
            function unBlacklist(address account) external;
            function pause() external;
            function unpause() external;

            // TestUsdt
            function addBlackList(address account) external;
            function removeBlackList(address account) external;
            function setParams(uint256 newBasisPoints, uint256 newMaxFee) external;

            // OddToken
            function setMode(uint8 next) external;
        }

        /// What the sanctions oracle answers, and its owner's handle.
        #[derive(Debug)]
        interface Sanctions {
            function isSanctioned(address account) external view returns (bool);
            function addToSanctionsList(address[] calldata accounts) external;
        }

        /// The part of Multicall3 that Batch has.
        #[derive(Debug)]
        interface BatchCalls {
            struct Call3 {
                address target;
                bool allowFailure;
                bytes callData;
            }

            struct CallResult {
                bool success;
                bytes returnData;
            }

            function aggregate3(Call3[] calldata calls) external payable returns (CallResult[] memory returnData);
            function getEthBalance(address addr) external view returns (uint256 balance);
            function getBlockNumber() external view returns (uint256 blockNumber);
            function getBlockHash(uint256 blockNumber) external view returns (bytes32 blockHash);
            function getLastBlockHash() external view returns (bytes32 blockHash);
        }

        /// Pays many out of its own tokens.
        #[derive(Debug)]
        interface MultiSend {
            function send(address token, address[] calldata recipients, uint256[] calldata values) external;
        }

        /// Passes native coin on.
        #[derive(Debug)]
        interface Forwarder {
            function forward(address recipient) external payable;
        }

        /// Chainlink's reading functions and the owner's setters.
        #[derive(Debug)]
        contract Feed {
            constructor(uint8 decimals_, string memory description_, int256 answer_);

            function decimals() external view returns (uint8);
            function description() external view returns (string memory);
            function latestRoundData()
                external
                view
                returns (uint80 roundId, int256 answer, uint256 startedAt, uint256 updatedAt, uint80 answeredInRound);
            function setAnswer(int256 next) external;
            function setAnswerAt(int256 next, uint256 moment) external;
        }
    }
}

pub use interfaces::{BatchCalls, Feed, Forwarder, MultiSend, Sanctions, Token};

/// One compiled contract.
#[derive(Debug, Clone, Deserialize)]
pub struct Artifact {
    /// Its name in the source.
    pub contract: String,
    /// What a deployment sends, before the constructor's arguments.
    pub bytecode: Bytes,
    /// What lies at the address afterwards, where no immutable is filled in.
    pub runtime: Bytes,
}

/// A dollar with six decimals whose `transfer` answers true.
pub fn test_usdc() -> Artifact {
    parse(include_str!("../../contracts/artifacts/TestUsdc.json"))
}

/// A dollar with six decimals whose `transfer` returns nothing.
pub fn test_usdt() -> Artifact {
    parse(include_str!("../../contracts/artifacts/TestUsdt.json"))
}

/// A token with 18 decimals that misbehaves on command.
pub fn odd_token() -> Artifact {
    parse(include_str!("../../contracts/artifacts/OddToken.json"))
}

/// Multicall3's reading functions.
pub fn batch() -> Artifact {
    parse(include_str!("../../contracts/artifacts/Batch.json"))
}

/// One transaction with many token transfers.
pub fn multi_send() -> Artifact {
    parse(include_str!("../../contracts/artifacts/MultiSend.json"))
}

/// A payment of native coin that only a trace shows.
pub fn forwarder() -> Artifact {
    parse(include_str!("../../contracts/artifacts/Forwarder.json"))
}

/// A sanctions oracle whose owner says who is on it.
pub fn sanctions_oracle() -> Artifact {
    parse(include_str!("../../contracts/artifacts/SanctionsOracle.json"))
}

/// A settable Chainlink feed; deploy it with [`price_feed_code`].
pub fn price_feed() -> Artifact {
    parse(include_str!("../../contracts/artifacts/PriceFeed.json"))
}

/// The deployment of a feed: its decimals, its name ("ETH / USD") and its first answer.
pub fn price_feed_code(decimals: u8, description: &str, answer: I256) -> Bytes {
    let arguments = Feed::constructorCall { decimals_: decimals, description_: description.to_owned(), answer_: answer };
    let mut code = price_feed().bytecode.to_vec();
    code.extend(arguments.abi_encode());
    code.into()
}

fn parse(text: &str) -> Artifact {
    serde_json::from_str(text).expect("the artifacts are compiled into this crate and tests read each")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_artifact_can_be_read() {
        for (artifact, name) in [
            (test_usdc(), "TestUsdc"),
            (test_usdt(), "TestUsdt"),
            (odd_token(), "OddToken"),
            (batch(), "Batch"),
            (multi_send(), "MultiSend"),
            (forwarder(), "Forwarder"),
            (price_feed(), "PriceFeed"),
            (sanctions_oracle(), "SanctionsOracle"),
        ] {
            assert_eq!(artifact.contract, name);
            assert!(!artifact.bytecode.is_empty() && !artifact.runtime.is_empty());
        }
    }
}
