//! A local chain to catch up with: many blocks with transfers, few of them ours, and the list of those.
//!
//! A recipe decides everything, hashes included, so what was built once is kept under the recipe's own hash
//! and loaded again. A block holds one call with 43 token transfers, 3 of them ours, and seven plain
//! transfers of native coin, the first of them ours; every tenth block passes native coin on to us through
//! a contract, which no transaction and no log shows. Denser than real chains: every block has a hit, and
//! three in one transaction. No reorg, no limit on answers, no delay, one token. No private key passes
//! through this file: anvil signs for its own unlocked accounts.

use std::fmt::{self, Write as _};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use alloy::primitives::{Address, B256, Bytes, U64, U256, keccak256};
use alloy::sol_types::SolCall;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sqlx::{PgConnection, Row};

use super::chain::{ChainError, ChainOptions, LocalChain, PAYERS};
use super::contracts::{self, Forwarder, MultiSend};
use crate::account::store::DeviceHint;
use crate::account::{self, AccountError, AccountXpub, AddressIndex, Branch, Deriver};
use crate::db::{Database, DbError};
use crate::settings::{self, ChangeNote, Gate, NewChange, SettingsError, ThresholdKey};
use crate::units::{Asset, ChainId, Confirmations};

/// The account whose deposit addresses are watched: of the phrase that test devices are set up with.
pub const XPUB: &str = "xpub6CNFa58kEQJu2hwMVoofpDEKVVSg6gfwqBqE2zHAianaUnQkrJzJJ42iLDp7Dmg2aP88qCKoFZ4jidk3tECdQuF4567NGHDfe7iBRwHxgke";

/// To be raised when the same recipe gives another chain than before.
const VERSION: u32 = 1;
/// Deployments and the first tokens, one block each.
const SETUP_BLOCKS: u64 = 6;
const STRANGERS_TOKEN: u64 = 40;
const OURS_TOKEN: u64 = 3;
const TRANSFERS_NATIVE: u64 = 7;
const INTERNAL_EVERY: u64 = 10;

const BLOCK_GAS: u64 = 60_000_000;
const BLOCK_SECONDS: u64 = 12;
const GENESIS_TIME: u64 = 1_700_000_000;
const FEE_MAX_WEI: u64 = 50_000_000_000;
const TIP_WEI: u64 = 1_000_000_000;
const MULTI_SEND_GAS: u64 = 6_000_000;
const PLAIN_GAS: u64 = 21_000;
const FORWARD_GAS: u64 = 100_000;

/// Writing 300 MB down takes 1 to 3 s.
const STATE_WITHIN: Duration = Duration::from_secs(120);
/// Addresses handed out in one transaction: all of them touch one row, whose old versions pile up until
/// the transaction ends.
const ISSUED_PER_COMMIT: u32 = 100;

/// What decides a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// Blocks with transfers; the chain has six more before them, and block 0.
    pub blocks: u32,
    /// Deposit addresses that are paid to: the first ones of [`XPUB`].
    pub watched: u32,
    pub seed: u64,
}

/// How a payment reaches us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A log of the token.
    Token,
    /// The value of a transaction.
    Native,
    /// A call inside a transaction.
    Internal,
}

/// One transfer to us. The order is that of the blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sighting {
    pub block: u64,
    pub kind: Kind,
    pub recipient: Address,
    /// Base units.
    pub value: U256,
}

/// A chain that runs, and what a scanner must find on it.
#[derive(Debug)]
pub struct Workload {
    pub chain: LocalChain,
    /// Ascending.
    pub expected: Vec<Sighting>,
}

/// Why there is no workload.
#[derive(Debug, thiserror::Error)]
pub enum WorkloadError {
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error("{path}")]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} line {line}: {text:?} is no sighting")]
    Line { path: PathBuf, line: usize, text: String },
    #[error("block {block} holds {mined} transactions that succeeded, of {sent} sent")]
    NotMined { block: u64, mined: usize, sent: usize },
    #[error("derive the watched addresses: {0}")]
    Derive(String),
}

// === impl Recipe ===

impl Recipe {
    /// For a measurement. Building takes about 8 minutes, growing with each block, because anvil computes
    /// the root of its whole state again each time.
    pub const LARGE: Self = Self { blocks: 3_000, watched: 10_000, seed: 9 };
    /// For a look. Building takes 5 s.
    pub const SMALL: Self = Self { blocks: 300, ..Self::LARGE };

    /// The highest block.
    pub fn head(&self) -> u64 {
        SETUP_BLOCKS + u64::from(self.blocks)
    }

    /// Token transfers of the chain, everybody's.
    pub fn logs(&self) -> u64 {
        u64::from(self.blocks) * (STRANGERS_TOKEN + OURS_TOKEN)
    }

    /// Whether the chain is built already.
    pub fn is_built(&self) -> bool {
        self.state_file().exists()
    }

    /// How to run anvil while the chain is built.
    pub fn options(&self) -> ChainOptions {
        ChainOptions { block_gas: Some(BLOCK_GAS), genesis_time: Some(GENESIS_TIME), states_kept: Some(8), ..ChainOptions::default() }
    }

    fn folder(&self) -> PathBuf {
        let target =
            std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target"), PathBuf::from);
        target.join("workload").join(self.key())
    }

    fn state_file(&self) -> PathBuf {
        self.folder().join("state.json")
    }

    /// The first 16 digits of the hash of all that decides the chain.
    fn key(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(format!(
            "{VERSION} {self:?} {XPUB} {SETUP_BLOCKS} {STRANGERS_TOKEN} {OURS_TOKEN} {TRANSFERS_NATIVE} {INTERNAL_EVERY} {BLOCK_GAS} \
             {BLOCK_SECONDS} {GENESIS_TIME} {FEE_MAX_WEI} {TIP_WEI}"
        ));
        for artifact in deployments() {
            hash.update(artifact.bytecode);
        }
        hash.finalize().iter().take(8).fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    /// The addresses that are paid to, by index.
    pub fn watched_addresses(&self) -> Result<Vec<Address>, WorkloadError> {
        let xpub: AccountXpub = XPUB.parse().map_err(|error| WorkloadError::Derive(format!("{error}")))?;
        let deriver = Deriver::new(&xpub, Branch::Deposit).map_err(|error| WorkloadError::Derive(error.to_string()))?;
        let indices: Vec<AddressIndex> = (0..self.watched).filter_map(AddressIndex::new).collect();
        deriver.addresses(&indices).map_err(|error| WorkloadError::Derive(error.to_string()))
    }

    /// A number that the seed, the purpose and the place decide.
    fn random(&self, purpose: &str, block: u64, place: u64) -> B256 {
        keccak256(format!("{} {purpose} {block} {place}", self.seed))
    }

    fn stranger(&self, purpose: &str, block: u64, place: u64) -> Address {
        Address::from_slice(&self.random(purpose, block, place)[12..])
    }

    /// One of ours, with replacement.
    fn one_of<'a>(&self, watched: &'a [Address], purpose: &str, block: u64, place: u64) -> &'a Address {
        let number = U256::from_be_bytes(self.random(purpose, block, place).0) % U256::from(watched.len());
        &watched[number.to::<usize>()]
    }
}

// === building ===

/// The chain of a recipe: loaded, and built before that if nobody did. `progress` gets the number of blocks
/// that are done, now and then.
pub async fn open(recipe: &Recipe, progress: impl FnMut(u32)) -> Result<Workload, WorkloadError> {
    if !recipe.is_built() {
        keep(recipe, progress).await?;
    }
    let expected = read_sightings(&recipe.folder().join("expected.csv"))?;
    let chain = LocalChain::start(ChainOptions { load_from: Some(recipe.state_file()), ..ChainOptions::default() }).await?;
    Ok(Workload { chain, expected })
}

/// Builds the chain in a folder of its own, which gets its name when all is there: a run that was ended
/// half-way leaves nothing that looks whole.
async fn keep(recipe: &Recipe, progress: impl FnMut(u32)) -> Result<(), WorkloadError> {
    let folder = recipe.folder();
    let draft = folder.with_extension(format!("draft-{}", std::process::id()));
    fs::create_dir_all(&draft).map_err(file_error(&draft))?;
    let chain = LocalChain::start(ChainOptions { state_file: Some(draft.join("state.json")), ..recipe.options() }).await?;
    let expected = build(&chain, recipe, progress).await?;
    chain.stop(STATE_WITHIN)?;
    let list = draft.join("expected.csv");
    fs::write(&list, expected.iter().fold(String::new(), |text, sighting| text + &format!("{sighting}\n"))).map_err(file_error(&list))?;
    fs::rename(&draft, &folder).map_err(file_error(&folder))
}

fn deployments() -> [contracts::Artifact; 5] {
    // The first two are the tokens of chains.toml: a fresh chain's deployments have known addresses.
    [contracts::test_usdc(), contracts::test_usdt(), contracts::multi_send(), contracts::forwarder(), contracts::batch()]
}

/// Puts the transfers of a recipe on a fresh chain that was started with [`Recipe::options`].
pub async fn build(chain: &LocalChain, recipe: &Recipe, mut progress: impl FnMut(u32)) -> Result<Vec<Sighting>, WorkloadError> {
    chain.call::<_, Value>("anvil_setBlockTimestampInterval", (BLOCK_SECONDS,)).await?;
    let mut places = [Address::ZERO; 5];
    for (place, artifact) in places.iter_mut().zip(deployments()) {
        *place = chain.deploy(artifact.bytecode).await?;
    }
    let [token, _, multi_send, forwarder, _] = places;
    let stock = chain.mint(token, multi_send, U256::ONE << 100).await?;
    chain.mined(stock).await?;

    let watched = recipe.watched_addresses()?;
    let mut expected = Vec::new();
    for step in 0..recipe.blocks {
        let block = SETUP_BLOCKS + 1 + u64::from(step);
        let mut requests = vec![token_transfers(recipe, &watched, block, (multi_send, token), &mut expected)];
        requests.extend(native_transfers(recipe, &watched, block, &mut expected));
        if u64::from(step) % INTERNAL_EVERY == 0 {
            requests.push(forwarded(recipe, &watched, block, forwarder, &mut expected));
        }
        let sent = requests.len();
        for request in requests {
            chain.call::<_, B256>("eth_sendTransaction", (request,)).await?;
        }
        let head = chain.mine(1).await?;
        let mined = succeeded(chain, head.hash).await?;
        if head.number != block || mined != sent {
            return Err(WorkloadError::NotMined { block, mined, sent });
        }
        if (step + 1).is_multiple_of(100) {
            progress(step + 1);
        }
    }
    expected.sort_unstable();
    Ok(expected)
}

fn token_transfers(
    recipe: &Recipe,
    watched: &[Address],
    block: u64,
    (multi_send, token): (Address, Address),
    expected: &mut Vec<Sighting>,
) -> Value {
    let mut recipients: Vec<Address> = (0..STRANGERS_TOKEN).map(|place| recipe.stranger("token", block, place)).collect();
    let mut values: Vec<U256> = (0..STRANGERS_TOKEN).map(|place| U256::from(1_000 + place)).collect();
    for place in 0..OURS_TOKEN {
        let recipient = *recipe.one_of(watched, "our token", block, place);
        let value = U256::from(1_000_000 + 1_000 * block + place);
        expected.push(Sighting { block, kind: Kind::Token, recipient, value });
        recipients.push(recipient);
        values.push(value);
    }
    let data = MultiSend::sendCall { token, recipients, values }.abi_encode();
    request(PAYERS[0], multi_send, U256::ZERO, data.into(), MULTI_SEND_GAS)
}

fn native_transfers(recipe: &Recipe, watched: &[Address], block: u64, expected: &mut Vec<Sighting>) -> Vec<Value> {
    (0..TRANSFERS_NATIVE)
        .map(|place| {
            let value = U256::from(1_000_000_000_000 + 10 * block + place);
            let recipient = if place == 0 {
                let recipient = *recipe.one_of(watched, "our native", block, place);
                expected.push(Sighting { block, kind: Kind::Native, recipient, value });
                recipient
            } else {
                recipe.stranger("native", block, place)
            };
            request(PAYERS[1], recipient, value, Bytes::new(), PLAIN_GAS)
        })
        .collect()
}

fn forwarded(recipe: &Recipe, watched: &[Address], block: u64, forwarder: Address, expected: &mut Vec<Sighting>) -> Value {
    let recipient = *recipe.one_of(watched, "our internal", block, 0);
    let value = U256::from(1_000_000_000_000 + block);
    expected.push(Sighting { block, kind: Kind::Internal, recipient, value });
    request(PAYERS[2], forwarder, value, Forwarder::forwardCall { recipient }.abi_encode().into(), FORWARD_GAS)
}

fn request(from: Address, to: Address, value: U256, data: Bytes, gas: u64) -> Value {
    json!({
        "from": from, "to": to, "value": value, "data": data, "gas": U64::from(gas),
        "maxFeePerGas": U64::from(FEE_MAX_WEI), "maxPriorityFeePerGas": U64::from(TIP_WEI),
    })
}

/// How many transactions of a block did what they should.
async fn succeeded(chain: &LocalChain, block: B256) -> Result<usize, ChainError> {
    let receipts: Vec<Value> = chain.call("eth_getBlockReceipts", (block,)).await?;
    Ok(receipts.iter().filter(|receipt| receipt.get("status").and_then(Value::as_str) == Some("0x1")).count())
}

// === the list ===

impl fmt::Display for Sighting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{},{},{}", self.block, self.kind.name(), self.recipient, self.value)
    }
}

impl Sighting {
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split(',');
        let sighting = Self {
            block: fields.next()?.parse().ok()?,
            kind: Kind::parse(fields.next()?)?,
            recipient: fields.next()?.parse().ok()?,
            value: fields.next()?.parse().ok()?,
        };
        fields.next().is_none().then_some(sighting)
    }
}

impl Kind {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Native => "native",
            Self::Internal => "internal",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Token, Self::Native, Self::Internal].into_iter().find(|kind| kind.name() == text)
    }
}

fn read_sightings(path: &Path) -> Result<Vec<Sighting>, WorkloadError> {
    let text = fs::read_to_string(path).map_err(file_error(path))?;
    text.lines()
        .enumerate()
        .map(|(at, line)| {
            Sighting::parse(line).ok_or_else(|| WorkloadError::Line { path: path.to_path_buf(), line: at + 1, text: line.to_owned() })
        })
        .collect()
}

fn file_error(path: &Path) -> impl FnOnce(io::Error) -> WorkloadError {
    let path = path.to_path_buf();
    move |source| WorkloadError::File { path, source }
}

// === the books ===

/// Enrols [`XPUB`] and issues its first deposit addresses, in a database that has the schema.
pub async fn enrol(database: &Database, chain: ChainId, watched: u32) -> Result<(), AccountError> {
    let outcome = database.unit::<_, AccountError, _>(move |connection| {
        Box::pin(async move {
            let xpub: AccountXpub = XPUB.parse().expect("the constant is an xpub");
            account::store::insert(connection, "workload", &xpub, &DeviceHint::default()).await?;
            for (gate, blocks) in [(Gate::Credit, 3), (Gate::Release, 5)] {
                let note = ChangeNote { changed_by: "workload".to_owned(), user: None, reason: "workload".to_owned() };
                let (key, blocks) = (ThresholdKey::base(gate, chain), Confirmations::new(blocks).ok());
                let set = settings::store::set(connection, &NewChange { key, blocks, effective_at: None, note }).await;
                set.map_err(|error| match error {
                    SettingsError::Db(error) => error,
                    refused => unreachable!("an own threshold is refused: {refused}"),
                })?;
            }
            Ok::<(), AccountError>(())
        })
    });
    outcome.await?;
    let mut left = watched;
    while left > 0 {
        let some = left.min(ISSUED_PER_COMMIT);
        let issue = database.unit::<_, AccountError, _>(move |connection| {
            Box::pin(async move {
                for _ in 0..some {
                    account::store::claim_deposit_address(&mut *connection).await?;
                }
                Ok::<(), AccountError>(())
            })
        });
        issue.await?;
        left -= some;
    }
    Ok(())
}

/// What a scanner has stored as canonical, ascending. Fails when two rows have one economic key.
pub async fn found(connection: &mut PgConnection, chain: ChainId) -> Result<Vec<Sighting>, DbError> {
    let rows = sqlx::query(
        "select o.block_number, t.tx_hash || convert_to(t.position, 'UTF8') as key, t.position, o.asset::bytea as asset, \
             o.recipient::bytea as recipient, o.amount::text as amount \
         from transfer_observations o join transfers t on t.id = o.transfer_id \
         where o.chain_id = $1 and o.state = 'canonical'",
    )
    .bind(chain.as_i64())
    .fetch_all(connection)
    .await?;
    let mut keys: Vec<Vec<u8>> = rows.iter().map(|row| row.get("key")).collect();
    keys.sort_unstable();
    keys.dedup();
    if keys.len() != rows.len() {
        return Err(DbError::NotOneRow { what: "observations of one economic key", found: (rows.len() - keys.len()) as u64 + 1 });
    }
    let mut found: Vec<Sighting> = rows
        .iter()
        .map(|row| {
            let (position, amount): (&str, &str) = (row.get("position"), row.get("amount"));
            let kind = match (Asset::from_marker(Address::from_slice(row.get::<&[u8], _>("asset"))), position) {
                (Asset::Token(_), _) => Kind::Token,
                (Asset::Native, "call:") => Kind::Native,
                (Asset::Native, _) => Kind::Internal,
            };
            let corrupt = || DbError::Corrupt { column: "transfer_observations.amount", found: amount.to_owned(), wanted: "base units" };
            Ok(Sighting {
                block: row.get::<i64, _>("block_number").unsigned_abs(),
                kind,
                recipient: Address::from_slice(row.get::<&[u8], _>("recipient")),
                value: amount.parse().map_err(|_| corrupt())?,
            })
        })
        .collect::<Result<_, DbError>>()?;
    found.sort_unstable();
    Ok(found)
}

/// What is in one list and not in the other: missing, extra. Both lists ascend.
pub fn differences(found: &[Sighting], expected: &[Sighting]) -> (Vec<Sighting>, Vec<Sighting>) {
    let without = |list: &[Sighting], other: &[Sighting]| {
        let mut others = other.iter().peekable();
        let mut left = Vec::new();
        for sighting in list {
            while others.next_if(|other| *other < sighting).is_some() {}
            // Each entry of the other list answers for one of this.
            if others.next_if_eq(&sighting).is_none() {
                left.push(*sighting);
            }
        }
        left
    };
    (without(expected, found), without(found, expected))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sighting(block: u64, kind: Kind) -> Sighting {
        Sighting { block, kind, recipient: Address::repeat_byte(7), value: U256::from(block) }
    }

    #[test]
    fn differences_are_by_content_and_count() {
        let [a, b, c] = [sighting(1, Kind::Token), sighting(1, Kind::Native), sighting(2, Kind::Token)];
        assert_eq!(differences(&[a, b, c], &[a, b, c]), (vec![], vec![]));
        assert_eq!(differences(&[a, a, c], &[a, b, c]), (vec![b], vec![a]));
        assert_eq!(differences(&[], &[a]), (vec![a], vec![]));
        assert_eq!(differences(&[b], &[]), (vec![], vec![b]));
    }

    #[test]
    fn sightings_read_as_they_are_written() {
        let one = sighting(12, Kind::Internal);
        assert_eq!(Sighting::parse(&one.to_string()), Some(one));
        assert_eq!(Sighting::parse("12,token,0x00,1"), None);
        assert_eq!(Sighting::parse(&format!("{one},")), None);
    }

    #[test]
    fn another_recipe_is_another_folder() {
        let other = Recipe { seed: 10, ..Recipe::SMALL };
        assert_ne!(Recipe::SMALL.folder(), other.folder());
        assert_ne!(Recipe::SMALL.folder(), Recipe::LARGE.folder());
    }
}
