//! Seals: what was posted, fixed in blocks that are chained to each other, so that a later change is found
//! and named, whoever made it. Pure: how an entry is written as bytes, the tree, the head.
//!
//! docs/ledger.md describes the same for a reader with other tools; `it/seals.rs` computes it in SQL.
//! Sealing runs behind posting and never inside it. An entry belongs to the block that names its id: ids
//! are given before entries commit, so blocks are lists of ids and not ranges.

pub mod store;
mod worker;

pub use worker::{Sealer, officer_address, signed_by, verify, verify_blocks};

use std::fmt::{self, Write as _};

use alloy::primitives::{B256, eip191_hash_message};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use crate::units::LedgerEntryId;

/// Entries in one block at most.
pub const BLOCK_ENTRIES: usize = 1_024;

/// An entry as the database holds it, every column as text, with what its two accounts mean. `None` is null.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub id: LedgerEntryId,
    /// In the order of docs/ledger.md.
    pub columns: [Option<String>; Record::COLUMNS],
}

impl Record {
    pub const COLUMNS: usize = 22;
    /// Begins each record, so that another encoding can never be taken for this one.
    const FORM: &'static str = "amanatd entry 1";

    /// The bytes that are hashed: netstrings (`<length>:<bytes>,`), and `-,` for null.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(512);
        netstring(&mut bytes, Self::FORM);
        for column in &self.columns {
            match column {
                Some(text) => netstring(&mut bytes, text),
                None => bytes.extend_from_slice(b"-,"),
            }
        }
        bytes
    }

    /// SHA-256 over a zero byte and the record.
    pub fn leaf(&self) -> B256 {
        hash(&[&[0], &self.encode()])
    }
}

fn netstring(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend_from_slice(text.len().to_string().as_bytes());
    bytes.push(b':');
    bytes.extend_from_slice(text.as_bytes());
    bytes.push(b',');
}

fn hash(parts: &[&[u8]]) -> B256 {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    B256::from_slice(&hasher.finalize())
}

/// The root of RFC 6962's tree over leaves that are hashes already: the left half is the largest power of two
/// below the number of leaves, and an inner node is SHA-256 over a byte of one and both halves.
pub fn root(leaves: &[B256]) -> B256 {
    match leaves {
        [] => hash(&[]),
        [only] => *only,
        many => {
            let (left, right) = many.split_at(1 << (usize::BITS - 1 - (many.len() - 1).leading_zeros()));
            hash(&[&[1], root(left).as_slice(), root(right).as_slice()])
        }
    }
}

/// What is told of a seal outside the database: everything but the entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    pub number: i64,
    /// The hash of the seal before it; zeros for the first.
    pub previous: B256,
    pub entries: u64,
    /// In this block and all before it.
    pub entries_total: u64,
    pub root: B256,
    /// One line for each account: path, fingerprint, how many deposit addresses it has issued.
    pub derivation: String,
    pub sealed_at: OffsetDateTime,
}

impl Head {
    /// The head as text, one fact on a line.
    pub fn text(&self) -> String {
        let micros = self.sealed_at.unix_timestamp_nanos() / 1_000;
        let mut text = format!(
            "amanatd seal 1\nnumber {}\nprevious {}\nentries {}\ntotal {}\nroot {}\nsealed {micros}\n",
            self.number, self.previous, self.entries, self.entries_total, self.root
        );
        for line in self.derivation.lines() {
            let _ = writeln!(text, "derivation {line}");
        }
        text
    }

    /// What the next seal names, what is exported, and what an officer signs: SHA-256 over the text.
    pub fn hash(&self) -> B256 {
        hash(&[self.text().as_bytes()])
    }

    /// What an officer's device shows and signs (EIP-191). Short, and one line of ASCII: anything else a Trezor One
    /// shows in hexadecimal.
    pub fn message(&self) -> String {
        format!("amanatd ledger seal {}: {} entries, {}", self.number, self.entries_total, self.hash())
    }

    /// The hash that the officer's signature is over.
    pub fn message_hash(&self) -> B256 {
        eip191_hash_message(self.message())
    }

    /// One line for the journal, the file and other hosts.
    pub fn line(&self) -> String {
        let line = HeadLine {
            number: self.number,
            hash: self.hash(),
            previous: self.previous,
            entries: self.entries,
            total: self.entries_total,
            root: self.root,
            sealed_micros: i64::try_from(self.sealed_at.unix_timestamp_nanos() / 1_000).unwrap_or(i64::MAX),
            derivation: self.derivation.lines().map(str::to_owned).collect(),
        };
        serde_json::to_string(&line).unwrap_or_default()
    }

    /// Reads a line back. A line whose hash is not that of its own fields is none.
    pub fn parse(line: &str) -> Result<Self, HeadError> {
        let read: HeadLine = serde_json::from_str(line).map_err(|_| HeadError::Form)?;
        let head = Self {
            number: read.number,
            previous: read.previous,
            entries: read.entries,
            entries_total: read.total,
            root: read.root,
            derivation: read.derivation.join("\n"),
            sealed_at: OffsetDateTime::from_unix_timestamp_nanos(i128::from(read.sealed_micros) * 1_000).map_err(|_| HeadError::Form)?,
        };
        if head.hash() == read.hash { Ok(head) } else { Err(HeadError::Hash { number: read.number }) }
    }
}

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct HeadLine {
    number: i64,
    hash: B256,
    previous: B256,
    entries: u64,
    total: u64,
    root: B256,
    sealed_micros: i64,
    derivation: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    #[error("this is no line of a seal's head")]
    Form,
    #[error("the line of seal {number} was changed: its hash is not that of its fields")]
    Hash { number: i64 },
}

/// One way in which the ledger is not what was sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A row that was sealed reads differently now.
    EntryChanged {
        seal: i64,
        entry: LedgerEntryId,
    },
    /// A row that was sealed is not there.
    EntryMissing {
        seal: i64,
        entry: LedgerEntryId,
    },
    /// A row that two seals name.
    EntryTwice {
        seal: i64,
        entry: LedgerEntryId,
    },
    /// A row that posting has long passed and no seal names.
    EntryUnsealed {
        entry: LedgerEntryId,
    },
    SealMissing {
        seal: i64,
    },
    SealChanged {
        seal: i64,
        what: &'static str,
    },
    /// The database's seal is another one than was exported.
    NotAsExported {
        seal: i64,
    },
    /// Seals up to here were exported and are not in the database.
    Truncated {
        exported: i64,
        found: i64,
    },
    /// An account has issued fewer addresses than a seal says.
    DerivationBehind {
        account: String,
        sealed: u32,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EntryChanged { seal, entry } => write!(f, "entry {entry} was changed after seal {seal} was made"),
            Self::EntryMissing { seal, entry } => write!(f, "entry {entry} was removed after seal {seal} was made"),
            Self::EntryTwice { seal, entry } => write!(f, "entry {entry} is in seal {seal} and in another one"),
            Self::EntryUnsealed { entry } => write!(f, "entry {entry} is in no seal, although later ones are"),
            Self::SealMissing { seal } => write!(f, "seal {seal} was removed"),
            Self::SealChanged { seal, what } => write!(f, "seal {seal} was changed: {what}"),
            Self::NotAsExported { seal } => write!(f, "seal {seal} is not the one that was exported"),
            Self::Truncated { exported, found } => {
                write!(f, "seal {exported} was exported, and the last one here is {found}: the end of the ledger was removed")
            }
            Self::DerivationBehind { account, sealed } => {
                write!(f, "account {account} had issued {sealed} addresses when it was sealed, and has issued fewer now")
            }
        }
    }
}

/// What a walk along the seals found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub seals: u64,
    pub entries: u64,
    /// Posted and not sealed yet.
    pub unsealed: u64,
    /// The head of the last seal.
    pub head: Option<Head>,
    /// Signatures of officers that are of their seal and of their account's key.
    pub signatures: u64,
    /// The first ones, in the order of the seals.
    pub faults: Vec<Fault>,
}

impl Verdict {
    /// How many faults are kept: one is enough, the next few help to see what happened.
    pub const FAULTS_MAX: usize = 20;

    pub(super) fn note(&mut self, fault: Fault) {
        if self.faults.len() < Self::FAULTS_MAX {
            self.faults.push(fault);
        }
    }
}

/// The lines of two derivation texts: accounts that are behind what was sealed.
pub(super) fn behind(sealed: &str, now: &str) -> Vec<Fault> {
    let split = |line: &str| line.rsplit_once(' ').and_then(|(account, next)| Some((account.to_owned(), next.parse::<u32>().ok()?)));
    let present: std::collections::BTreeMap<String, u32> = now.lines().filter_map(split).collect();
    sealed
        .lines()
        .filter_map(split)
        .filter(|(account, next)| present.get(account).is_none_or(|issued| issued < next))
        .map(|(account, sealed)| Fault::DerivationBehind { account, sealed })
        .collect()
}

#[cfg(test)]
mod tests {
    use alloy::primitives::hex;

    use super::*;

    fn record(memo: Option<&str>) -> Record {
        let mut columns: [Option<String>; Record::COLUMNS] = std::array::from_fn(|place| Some(place.to_string()));
        columns[20] = memo.map(str::to_owned);
        Record { id: LedgerEntryId(1), columns }
    }

    #[test]
    fn l5_a_record_is_read_in_one_way_only() {
        let text = String::from_utf8(record(Some("a,b")).encode()).unwrap();
        assert!(text.starts_with("15:amanatd entry 1,1:0,1:1,") && text.contains("3:a,b,"), "{text}");
        // What moves from one column to its neighbour, and null against nothing, are other records.
        let mut moved = record(Some("ab"));
        moved.columns[20] = Some("a".to_owned());
        moved.columns[21] = Some("b21".to_owned());
        let leaves = [record(Some("ab")), moved, record(Some("")), record(None), record(Some("-,"))].map(|record| record.leaf());
        for (place, leaf) in leaves.iter().enumerate() {
            assert!(!leaves[..place].contains(leaf), "{place}");
        }
    }

    #[test]
    fn l5_the_tree_is_that_of_rfc_6962() {
        // The test vectors of certificate-transparency: their leaves hash a zero byte and the data.
        let data: [&[u8]; 8] = [
            b"",
            &[0],
            &[0x10],
            &[0x20, 0x21],
            &[0x30, 0x31],
            &hex!("40414243"),
            &hex!("5051525354555657"),
            &hex!("606162636465666768696a6b6c6d6e6f"),
        ];
        let leaves: Vec<B256> = data.iter().map(|data| hash(&[&[0], data])).collect();
        let roots = [
            hex!("6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"),
            hex!("fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"),
            hex!("aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"),
            hex!("d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"),
            hex!("4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4"),
            hex!("76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef"),
            hex!("ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c"),
            hex!("5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"),
        ];
        for (count, expected) in roots.into_iter().enumerate() {
            assert_eq!(root(&leaves[..=count]).0, expected, "{} leaves", count + 1);
        }
    }

    fn head() -> Head {
        Head {
            number: 12,
            previous: B256::repeat_byte(1),
            entries: 3,
            entries_total: 33,
            root: B256::repeat_byte(2),
            derivation: "m/44'/60'/0' 01020304 17\nm/44'/60'/1' 05060708 0".to_owned(),
            sealed_at: OffsetDateTime::from_unix_timestamp(1_764_000_000).unwrap(),
        }
    }

    #[test]
    fn l5_a_head_comes_back_from_its_line_and_a_changed_line_does_not() {
        let head = head();
        assert!(
            head.text().ends_with("sealed 1764000000000000\nderivation m/44'/60'/0' 01020304 17\nderivation m/44'/60'/1' 05060708 0\n")
        );
        let line = head.line();
        assert_eq!(Head::parse(&line), Ok(head.clone()));
        for (from, to) in [("\"total\":33", "\"total\":34"), (" 17", " 16"), ("0x0202", "0x0203"), ("1764000000", "1764000001")] {
            let changed = line.replacen(from, to, 1);
            assert_ne!(changed, line);
            assert_eq!(Head::parse(&changed), Err(HeadError::Hash { number: 12 }), "{from}");
        }
        for torn in ["", "{}", &line[..line.len() - 9]] {
            assert_eq!(Head::parse(torn), Err(HeadError::Form));
        }
        assert_eq!(head.message(), format!("amanatd ledger seal 12: 33 entries, {}", head.hash()));
    }

    #[test]
    fn d3_an_account_that_is_behind_its_seal_is_named() {
        let sealed = head().derivation;
        assert_eq!(behind(&sealed, &sealed), []);
        assert_eq!(behind(&sealed, "m/44'/60'/0' 01020304 18\nm/44'/60'/1' 05060708 0"), []);
        let fewer = behind(&sealed, "m/44'/60'/0' 01020304 16\nm/44'/60'/1' 05060708 0");
        assert_eq!(fewer, [Fault::DerivationBehind { account: "m/44'/60'/0' 01020304".to_owned(), sealed: 17 }]);
        assert_eq!(behind(&sealed, "m/44'/60'/0' 01020304 17").len(), 1);
    }
}
