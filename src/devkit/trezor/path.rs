//! Which key paths the firmware serves without asking.

use super::Firmware;
use super::network::Network;

const HARDENED: u32 = 1 << 31;
const ACCOUNT_MAX: u32 = 100;
const CHANGE_MAX: u32 = 1;
const INDEX_MAX: u32 = 1_000_000;

/// The device's buffer for a path.
pub(super) const STEPS_MAX: usize = 8;

/// HyperEVM: registered with coin type 1, which old firmware took as a reason to refuse 60 there.
const REGISTERED_AS_TEST: u64 = 999;

/// Since this version coin type 60 is accepted on every network.
const ETHEREUM_EVERYWHERE: Firmware = Firmware { major: 1, minor: 14, patch: 1 };

const ETHEREUM: u32 = 60;
const TEST: u32 = 1;

/// What a path is judged against.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules<'a> {
    pub(super) firmware: Firmware,
    pub(super) network: Option<&'a Network>,
    pub(super) chain_id: Option<u64>,
}

impl Rules<'_> {
    /// Is this one of the shapes that wallets use, within the bounds?
    pub(super) fn allow(self, path: &[u32]) -> bool {
        match *path {
            // Older ways first: the account itself, and "Ledger Live legacy".
            [purpose, coin, account] => purpose == hard(44) && self.allow_coin(coin) && is_account(account),
            [purpose, coin, account, index] => purpose == hard(44) && self.allow_coin(coin) && account == hard(0) && index <= ACCOUNT_MAX,
            [purpose, coin, account, change, index] if purpose == hard(44) => {
                self.allow_coin(coin) && is_account(account) && change <= CHANGE_MAX && index <= INDEX_MAX
            }
            // Casa's: nothing hardened below the purpose.
            [purpose, coin, account, change, index] if purpose == hard(45) => {
                coin < HARDENED && self.allow_coin(hard(coin)) && account <= ACCOUNT_MAX && change <= CHANGE_MAX && index <= INDEX_MAX
            }
            _ => false,
        }
    }

    fn allow_coin(self, step: u32) -> bool {
        if step < HARDENED {
            return false;
        }
        let coin_type = step - HARDENED;
        let registered = self.network.map(|network| network.slip44);
        match coin_type {
            ETHEREUM => {
                let test = registered == Some(TEST) || (registered.is_none() && self.chain_id == Some(REGISTERED_AS_TEST));
                !test || self.firmware >= ETHEREUM_EVERYWHERE
            }
            TEST => matches!(registered, None | Some(ETHEREUM | TEST)),
            own => registered == Some(own),
        }
    }
}

/// The path as people write it.
pub(super) fn text(path: &[u32]) -> String {
    path.iter().fold("m".to_owned(), |text, step| {
        let mark = if *step >= HARDENED { "'" } else { "" };
        format!("{text}/{}{mark}", step & !HARDENED)
    })
}

fn is_account(step: u32) -> bool {
    step >= HARDENED && step - HARDENED <= ACCOUNT_MAX
}

const fn hard(step: u32) -> u32 {
    step | HARDENED
}
