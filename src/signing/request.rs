//! What an officer is asked to sign: one plain transfer, on one chain, from one address.
//!
//! Pure. Only a transfer of the chain's coin without calldata, or an ERC-20 `transfer` of 68 bytes,
//! can be expressed at all. Approvals, permits, contract creation, other selectors, legacy and
//! EIP-7702 transactions have no representation, so no bug elsewhere can ask the device for one.

use alloy::consensus::{SignableTransaction, TxEip1559};
use alloy::primitives::{Address, B256, Bytes, TxKind, U256};

use crate::account::DerivationPath;
use crate::chains::{ChainSpec, RecipientError};
use crate::units::{Asset, ChainId};

/// `transfer(address,uint256)`.
pub(super) const TRANSFER_SELECTOR: [u8; 4] = [0xa9, 0x05, 0x9c, 0xbb];
/// Selector, address in 32 bytes, amount in 32 bytes.
const TRANSFER_LEN: usize = 68;
/// What the cheapest transaction costs; below it no node accepts one.
const GAS_LIMIT_MIN: u64 = 21_000;

/// Moves `amount` of `asset` to `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    pub asset: Asset,
    pub to: Address,
    pub amount: U256,
}

impl Transfer {
    /// Reads a call back into the transfer it makes; everything else is refused by name.
    pub fn from_call(to: Address, value: U256, input: &[u8]) -> Result<Self, CallError> {
        if input.is_empty() {
            return Ok(Self { asset: Asset::Native, to, amount: value });
        }
        let Some((selector, arguments)) = input.split_first_chunk::<4>() else {
            return Err(CallError::Length { found: input.len() });
        };
        if *selector != TRANSFER_SELECTOR {
            return Err(CallError::Selector { found: *selector, name: known_selector(*selector) });
        }
        if input.len() != TRANSFER_LEN {
            return Err(CallError::Length { found: input.len() });
        }
        if !value.is_zero() {
            return Err(CallError::ValueWithCall { value });
        }
        let (recipient, amount) = arguments.split_at(32);
        if recipient[..12] != [0; 12] {
            return Err(CallError::Padding);
        }
        Ok(Self { asset: Asset::Token(to), to: Address::from_slice(&recipient[12..]), amount: U256::from_be_slice(amount) })
    }

    /// The address, value and calldata of the transaction that makes this transfer.
    fn to_call(self) -> (Address, U256, Bytes) {
        match self.asset {
            Asset::Native => (self.to, self.amount, Bytes::new()),
            Asset::Token(contract) => {
                let mut input = Vec::with_capacity(TRANSFER_LEN);
                input.extend_from_slice(&TRANSFER_SELECTOR);
                input.extend_from_slice(self.to.into_word().as_slice());
                input.extend_from_slice(&self.amount.to_be_bytes::<32>());
                (contract, U256::ZERO, input.into())
            }
        }
    }
}

/// Names for the calls most likely to be slipped in, so that the alarm says what was tried.
fn known_selector(selector: [u8; 4]) -> &'static str {
    match selector {
        [0x09, 0x5e, 0xa7, 0xb3] => "approve",
        [0x39, 0x50, 0x93, 0x51] => "increaseAllowance",
        [0x23, 0xb8, 0x72, 0xdd] => "transferFrom",
        [0xd5, 0x05, 0xac, 0xcf] => "permit",
        [0x8f, 0xcb, 0xaf, 0x0c] => "permit (DAI)",
        [0xa2, 0x2c, 0xb4, 0x65] => "setApprovalForAll",
        [0x13, 0xaf, 0x40, 0x35] => "setOwner",
        [0xf2, 0xfd, 0xe3, 0x8b] => "transferOwnership",
        [0xac, 0x96, 0x50, 0xd8] => "multicall",
        _ => "an unknown call",
    }
}

/// Why calldata is not one of the two calls we make.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    #[error("data: selector 0x{} is {name}, not transfer", alloy::hex::encode(.found))]
    Selector { found: [u8; 4], name: &'static str },
    #[error("data: {found} bytes, a transfer has 68")]
    Length { found: usize },
    #[error("data: the recipient is not padded with zeros")]
    Padding,
    #[error("value: {value} sent along with a token transfer")]
    ValueWithCall { value: U256 },
}

/// What the transaction may cost at most, in gas and in wei per gas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeeCaps {
    pub gas_limit: u64,
    pub max_fee_per_gas: u128,
    pub max_priority_fee_per_gas: u128,
}

impl FeeCaps {
    /// The most the sender can lose to fees: 192 bits at most, so it cannot overflow.
    pub fn ceiling(self) -> U256 {
        U256::from(self.gas_limit) * U256::from(self.max_fee_per_gas)
    }
}

/// A request before it was checked; any values are allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransactionDraft {
    pub chain: ChainId,
    pub from: DerivationPath,
    pub sender: Address,
    pub nonce: u64,
    pub transfer: Transfer,
    pub fees: FeeCaps,
}

/// A checked request: what an approval names, what the device shows and what the signature must be of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransactionRequest(TransactionDraft);

impl TransactionRequest {
    /// Applies S10's rules with the facts of the request's chain.
    pub fn check(draft: TransactionDraft, spec: &ChainSpec) -> Result<Self, RequestError> {
        if spec.id != draft.chain {
            return Err(RequestError::OtherChain { found: draft.chain, expected: spec.id });
        }
        if let Asset::Token(contract) = draft.transfer.asset
            && !spec.tokens.iter().any(|token| token.contract == contract)
        {
            return Err(RequestError::UnlistedToken { chain: draft.chain, contract });
        }
        check_recipient(&draft, spec)?;
        check_amount(&draft)?;
        check_fees(&draft)?;
        if draft.nonce == u64::MAX {
            return Err(RequestError::Nonce);
        }
        Ok(Self(draft))
    }

    pub fn chain(&self) -> ChainId {
        self.0.chain
    }

    pub fn from(&self) -> DerivationPath {
        self.0.from
    }

    pub fn sender(&self) -> Address {
        self.0.sender
    }

    pub fn nonce(&self) -> u64 {
        self.0.nonce
    }

    pub fn transfer(&self) -> Transfer {
        self.0.transfer
    }

    pub fn fees(&self) -> FeeCaps {
        self.0.fees
    }

    /// All values at once, to store or send them; coming back, they are checked again.
    pub fn draft(&self) -> TransactionDraft {
        self.0
    }

    /// A cancel moves nothing: it only uses up the nonce of another transaction.
    pub fn is_cancel(&self) -> bool {
        self.0.transfer.to == self.0.sender
    }

    /// The most of the chain's own coin that can leave the sender: fees, and the amount if native.
    pub fn native_ceiling(&self) -> U256 {
        match self.0.transfer.asset {
            // `check` made sure that the sum fits.
            Asset::Native => self.0.fees.ceiling().saturating_add(self.0.transfer.amount),
            Asset::Token(_) => self.0.fees.ceiling(),
        }
    }

    /// The transaction a signature must be of.
    pub fn to_unsigned(&self) -> TxEip1559 {
        let (to, value, input) = self.0.transfer.to_call();
        TxEip1559 {
            chain_id: self.0.chain.get(),
            nonce: self.0.nonce,
            gas_limit: self.0.fees.gas_limit,
            max_fee_per_gas: self.0.fees.max_fee_per_gas,
            max_priority_fee_per_gas: self.0.fees.max_priority_fee_per_gas,
            to: TxKind::Call(to),
            value,
            access_list: Default::default(),
            input,
        }
    }

    /// What the device signs.
    pub fn signing_hash(&self) -> B256 {
        self.to_unsigned().signature_hash()
    }
}

fn check_recipient(draft: &TransactionDraft, spec: &ChainSpec) -> Result<(), RequestError> {
    let to = draft.transfer.to;
    spec.check_recipient(to).map_err(|error| match error {
        RecipientError::Zero => RequestError::ZeroRecipient,
        RecipientError::Reserved => RequestError::ReservedRecipient { to },
        RecipientError::TokenContract { .. } => RequestError::ContractRecipient { to },
    })
}

fn check_amount(draft: &TransactionDraft) -> Result<(), RequestError> {
    let Transfer { asset, to, amount } = draft.transfer;
    let cancel = asset == Asset::Native && amount.is_zero();
    match (to == draft.sender, cancel) {
        (true, false) => return Err(RequestError::SelfTransfer { sender: draft.sender }),
        (false, _) if amount.is_zero() => return Err(RequestError::ZeroAmount),
        (true, true) | (false, _) => {}
    }
    if asset == Asset::Native && draft.fees.ceiling().checked_add(amount).is_none() {
        return Err(RequestError::Overflow { amount });
    }
    Ok(())
}

fn check_fees(draft: &TransactionDraft) -> Result<(), RequestError> {
    let FeeCaps { gas_limit, max_fee_per_gas, max_priority_fee_per_gas } = draft.fees;
    if gas_limit < GAS_LIMIT_MIN {
        return Err(RequestError::GasLimit { found: gas_limit });
    }
    if max_fee_per_gas == 0 {
        return Err(RequestError::ZeroFee);
    }
    if max_priority_fee_per_gas > max_fee_per_gas {
        return Err(RequestError::PriorityFee { priority: max_priority_fee_per_gas, max: max_fee_per_gas });
    }
    Ok(())
}

/// Why a request was refused before anybody saw it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    #[error("chain: the request is for chain {found}, the facts are of chain {expected}")]
    OtherChain { found: ChainId, expected: ChainId },
    #[error("asset: {contract} is not a listed token of chain {chain}; list it in chains.toml first")]
    UnlistedToken { chain: ChainId, contract: Address },
    #[error("to: the zero address; money sent there is lost")]
    ZeroRecipient,
    #[error("to: {to} is a precompile, system or burn address; money sent there is lost")]
    ReservedRecipient { to: Address },
    #[error("to: {to} is a token contract; money sent there is lost")]
    ContractRecipient { to: Address },
    #[error("to: {sender} would pay itself; only a cancel of amount 0 in the chain's coin may")]
    SelfTransfer { sender: Address },
    #[error("amount: zero")]
    ZeroAmount,
    #[error("amount: {amount} and the fees together exceed 2^256 - 1")]
    Overflow { amount: U256 },
    #[error("gas_limit: {found} is below 21000, what the cheapest transaction needs")]
    GasLimit { found: u64 },
    #[error("max_fee_per_gas: zero")]
    ZeroFee,
    #[error("max_priority_fee_per_gas: {priority} is above max_fee_per_gas {max}")]
    PriorityFee { priority: u128, max: u128 },
    #[error("nonce: 2^64 - 1 is not usable")]
    Nonce,
}

#[cfg(test)]
pub(super) mod tests {
    use alloy::primitives::{address, hex};

    use super::*;
    use crate::chains::ChainBook;

    pub(in crate::signing) const SHIPPED: &str = include_str!("../../chains.toml");
    const USDT: Address = address!("0xdAC17F958D2ee523a2206206994597C13D831ec7");

    pub(in crate::signing) fn spec(chain: u64) -> ChainSpec {
        ChainBook::parse(SHIPPED).unwrap().get(ChainId::new(chain).unwrap()).unwrap().clone()
    }

    /// The first transaction of `observed.json`.
    pub(in crate::signing) fn usdt_draft() -> TransactionDraft {
        TransactionDraft {
            chain: ChainId::new(1).unwrap(),
            from: "m/44'/60'/0'/0/7".parse().unwrap(),
            sender: address!("0xf2252f414e727d652d5a488fE4BFf7e64478737F"),
            nonce: 0,
            transfer: Transfer { asset: Asset::Token(USDT), to: Address::repeat_byte(0x22), amount: U256::from(123_456_789) },
            fees: FeeCaps { gas_limit: 65_000, max_fee_per_gas: 30_000_000_000, max_priority_fee_per_gas: 1_000_000_000 },
        }
    }

    fn refused(edit: impl FnOnce(&mut TransactionDraft)) -> RequestError {
        let mut draft = usdt_draft();
        edit(&mut draft);
        TransactionRequest::check(draft, &spec(1)).unwrap_err()
    }

    #[test]
    fn a_request_hashes_as_the_device_saw_it() {
        let request = TransactionRequest::check(usdt_draft(), &spec(1)).unwrap();
        assert_eq!(request.signing_hash().0, hex!("e8e397aad9eeeb40b3f9b0ce896e3f6173096e4e099dcd62e3f37800d179db7b"));
        assert_eq!(request.to_unsigned().input.len(), TRANSFER_LEN);
        assert_eq!(request.native_ceiling(), U256::from(65_000_u64 * 30_000_000_000));
        let unsigned = request.to_unsigned();
        assert_eq!(Transfer::from_call(USDT, unsigned.value, &unsigned.input), Ok(request.transfer()));
    }

    #[test]
    fn s10_recipients_that_lose_the_money_are_refused() {
        assert_eq!(refused(|d| d.transfer.to = Address::ZERO), RequestError::ZeroRecipient);
        for to in [Address::with_last_byte(1), address!("0x000000000000000000000000000000000000dEaD"), Asset::NATIVE_MARKER] {
            assert_eq!(refused(|d| d.transfer.to = to), RequestError::ReservedRecipient { to });
        }
        assert_eq!(refused(|d| d.transfer.to = USDT), RequestError::ContractRecipient { to: USDT });
        let usdc = address!("0xA0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48");
        assert_eq!(refused(|d| d.transfer.to = usdc), RequestError::ContractRecipient { to: usdc });
        let native_to_contract = Transfer { asset: Asset::Native, to: USDT, amount: U256::from(1) };
        assert_eq!(refused(|d| d.transfer = native_to_contract), RequestError::ContractRecipient { to: USDT });
    }

    #[test]
    fn s10_self_transfers_are_refused_unless_they_cancel() {
        let sender = usdt_draft().sender;
        assert_eq!(refused(|d| d.transfer.to = sender), RequestError::SelfTransfer { sender });
        let paying = Transfer { asset: Asset::Native, to: sender, amount: U256::from(1) };
        assert_eq!(refused(|d| d.transfer = paying), RequestError::SelfTransfer { sender });
        let token_zero = Transfer { amount: U256::ZERO, to: sender, ..usdt_draft().transfer };
        assert_eq!(refused(|d| d.transfer = token_zero), RequestError::SelfTransfer { sender });
        let cancel = TransactionDraft { transfer: Transfer { asset: Asset::Native, to: sender, amount: U256::ZERO }, ..usdt_draft() };
        assert!(TransactionRequest::check(cancel, &spec(1)).unwrap().is_cancel());
    }

    #[test]
    fn s10_foreign_chains_tokens_and_amounts_are_refused() {
        let one = ChainId::new(1).unwrap();
        let other = ChainId::new(56).unwrap();
        assert_eq!(refused(|d| d.chain = other), RequestError::OtherChain { found: other, expected: one });
        let contract = Address::repeat_byte(0x99);
        assert_eq!(refused(|d| d.transfer.asset = Asset::Token(contract)), RequestError::UnlistedToken { chain: one, contract });
        assert_eq!(refused(|d| d.transfer.amount = U256::ZERO), RequestError::ZeroAmount);
        let nothing = Transfer { asset: Asset::Native, to: contract, amount: U256::ZERO };
        assert_eq!(refused(|d| d.transfer = nothing), RequestError::ZeroAmount);
        let everything = Transfer { amount: U256::MAX, ..nothing };
        assert_eq!(refused(|d| d.transfer = everything), RequestError::Overflow { amount: U256::MAX });
        assert_eq!(refused(|d| d.nonce = u64::MAX), RequestError::Nonce);
    }

    #[test]
    fn s10_fee_caps_that_cannot_be_meant_are_refused() {
        assert_eq!(refused(|d| d.fees.gas_limit = 20_999), RequestError::GasLimit { found: 20_999 });
        assert_eq!(refused(|d| d.fees.max_fee_per_gas = 0), RequestError::ZeroFee);
        assert_eq!(
            refused(|d| d.fees.max_priority_fee_per_gas = 30_000_000_001),
            RequestError::PriorityFee { priority: 30_000_000_001, max: 30_000_000_000 }
        );
    }

    #[test]
    fn s10_calls_other_than_transfer_are_refused_by_name() {
        let to = USDT;
        let body = [0_u8; 64];
        for (selector, expected) in [
            (hex!("095ea7b3"), "approve"),
            (hex!("d505accf"), "permit"),
            (hex!("13af4035"), "setOwner"),
            (hex!("23b872dd"), "transferFrom"),
            (hex!("deadbeef"), "an unknown call"),
        ] {
            let input = [selector.as_slice(), &body].concat();
            assert_eq!(Transfer::from_call(to, U256::ZERO, &input), Err(CallError::Selector { found: selector, name: expected }));
        }
        let good = usdt_draft().transfer.to_call().2;
        assert_eq!(Transfer::from_call(to, U256::from(1), &good), Err(CallError::ValueWithCall { value: U256::from(1) }));
        assert_eq!(Transfer::from_call(to, U256::ZERO, &good[..67]), Err(CallError::Length { found: 67 }));
        assert_eq!(Transfer::from_call(to, U256::ZERO, &[good.as_ref(), &[0]].concat()), Err(CallError::Length { found: 69 }));
        assert_eq!(Transfer::from_call(to, U256::ZERO, &good[..3]), Err(CallError::Length { found: 3 }));
        let mut dirty = good.to_vec();
        dirty[4] = 1;
        assert_eq!(Transfer::from_call(to, U256::ZERO, &dirty), Err(CallError::Padding));
    }
}
