//! The jobs the device does for us: an xpub, an address on its display, a signature.

use alloy::primitives::{Address, U256};
use protobuf::MessageField;
use trezor_client::protos::{
    EthereumAddress, EthereumDefinitions, EthereumGetAddress, EthereumGetPublicKey, EthereumMessageSignature, EthereumPublicKey,
    EthereumSignMessage, EthereumSignTxEIP1559, EthereumTxRequest,
};

use super::check::{SignedTx, WireSignature};
use super::definitions::Definitions;
use super::error::DeviceError;
use super::request::TransactionRequest;
use super::session::{Ask, Session};
use crate::account::{AccountIndex, AccountXpub, DerivationPath, Deriver};

/// A request, the account that must sign it, and what the device is told about its names.
pub(super) struct SignJob {
    pub(super) account: AccountXpub,
    pub(super) request: TransactionRequest,
    pub(super) definitions: Definitions,
}

/// A text, and the address that signs it.
pub(super) struct MessageJob {
    pub(super) account: AccountXpub,
    pub(super) path: DerivationPath,
    pub(super) text: String,
}

pub(super) fn account_xpub(session: &mut Session, account: AccountIndex) -> Result<AccountXpub, DeviceError> {
    let text = ask_xpub(session, account)?;
    // The device's own answer: if it cannot be read, the line is at fault, and the text stays unsaid.
    AccountXpub::parse_for(&text, account).map_err(|error| DeviceError::Garbled { what: error.to_string(), may_have_signed: false })
}

fn ask_xpub(session: &mut Session, account: AccountIndex) -> Result<String, DeviceError> {
    let mut message = EthereumGetPublicKey::new();
    message.address_n = account.to_bip32().into();
    let answer: Result<EthereumPublicKey, DeviceError> = session.ask(&message, Ask::Seed);
    let answer = match answer {
        // Sessions are few and other programs take them. Nothing was shown yet, so once more.
        Err(DeviceError::SessionLost) => {
            session.renew()?;
            session.ask(&message, Ask::Seed)
        }
        answer => answer,
    };
    Ok(answer?.xpub.unwrap_or_default())
}

pub(super) fn show_address(session: &mut Session, path: DerivationPath) -> Result<Address, DeviceError> {
    let mut message = EthereumGetAddress::new();
    message.address_n = path.to_bip32().into();
    message.set_show_display(true);
    let answer: EthereumAddress = session.ask(&message, Ask::Seed)?;
    Address::parse_checksummed(answer.address(), None)
        .map_err(|error| DeviceError::Garbled { what: error.to_string(), may_have_signed: false })
}

/// S11: the whole xpub must be equal. If it is not, the session is closed, so that the next attempt
/// asks for the passphrase again.
pub(super) fn verify_account(session: &mut Session, expected: &AccountXpub) -> Result<(), DeviceError> {
    let found = ask_xpub(session, expected.account())?;
    if found == expected.expose() {
        return Ok(());
    }
    session.forget();
    Err(DeviceError::OtherAccount { account: expected.account(), expected: expected.fingerprint() })
}

pub(super) fn sign(session: &mut Session, job: &SignJob) -> Result<SignedTx, DeviceError> {
    let request = &job.request;
    verify_sender(&job.account, request)?;
    verify_account(session, &job.account)?;
    let answer: EthereumTxRequest = session.ask(&sign_message(request, &job.definitions), Ask::Signature)?;
    // All calldata we can express was in the request, so there is nothing left to ask for.
    if let Some(asked) = answer.data_length.filter(|asked| *asked > 0) {
        return Err(DeviceError::ChunkOutOfBounds { asked });
    }
    let (Some(v), Some(r), Some(s)) = (answer.signature_v, &answer.signature_r, &answer.signature_s) else {
        return Err(DeviceError::Garbled { what: "an answer without a signature".to_owned(), may_have_signed: true });
    };
    SignedTx::from_signature(*request, WireSignature { v, r, s }).map_err(DeviceError::BadSignature)
}

/// A text signed as EIP-191 has it, with the account seen first, as for a transaction.
pub(super) fn sign_text(session: &mut Session, job: &MessageJob) -> Result<Vec<u8>, DeviceError> {
    if job.path.account != job.account.account() {
        return Err(DeviceError::OtherAccount { account: job.path.account, expected: job.account.fingerprint() });
    }
    verify_account(session, &job.account)?;
    let mut message = EthereumSignMessage::new();
    message.address_n = job.path.to_bip32().into();
    message.set_message(job.text.as_bytes().to_vec());
    // No transaction can come of it, so a lost line leaves no doubt about a nonce.
    let answer: EthereumMessageSignature = session.ask(&message, Ask::Seed)?;
    let derived = Deriver::new(&job.account, job.path.branch)?.address(job.path.index)?;
    if Address::parse_checksummed(answer.address(), None).ok() != Some(derived) {
        return Err(DeviceError::Garbled { what: "a signature of another address".to_owned(), may_have_signed: false });
    }
    Ok(answer.signature().to_vec())
}

/// The sender is derived from the account, so a request cannot name an address of somebody else.
fn verify_sender(account: &AccountXpub, request: &TransactionRequest) -> Result<(), DeviceError> {
    let path = request.from();
    let derived = Deriver::new(account, path.branch)?.address(path.index)?;
    if path.account != account.account() || derived != request.sender() {
        return Err(DeviceError::OtherSender { path, derived, requested: request.sender() });
    }
    Ok(())
}

/// Numbers are big-endian without leading zeros, and zero is empty: the device hashes what it is
/// given, and any other form would be signed and accepted by no node.
fn sign_message(request: &TransactionRequest, definitions: &Definitions) -> EthereumSignTxEIP1559 {
    let unsigned = request.to_unsigned();
    let mut message = EthereumSignTxEIP1559::new();
    message.address_n = request.from().to_bip32().into();
    message.set_nonce(minimal(U256::from(unsigned.nonce)));
    message.set_max_gas_fee(minimal(U256::from(unsigned.max_fee_per_gas)));
    message.set_max_priority_fee(minimal(U256::from(unsigned.max_priority_fee_per_gas)));
    message.set_gas_limit(minimal(U256::from(unsigned.gas_limit)));
    // From 20 bytes, never from text: the device takes a malformed address for contract creation.
    if let Some(to) = unsigned.to.to() {
        message.set_to(to.to_checksum(None));
    }
    message.set_value(minimal(unsigned.value));
    message.set_data_length(u32::try_from(unsigned.input.len()).unwrap_or(u32::MAX));
    message.set_data_initial_chunk(unsigned.input.to_vec());
    message.set_chain_id(unsigned.chain_id);
    let (network, token) = (definitions.network_for(request), definitions.token_for(request));
    if network.is_some() || token.is_some() {
        let mut attached = EthereumDefinitions::new();
        attached.encoded_network = network.map(<[u8]>::to_vec);
        attached.encoded_token = token.map(<[u8]>::to_vec);
        message.definitions = MessageField::some(attached);
    }
    message
}

fn minimal(number: U256) -> Vec<u8> {
    number.to_be_bytes_trimmed_vec()
}

#[cfg(test)]
mod tests {
    use super::super::request::tests::{spec, usdt_draft};
    use super::*;

    #[test]
    fn numbers_are_minimal_and_zero_is_empty() {
        assert_eq!(minimal(U256::ZERO), Vec::<u8>::new());
        assert_eq!(minimal(U256::from(128)), [128]);
        assert_eq!(minimal(U256::from(65_000)), [0xfd, 0xe8]);
    }

    #[test]
    fn a_token_transfer_is_sent_whole_and_without_value() {
        let request = TransactionRequest::check(usdt_draft(), &spec(1)).unwrap();
        let definitions = Definitions::load(None, &spec(1), request.transfer().asset);
        let message = sign_message(&request, &definitions);
        assert_eq!(message.value.as_deref(), Some([].as_slice()));
        assert_eq!(message.nonce.as_deref(), Some([].as_slice()));
        assert_eq!(message.data_length, Some(68));
        assert_eq!(message.data_initial_chunk().len(), 68);
        assert_eq!(message.to(), "0xdAC17F958D2ee523a2206206994597C13D831ec7");
        assert!(message.access_list.is_empty() && message.definitions.is_none());
    }
}
