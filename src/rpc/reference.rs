//! The same answers through serde_json and a plain hexadecimal decoder: what our reader is held against.
//!
//! Each kind of answer is damaged in a thousand ways, and both readers must take the same texts and see
//! the same values in them. Where ours is the stricter one on purpose, a test of its own says so.

use alloy::primitives::{Address, B256, Bytes, FixedBytes, U256, hex};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error};

use super::answer::{Block, Log, RawBlock, RawHeader, RawLog, RawRangeLog, RawReceipt, RawTransaction, Receipt};
use super::error::Fault;
use super::hex::{Account, Data, Fixed, Quantity};
use super::json::{Flaw, read_whole};
use super::{read, sift};

// === the other way to read ===

fn digits<'de, D: Deserializer<'de>>(deserializer: D, upper: bool) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    let digits = text.strip_prefix("0x").ok_or_else(|| D::Error::custom("no prefix"))?;
    let fine = |byte: u8| byte.is_ascii_hexdigit() && (upper || !byte.is_ascii_uppercase());
    if digits.bytes().all(fine) { Ok(digits.to_owned()) } else { Err(D::Error::custom("no digits")) }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let digits = digits(deserializer, false)?;
        if digits.is_empty() || (digits.len() > 1 && digits.starts_with('0')) {
            return Err(D::Error::custom("not canonical"));
        }
        U256::from_str_radix(&digits, 16).map(Self).map_err(D::Error::custom)
    }
}

impl<'de, const N: usize> Deserialize<'de> for Fixed<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = hex::decode(digits(deserializer, false)?).map_err(D::Error::custom)?;
        FixedBytes::try_from(bytes.as_slice()).map(Self).map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Account {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = hex::decode(digits(deserializer, true)?).map_err(D::Error::custom)?;
        Address::try_from(bytes.as_slice()).map(Self).map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        hex::decode(digits(deserializer, false)?).map(|bytes| Self(Bytes::from(bytes))).map_err(D::Error::custom)
    }
}

#[derive(serde::Deserialize)]
struct Transactions {
    transactions: Vec<RawTransaction>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Numbered {
    block_number: Quantity,
}

/// `None` for what is not taken. An object may not be written as a list, which serde would take.
fn by_serde<T: DeserializeOwned>(text: &str) -> Option<T> {
    serde_json::from_str(text).ok()
}

fn block_by_serde(text: &str) -> Option<Block> {
    let raw = RawBlock { header: by_serde(text)?, transactions: by_serde::<Transactions>(text)?.transactions };
    raw.read(false).ok()
}

fn logs_by_serde(text: &str) -> Option<Vec<Log>> {
    by_serde::<Vec<RawLog>>(text)?.into_iter().map(|raw| raw.read().ok()).collect()
}

fn receipt_by_serde(text: &str) -> Option<Receipt> {
    by_serde::<RawReceipt>(text)?.read(TX).ok()
}

fn range_log_by_serde(text: &str) -> Option<(U256, Log)> {
    Some((by_serde::<Numbered>(text)?.block_number.0, by_serde::<RawLog>(text)?.read().ok()?))
}

// === answers ===

const TX: B256 = B256::repeat_byte(0x5e);
const BLOCK: B256 = B256::repeat_byte(0xb1);

fn log(topics: usize, removed: &str) -> String {
    let topics: Vec<String> = (0..topics).map(|topic| format!("\"{}\"", B256::repeat_byte(0xa0 + u8::try_from(topic).unwrap()))).collect();
    format!(
        r#"{{"address":"{:#x}","topics":[{}],"data":"{}","blockNumber":"0x1406f40","transactionHash":"{TX}","transactionIndex":"0x4","blockHash":"{BLOCK}","logIndex":"0xf"{removed}}}"#,
        Address::repeat_byte(0xc0),
        topics.join(","),
        B256::with_last_byte(7),
    )
}

fn receipt() -> String {
    format!(
        r#"{{"transactionHash":"{TX}","status":"0x1","blockHash":"{BLOCK}","blockNumber":"0x1406f40","transactionIndex":"0x4","gasUsed":"0x5208","effectiveGasPrice":"0x218711a00","l1Fee":null,"logs":[{}],"logsBloom":"0x{}","note":{{"a":[1,-2.5e3,"\u00e9\n",true,null]}}}}"#,
        log(3, ""),
        "00".repeat(256),
    )
}

fn block() -> String {
    let word = |byte| B256::repeat_byte(byte);
    let transaction = |index: usize, to: &str| {
        format!(
            r#"{{"hash":"{TX}","from":"{:#x}","to":{to},"value":"0xde0b6b3a7640000","blockHash":"{BLOCK}","transactionIndex":"{index:#x}","input":"0xa9059cbb"}}"#,
            Address::repeat_byte(0xf0),
        )
    };
    format!(
        r#"{{"hash":"{BLOCK}","parentHash":"{}","sha3Uncles":"{}","miner":"{:#x}","stateRoot":"{}","transactionsRoot":"{}","receiptsRoot":"{}","logsBloom":"0x{}","difficulty":"0x0","number":"0x1406f40","gasLimit":"0x2255100","gasUsed":"0x112a880","timestamp":"0x67172000","extraData":"0xd883010d0b","mixHash":"{}","nonce":"0x0000000000000000","baseFeePerGas":"0x218711a00","size":"0x2d5b4","uncles":[],"transactions":[{},{}]}}"#,
        word(1),
        word(2),
        Address::repeat_byte(3),
        word(4),
        word(5),
        word(6),
        "01".repeat(256),
        word(7),
        transaction(0, &format!("\"{:#x}\"", Address::repeat_byte(0xe0))),
        transaction(1, "null"),
    )
}

// === damage ===

/// What is put into a text, at any place or instead of a value.
const PIECES: &[&str] = &[
    "",
    "null",
    "true",
    "0",
    "-0",
    "1e999",
    "123456789012345678901234567890",
    "\"\"",
    "\"0x\"",
    "\"0x0\"",
    "\"0x00\"",
    "\"0X1\"",
    "\"0x0x1\"",
    "\"\\u0030x1\"",
    "\"\\ud800\"",
    "\"\\ud83d\\ude00\"",
    "\"0x1f",
    "\"\\",
    "[]",
    "{}",
    "[[]]",
    "{\"a\":1}",
    ",",
    ":",
    "]",
    "}",
    " ",
    "\n",
    "\t",
    "\u{0}",
    "é",
    "\u{feff}",
    "\"removed\":true,",
    "\"removed\":1,",
    "\"hash\":\"0x0\",",
    "\"data\":\"0x\",",
    "\"d\\u0061ta\":\"0x\",",
    "\"blockHash\":null,",
    "\"unknown\":[{\"x\":[]}],",
    "\"logs\":[],",
    "\"transactions\":[],",
];

#[derive(Clone, Debug)]
enum Damage {
    Flip {
        at: usize,
        bit: u8,
    },
    Cut {
        at: usize,
    },
    Drop {
        at: usize,
        length: usize,
    },
    Insert {
        at: usize,
        piece: usize,
    },
    /// What is between two quotation marks, written with an escape.
    Escape {
        at: usize,
    },
    Upper {
        at: usize,
        length: usize,
    },
    Repeat {
        at: usize,
        length: usize,
    },
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = 0..10_000_usize;
    prop_oneof![
        (at.clone(), 0..7_u8).prop_map(|(at, bit)| Damage::Flip { at, bit }),
        at.clone().prop_map(|at| Damage::Cut { at }),
        (at.clone(), 1..40_usize).prop_map(|(at, length)| Damage::Drop { at, length }),
        (at.clone(), 0..PIECES.len()).prop_map(|(at, piece)| Damage::Insert { at, piece }),
        (at.clone(), 0..PIECES.len()).prop_map(|(at, piece)| Damage::Insert { at, piece }),
        at.clone().prop_map(|at| Damage::Escape { at }),
        (at.clone(), 1..80_usize).prop_map(|(at, length)| Damage::Upper { at, length }),
        (at, 1..120_usize).prop_map(|(at, length)| Damage::Repeat { at, length }),
    ]
}

/// Damages a text; mostly where names and values begin, because elsewhere almost all damage is the same.
fn damaged(text: &str, all: &[Damage]) -> Option<String> {
    let mut bytes = text.as_bytes().to_vec();
    for one in all {
        let near = |at: usize| {
            let borders: Vec<usize> =
                (0..bytes.len()).filter(|&at| matches!(bytes.get(at), Some(b'"' | b',' | b':' | b'{' | b'}' | b'[' | b']'))).collect();
            if at.is_multiple_of(4) || borders.is_empty() { at % (bytes.len() + 1) } else { borders[at % borders.len()] + at / 7 % 2 }
        };
        match *one {
            Damage::Flip { at, bit } => {
                let at = near(at);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << bit;
                }
            }
            Damage::Cut { at } => bytes.truncate(near(at)),
            Damage::Drop { at, length } => {
                let (from, to) = (near(at), (near(at) + length).min(bytes.len()));
                bytes.drain(from..to.max(from));
            }
            Damage::Insert { at, piece } => {
                let at = near(at);
                bytes.splice(at..at, PIECES[piece].bytes());
            }
            Damage::Escape { at } => {
                let at = near(at);
                if let Some(&byte) = bytes.get(at)
                    && byte.is_ascii_alphanumeric()
                {
                    bytes.splice(at..=at, format!("\\u{byte:04x}").into_bytes());
                }
            }
            Damage::Upper { at, length } => {
                let (from, to) = (near(at), (near(at) + length).min(bytes.len()));
                if let Some(part) = bytes.get_mut(from..to) {
                    part.make_ascii_uppercase();
                }
            }
            Damage::Repeat { at, length } => {
                let (from, to) = (near(at), (near(at) + length).min(bytes.len()));
                let part = bytes.get(from..to).unwrap_or_default().to_vec();
                bytes.splice(to..to, part);
            }
        }
    }
    String::from_utf8(bytes).ok()
}

/// The same damage in every run.
fn runner(cases: u32) -> TestRunner {
    TestRunner::new_with_rng(
        Config { cases, failure_persistence: None, ..Config::default() },
        TestRng::deterministic_rng(RngAlgorithm::ChaCha),
    )
}

/// Runs both readers over damaged texts. Both must have taken and refused enough of them to mean something.
fn agree<T: PartialEq + std::fmt::Debug>(text: &str, ours: impl Fn(&str) -> Option<T>, theirs: impl Fn(&str) -> Option<T>) {
    assert!(ours(text).is_some() && ours(text) == theirs(text), "{text}");
    let (taken, refused) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    let damages = proptest::collection::vec(damage(), 1..3);
    runner(4_000)
        .run(&damages, |damages| {
            let Some(text) = damaged(text, &damages) else { return Ok(()) };
            let (ours, theirs) = (ours(&text), theirs(&text));
            let count = if ours.is_some() { &taken } else { &refused };
            count.set(count.get() + 1);
            prop_assert_eq!(ours, theirs, "{}", text);
            Ok(())
        })
        .unwrap();
    assert!(taken.get() > 100 && refused.get() > 100, "{} taken, {} refused", taken.get(), refused.get());
}

// === tests ===

#[test]
fn f14_damaged_logs_are_read_as_serde_json_reads_them() {
    let text = format!("[{},{}]", log(3, r#","removed":false"#), log(1, ""));
    agree(&text, |text| read_whole::<Vec<RawLog>>(text).ok()?.into_iter().map(|raw| raw.read().ok()).collect(), logs_by_serde);
}

#[test]
fn f14_damaged_blocks_are_read_as_serde_json_reads_them() {
    agree(&block(), |text| read_whole::<RawBlock>(text).ok()?.read(false).ok(), block_by_serde);
}

#[test]
fn f14_damaged_headers_are_read_as_serde_json_reads_them() {
    let read = |raw: RawHeader| raw.read(false).ok();
    agree(&block(), |text| read_whole(text).ok().and_then(read), |text| by_serde(text).and_then(read));
}

#[test]
fn f14_damaged_receipts_are_read_as_serde_json_reads_them() {
    agree(&receipt(), |text| read::read_receipt(text, TX).ok().flatten(), receipt_by_serde);
}

#[test]
fn f14_damaged_logs_of_a_range_are_read_as_serde_json_reads_them() {
    let ours = |text: &str| {
        let log = read_whole::<RawRangeLog>(text).ok()?;
        Some((log.block_number.0, log.log.read().ok()?))
    };
    agree(&log(3, ""), ours, range_log_by_serde);
}

/// Sifting gives what reading everything and looking then gives; it may take what reading refuses, but
/// only for flaws in logs that are not wanted.
#[test]
fn w3_sifting_finds_what_reading_finds() {
    let ours = Address::repeat_byte(0xa2);
    let other = log(3, "").replace(&"a2".repeat(32), &"1d".repeat(32));
    let dirty = log(3, "").replace(&"a2".repeat(32), &format!("{}{}", "ff".repeat(12), "a2".repeat(20)));
    let text = format!("[{},{other},{},{dirty},{}]", log(3, ""), log(2, ""), log(4, r#","removed":true"#));
    let wanted = |log: &Log| log.topics.get(2).is_some_and(|topic| Address::from_word(*topic) == ours);
    let (count, found) = sift::read_logs_where(&text, |_, recipient| recipient == Some(&ours)).unwrap();
    assert_eq!((count, found.len()), (5, 3));
    assert_eq!(found.iter().map(|found| found.number.0).collect::<Vec<_>>(), [0x0140_6f40; 3]);

    let sifted = std::cell::Cell::new(0);
    let damages = proptest::collection::vec(damage(), 1..3);
    runner(4_000)
        .run(&damages, |damages| {
            let Some(text) = damaged(&text, &damages) else { return Ok(()) };
            let sift = sift::read_logs_where(&text, |_, recipient| recipient == Some(&ours));
            let Some(all) = logs_by_serde(&text) else { return Ok(()) };
            if by_serde::<Vec<Numbered>>(&text).is_none() {
                return Ok(());
            }
            let expected: Vec<Log> = all.iter().filter(|log| wanted(log)).cloned().collect();
            let (count, found) = sift.map_err(|fault| TestCaseError::fail(fault.to_string()))?;
            prop_assert_eq!(count, all.len());
            prop_assert_eq!(found.into_iter().map(|found| found.log).collect::<Vec<_>>(), expected);
            sifted.set(sifted.get() + 1);
            Ok(())
        })
        .unwrap();
    assert!(sifted.get() > 100, "{}", sifted.get());

    let good = log(3, "");
    for bad in [
        good.replace("\"topics\"", "\"topic\""),
        good.replace("\"topics\"", "\"topics\":[],\"topics\""),
        good.replace("\"blockNumber\":\"0x1406f40\",", ""),
        good.replace("\"0x1406f40\"", "null"),
        good.replace("\"0x1406f40\"", "\"0xffffffffffffffff\""),
        good.replace("\"data\":\"0x", "\"data\":\"0"),
        good.replace("\"logIndex\"", "\"logindex\""),
        good.replace("a0a0", "A0A0"),
    ] {
        let text = format!("[{other},{bad}]");
        assert!(matches!(sift::read_logs_where(&text, |_, recipient| recipient == Some(&ours)), Err(Fault::Malformed { .. })), "{text}");
    }
    for broken in ["[", "[1]", "[{}]", "{}", "[] []", "", "[null]"] {
        assert!(matches!(sift::read_logs_where(broken, |_, _| true), Err(Fault::Malformed { .. })), "{broken}");
    }
    assert!(matches!(sift::read_logs_where("null", |_, _| true), Err(Fault::NotFound { .. })));
    assert_eq!(sift::read_logs_where(" [ ] ", |_, _| true), Ok((0, Vec::new())));
}

/// Where ours is stricter.
#[test]
fn f14_an_object_is_no_list_and_nesting_has_a_bound() {
    let as_list = format!("[\"{TX}\",\"{:#x}\",null,\"0x1\",null,null]", Address::ZERO);
    assert!(by_serde::<RawTransaction>(&as_list).is_some());
    assert_eq!(read_whole::<RawTransaction>(&as_list).err(), Some(Flaw::Unlike("an object")));
    let deep = log(3, &format!(",\"x\":{}{}", "[".repeat(200), "]".repeat(200)));
    assert!(by_serde::<RawLog>(&deep).is_some());
    assert_eq!(read_whole::<RawLog>(&deep).err(), Some(Flaw::TooDeep));
}
