//! The signing room against a simulated Trezor, through the wire.
//!
//! The simulator shares no code with the room, and what it signs was compared with a real device's
//! signatures (`tests/data/trezor/observed.json`). An outcome is asserted by its name, and after each
//! one the next job must work.

mod account;
mod faults;
mod hostile;
mod observed;
mod prompts;

use std::future::Future;
use std::time::Duration;

use alloy::primitives::{Address, U256, address};
use amanatd::account::AccountXpub;
use amanatd::chains::{ChainBook, ChainSpec};
use amanatd::devkit::trezor::{SimulatedTrezor, SimulatorOptions, button};
use amanatd::signing::{
    Definitions, Device, DeviceAddress, DeviceError, DeviceLimits, FeeCaps, Progress, SignedTx, TransactionDraft, TransactionRequest,
    Transfer,
};
use amanatd::units::{Asset, ChainId};

/// Account 0 of the simulator's wallet, without a passphrase.
const ACCOUNT_0: &str = "xpub6CNFa58kEQJu2hwMVoofpDEKVVSg6gfwqBqE2zHAianaUnQkrJzJJ42iLDp7Dmg2aP88qCKoFZ4jidk3tECdQuF4567NGHDfe7iBRwHxgke";

/// For jobs that nothing is wrong with: long enough for a busy machine.
fn patient() -> DeviceLimits {
    let long = Duration::from_secs(20);
    DeviceLimits {
        write: long,
        answer: long,
        seed: long,
        input: long,
        pin_answer: long,
        button: long,
        cancel: long,
        slice: Duration::from_millis(10),
    }
}

/// For jobs that must run into a limit.
fn hasty() -> DeviceLimits {
    let short = Duration::from_millis(700);
    DeviceLimits { answer: short, seed: short, input: short, pin_answer: short, button: short, cancel: short, ..patient() }
}

/// A test that hangs fails, whatever it waits for.
async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), work).await.expect("the job must end by itself")
}

fn start(options: SimulatorOptions) -> SimulatedTrezor {
    SimulatedTrezor::start(options).unwrap()
}

async fn open(trezor: &SimulatedTrezor, limits: DeviceLimits) -> Device {
    within(Device::open(DeviceAddress::Udp(trezor.address()), limits)).await.unwrap()
}

fn account_0() -> AccountXpub {
    ACCOUNT_0.parse().unwrap()
}

fn spec(chain: u64) -> ChainSpec {
    let book = ChainBook::parse(include_str!("../../chains.toml")).unwrap();
    book.get(ChainId::new(chain).unwrap()).unwrap().clone()
}

/// 123.456789 USDT on Ethereum from m/44'/60'/0'/0/7, as in `observed.json`.
fn usdt() -> TransactionRequest {
    let draft = TransactionDraft {
        chain: ChainId::new(1).unwrap(),
        from: "m/44'/60'/0'/0/7".parse().unwrap(),
        sender: address!("0xf2252f414e727d652d5a488fE4BFf7e64478737F"),
        nonce: 0,
        transfer: Transfer {
            asset: Asset::Token(spec(1).token("USDT").unwrap().contract),
            to: Address::repeat_byte(0x22),
            amount: U256::from(123_456_789),
        },
        fees: FeeCaps { gas_limit: 65_000, max_fee_per_gas: 30_000_000_000, max_priority_fee_per_gas: 1_000_000_000 },
    };
    TransactionRequest::check(draft, &spec(1)).unwrap()
}

/// Signs `usdt` with account 0, in one go as an officer's station would.
async fn sign(device: &Device) -> Result<SignedTx, DeviceError> {
    within(async {
        let request = usdt();
        let definitions = Definitions::load(None, &spec(1), request.transfer().asset);
        device.open_account(account_0()).await?.sign(request, definitions).await
    })
    .await
}

async fn until(device: &Device, reached: impl Fn(&Progress) -> bool) {
    let mut progress = device.progress();
    within(progress.wait_for(reached)).await.unwrap();
}

/// How many pages of transactions were shown.
fn signing_pages(trezor: &SimulatedTrezor) -> usize {
    trezor.screens().iter().filter(|screen| screen.button() == Some(button::SIGN_TX)).count()
}
