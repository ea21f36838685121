//! Requests about keys and messages; transactions are in `signing.rs`.

use alloy::primitives::{B256, eip191_hash_message, keccak256};
use trezor_client::protos::{
    EthereumAddress, EthereumGetAddress, EthereumGetPublicKey, EthereumMessageSignature, EthereumPublicKey, EthereumSignMessage,
    EthereumSignTypedHash, EthereumTypedDataSignature, HDNodeType,
};

use super::device::Device;
use super::message::{ADDRESS, Failure, Halt, MESSAGE_SIGNATURE, PUBLIC_KEY, TYPED_DATA_SIGNATURE, button, fits};
use super::network::Network;
use super::path::{self, Rules};
use super::screen::{self, lines};
use super::wallet::{Key, Signed};
use super::{Firmware, Safety, definition};

/// The first firmware that takes definitions from the host; before, it does not know the field.
const DEFINITIONS: Firmware = Firmware { major: 1, minor: 13, patch: 0 };

const MESSAGE_BYTES_MAX: usize = 1024;

impl Device {
    pub(super) fn get_address(&mut self, request: &EthereumGetAddress) -> Result<(), Halt> {
        let key = self.key_for_message(&request.address_n, request.encoded_network.as_deref())?;
        let address = key.address().to_string();
        if request.show_display() {
            // "No" only turns the page, to the QR code and back: leaving takes Cancel.
            let pages = [lines(["Confirm address", &address]), lines(["Address as QR code", &address])];
            for page in pages.iter().cycle() {
                if self.confirm(button::ADDRESS, page.clone())? {
                    break;
                }
            }
        }
        let mut answer = EthereumAddress::new();
        answer.set_address(address);
        self.wire.send_message(ADDRESS, &answer);
        Ok(())
    }

    /// Any path is served: the device puts no bounds on public keys.
    pub(super) fn get_public_key(&mut self, request: &EthereumGetPublicKey) -> Result<(), Halt> {
        check_length(&request.address_n)?;
        self.require_initialized()?;
        self.unlock()?;
        let key = self.key(&request.address_n)?;
        if request.show_display() {
            self.require(button::PUBLIC_KEY, lines(["Confirm public key", &key.xpub()]))?;
        }
        let mut node = HDNodeType::new();
        node.set_depth(key.depth());
        node.set_fingerprint(key.parent_fingerprint());
        node.set_child_num(key.child_number());
        node.set_chain_code(key.chain_code());
        node.set_public_key(key.public_key());
        let mut answer = EthereumPublicKey::new();
        answer.node = Some(node).into();
        answer.set_xpub(key.xpub());
        self.wire.send_message(PUBLIC_KEY, &answer);
        Ok(())
    }

    pub(super) fn sign_message(&mut self, request: &EthereumSignMessage) -> Result<(), Halt> {
        fits(request.message.as_deref(), MESSAGE_BYTES_MAX)?;
        let key = self.key_for_message(&request.address_n, request.encoded_network.as_deref())?;
        for page in screen::message(key.address(), request.message()) {
            self.require(button::OTHER, page)?;
        }
        let mut answer = EthereumMessageSignature::new();
        answer.set_signature(self.signature(&key, eip191_hash_message(request.message())));
        answer.set_address(key.address().to_string());
        self.wire.send_message(MESSAGE_SIGNATURE, &answer);
        Ok(())
    }

    pub(super) fn sign_typed_hash(&mut self, request: &EthereumSignTypedHash) -> Result<(), Halt> {
        let domain = request.domain_separator_hash();
        let message = request.message_hash.as_deref();
        fits(Some(domain), 32)?;
        fits(message, 32)?;
        let key = self.key_for_message(&request.address_n, request.encoded_network.as_deref())?;
        if domain.len() != 32 || message.is_some_and(|message| message.len() != 32) {
            return Err(Failure::data("A hash has 32 bytes").into());
        }
        self.require(button::PROTECT_CALL, lines(["What these hashes stand for", "cannot be shown. Go on?"]))?;
        for page in screen::typed_hash(key.address(), domain, message) {
            self.require(button::OTHER, page)?;
        }
        let hash = keccak256([b"\x19\x01", domain, message.unwrap_or_default()].concat());
        let mut answer = EthereumTypedDataSignature::new();
        answer.set_signature(self.signature(&key, hash));
        answer.set_address(key.address().to_string());
        self.wire.send_message(TYPED_DATA_SIGNATURE, &answer);
        Ok(())
    }

    /// The device's order of checks for a message without a chain id.
    fn key_for_message(&mut self, path: &[u32], network: Option<&[u8]>) -> Result<Key, Halt> {
        check_length(path)?;
        self.require_initialized()?;
        self.unlock()?;
        let blob = network.filter(|_| self.reads_definitions());
        let network = definition::for_path(path, blob)?;
        self.check_path(path, None, network.as_ref())?;
        self.key(path)
    }

    /// Strict refuses a path outside the rules; prompt asks.
    pub(super) fn check_path(&mut self, path: &[u32], chain_id: Option<u64>, network: Option<&Network>) -> Result<(), Halt> {
        let rules = Rules { firmware: self.options.firmware, network, chain_id };
        match self.options.safety {
            _ if rules.allow(path) => Ok(()),
            Safety::Strict => Err(Failure::data("Forbidden key path").into()),
            Safety::Prompt => self.require(button::UNKNOWN_PATH, screen::unusual_path(path)),
        }
    }

    pub(super) fn reads_definitions(&self) -> bool {
        self.options.firmware >= DEFINITIONS
    }

    /// r, s and v of 27 or 28 in one: how messages carry signatures.
    fn signature(&mut self, key: &Key, hash: B256) -> Vec<u8> {
        let Signed { r, s, odd } = self.tampered(key.sign(hash));
        let r = self.cut(r);
        [&r[..], s.as_slice(), &[27 + u8::from(odd)]].concat()
    }
}

/// The device's buffer takes so many steps.
pub(super) fn check_length(path: &[u32]) -> Result<(), Failure> {
    if path.len() > path::STEPS_MAX { Err(Failure::data("array overflow")) } else { Ok(()) }
}
