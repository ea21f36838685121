//! A transfer to one of our addresses, as a block shows it.

use std::fmt;
use std::str::FromStr;

use alloy::primitives::{Address, B256, U256};

use crate::units::Asset;

/// Where inside its transaction a transfer stands. With chain and transaction hash it is the transfer's
/// economic key: it stays the same when the transaction is included again in another block.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Position {
    /// The n-th log of the receipt, from 0.
    Log(u32),
    /// The path of the call; the empty path is the transaction itself.
    Call(Vec<u32>),
}

impl Position {
    /// The transaction's own value.
    pub const TOP: Self = Self::Call(Vec::new());
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Log(ordinal) => write!(f, "log:{ordinal}"),
            Self::Call(path) => {
                f.write_str("call:")?;
                for (level, step) in path.iter().enumerate() {
                    if level > 0 {
                        f.write_str(".")?;
                    }
                    step.fmt(f)?;
                }
                Ok(())
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a position such as log:0 or call:0.1")]
pub struct ParsePositionError(String);

impl FromStr for Position {
    type Err = ParsePositionError;

    fn from_str(text: &str) -> Result<Self, ParsePositionError> {
        let bad = || ParsePositionError(text.chars().take(50).collect());
        if let Some(ordinal) = text.strip_prefix("log:") {
            return ordinal.parse().map(Self::Log).map_err(|_| bad());
        }
        let path = text.strip_prefix("call:").ok_or_else(bad)?;
        if path.is_empty() {
            return Ok(Self::TOP);
        }
        path.split('.').map(str::parse).collect::<Result<_, _>>().map(Self::Call).map_err(|_| bad())
    }
}

/// A transfer of value to an address of ours, out of a transaction that succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    pub tx_hash: B256,
    pub position: Position,
    pub asset: Asset,
    pub sender: Address,
    pub recipient: Address,
    /// Base units, never zero.
    pub amount: U256,
    /// Sent by an address of ours: booked by its settlement, never credited as a deposit.
    pub internal: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_read_as_they_are_written() {
        for (position, text) in [
            (Position::Log(0), "log:0"),
            (Position::Log(1_000_000), "log:1000000"),
            (Position::TOP, "call:"),
            (Position::Call(vec![0, 12, 3]), "call:0.12.3"),
        ] {
            assert_eq!(position.to_string(), text);
            assert_eq!(text.parse(), Ok(position));
        }
        for bad in ["", "log:", "log:-1", "log:x", "call", "call:.", "call:1.", "0"] {
            assert!(bad.parse::<Position>().is_err(), "{bad}");
        }
    }
}
