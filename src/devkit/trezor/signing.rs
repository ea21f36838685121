//! Signing a transaction: checks, screens, chunks, signature.

use alloy::primitives::{B256, U256, uint};
use trezor_client::protos::{EthereumDefinitions, EthereumSignTx, EthereumSignTxEIP1559, EthereumTxAck, EthereumTxRequest};

use super::definition::{self, Blobs};
use super::device::Device;
use super::ethereum::check_length;
use super::fault::Fault;
use super::message::{Failure, Halt, TX_REQUEST, button, fits};
use super::screen;
use super::transaction::{CHUNK_BYTES_MAX, Payment, Transaction};
use super::wallet::{Key, Signed};

/// The order of secp256k1.
const ORDER: U256 = uint!(0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141_U256);

/// A confirmed transaction whose data has not all arrived.
#[derive(Debug)]
pub(super) struct Signing {
    tx: Transaction,
    key: Key,
    /// A fault: more data is asked for, for ever.
    endless: bool,
}

impl Device {
    pub(super) fn sign_tx(&mut self, request: &EthereumSignTx) -> Result<(), Halt> {
        let tx = Transaction::legacy(request)?;
        self.confirm_transaction(tx, &request.address_n, request.definitions.as_ref())
    }

    pub(super) fn sign_tx_eip1559(&mut self, request: &EthereumSignTxEIP1559) -> Result<(), Halt> {
        let tx = Transaction::eip1559(request)?;
        self.confirm_transaction(tx, &request.address_n, request.definitions.as_ref())
    }

    /// The next piece of data.
    pub(super) fn tx_ack(&mut self, request: &EthereumTxAck) -> Result<(), Halt> {
        // Whatever is wrong with a chunk ends the transaction.
        let signing = self.signing.take();
        fits(request.data_chunk.as_deref(), CHUNK_BYTES_MAX)?;
        if !self.unlocked {
            return Err(Failure::LOCKED.into());
        }
        let mut signing = signing.ok_or(Failure::NOT_SIGNING)?;
        let chunk = request.data_chunk();
        if chunk.is_empty() {
            return Err(Failure::data("Empty data chunk received").into());
        }
        if chunk.len() > signing.tx.data_left() && !signing.endless {
            return Err(Failure::data("Too much data").into());
        }
        if chunk.len() <= signing.tx.data_left() {
            signing.tx.data.extend_from_slice(chunk);
        }
        self.ask_or_sign(signing)
    }

    fn confirm_transaction(&mut self, tx: Transaction, path: &[u32], definitions: Option<&EthereumDefinitions>) -> Result<(), Halt> {
        check_length(path)?;
        // A new transaction takes the place of one that waits for data.
        self.signing = None;
        self.require_initialized()?;
        self.unlock()?;
        let definitions = definitions.filter(|_| self.reads_definitions());
        let blobs = Blobs {
            network: definitions.and_then(|blobs| blobs.encoded_network.as_deref()),
            token: definitions.and_then(|blobs| blobs.encoded_token.as_deref()),
        };
        let known = definition::for_transaction(tx.chain_id, tx.to, blobs)?;
        self.check_path(path, Some(tx.chain_id), known.network.as_ref())?;
        let key = self.key(path)?;
        tx.check()?;

        self.require(button::SIGN_TX, screen::send(&tx, &known))?;
        if tx.payment() == Payment::Native && tx.data_length > 0 {
            for page in screen::data(&tx.data, tx.data_length) {
                self.require(button::SIGN_TX, page)?;
            }
            if let Some(warning) = screen::more_data(tx.data_length) {
                self.require(button::PROTECT_CALL, warning)?;
            }
        }
        for page in screen::fees(&tx, &known) {
            self.require(button::SIGN_TX, page)?;
        }
        let endless = self.strikes(&Fault::ChunkWithoutEnd);
        if self.strikes(&Fault::ChunkTooLarge) {
            let too_many = tx.data_left() + 1;
            self.signing = Some(Signing { tx, key, endless });
            self.ask_for_data(too_many);
            return Ok(());
        }
        self.ask_or_sign(Signing { tx, key, endless })
    }

    fn ask_or_sign(&mut self, signing: Signing) -> Result<(), Halt> {
        let left = signing.tx.data_left();
        if left > 0 || signing.endless {
            if self.strikes(&Fault::LockWhileSigning) {
                self.unlocked = false;
            }
            self.signing = Some(signing);
            self.ask_for_data(if left > 0 { left } else { CHUNK_BYTES_MAX });
            return Ok(());
        }
        let Signing { tx, key, .. } = signing;
        let hash = if self.strikes(&Fault::OtherNonce) { tx.with_next_nonce().hash() } else { tx.hash() };
        let Signed { r, s, odd } = self.tampered(key.sign(hash));
        let foreign = self.strikes(&Fault::OtherChainV);
        let mut answer = EthereumTxRequest::new();
        answer.set_signature_v(if foreign { tx.foreign_v(odd) } else { tx.wire_v(odd) });
        answer.set_signature_r(self.cut(r));
        answer.set_signature_s(s.to_vec());
        self.wire.send_message(TX_REQUEST, &answer);
        Ok(())
    }

    fn ask_for_data(&mut self, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let chunk_max = u32::try_from(CHUNK_BYTES_MAX).expect("a chunk is small");
        let mut request = EthereumTxRequest::new();
        request.set_data_length(bytes.min(chunk_max));
        self.wire.send_message(TX_REQUEST, &request);
    }

    /// Applies the faults that touch a signature of any kind.
    pub(super) fn tampered(&mut self, signed: Signed) -> Signed {
        let mut signed = signed;
        if self.strikes(&Fault::HighS) {
            signed.s = B256::from(ORDER - U256::from_be_bytes(signed.s.0));
            signed.odd = !signed.odd;
        }
        if self.strikes(&Fault::FlippedV) {
            signed.odd = !signed.odd;
        }
        signed
    }

    /// r as bytes; a fault takes the first one away.
    pub(super) fn cut(&mut self, r: B256) -> Vec<u8> {
        let from = usize::from(self.strikes(&Fault::ShortR));
        r[from..].to_vec()
    }

    fn strikes(&self, fault: &Fault) -> bool {
        self.shared.lock().faults.strike(fault)
    }
}
