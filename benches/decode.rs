//! What a node answers, as text, into our words, against the types of the usual library.
//!
//! Our side makes every check that the daemon makes, the hash of the header among them.

use std::fmt::Write as _;
use std::hint::black_box;

use alloy::consensus::{Header as HashedHeader, Transaction as _};
use alloy::network::{AnyRpcBlock, AnyTransactionReceipt};
use alloy::primitives::map::AddressSet;
use alloy::primitives::{Address, B64, B256, Bloom, Bytes, U256, b256, hex};
use alloy::rpc::types::{Block as AlloyBlock, Log as AlloyLog, TransactionReceipt};
use amanatd::rpc::{Block, Header, Log, RangeLog, Receipt, Transaction, decode};
use amanatd::units::{BlockNumber, BlockRef};
use pair::{Bench, Equal, Pair, Random, Side};
use serde::de::DeserializeOwned;

mod pair;

const SEED: u64 = 3;
const LOGS: usize = 10_000;
/// Of a range: so many of each block's logs pass the filter, and so many of a hundred pay us.
const LOGS_OF_A_BLOCK: usize = 50;
const OURS_PERCENT: u64 = 7;
const BATCH: usize = 100;
const LOGS_OF_AN_ANSWER: usize = 400;
const TRANSACTIONS: usize = 300;
/// `Transfer(address,address,uint256)`.
const TRANSFER: B256 = b256!("ddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef");
const PASS: &str = "one pass over the bytes";

fn main() {
    let bench = Bench::start("decode");
    bench.note(&format!(
        "seed {SEED}, compact JSON as a node writes it; theirs through serde_json; limit: {PASS} with the standard library's search"
    ));
    let mut random = Random::seeded(SEED);
    logs(&bench, &mut random);
    range(&bench, &mut random);
    batch(&bench, &mut random);
    block(&bench, &mut random);
    receipts(&bench, &mut random);
}

fn logs(bench: &Bench, random: &mut Random) {
    let block = Place { hash: random.bytes::<32>().into(), number: 21_000_000 };
    let contracts = [Address::from(random.bytes::<20>()), Address::from(random.bytes::<20>())];
    let all: Vec<String> = (0..LOGS)
        .map(|index| {
            let contract = contracts[index % contracts.len()];
            let tx_hash = B256::from(random.bytes::<32>());
            log_text(random, &block, tx_hash, index / 4, index, contract)
        })
        .collect();
    let text = format!("[{}]", all.join(","));
    bench.note(&format!("logs: {LOGS} transfers of one block, {} bytes", pair::grouped(text.len() as u128)));

    let ours = || decode::logs(&text, block.hash, &contracts, TRANSFER).expect("good logs");
    let theirs = || read::<Vec<AlloyLog>>(&text);
    let equal = Equal::proved("logs", &ours(), &theirs().iter().map(lean_log).collect::<Vec<_>>());
    bench.compare(
        &Pair { variant: "logs", baseline: "alloy 2.5 Log", equal },
        Side::timed(LOGS, || keep(ours())),
        Side::timed(LOGS, || keep(theirs())),
        Some(pass(LOGS, &[&text])),
    );
}

/// As [`logs`], but few of the logs pay us. Theirs decodes all of them and then looks.
fn range(bench: &Bench, random: &mut Random) {
    let contracts = [Address::from(random.bytes::<20>()), Address::from(random.bytes::<20>())];
    let mut block = Place { hash: random.bytes::<32>().into(), number: 21_000_000 };
    let all: Vec<String> = (0..LOGS)
        .map(|index| {
            if index % LOGS_OF_A_BLOCK == 0 {
                block = Place { hash: random.bytes::<32>().into(), number: block.number + 1 };
            }
            let tx_hash = B256::from(random.bytes::<32>());
            log_text(random, &block, tx_hash, index / 4, index, contracts[index % contracts.len()])
        })
        .collect();
    let text = format!("[{}]", all.join(","));
    let theirs = || read::<Vec<AlloyLog>>(&text);
    let recipient = |log: &AlloyLog| log.topics().get(2).map(|topic| Address::from_word(*topic));
    let ours: AddressSet = theirs().iter().filter(|_| random.below(100) < OURS_PERCENT).filter_map(recipient).collect();
    bench.note(&format!(
        "range: {LOGS} transfers of {} blocks, {} bytes, {} of them to addresses of ours",
        LOGS / LOGS_OF_A_BLOCK,
        pair::grouped(text.len() as u128),
        ours.len()
    ));

    let sifted = || decode::logs_where(&text, |recipient| ours.contains(recipient)).expect("good logs");
    let filtered = || -> Vec<AlloyLog> {
        theirs().into_iter().filter(|log| recipient(log).is_some_and(|recipient| ours.contains(&recipient))).collect()
    };
    let lean: Vec<RangeLog> =
        filtered().iter().map(|log| RangeLog { number: BlockNumber(log.block_number.expect("a mined log")), log: lean_log(log) }).collect();
    let (count, kept) = sifted();
    Equal::proved("range", &[count], &[LOGS]);
    let equal = Equal::proved("range", &kept, &lean);
    bench.compare(
        &Pair { variant: "range", baseline: "alloy 2.5 Log", equal },
        Side::timed(LOGS, || keep(sifted())),
        Side::timed(LOGS, || keep(filtered())),
        Some(pass(LOGS, &[&text])),
    );
}

/// The answer to many requests at once, taken apart without decoding the results.
fn batch(bench: &Bench, random: &mut Random) {
    let block = Place { hash: random.bytes::<32>().into(), number: 21_000_000 };
    let contract = Address::from(random.bytes::<20>());
    let results: Vec<String> = (0..BATCH)
        .map(|_| {
            let logs: Vec<String> = (0..LOGS_OF_AN_ANSWER)
                .map(|index| {
                    let tx_hash = B256::from(random.bytes::<32>());
                    log_text(random, &block, tx_hash, index, index, contract)
                })
                .collect();
            format!("[{}]", logs.join(","))
        })
        .collect();
    // The last answer comes first, as from a node that works on several at once.
    let answers: Vec<String> =
        results.iter().enumerate().rev().map(|(id, result)| format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)).collect();
    let body = format!("[{}]", answers.join(","));
    bench.note(&format!("batch: {BATCH} answers of {LOGS_OF_AN_ANSWER} logs, {} bytes", pair::grouped(body.len() as u128)));

    let ours = || decode::batch(body.as_bytes(), 0..BATCH as u64).expect("a good batch");
    let theirs = || {
        let mut answers: Vec<RawAnswer<'_>> = serde_json::from_slice(body.as_bytes()).expect("good JSON");
        answers.sort_by_key(|answer| answer.id);
        answers.into_iter().map(|answer| answer.result.get()).collect::<Vec<&str>>()
    };
    let equal = Equal::proved("batch", &ours(), &theirs());
    bench.compare(
        &Pair { variant: "batch", baseline: "serde_json RawValue", equal },
        Side::timed(BATCH, || keep(ours())),
        Side::timed(BATCH, || keep(theirs())),
        Some(pass(BATCH, &[&body])),
    );
}

#[derive(serde::Deserialize)]
struct RawAnswer<'a> {
    id: u64,
    #[serde(borrow)]
    result: &'a serde_json::value::RawValue,
}

fn block(bench: &Bench, random: &mut Random) {
    let (hash, text) = block_text(random);
    bench.note(&format!("block: {TRANSACTIONS} transactions, {} bytes; a rate counts transactions", pair::grouped(text.len() as u128)));
    let ours = || decode::block(&text, hash).expect("a good block");
    let theirs = || read::<AlloyBlock>(&text);
    let any = || read::<AnyRpcBlock>(&text);

    let lean = ours();
    let equal = Equal::proved("block", &lean.transactions, &lean_block(&theirs()).transactions);
    let any_hashes: Vec<B256> = any().transactions.hashes().collect();
    Equal::proved("block", &lean.transactions.iter().map(|transaction| transaction.hash).collect::<Vec<_>>(), &any_hashes);
    Equal::proved("header", &[lean.header], &[lean_block(&theirs()).header]);
    bench.compare(
        &Pair { variant: "block", baseline: "alloy 2.5 Block", equal },
        Side::timed(TRANSACTIONS, || keep(ours())),
        Side::timed(TRANSACTIONS, || keep(theirs())),
        Some(pass(TRANSACTIONS, &[&text])),
    );
    bench.compare(
        &Pair { variant: "block", baseline: "alloy 2.5 AnyRpcBlock", equal },
        Side::timed(TRANSACTIONS, || keep(ours())),
        Side::timed(TRANSACTIONS, || keep(any())),
        Some(pass(TRANSACTIONS, &[&text])),
    );
}

fn receipts(bench: &Bench, random: &mut Random) {
    let place = Place { hash: random.bytes::<32>().into(), number: 21_000_000 };
    let mut log_index = 0;
    let all: Vec<(B256, String)> = (0..TRANSACTIONS)
        .map(|index| {
            let hash = B256::from(random.bytes::<32>());
            (hash, receipt_text(random, &place, hash, index, &mut log_index))
        })
        .collect();
    let texts: Vec<&str> = all.iter().map(|(_, text)| text.as_str()).collect();
    let bytes: usize = texts.iter().map(|text| text.len()).sum();
    bench.note(&format!("receipts: {TRANSACTIONS} answers, {log_index} logs, {} bytes", pair::grouped(bytes as u128)));

    let ours = || -> Vec<Receipt> {
        all.iter().map(|(hash, text)| decode::receipt(text, *hash).expect("a good receipt").expect("a receipt")).collect()
    };
    let theirs = || -> Vec<TransactionReceipt> { texts.iter().map(|text| read(text)).collect() };
    let any = || -> Vec<AnyTransactionReceipt> { texts.iter().map(|text| read(text)).collect() };
    let equal = Equal::proved("receipts", &ours(), &theirs().iter().map(lean_receipt).collect::<Vec<_>>());
    let logs_of_any: Vec<usize> = any().iter().map(|receipt| receipt.inner.inner.inner.receipt.logs.len()).collect();
    Equal::proved("receipts", &ours().iter().map(|receipt| receipt.logs.len()).collect::<Vec<_>>(), &logs_of_any);
    bench.compare(
        &Pair { variant: "receipts", baseline: "alloy 2.5 TransactionReceipt", equal },
        Side::timed(TRANSACTIONS, || keep(ours())),
        Side::timed(TRANSACTIONS, || keep(theirs())),
        Some(pass(TRANSACTIONS, &texts)),
    );
    bench.compare(
        &Pair { variant: "receipts", baseline: "alloy 2.5 AnyTransactionReceipt", equal },
        Side::timed(TRANSACTIONS, || keep(ours())),
        Side::timed(TRANSACTIONS, || keep(any())),
        Some(pass(TRANSACTIONS, &texts)),
    );
}

fn read<T: DeserializeOwned>(text: &str) -> T {
    serde_json::from_str(text).expect("good JSON")
}

/// The optimiser must not see that nobody wants the result.
fn keep<T>(result: T) {
    black_box(result);
}

fn pass<'a>(items: usize, texts: &[&'a str]) -> Side<'a> {
    let texts = texts.to_vec();
    Side::timed(items, move || {
        for text in &texts {
            // No node writes this byte, so the search goes to the end.
            black_box(black_box(text).as_bytes().contains(&0));
        }
    })
}

// === what theirs says, in our words ===

fn lean_log(log: &AlloyLog) -> Log {
    Log {
        block_hash: log.block_hash,
        tx_hash: log.transaction_hash.expect("a mined log"),
        log_index: log.log_index.expect("a mined log"),
        address: log.inner.address,
        topics: log.inner.data.topics().to_vec(),
        data: log.inner.data.data.clone(),
        removed: log.removed,
    }
}

fn lean_block(block: &AlloyBlock) -> Block {
    let header = &block.header;
    Block {
        header: Header {
            block: BlockRef { number: BlockNumber(header.inner.number), hash: header.hash },
            parent_hash: header.inner.parent_hash,
            timestamp: header.inner.timestamp,
            base_fee: header.inner.base_fee_per_gas.map(u128::from),
            logs_bloom: header.inner.logs_bloom,
        },
        transactions: block
            .transactions
            .txns()
            .map(|transaction| Transaction {
                hash: *transaction.inner.tx_hash(),
                from: transaction.inner.signer(),
                to: transaction.to(),
                value: transaction.value(),
            })
            .collect(),
    }
}

fn lean_receipt(receipt: &TransactionReceipt) -> Receipt {
    Receipt {
        tx_hash: receipt.transaction_hash,
        succeeded: receipt.status(),
        block: BlockRef {
            number: BlockNumber(receipt.block_number.expect("a mined receipt")),
            hash: receipt.block_hash.expect("a mined receipt"),
        },
        tx_index: receipt.transaction_index.expect("a mined receipt"),
        gas_used: receipt.gas_used,
        effective_gas_price: Some(receipt.effective_gas_price),
        l1_fee: None,
        logs: receipt.inner.logs().iter().map(lean_log).collect(),
    }
}

// === what a node writes ===

struct Place {
    hash: B256,
    number: u64,
}

fn log_text(random: &mut Random, place: &Place, tx_hash: B256, tx_index: usize, log_index: usize, contract: Address) -> String {
    let topic = |random: &mut Random| B256::left_padding_from(&random.bytes::<20>());
    let (sender, recipient) = (topic(random), topic(random));
    let amount = B256::from(U256::from(random.number()));
    format!(
        r#"{{"address":"{contract:#x}","topics":["{TRANSFER}","{sender}","{recipient}"],"data":"{amount}","blockNumber":"{:#x}","transactionHash":"{tx_hash}","transactionIndex":"{tx_index:#x}","blockHash":"{}","blockTimestamp":"0x67172000","logIndex":"{log_index:#x}","removed":false}}"#,
        place.number, place.hash,
    )
}

fn block_text(random: &mut Random) -> (B256, String) {
    let header = HashedHeader {
        parent_hash: random.bytes::<32>().into(),
        ommers_hash: random.bytes::<32>().into(),
        beneficiary: random.bytes::<20>().into(),
        state_root: random.bytes::<32>().into(),
        transactions_root: random.bytes::<32>().into(),
        receipts_root: random.bytes::<32>().into(),
        logs_bloom: Bloom::from(random.bytes::<256>()),
        difficulty: U256::ZERO,
        number: 21_000_000,
        gas_limit: 36_000_000,
        gas_used: 18_000_000 + random.below(1_000_000),
        timestamp: 1_729_500_000,
        extra_data: Bytes::from_static(b"a builder"),
        mix_hash: random.bytes::<32>().into(),
        nonce: B64::ZERO,
        base_fee_per_gas: Some(9_000_000_000 + random.below(1_000_000_000)),
        withdrawals_root: Some(random.bytes::<32>().into()),
        blob_gas_used: Some(393_216),
        excess_blob_gas: Some(77_070_336),
        parent_beacon_block_root: Some(random.bytes::<32>().into()),
        requests_hash: Some(random.bytes::<32>().into()),
        ..HashedHeader::default()
    };
    let hash = header.hash_slow();
    let place = Place { hash, number: header.number };
    let transactions: Vec<String> = (0..TRANSACTIONS).map(|index| transaction_text(random, &place, index)).collect();
    let withdrawals: Vec<String> = (0..16_u64)
        .map(|index| {
            let (validator, address, amount) = (random.below(1_000_000), Address::from(random.bytes::<20>()), random.below(1 << 25));
            format!(
                r#"{{"index":"{:#x}","validatorIndex":"{validator:#x}","address":"{address:#x}","amount":"{amount:#x}"}}"#,
                64_000_000 + index
            )
        })
        .collect();
    let mut text = String::from("{");
    let mut field = |name: &str, value: &dyn std::fmt::Display| write!(text, r#""{name}":"{value}","#).expect("memory");
    let number = |number: u64| format!("{number:#x}");
    field("hash", &hash);
    field("parentHash", &header.parent_hash);
    field("sha3Uncles", &header.ommers_hash);
    field("miner", &format!("{:#x}", header.beneficiary));
    field("stateRoot", &header.state_root);
    field("transactionsRoot", &header.transactions_root);
    field("receiptsRoot", &header.receipts_root);
    field("logsBloom", &header.logs_bloom);
    field("difficulty", &"0x0");
    field("number", &number(header.number));
    field("gasLimit", &number(header.gas_limit));
    field("gasUsed", &number(header.gas_used));
    field("timestamp", &number(header.timestamp));
    field("extraData", &header.extra_data);
    field("mixHash", &header.mix_hash);
    field("nonce", &header.nonce);
    field("baseFeePerGas", &number(header.base_fee_per_gas.unwrap_or_default()));
    field("withdrawalsRoot", &header.withdrawals_root.unwrap_or_default());
    field("blobGasUsed", &number(header.blob_gas_used.unwrap_or_default()));
    field("excessBlobGas", &number(header.excess_blob_gas.unwrap_or_default()));
    field("parentBeaconBlockRoot", &header.parent_beacon_block_root.unwrap_or_default());
    field("requestsHash", &header.requests_hash.unwrap_or_default());
    field("size", &"0x2d5b4");
    write!(text, r#""uncles":[],"transactions":[{}],"withdrawals":[{}]}}"#, transactions.join(","), withdrawals.join(",")).expect("memory");
    (hash, text)
}

/// Three of four in today's form, the others in the oldest; call data from a token transfer's to a swap's.
fn transaction_text(random: &mut Random, place: &Place, index: usize) -> String {
    let [from, to] = [(); 2].map(|()| Address::from(random.bytes::<20>()));
    let [hash, r, s] = [(); 3].map(|()| B256::from(random.bytes::<32>()));
    let (r, s) = (U256::from_be_bytes(r.0), U256::from_be_bytes(s.0) >> 1);
    let length = if random.below(3) == 0 { 68 + 32 * random.below(24) } else { 68 };
    let input = hex::encode_prefixed(random.data(usize::try_from(length).expect("small")));
    let (gas, nonce, value, price) =
        (21_000 + random.below(400_000), random.below(5_000), random.number(), 9_000_000_000 + random.below(2_000_000_000));
    let parity = random.below(2);
    let head = format!(
        r#""blockHash":"{}","blockNumber":"{:#x}","from":"{from:#x}","gas":"{gas:#x}","gasPrice":"{price:#x}","hash":"{hash}","input":"{input}","nonce":"{nonce:#x}","to":"{to:#x}","transactionIndex":"{index:#x}","value":"{value:#x}","chainId":"0x1","r":"{r:#x}","s":"{s:#x}""#,
        place.hash, place.number
    );
    if index % 4 == 3 {
        return format!(r#"{{{head},"type":"0x0","v":"{:#x}"}}"#, 37 + parity);
    }
    let (most, tip) = (price * 2, random.below(1_000_000_000));
    format!(
        r#"{{{head},"type":"0x2","maxFeePerGas":"{most:#x}","maxPriorityFeePerGas":"{tip:#x}","accessList":[],"v":"{parity:#x}","yParity":"{parity:#x}"}}"#
    )
}

fn receipt_text(random: &mut Random, place: &Place, hash: B256, index: usize, log_index: &mut usize) -> String {
    let [from, to, contract] = [(); 3].map(|()| Address::from(random.bytes::<20>()));
    let logs: Vec<String> = (0..random.below(5).saturating_sub(index as u64 % 2))
        .map(|_| {
            *log_index += 1;
            log_text(random, place, hash, index, *log_index - 1, contract)
        })
        .collect();
    let (gas, price) = (21_000 + random.below(400_000), 9_000_000_000 + random.below(2_000_000_000));
    let status = u8::from(index % 50 != 7);
    let bloom = Bloom::from(random.bytes::<256>());
    format!(
        r#"{{"blockHash":"{}","blockNumber":"{:#x}","contractAddress":null,"cumulativeGasUsed":"{:#x}","effectiveGasPrice":"{price:#x}","from":"{from:#x}","gasUsed":"{gas:#x}","logs":[{}],"logsBloom":"{bloom}","status":"{status:#x}","to":"{to:#x}","transactionHash":"{hash}","transactionIndex":"{index:#x}","type":"0x2"}}"#,
        place.hash,
        place.number,
        gas * (index as u64 + 1),
        logs.join(","),
    )
}
