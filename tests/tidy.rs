//! The rules of the house that a compiler does not know: which room may import which, where SQL,
//! tasks and the clock may be, how files and migrations are named. Each rule protects the
//! structure or the money, and each is tried on a bad sample below, so that it cannot fall asleep.
//!
//! Only the standard library, and a lexer of our own that knows just enough Rust to leave comments,
//! strings and test code out. When a rule has to be loosened, the commit says why.

#![allow(clippy::unwrap_used, reason = "in a test, an unwrap is an assertion")]

use std::fs;
use std::path::Path;

/// Rooms whose business is the outside world. All other rooms are pure but for the two files that
/// every room may have.
const IO_ROOMS: &[&str] = &["db", "metrics", "rpc", "api", "webhook", "console", "bridge", "config", "daemon", "cli", "devkit"];

/// Where a room touches the world: SQL in the one, the loop in the other.
const IO_FILES_OF_A_ROOM: &[&str] = &["store.rs", "worker.rs"];

/// Other files that are not pure, each with its reason.
const IO_FILES: &[(&str, &str)] = &[
    ("src/escrow/accept.rs", "commands of several stores, each in the transaction of whoever gives it"),
    ("src/escrow/adjust.rs", "commands of several stores, each in the transaction of whoever gives it"),
    ("src/escrow/dispute.rs", "commands of several stores, each in the transaction of whoever gives it"),
    ("src/escrow/late.rs", "part of such a command: it asks the oracle's memory and stores a quote"),
    ("src/escrow/order.rs", "commands of several stores, each in the transaction of whoever gives it"),
    ("src/intent/dispute.rs", "a command of several stores, in the transaction of whoever gives it"),
    ("src/intent/judge.rs", "a command of several stores, in the transaction that stores an intent"),
    ("src/intent/void.rs", "a command of several stores, in the transaction of whoever gives it"),
    ("src/quote/source/http.rs", "asks venues over HTTP, each with limits of its own; what their answers mean is read beside it, purely"),
    ("src/scan/catch_up.rs", "the reading half of the scanner's worker, in ranges"),
    ("src/scan/rescan.rs", "the scanner's worker once more, over blocks that were read before"),
    ("src/screen/decide.rs", "a command of several stores, in the transaction of whoever gives it"),
    ("src/screen/freeze.rs", "the second worker of its room"),
    ("src/screen/guard.rs", "judges addresses of the network; it connects to none"),
    ("src/screen/oracle.rs", "a screener that asks a contract"),
    ("src/screen/provider.rs", "a screener that is asked over HTTP"),
    ("src/screen/recipient.rs", "commands of several stores, each in the transaction of whoever gives it"),
    ("src/signing/definitions.rs", "reads the vendor's definitions from a directory; the checks in it are pure"),
    ("src/signing/device.rs", "the handle on the device thread, which is a thread of its own by house rule"),
    ("src/signing/link.rs", "each step of a device has a deadline, measured where it is waited for"),
    ("src/signing/session.rs", "the conversation with the device; waits for an officer to type"),
    ("src/signing/udp.rs", "the simulated device's socket, in devkit builds only"),
];

/// Raw values that are right where they are: file, field, reason. Wire forms of other rooms are in
/// [`WIRE_ROOMS`].
const RAW_FIELDS: &[(&str, &str, &str)] = &[
    ("src/chains.rs", "chain", "chains.toml is parsed here, and its errors repeat the number that it says"),
    ("src/confirm/explain.rs", "chain_id", "an explanation is a document for people, with the number as it is written"),
    ("src/confirm/explain.rs", "amount", "the same: with its symbol, to be read and never computed with"),
    ("src/quote/source/nobitex.rs", "status", "the wire form of a venue's answer; it is compared with one word and goes no further"),
    ("src/quote/vectors.rs", "amount", "the wire form of a file of vectors; it is parsed where it is read"),
    ("src/payment/draft.rs", "chain_id", "a draft is what was asked; checking it gives the ChainId"),
    ("src/intent/baseline.rs", "chain", "the text that is stored and hashed, with the number as it is written"),
    ("src/policy/destination.rs", "chain", "the text that is stored and hashed, with the number as it is written"),
    ("src/policy/document.rs", "chain", "the policy's text is parsed here; reading it gives the ChainId"),
    ("src/payment/draft.rs", "amount", "in the buyer's currency, kept as asked; what is due is a TokenAmount"),
];

/// Rooms at the edge, where values are still text and are parsed once.
const WIRE_ROOMS: &[&str] = &["rpc", "api", "webhook", "console", "bridge", "config", "cli", "devkit"];

// === the rules ===

/// The order of `pub mod` lines in lib.rs is the architecture.
fn imports_point_backward(house: &House) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in house.rooms_files() {
        let Some(own) = house.place(&file.room) else { continue };
        for (line, name) in file.imported_rooms(&house.rooms) {
            let Some(theirs) = house.place(&name) else { continue };
            if theirs > own {
                findings.push(file.at(
                    line,
                    format!(
                        "{} may not know {name}, which comes later in src/lib.rs; let {name} read what {} wrote, or move the code",
                        file.room, file.room
                    ),
                ));
            }
        }
    }
    findings
}

/// A room that lib.rs does not list is outside the order.
fn every_room_is_listed(house: &House) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in &house.files {
        let inside = file.path.strip_prefix("src/").unwrap_or_default();
        if inside.is_empty() || inside == "lib.rs" || inside == "main.rs" || inside.starts_with("bin/") {
            continue;
        }
        if house.place(&file.room).is_none() {
            findings.push(file.at(1, format!("room {} is not in src/lib.rs; add it where the money passes it", file.room)));
        }
    }
    findings
}

/// Nouns are pure and sync: what they need, they are given.
fn nouns_are_pure(house: &House) -> Vec<Finding> {
    const IMPURE: &[(&str, &str)] = &[
        ("async", "make it sync, or move it to worker.rs"),
        (".await", "move it to worker.rs"),
        ("tokio", "move it to worker.rs"),
        ("sqlx::query", "move it to store.rs"),
        ("PgConnection", "move it to store.rs"),
        ("now_utc", "take the time as an argument"),
        ("SystemTime", "take the time as an argument"),
        ("Instant", "take the time as an argument"),
        ("now_v7", "take the id as an argument"),
        ("new_v4", "take the id as an argument"),
        ("std::env", "read it in config and hand it in"),
        ("std::fs", "read it in config and hand it in"),
        ("std::net", "move it to an I/O file"),
        ("std::thread", "move it to an I/O file"),
        ("reqwest", "move it to an I/O file"),
        ("getrandom", "take the random bytes as an argument"),
        ("thread_rng", "take the random bytes as an argument"),
    ];
    let mut findings = Vec::new();
    for file in house.rooms_files() {
        let exempt = IO_ROOMS.contains(&file.room.as_str())
            || IO_FILES_OF_A_ROOM.contains(&file.name())
            || IO_FILES.iter().any(|(path, _)| *path == file.path);
        if exempt {
            continue;
        }
        for (word, remedy) in IMPURE {
            for line in find(&file.code, word) {
                findings.push(file.at(line, format!("`{word}` in a noun: {remedy}, or list the file in IO_FILES with a reason")));
            }
        }
    }
    findings
}

/// SQL is in the store of the room that owns the table.
fn sql_is_in_stores(house: &House) -> Vec<Finding> {
    const SQL: &[&str] = &[
        "query!",
        "query_as!",
        "query_scalar!",
        "query_unchecked!",
        "query_as_unchecked!",
        "query_file!",
        "query_file_as!",
        "query_file_scalar!",
        "sqlx::query(",
        "sqlx::query_as",
        "sqlx::query_scalar",
        "sqlx::raw_sql",
        "QueryBuilder",
        ".execute(\"",
    ];
    let mut findings = Vec::new();
    for file in house.rooms_files() {
        if file.name() == "store.rs" || file.room == "db" || file.room == "devkit" {
            continue;
        }
        for word in SQL {
            // The last pattern looks at how a string begins, so strings are kept here.
            for line in find(&file.text, word) {
                findings.push(file.at(line, format!("`{word}` outside a store: put the statement in src/{}/store.rs", file.room)));
            }
        }
    }
    findings
}

/// A statement is a literal. sqlx asks for this word when it is not.
fn statements_are_literals(house: &House) -> Vec<Finding> {
    house.find_in_rooms("AssertSqlSafe", "a statement that is put together; write it out, with parameters", |_| false)
}

/// A task that nobody watches can die unseen: the daemon starts them all.
fn tasks_start_in_the_daemon(house: &House) -> Vec<Finding> {
    let mut findings = Vec::new();
    for word in ["tokio::spawn", "task::spawn", "spawn_local"] {
        // devkit is no part of a release: its proxies serve connections as they come.
        findings.extend(house.find_in_rooms(word, "tasks are started in daemon; return a future instead", |file| {
            file.room == "daemon" || file.room == "devkit" || file.room == "db"
        }));
    }
    // The database lets one unit of work finish when its caller is cancelled.
    let in_db: Vec<Finding> = house
        .rooms_files()
        .filter(|file| file.room == "db")
        .flat_map(|file| {
            find(&file.code, "tokio::spawn")
                .into_iter()
                .map(|line| file.at(line, "db may start one task, the one that lets a unit of work finish".into()))
        })
        .collect();
    if in_db.len() > 1 {
        findings.extend(in_db);
    }
    findings
}

/// Time is an argument, so that tests own it.
fn the_clock_is_read_in_wiring(house: &House) -> Vec<Finding> {
    let mut findings = Vec::new();
    for word in ["now_utc", "now_local", "SystemTime::now", "UtcDateTime::now", "Utc::now"] {
        findings.extend(house.find_in_rooms(word, "the clock is read in daemon and cli; take `now` as an argument", |file| {
            matches!(file.room.as_str(), "daemon" | "cli" | "devkit")
        }));
    }
    findings
}

/// The ledger is only ever added to.
fn the_ledger_is_append_only(house: &House) -> Vec<Finding> {
    const TABLE: &str = "funds_ledger_entries";
    let mut findings = Vec::new();
    for file in house.files.iter().filter(|file| file.path.starts_with("src/")) {
        let words: Vec<(usize, String)> = words(&file.text);
        for (index, (line, word)) in words.iter().enumerate() {
            if word != TABLE {
                continue;
            }
            // Up to three words lie between the verb and the table: `delete from only public.x`.
            let before = &words[index.saturating_sub(4)..index];
            let verb = before.iter().rev().find(|(_, word)| matches!(word.as_str(), "update" | "delete" | "truncate"));
            // `for update of x` locks and changes nothing.
            let locks = before.iter().any(|(_, word)| word == "of");
            if let (Some((_, verb)), false) = (verb, locks) {
                findings.push(file.at(*line, format!("`{verb} {TABLE}`: append a reversal instead")));
            }
        }
    }
    findings
}

/// A file says what it is for before it says anything else.
fn files_open_with_their_purpose(house: &House) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in house.files.iter().filter(|file| file.path.ends_with(".rs")) {
        if !file.raw.starts_with("//! ") {
            findings.push(file.at(1, "begin the file with `//! ` and what it is for".into()));
        }
    }
    findings
}

/// `room.rs` is the front door, not `room/mod.rs`.
fn there_is_no_mod_rs(house: &House) -> Vec<Finding> {
    house
        .files
        .iter()
        .filter(|file| file.name() == "mod.rs")
        .map(|file| file.at(1, "name it after its folder, beside it: `room.rs` and `room/`".into()))
        .collect()
}

/// Chains, amounts and states have types of their own; text and bare numbers stop at the door.
fn raw_values_stop_at_the_door(house: &House) -> Vec<Finding> {
    const RAW: &[(&str, &[&str], &str)] = &[
        ("chain", &["String", "&str", "u64", "u32", "i64"], "ChainId"),
        ("chain_id", &["String", "&str", "u64", "u32", "i64"], "ChainId"),
        ("amount", &["String", "&str", "u64", "u128", "i64", "f64"], "an amount of `units`"),
        ("status", &["String", "&str"], "the enum of its states"),
    ];
    let mut findings = Vec::new();
    for file in house.rooms_files() {
        // A store turns rows into nouns; the row itself is as raw as the database.
        if WIRE_ROOMS.contains(&file.room.as_str()) || file.name() == "store.rs" {
            continue;
        }
        for (field, types, instead) in RAW {
            if RAW_FIELDS.iter().any(|(path, name, _)| *path == file.path && name == field) {
                continue;
            }
            for line in find(&file.code, &format!("{field}:")) {
                let text = file.code.lines().nth(line - 1).unwrap_or_default();
                let raw = declared_types(text, field).into_iter().find(|found| types.contains(&found.as_str()));
                if let Some(raw) = raw {
                    findings.push(file.at(line, format!("`{field}: {raw}`: use {instead}, or list the field in RAW_FIELDS with a reason")));
                }
            }
        }
    }
    findings
}

/// A test that does not run, or passes by panicking anywhere, proves nothing.
fn every_test_runs_and_asserts(house: &House) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in &house.files {
        for word in ["#[ignore", "should_panic"] {
            for line in find(&file.with_tests, word) {
                findings.push(file.at(line, format!("`{word}`: assert the behaviour there is, with a note if it is wrong")));
            }
        }
    }
    findings
}

/// Migrations are a sequence without gaps, and say what they do to what.
fn migrations_are_a_sequence(house: &House) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut expected = 1;
    for name in &house.migrations {
        if name == "README.md" || name == "bootstrap.sql" {
            continue;
        }
        let finding = |what: String| Finding { file: format!("migrations/{name}"), line: 1, what };
        let Some((number, words)) = name.strip_suffix(".sql").and_then(|stem| stem.split_once('_')) else {
            findings.push(finding("name it NNNN_noun_verb.sql".into()));
            continue;
        };
        let good_number = number.len() == 4 && number.bytes().all(|b| b.is_ascii_digit());
        let good_words = words.split('_').count() >= 2
            && words.split('_').all(|w| !w.is_empty() && w.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()));
        if !good_number || !good_words {
            findings.push(finding("name it NNNN_noun_verb.sql".into()));
            continue;
        }
        if number.parse() != Ok(expected) {
            findings.push(finding(format!("the next number is {expected:04}")));
        }
        expected += 1;
    }
    findings
}

/// A list of exceptions that names what is gone hides the next mistake.
fn exceptions_are_needed(house: &House) -> Vec<Finding> {
    IO_FILES
        .iter()
        .map(|(path, _)| path)
        .chain(RAW_FIELDS.iter().map(|(path, ..)| path))
        .filter(|path| !house.files.iter().any(|file| file.path == **path))
        .map(|path| Finding { file: "tests/tidy.rs".into(), line: 1, what: format!("{path} is excepted and does not exist") })
        .collect()
}

// === on the house ===

type Rule = fn(&House) -> Vec<Finding>;

const RULES: &[(&str, Rule)] = &[
    ("imports point backward", imports_point_backward),
    ("every room is listed", every_room_is_listed),
    ("nouns are pure", nouns_are_pure),
    ("sql is in stores", sql_is_in_stores),
    ("statements are literals", statements_are_literals),
    ("tasks start in the daemon", tasks_start_in_the_daemon),
    ("the clock is read in wiring", the_clock_is_read_in_wiring),
    ("the ledger is append-only", the_ledger_is_append_only),
    ("files open with their purpose", files_open_with_their_purpose),
    ("there is no mod.rs", there_is_no_mod_rs),
    ("raw values stop at the door", raw_values_stop_at_the_door),
    ("every test runs and asserts", every_test_runs_and_asserts),
    ("migrations are a sequence", migrations_are_a_sequence),
    ("exceptions are needed", exceptions_are_needed),
];

#[test]
fn the_house_is_tidy() {
    let house = House::read(Path::new(env!("CARGO_MANIFEST_DIR")));
    assert!(!house.rooms.is_empty(), "no `pub mod` in src/lib.rs");
    let mut report = String::new();
    for (name, rule) in RULES {
        for finding in rule(&house) {
            report.push_str(&format!("{}:{}: {} [{name}]\n", finding.file, finding.line, finding.what));
        }
    }
    assert!(report.is_empty(), "\n{report}");
}

// === what the rules look at ===

#[derive(Debug)]
struct Finding {
    file: String,
    line: usize,
    what: String,
}

#[derive(Debug)]
struct House {
    /// In the order of lib.rs.
    rooms: Vec<String>,
    files: Vec<SourceFile>,
    /// Sorted.
    migrations: Vec<String>,
}

#[derive(Debug)]
struct SourceFile {
    /// From the root, with `/`.
    path: String,
    /// `src/ledger.rs` and `src/ledger/…` are room ledger; empty outside src.
    room: String,
    raw: String,
    /// Without comments and strings.
    with_tests: String,
    /// Without comments, strings and test code.
    code: String,
    /// Without comments and test code.
    text: String,
}

impl House {
    fn read(root: &Path) -> Self {
        let mut files = Vec::new();
        for folder in ["src", "tests", "benches"] {
            collect(root, &root.join(folder), &mut files);
        }
        let mut migrations: Vec<String> = fs::read_dir(root.join("migrations"))
            .map(|entries| entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect())
            .unwrap_or_default();
        migrations.sort();
        Self::of(files, migrations)
    }

    fn of(files: Vec<(String, String)>, migrations: Vec<String>) -> Self {
        let files: Vec<SourceFile> = files.into_iter().map(|(path, raw)| SourceFile::new(path, raw)).collect();
        let rooms = files
            .iter()
            .find(|file| file.path == "src/lib.rs")
            .map(|file| {
                file.code
                    .lines()
                    .filter_map(|line| Some(line.trim().strip_prefix("pub mod ")?.trim_end_matches(';').trim().to_owned()))
                    .collect()
            })
            .unwrap_or_default();
        Self { rooms, files, migrations }
    }

    /// A few files, for trying a rule.
    fn sample(files: &[(&str, &str)]) -> Self {
        Self::of(files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect(), Vec::new())
    }

    fn place(&self, room: &str) -> Option<usize> {
        self.rooms.iter().position(|name| name == room)
    }

    /// Rust files of rooms, without their test files.
    fn rooms_files(&self) -> impl Iterator<Item = &SourceFile> {
        self.files.iter().filter(|file| !file.room.is_empty() && file.path.ends_with(".rs") && !file.is_test())
    }

    fn find_in_rooms(&self, word: &str, remedy: &str, allowed: impl Fn(&SourceFile) -> bool) -> Vec<Finding> {
        self.rooms_files()
            .filter(|file| !allowed(file))
            .flat_map(|file| find(&file.code, word).into_iter().map(move |line| file.at(line, format!("`{word}`: {remedy}"))))
            .collect()
    }
}

impl SourceFile {
    fn new(path: String, raw: String) -> Self {
        let room = path
            .strip_prefix("src/")
            .map(|inside| inside.split('/').next().unwrap_or_default().trim_end_matches(".rs").to_owned())
            .filter(|room| room != "lib" && room != "main" && room != "bin")
            .unwrap_or_default();
        if !path.ends_with(".rs") {
            return Self { path, room, with_tests: raw.clone(), code: raw.clone(), text: raw.clone(), raw };
        }
        let with_tests = blank(&raw, true);
        let tests = test_regions(&with_tests);
        let (code, text) = (cut(&with_tests, &tests), cut(&blank(&raw, false), &tests));
        Self { path, room, raw, with_tests, code, text }
    }

    fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }

    fn is_test(&self) -> bool {
        self.name() == "tests.rs" || self.path.contains("/tests/")
    }

    fn at(&self, line: usize, what: String) -> Finding {
        Finding { file: self.path.clone(), line, what }
    }

    /// Every room that the code names through `crate::`, or by climbing out of its own with
    /// `super::`.
    fn imported_rooms(&self, rooms: &[String]) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        for (at, _) in self.code.match_indices("crate::") {
            if at > 0 && is_word(self.code.as_bytes()[at - 1]) {
                continue;
            }
            let line = line_of(&self.code, at);
            let rest = &self.code[at + "crate::".len()..];
            match rest.strip_prefix('{') {
                Some(group) => found.extend(first_words(group).into_iter().map(|name| (line, name))),
                None => found.push((line, leading_word(rest).to_owned())),
            }
        }
        // src/room.rs is one step below the crate, src/room/file.rs two.
        let depth = self.path.matches('/').count();
        let climb = "super::".repeat(depth);
        for (at, _) in self.code.match_indices(&climb) {
            found.push((line_of(&self.code, at), leading_word(&self.code[at + climb.len()..]).to_owned()));
        }
        found.retain(|(_, name)| rooms.contains(name));
        found
    }
}

fn collect(root: &Path, folder: &Path, files: &mut Vec<(String, String)>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            collect(root, &path, files);
        } else if path.extension().is_some_and(|ending| ending == "rs" || ending == "sql") {
            let name = path.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/");
            files.push((name, fs::read_to_string(&path).unwrap()));
        }
    }
}

/// Lines (from 1) where `pattern` stands, not as part of a longer word.
fn find(code: &str, pattern: &str) -> Vec<usize> {
    let bytes = code.as_bytes();
    let (first, last) = (pattern.as_bytes()[0], pattern.as_bytes()[pattern.len() - 1]);
    code.match_indices(pattern)
        .filter(|(at, _)| !is_word(first) || *at == 0 || !is_word(bytes[at - 1]))
        .filter(|(at, _)| !is_word(last) || bytes.get(at + pattern.len()).is_none_or(|next| !is_word(*next)))
        .map(|(at, _)| line_of(code, at))
        .collect()
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

fn leading_word(text: &str) -> &str {
    let text = text.trim_start();
    &text[..text.bytes().position(|b| !is_word(b)).unwrap_or(text.len())]
}

/// `a, b::{c, d}, e}` names a, b and e.
fn first_words(group: &str) -> Vec<String> {
    let mut names = vec![leading_word(group).to_owned()];
    let mut depth = 1;
    for (at, byte) in group.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            b',' if depth == 1 => names.push(leading_word(&group[at + 1..]).to_owned()),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    names
}

/// The types that a line gives to `field`, looking through Option: `amount: Option<String>,` is
/// String. A value (`amount: String::new()`) is no type.
fn declared_types(line: &str, field: &str) -> Vec<String> {
    let mut types = Vec::new();
    for (at, found) in line.match_indices(&format!("{field}:")) {
        let rest = &line[at + found.len()..];
        let standing_alone = at == 0 || !is_word(line.as_bytes()[at - 1]);
        if !standing_alone || rest.starts_with(':') {
            continue;
        }
        let rest = rest.trim_start();
        let rest = rest.strip_prefix("Option<").unwrap_or(rest);
        let (reference, rest) = match rest.strip_prefix('&') {
            Some(rest) => ("&", rest.trim_start_matches("'static ").trim_start_matches("'a ")),
            None => ("", rest),
        };
        let word = leading_word(rest);
        if !rest[word.len()..].starts_with("::") {
            types.push(format!("{reference}{word}"));
        }
    }
    types
}

/// Lower-case words with their lines.
fn words(text: &str) -> Vec<(usize, String)> {
    text.lines()
        .enumerate()
        .flat_map(|(index, line)| {
            line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .filter(|word| !word.is_empty())
                .map(move |word| (index + 1, word.to_ascii_lowercase()))
                .collect::<Vec<_>>()
        })
        .collect()
}

// === a lexer that knows just enough ===

/// Replaces comments by spaces, and with `strings` also what strings and characters hold. Lines
/// stay where they are.
fn blank(source: &str, strings: bool) -> String {
    let bytes = source.as_bytes();
    let mut out: Vec<u8> = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let after_word = at > 0 && is_word(bytes[at - 1]);
        let (end, hide) = match bytes[at] {
            b'/' if bytes[at..].starts_with(b"//") => (end_of_line(bytes, at), true),
            b'/' if bytes[at..].starts_with(b"/*") => (end_of_comment(bytes, at), true),
            b'"' => (end_of_string(bytes, at), strings),
            b'r' if !after_word || matches!(bytes[at - 1], b'b' | b'c') => match end_of_raw_string(bytes, at) {
                Some(end) => (end, strings),
                None => (at + 1, false),
            },
            b'\'' => match end_of_character(source, at) {
                Some(end) => (end, strings),
                None => (at + 1, false),
            },
            _ => (at + 1, false),
        };
        if hide {
            // The delimiters of a string stay, so that code around it still reads.
            let inner = if bytes[at] == b'/' { at..end } else { at + 1..end.saturating_sub(1).max(at + 1) };
            for byte in &mut out[inner] {
                if *byte != b'\n' {
                    *byte = b' ';
                }
            }
        }
        at = end;
    }
    String::from_utf8(out).expect("whole characters were replaced")
}

fn end_of_line(bytes: &[u8], at: usize) -> usize {
    bytes[at..].iter().position(|b| *b == b'\n').map_or(bytes.len(), |length| at + length)
}

/// Block comments nest.
fn end_of_comment(bytes: &[u8], at: usize) -> usize {
    let (mut depth, mut here) = (0, at);
    while here < bytes.len() {
        if bytes[here..].starts_with(b"/*") {
            depth += 1;
            here += 2;
        } else if bytes[here..].starts_with(b"*/") {
            depth -= 1;
            here += 2;
            if depth == 0 {
                return here;
            }
        } else {
            here += 1;
        }
    }
    bytes.len()
}

fn end_of_string(bytes: &[u8], at: usize) -> usize {
    let mut here = at + 1;
    while here < bytes.len() {
        match bytes[here] {
            b'\\' => here += 2,
            b'"' => return here + 1,
            _ => here += 1,
        }
    }
    bytes.len()
}

/// `r"…"`, `r#"…"#`; `None` for a raw identifier or a plain word.
fn end_of_raw_string(bytes: &[u8], at: usize) -> Option<usize> {
    let hashes = bytes[at + 1..].iter().take_while(|b| **b == b'#').count();
    let open = at + 1 + hashes;
    if bytes.get(open) != Some(&b'"') {
        return None;
    }
    let mut close = vec![b'"'];
    close.extend(std::iter::repeat_n(b'#', hashes));
    let length = bytes[open + 1..].windows(close.len()).position(|window| window == close);
    Some(length.map_or(bytes.len(), |length| open + 1 + length + close.len()))
}

/// `'x'`, `'\n'`, `'\u{1f600}'`; `None` for a lifetime.
fn end_of_character(source: &str, at: usize) -> Option<usize> {
    let rest = &source[at + 1..];
    let first = rest.chars().next()?;
    if first == '\\' {
        // The character after the backslash may be a quote.
        return rest[2.min(rest.len())..].find('\'').map(|length| at + 1 + 2 + length + 1);
    }
    let next = at + 1 + first.len_utf8();
    (source.as_bytes().get(next) == Some(&b'\'')).then_some(next + 1)
}

/// Where items stand that only a test build has: from `#[cfg(test)]` to the item's end.
fn test_regions(code: &str) -> Vec<(usize, usize)> {
    let bytes = code.as_bytes();
    let mut regions = Vec::new();
    for (start, _) in code.match_indices("#[cfg(") {
        let Some(length) = code[start..].find(")]") else { continue };
        let condition = &code[start + "#[cfg(".len()..start + length];
        let only_test = condition == "test" || condition.starts_with("all(test");
        if !only_test {
            continue;
        }
        let mut here = start + length + 2;
        // A brace block or a semicolon ends the item, whichever comes first.
        while here < bytes.len() && bytes[here] != b'{' && bytes[here] != b';' {
            here += 1;
        }
        let mut depth = 0;
        while here < bytes.len() {
            match bytes[here] {
                b'{' => depth += 1,
                b'}' => depth -= 1,
                _ => {}
            }
            here += 1;
            if depth == 0 {
                break;
            }
        }
        regions.push((start, here));
    }
    regions
}

fn cut(text: &str, regions: &[(usize, usize)]) -> String {
    let mut out = text.as_bytes().to_vec();
    for (start, end) in regions {
        for byte in &mut out[*start..*end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
    }
    String::from_utf8(out).expect("whole characters were replaced")
}

// === the rules, tried on bad samples ===

const LIB: (&str, &str) = ("src/lib.rs", "//! x\npub mod units;\npub mod db;\npub mod ledger;\npub mod daemon;\n");

/// Where the rule fires, as `file:line`.
fn fires(rule: Rule, files: &[(&str, &str)]) -> Vec<String> {
    let mut all = vec![LIB];
    all.extend(files);
    rule(&House::sample(&all)).into_iter().map(|finding| format!("{}:{}", finding.file, finding.line)).collect()
}

#[test]
fn an_import_of_a_later_room_is_caught() {
    let bad = "//! x\nuse crate::ledger::Entry;\nfn f() { crate::daemon::g(); }\nuse crate::{units::A, ledger};\n";
    assert_eq!(fires(imports_point_backward, &[("src/units/a.rs", bad)]), ["src/units/a.rs:2", "src/units/a.rs:3", "src/units/a.rs:4"]);
    assert_eq!(fires(imports_point_backward, &[("src/units.rs", "//! x\nuse super::ledger::Entry;\n")]), ["src/units.rs:2"]);
    assert_eq!(fires(imports_point_backward, &[("src/db/a.rs", "use super::super::ledger;\n")]), ["src/db/a.rs:1"]);
}

#[test]
fn imports_of_earlier_rooms_and_of_oneself_are_fine() {
    let good = "//! crate::daemon\nuse crate::units::A;\nuse crate::{db, ledger::B};\n// crate::daemon\nlet s = \"crate::daemon\";\n\
                #[cfg(test)]\nmod tests {\n use crate::daemon::D;\n}\nuse super::state;\n";
    assert!(fires(imports_point_backward, &[("src/ledger/a.rs", good)]).is_empty());
    assert!(fires(imports_point_backward, &[("src/ledger/tests.rs", "use crate::daemon;")]).is_empty());
}

#[test]
fn a_room_outside_the_order_is_caught() {
    assert_eq!(fires(every_room_is_listed, &[("src/attic.rs", "//! x\n"), ("src/main.rs", "//! x\n")]), ["src/attic.rs:1"]);
}

#[test]
fn an_impure_noun_is_caught() {
    for bad in [
        "async fn f() {}",
        "fn f() { g().await }",
        "use tokio::sync::watch;",
        "fn f() { OffsetDateTime::now_utc(); }",
        "let t = std::time::Instant::now();",
        "let v = std::env::var(x);",
        "let id = Uuid::new_v4();",
        "getrandom::fill(&mut b);",
        "let c: &mut PgConnection;",
    ] {
        assert!(!fires(nouns_are_pure, &[("src/ledger/state.rs", bad)]).is_empty(), "{bad}");
        assert!(fires(nouns_are_pure, &[("src/ledger/worker.rs", bad), ("src/daemon/run.rs", bad)]).is_empty(), "{bad}");
    }
    assert!(fires(nouns_are_pure, &[("src/ledger/state.rs", "// async\nlet asynchronous = \"tokio\";")]).is_empty());
}

#[test]
fn sql_outside_a_store_is_caught() {
    for bad in [
        "sqlx::query!(\"select 1\")",
        "query_as!(Row, \"select 1\")",
        "sqlx::query(\"select 1\")",
        "sqlx::query_scalar::<_, i64>(\"select 1\")",
        "connection.execute(\"delete\")",
        "QueryBuilder::new(\"\")",
    ] {
        assert!(!fires(sql_is_in_stores, &[("src/ledger/worker.rs", bad)]).is_empty(), "{bad}");
        assert!(fires(sql_is_in_stores, &[("src/ledger/store.rs", bad), ("src/db/pool.rs", bad)]).is_empty(), "{bad}");
    }
    assert!(fires(sql_is_in_stores, &[("src/ledger/worker.rs", "let my_query = 1; // query!")]).is_empty());
}

#[test]
fn a_statement_that_is_put_together_is_caught() {
    assert_eq!(fires(statements_are_literals, &[("src/db/x.rs", "query(AssertSqlSafe(format!(\"\")))")]), ["src/db/x.rs:1"]);
    assert!(fires(statements_are_literals, &[("src/db/x.rs", "#[cfg(test)]\nmod tests { fn f() { AssertSqlSafe(\"\"); } }")]).is_empty());
}

#[test]
fn a_task_outside_the_daemon_is_caught() {
    assert_eq!(fires(tasks_start_in_the_daemon, &[("src/ledger/worker.rs", "\ntokio::spawn(f());")]), ["src/ledger/worker.rs:2"]);
    assert!(
        fires(tasks_start_in_the_daemon, &[("src/daemon/run.rs", "tokio::spawn(f());"), ("src/db/pool.rs", "tokio::spawn(f());")])
            .is_empty()
    );
    assert_eq!(fires(tasks_start_in_the_daemon, &[("src/db/pool.rs", "tokio::spawn(f());\ntokio::spawn(f());")]).len(), 2);
}

#[test]
fn a_clock_outside_wiring_is_caught() {
    for bad in ["OffsetDateTime::now_utc()", "SystemTime::now()"] {
        assert_eq!(fires(the_clock_is_read_in_wiring, &[("src/ledger/worker.rs", bad)]), ["src/ledger/worker.rs:1"]);
        assert!(fires(the_clock_is_read_in_wiring, &[("src/daemon.rs", bad)]).is_empty());
    }
}

#[test]
fn a_change_of_the_ledger_is_caught() {
    for bad in [
        "query!(\"update funds_ledger_entries set amount = 1\")",
        "query!(\"DELETE FROM funds_ledger_entries\")",
        "query!(r#\"delete\n from only public.funds_ledger_entries\"#)",
        "query!(\"truncate table funds_ledger_entries\")",
    ] {
        assert_eq!(fires(the_ledger_is_append_only, &[("src/ledger/store.rs", bad)]).len(), 1, "{bad}");
    }
    assert_eq!(fires(the_ledger_is_append_only, &[("src/ledger/fix.sql", "delete from funds_ledger_entries")]).len(), 1);
    let good = "query!(\"insert into funds_ledger_entries (a) values (1)\"); // never update funds_ledger_entries\n\
                query!(\"select 1 from funds_ledger_entries e for update of funds_ledger_entries\")";
    assert!(fires(the_ledger_is_append_only, &[("src/ledger/store.rs", good)]).is_empty());
}

#[test]
fn a_file_without_purpose_is_caught() {
    assert_eq!(
        fires(files_open_with_their_purpose, &[("tests/it/x.rs", "use a;"), ("src/db/a.rs", "//! What for.\n")]),
        ["tests/it/x.rs:1"]
    );
}

#[test]
fn a_mod_rs_is_caught() {
    assert_eq!(fires(there_is_no_mod_rs, &[("src/db/mod.rs", "//! x\n")]), ["src/db/mod.rs:1"]);
}

#[test]
fn a_raw_value_past_the_door_is_caught() {
    for bad in
        ["pub amount: String,", "chain: u64,", "fn f(chain_id: u64) {}", "status: Option<String>,", "amount: &str", "amount: &'static str"]
    {
        assert_eq!(fires(raw_values_stop_at_the_door, &[("src/ledger/entry.rs", bad)]).len(), 1, "{bad}");
    }
    for good in
        ["amount: TokenAmount,", "amount: String::new(),", "gas_amount: u64", "chain: ChainId", "// amount: String", "status::Status"]
    {
        assert!(fires(raw_values_stop_at_the_door, &[("src/ledger/entry.rs", good)]).is_empty(), "{good}");
    }
}

#[test]
fn a_test_that_does_not_run_is_caught() {
    let bad = "#[test]\n#[ignore]\nfn a() {}\n#[cfg(test)]\nmod tests {\n #[should_panic]\n fn b() {}\n}";
    assert_eq!(fires(every_test_runs_and_asserts, &[("src/db/a.rs", bad)]), ["src/db/a.rs:2", "src/db/a.rs:6"]);
}

#[test]
fn a_migration_out_of_line_is_caught() {
    let names = |names: &[&str]| {
        let house = House::of(Vec::new(), names.iter().map(|n| (*n).to_owned()).collect());
        migrations_are_a_sequence(&house).len()
    };
    assert_eq!(names(&["0001_enums_create.sql", "0002_bridge_create.sql", "README.md", "bootstrap.sql"]), 0);
    assert_eq!(names(&["0001_enums_create.sql", "0003_bridge_create.sql"]), 1);
    assert_eq!(names(&["0001_enums_create.sql", "0001_bridge_create.sql"]), 1);
    assert_eq!(names(&["0001_enums.sql"]), 1);
    assert_eq!(names(&["1_enums_create.sql"]), 1);
    assert_eq!(names(&["notes.txt"]), 1);
}

#[test]
fn the_lexer_leaves_only_code() {
    let source = "let a = \"// no \\\" comment\"; // comment\n/* a /* b */ c */ let c = 'x'; let q = '\\''; fn f<'a>(x: &'a str) {}\n\
                  let r = r#\"tokio \"quoted\" \"#; let b = br\"tokio\"; let u = '\\u{1f600}'; let e = 'é'; done";
    let code = blank(source, true);
    for gone in ["comment", "tokio", "quoted", " a /", "1f600", "é"] {
        assert!(!code.contains(gone), "{gone}: {code}");
    }
    for kept in ["let a = ", "let c = ", "fn f<'a>(x: &'a str) {}", "let r = r", "done"] {
        assert!(code.contains(kept), "{kept}: {code}");
    }
    assert_eq!(code.matches('\n').count(), source.matches('\n').count());
    assert!(blank(source, false).contains("no \\\" comment"));
}
