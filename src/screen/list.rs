//! A sanctions list from a file: one address a line with comments, or a JSON array of addresses. Pure.
//!
//! Both forms are in use: the addresses that people extract from OFAC's list of specially designated
//! nationals are published as either. A list with anything in it that is no address is refused whole,
//! because half a list looks like a whole one.

use std::collections::HashSet;

use alloy::primitives::{Address, B256};
use futures_util::future::{BoxFuture, ready};
use sha2::{Digest, Sha256};

use super::policy::ScreenerKind;
use super::screener::{Answer, Screener, Subject};
use crate::units::{ParseAssetError, parse_address};

/// A larger file is refused unread.
pub const FILE_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// How much of a refused line is repeated.
const SHOWN_CHARS_MAX: usize = 64;

/// The addresses of one version of the file.
#[derive(Clone, Debug)]
pub struct SanctionsList {
    sha256: B256,
    addresses: HashSet<Address>,
}

#[derive(Debug, thiserror::Error)]
pub enum ListError {
    #[error("sanctions list {path}: cannot be read")]
    Read { path: String, source: std::io::Error },
    #[error("sanctions list {path}: {source}")]
    Form { path: String, source: FormError },
}

/// What is wrong in the text, and where.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormError {
    #[error("has {found} bytes; a list may have {FILE_BYTES_MAX}")]
    TooLarge { found: u64 },
    #[error("line {line} is not UTF-8 text; save the list as UTF-8")]
    NotText { line: usize },
    #[error("line {line}: {text:?}: {source}; give one 0x address a line, and begin comments with #")]
    Line { line: usize, text: String, source: ParseAssetError },
    #[error("line {line}, column {column}: not a JSON array of strings ({problem}); give [\"0x…\", …], or one address a line")]
    Json { line: usize, column: usize, problem: String },
    #[error("entry {entry} of the JSON array: {text:?}: {source}; give 0x addresses only")]
    Entry { entry: usize, text: String, source: ParseAssetError },
    #[error("names no address; to screen by no list, take list_file out of the configuration")]
    Empty,
}

impl SanctionsList {
    /// Reads a whole file; the error names the line and what would do.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormError> {
        let found = bytes.len() as u64;
        if found > FILE_BYTES_MAX {
            return Err(FormError::TooLarge { found });
        }
        let text = std::str::from_utf8(bytes).map_err(|error| {
            let line = bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
            FormError::NotText { line }
        })?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let addresses = if text.trim_start().starts_with('[') { entries_of(text)? } else { lines_of(text)? };
        if addresses.is_empty() {
            return Err(FormError::Empty);
        }
        Ok(Self { sha256: Self::digest(bytes), addresses })
    }

    /// By which a version of the file is known.
    pub fn digest(bytes: &[u8]) -> B256 {
        B256::from(<[u8; 32]>::from(Sha256::digest(bytes)))
    }

    pub const fn sha256(&self) -> B256 {
        self.sha256
    }

    /// How many addresses it names.
    pub fn entries(&self) -> usize {
        self.addresses.len()
    }

    pub fn names(&self, address: Address) -> bool {
        self.addresses.contains(&address)
    }
}

fn lines_of(text: &str) -> Result<HashSet<Address>, FormError> {
    let mut addresses = HashSet::new();
    for (line, text) in (1..).zip(text.lines()) {
        let text = text.split('#').next().unwrap_or_default().trim();
        if !text.is_empty() {
            let address = parse_address(text).map_err(|source| FormError::Line { line, text: shorten(text), source })?;
            addresses.insert(address);
        }
    }
    Ok(addresses)
}

fn entries_of(text: &str) -> Result<HashSet<Address>, FormError> {
    let entries: Vec<String> = serde_json::from_str(text).map_err(|error| {
        // Without its place, which stands in fields of its own.
        let problem = error.to_string().split(" at line ").next().unwrap_or_default().to_owned();
        FormError::Json { line: error.line(), column: error.column(), problem }
    })?;
    (1..)
        .zip(entries)
        .map(|(entry, text)| parse_address(&text).map_err(|source| FormError::Entry { entry, text: shorten(&text), source }))
        .collect()
}

fn shorten(text: &str) -> String {
    text.chars().take(SHOWN_CHARS_MAX).collect()
}

impl Screener for SanctionsList {
    fn kind(&self) -> ScreenerKind {
        ScreenerKind::List
    }

    fn screen<'a>(&'a self, subjects: &'a [Subject]) -> BoxFuture<'a, Vec<Answer>> {
        let screened = |subject: &Subject| Answer::Screened {
            hits: subject.addresses().into_iter().filter(|address| self.names(*address)).collect(),
            evidence: serde_json::json!({ "sha256": self.sha256, "entries": self.entries(), "addresses": subject.addresses() }),
        };
        Box::pin(ready(subjects.iter().map(screened).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "0x1111111111111111111111111111111111111111";
    /// With letters, in the spelling of EIP-55.
    const MIXED: &str = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed";

    fn error(text: &str) -> String {
        SanctionsList::parse(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn both_forms_name_the_same_addresses() {
        let lines = format!("# a comment\r\n\r\n  {ONE}  # with a word about it\r\n{MIXED}\n{}\n{ONE}", MIXED.to_lowercase());
        let array = format!(" [\"{ONE}\",\n \"{MIXED}\"]\n");
        for text in [lines.clone(), array, format!("\u{feff}{lines}")] {
            let list = SanctionsList::parse(text.as_bytes()).unwrap();
            assert_eq!(list.entries(), 2, "{text}");
            assert!(list.names(ONE.parse().unwrap()) && list.names(MIXED.parse().unwrap()));
            assert!(!list.names(Address::repeat_byte(0x12)));
            assert_eq!(list.sha256(), SanctionsList::digest(text.as_bytes()));
        }
    }

    #[test]
    fn a_malformed_list_is_refused_and_the_line_is_named() {
        for (text, expected) in [
            (format!("{ONE}\n0x12\n"), "line 2: \"0x12\": "),
            (format!("# x\n\n{ONE} {ONE}"), "line 3: "),
            (format!("{ONE},\n"), "line 1: "),
            // One letter in the other case: somebody mistyped it.
            (MIXED.replace("5aAeb", "5AAeb"), "line 1: "),
            (format!("0x{}", "0".repeat(40)), "line 1: "),
            ("bc1qxy2kgdygjrsqtzq2n0yrf2493p83kkfjhx0wlh".to_owned(), "line 1: "),
            ("<!DOCTYPE html>\n<html>".to_owned(), "line 1: "),
            (format!("[\"{ONE}\", \"0x12\"]"), "entry 2 of the JSON array: \"0x12\""),
            (format!("[\"{ONE}\",\n"), "line 2, column 0: not a JSON array of strings"),
            (format!("[\"{ONE}\", 7]"), "line 1, column 48: not a JSON array"),
            (format!("[\"{ONE}\"] {ONE}"), "line 1, column 48: not a JSON array"),
        ] {
            let said = error(&text);
            assert!(said.starts_with(expected), "{text:?}: {said}");
        }
        for empty in ["", "\n\n", "# nothing\n", "[]", " [ ] "] {
            assert!(error(empty).starts_with("names no address; "), "{empty:?}");
        }
        assert_eq!(SanctionsList::parse(b"# ok\n\xff\xfe").unwrap_err(), FormError::NotText { line: 2 });
    }
}
