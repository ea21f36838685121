//! Values across the border to Postgres, exactly.
//!
//! A uint256 travels as decimal text (`$1::text::numeric`, `amount::text`): the decimal types of the
//! driver round or overflow without an error. Read values are checked again: after writing and after
//! reading.

use alloy::primitives::{Address, B256, I256, U256};

use super::DbError;
use crate::units::{ChainId, parse_base_units};

pub fn units_to_sql(units: U256) -> String {
    units.to_string()
}

pub fn units_from_sql(text: &str) -> Result<U256, DbError> {
    parse_base_units(text).map_err(|_| DbError::Corrupt { column: "amount", found: text.chars().take(100).collect(), wanted: "a uint256" })
}

/// A difference of two amounts, as decimal text too.
pub fn signed_to_sql(units: I256) -> String {
    units.to_string()
}

pub fn signed_from_sql(text: &str) -> Result<I256, DbError> {
    I256::from_dec_str(text).map_err(|_| DbError::Corrupt {
        column: "amount",
        found: text.chars().take(100).collect(),
        wanted: "a signed 256-bit number",
    })
}

pub fn address_from_sql(bytes: &[u8]) -> Result<Address, DbError> {
    Address::try_from(bytes).map_err(|_| DbError::Corrupt {
        column: "address",
        found: format!("{} bytes", bytes.len()),
        wanted: "20 bytes",
    })
}

pub fn hash_from_sql(bytes: &[u8]) -> Result<B256, DbError> {
    B256::try_from(bytes).map_err(|_| DbError::Corrupt { column: "hash", found: format!("{} bytes", bytes.len()), wanted: "32 bytes" })
}

pub fn chain_from_sql(id: i64) -> Result<ChainId, DbError> {
    ChainId::try_from(id).map_err(|_| DbError::Corrupt { column: "chain_id", found: id.to_string(), wanted: "a chain id" })
}

/// A count or index that the database keeps as a signed number and a CHECK keeps non-negative.
pub fn count_from_sql(column: &'static str, value: i64) -> Result<u64, DbError> {
    u64::try_from(value).map_err(|_| DbError::Corrupt { column, found: value.to_string(), wanted: "zero or more" })
}
