//! One history: what happens on the chain, how the daemon is made to live through it, and the reckoning.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use alloy::primitives::{Address, B256, U256};
use amanatd::chains::{ChainBook, ChainSpec};
use amanatd::confirm::ConfirmError;
use amanatd::rpc::Node;
use amanatd::scan::{Position, ScanError, ScanOptions};
use amanatd::units::{Asset, BlockNumber, ChainId, Disposition, PaymentId, Progress};
use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use super::Random;
use super::books::{self, Judged};
use super::chain::{Chain, Payee};
use super::daemon::{Base, Daemon, Ground, book_of, draft, node_of, spec_of};
use super::tally::Tally;
use crate::scripted::{Lie, Moved, Reply, ScriptedNode, Tx};
use crate::watching::NOW;

/// How the daemon meets what happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    OneByOne,
    Skipping,
    Twice,
    Restart,
    /// The first of two endpoints is behind, by another number of blocks each time.
    Lag,
    /// One of three endpoints says what is not so.
    Liar,
    /// Answers that break off, time out or are nonsense, between good ones.
    Transient,
}

/// How deep this history's reorgs may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Depths {
    Usual,
    Deep,
    BelowWindow,
}

/// Some 20 to 60 blocks, with those that reorgs take away.
const STEPS_MIN: u64 = 6;
const STEPS_MORE: u64 = 8;
const WINDOW: u32 = 200;
const NARROW_WINDOW: u32 = 8;

struct Life<'a> {
    story: Story,
    random: Random,
    tally: Tally,
    ground: &'a Ground,
    chain: Chain,
    nodes: Vec<ScriptedNode>,
    node: Arc<Node>,
    daemon: Daemon,
    spec: ChainSpec,
    book: Arc<ChainBook>,
    options: ScanOptions,
    threshold: u64,
    /// The first block that was ever read.
    first: u64,
    style: Style,
    depths: Depths,
    silent: bool,
    /// Which of three endpoints lies.
    liar: usize,
    now: OffsetDateTime,
    /// Verdicts that were reached and whose block was not lost since.
    credited: BTreeMap<i64, B256>,
    last_verdict: i64,
    /// Nothing may leave the chain from here on: a credit was lost, or a reorg was too deep.
    lost: bool,
    /// The faults of this round, so that errors are expected.
    disturbed: bool,
    expects_deep: bool,
}

/// What happened, told when it went wrong.
struct Story {
    seed: u64,
    lines: Vec<String>,
}

impl Story {
    fn tell(&mut self, line: String) {
        self.lines.push(line);
    }
}

impl Drop for Story {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let story = self.lines.join("\n  ");
            let repeat = format!("AMANATD_SIM_SEED={} AMANATD_SIM_HISTORIES=1 cargo test --features devkit --test it sim::", self.seed);
            let _ = writeln!(std::io::stderr(), "a history went wrong:\n  {story}\nrepeat it: {repeat}");
        }
    }
}

pub(super) async fn live(seed: u64, ground: &Ground) -> Tally {
    let mut life = Life::begin(seed, ground).await;
    for _ in 0..STEPS_MIN + life.random.below(STEPS_MORE) {
        life.step().await;
    }
    life.end().await;
    life.tally
}

impl<'a> Life<'a> {
    async fn begin(seed: u64, ground: &'a Ground) -> Self {
        let mut random = Random(seed);
        random.number();
        let style =
            *random.pick(&[Style::OneByOne, Style::Skipping, Style::Twice, Style::Restart, Style::Lag, Style::Liar, Style::Transient]);
        let depths = match random.below(20) {
            0 => Depths::Deep,
            1 => Depths::BelowWindow,
            _ => Depths::Usual,
        };
        let threshold = 1 + random.below(5);
        let silent = style == Style::Transient && random.one_in(8);
        let (base, window, from_the_first) = match depths {
            Depths::Usual => (1 + random.below(6), WINDOW, false),
            Depths::Deep => (140, WINDOW, true),
            Depths::BelowWindow => (16, NARROW_WINDOW, true),
        };
        let id = ChainId::new(1_000_000_000 + seed % 1_000_000_000).unwrap();
        let spec = spec_of(id, window);
        let book = book_of(&spec);
        let model = Arc::new(std::sync::Mutex::new(crate::scripted::Model::of_chain(id.get())));
        let mut nodes = vec![ScriptedNode::serving(model.clone()).await];
        let others = match style {
            Style::Lag => 1,
            Style::Liar => 2,
            Style::OneByOne | Style::Skipping | Style::Twice | Style::Restart | Style::Transient => 0,
        };
        for _ in 0..others {
            nodes.push(nodes[0].sibling().await);
        }
        let liar = usize::try_from(random.below(3)).unwrap();
        let urls: Vec<String> = nodes.iter().map(ScriptedNode::url).collect();
        let node = node_of(id, &urls, silent);
        let options = ScanOptions { start: from_the_first.then_some(BlockNumber(1)), ..ScanOptions::default() };
        ground.open(id, threshold).await;
        let daemon = Daemon::start(&ground.live, &node, &spec, &book, options);
        let tokens = spec.tokens.iter().map(|token| token.contract).collect();
        let mut life = Self {
            story: Story { seed, lines: vec![] },
            random,
            tally: Tally { histories: 1, ..Tally::default() },
            ground,
            chain: Chain::new(model, tokens),
            nodes,
            node,
            daemon,
            spec,
            book,
            options,
            threshold,
            first: if from_the_first { 1 } else { base },
            style,
            depths,
            silent,
            liar,
            now: NOW,
            credited: BTreeMap::new(),
            last_verdict: 0,
            lost: false,
            disturbed: false,
            expects_deep: false,
        };
        life.story.tell(format!("{style:?}, {depths:?}, threshold {threshold}, base {base}"));
        life.tally.fault(match style {
            Style::OneByOne => "one by one",
            Style::Skipping => "several blocks at once",
            Style::Twice => "tick twice",
            Style::Restart => "restart",
            Style::Lag => "provider lag",
            Style::Liar => "one liar of three",
            Style::Transient => "transient faults",
        });
        life.issue(false).await;
        life.issue(true).await;
        life.chain.model(|model| model.mine_empty(base));
        life.round().await;
        life.issue(true).await;
        life.issue(true).await;
        life
    }

    /// An address, with a payment or without.
    async fn issue(&mut self, with_payment: bool) {
        let payee = if with_payment {
            let due = 50 + self.random.below(100);
            let birth = self.chain.height();
            // One in six expires while the history lasts.
            let blocks = if self.random.one_in(6) { birth + 4 } else { birth + 10_000 };
            let expires_at = OffsetDateTime::from_unix_timestamp(1_800_000_000 + blocks.cast_signed()).unwrap();
            let payment = draft(&self.book, &self.spec, due, expires_at);
            let id = PaymentId(Uuid::from_u128(u128::from(self.story.seed) << 64 | u128::from(self.random.number())));
            Payee { address: self.ground.ask_payment(id, &payment, BlockNumber(birth)).await, due }
        } else {
            Payee { address: self.ground.issue().await, due: 0 }
        };
        self.story.tell(format!("issue {payee:?} at {}", self.chain.height()));
        self.chain.payees.push(payee);
    }

    // === what happens ===

    async fn step(&mut self) {
        match self.random.below(16) {
            0..7 => self.grow().await,
            7..11 => self.reorg().await,
            11 => self.there_and_back().await,
            12 => self.go_back().await,
            13 => self.issue(true).await,
            14 => self.moved_meanwhile().await,
            _ if self.depths == Depths::BelowWindow => self.below_window().await,
            _ => self.round().await,
        }
    }

    async fn grow(&mut self) {
        let blocks = 1 + self.random.below(3);
        for _ in 0..blocks {
            self.chain.grow(&mut self.random, 1, &mut self.tally);
            self.story.tell(format!("grow to {}", self.shown()));
            if self.style == Style::OneByOne {
                self.round().await;
            }
        }
        if self.style != Style::Skipping || self.random.one_in(3) {
            self.round().await;
        }
    }

    fn shown(&self) -> String {
        let (head, txs) = self.chain.model(|model| {
            let head = model.head();
            let txs: Vec<u64> = model.block(head.hash).unwrap().txs.iter().map(|tx| tx.number).collect();
            (head, txs)
        });
        format!("{head} with {txs:?}")
    }

    /// Down to the first block that was ever read, which may be replaced itself.
    fn depth(&mut self) -> u64 {
        let t = self.threshold;
        let wanted = match (self.depths, self.random.below(8)) {
            (Depths::Deep, 0) => 32,
            (Depths::Deep, 1) => 128,
            (_, 0 | 1) => 1,
            (_, 2 | 3) => t.saturating_sub(1).max(1),
            (_, 4 | 5) => t,
            (_, 6) => t + 1,
            _ => 1 + self.random.below(t + 4),
        };
        // A narrow window is only crossed on purpose.
        let most = if self.depths == Depths::BelowWindow { 3 } else { WINDOW.into() };
        wanted.min(self.height_above_start() + 1).min(most)
    }

    /// Zero where the node went back below it.
    fn height_above_start(&self) -> u64 {
        self.chain.height().saturating_sub(self.first)
    }

    /// Takes off the newest blocks and puts others there: fewer, as many, or more.
    fn replace(&mut self, depth: u64) {
        *self.tally.reorgs.entry(depth).or_default() += 1;
        if depth == self.height_above_start() + 1 {
            self.tally.fault("reorg of the first block");
        }
        self.chain.cut(&mut self.random, depth, &mut self.tally);
        let blocks = (depth + self.random.below(4)).saturating_sub(1).max(1);
        if depth > 20 {
            self.chain.model(|model| model.mine_empty(depth - 10));
            self.chain.grow(&mut self.random, 12, &mut self.tally);
        } else {
            self.chain.grow(&mut self.random, blocks, &mut self.tally);
        }
        self.story.tell(format!("reorg {depth} to {}", self.shown()));
    }

    async fn reorg(&mut self) {
        let depth = self.depth();
        self.replace(depth);
        if self.style != Style::Skipping || self.random.one_in(2) {
            self.round().await;
        }
    }

    /// A-B-A, and perhaps B once more.
    async fn there_and_back(&mut self) {
        self.tally.fault("branch returned");
        let (first, depth) = (self.chain.model(|model| model.line()), self.depth().min(20));
        self.round().await;
        self.chain.cut(&mut self.random, depth, &mut self.tally);
        self.chain.grow(&mut self.random, depth + 1, &mut self.tally);
        let second = self.chain.model(|model| model.line());
        self.story.tell(format!("there, {depth} deep: {}", self.shown()));
        self.round().await;
        self.chain.model(|model| model.set_line(first));
        self.chain.grow(&mut self.random, 2, &mut self.tally);
        self.story.tell(format!("and back: {}", self.shown()));
        self.round().await;
        if self.random.one_in(2) {
            self.chain.model(|model| model.set_line(second));
            self.chain.grow(&mut self.random, 2, &mut self.tally);
            self.story.tell(format!("and there again: {}", self.shown()));
            self.round().await;
        }
    }

    /// The node has fewer blocks than before, and later the same ones again, or others.
    async fn go_back(&mut self) {
        self.tally.fault("head went back");
        let (line, depth) = (self.chain.model(|model| model.line()), self.depth().min(20));
        self.chain.cut(&mut self.random, depth, &mut self.tally);
        self.story.tell(format!("back to {}", self.shown()));
        self.round().await;
        if self.random.one_in(2) {
            self.chain.model(|model| model.set_line(line));
            self.story.tell("and up again".to_owned());
        }
        self.chain.grow(&mut self.random, 1, &mut self.tally);
        self.story.tell(format!("grow to {}", self.shown()));
        self.round().await;
    }

    /// A reorg that happens between two requests of one tick.
    async fn moved_meanwhile(&mut self) {
        self.chain.grow(&mut self.random, 2, &mut self.tally);
        let before = self.chain.model(|model| model.line());
        let depth = self.depth().min(20);
        self.replace(depth);
        let after = self.chain.model(|model| {
            let after = model.line();
            model.set_line(before);
            after
        });
        let (model, at, asked) = (self.chain.model.clone(), self.random.below(8), AtomicU64::new(0));
        let then = after.clone();
        self.nodes[0].script(move |_, _| {
            if asked.fetch_add(1, Ordering::Relaxed) == at {
                model.lock().unwrap().set_line(then.clone());
            }
            Reply::Honest
        });
        self.story.tell(format!("that reorg at request {at} of a tick"));
        self.tally.fault("chain moved during a tick");
        self.disturbed = true;
        self.scan().await;
        self.nodes[0].heal();
        self.chain.model(|model| model.set_line(after));
        self.disturbed = false;
        self.round().await;
    }

    /// Deeper than the window: outflow is halted and a person called, and then it is followed.
    async fn below_window(&mut self) {
        self.calm();
        self.nodes[0].view(|view| view.lag = 0);
        self.scan().await;
        let depth = u64::from(NARROW_WINDOW) + 2;
        let stored = books::tip(&self.daemon.db, self.spec.id).await.unwrap();
        // Only where the stored line is longer than that, and the node is not behind it.
        if self.lost || self.chain.height() < depth + self.first || stored.number != self.chain.height() {
            return;
        }
        self.tally.fault("reorg below the window");
        self.chain.cut(&mut self.random, depth, &mut self.tally);
        self.chain.grow(&mut self.random, depth + 1, &mut self.tally);
        self.story.tell(format!("reorg {depth}, below the window, to {}", self.shown()));
        self.expects_deep = true;
        self.scan().await;
        assert!(!self.expects_deep, "the scanner went below its window unasked");
        self.round().await;
    }

    /// A reorg after the scanner has read, or even after the confirmer has compared the tip. Then it gives
    /// the line that the node must show in the end.
    fn move_before_verdict(&mut self) -> Option<Vec<B256>> {
        if self.chain.height() < self.first {
            return None;
        }
        let before = self.chain.model(|model| model.line());
        let depth = self.depth().min(20);
        self.replace(depth);
        if self.nodes.len() > 1 || self.style == Style::Transient || self.random.one_in(2) {
            self.tally.fault("chain moved before the verdict");
            return None;
        }
        self.tally.fault("chain moved during the verdict");
        let after = self.chain.model(|model| {
            let after = model.line();
            model.set_line(before);
            after
        });
        let (model, then, asked) = (self.chain.model.clone(), after.clone(), AtomicU64::new(0));
        self.nodes[0].script(move |_, _| {
            // The first request compares the tip; what follows is the evidence.
            if asked.fetch_add(1, Ordering::Relaxed) == 1 {
                model.lock().unwrap().set_line(then.clone());
            }
            Reply::Honest
        });
        Some(after)
    }

    // === how the daemon lives through it ===

    async fn round(&mut self) {
        self.now += Duration::from_secs(60);
        if self.random.one_in(if self.style == Style::Restart { 2 } else { 25 }) {
            self.restart();
        }
        self.disturb();
        self.scan().await;
        if self.random.one_in(8) {
            // The scanner may be a round ahead of the others.
            self.tally.fault("scanner ahead");
            self.calm();
            return;
        }
        let moving = if self.random.one_in(8) { self.move_before_verdict() } else { None };
        self.note_losses().await;
        self.confirm().await;
        if let Some(line) = &moving {
            self.nodes[0].heal();
            self.chain.model(|model| model.set_line(line.clone()));
        }
        self.check_verdicts(moving.is_none()).await;
        self.calm();
        self.daemon.sightings.tick().await.unwrap();
        self.keep_books().await;
        books::assert_sound(&self.daemon.db, self.spec.id).await;
    }

    fn restart(&mut self) {
        self.tally.fault("restart");
        self.story.tell("restart".to_owned());
        // The client stays: to make one costs more than the rest of a restart.
        self.daemon = Daemon::start(&self.ground.live, &self.node, &self.spec, &self.book, self.options);
    }

    /// Sets up what goes wrong in this round.
    fn disturb(&mut self) {
        match self.style {
            Style::Lag => {
                let lag = self.random.below(6).min(self.height_above_start());
                self.nodes[0].view(|view| view.lag = lag);
            }
            Style::Transient => {
                let (at, method) =
                    (self.random.below(6), *self.random.pick(&["eth_", "eth_get", "eth_getBlock", "eth_getLogs", "eth_getTransaction"]));
                let reply = self.reply();
                self.story.tell(format!("{reply:?} at {method} after {at}"));
                let asked = AtomicU64::new(0);
                self.nodes[0].script(move |asked_for, _| {
                    let meant = asked_for.starts_with(method) && asked.fetch_add(1, Ordering::Relaxed) == at;
                    if meant { reply.clone() } else { Reply::Honest }
                });
                self.disturbed = true;
            }
            Style::Liar => self.lie(),
            Style::OneByOne | Style::Skipping | Style::Twice | Style::Restart => {}
        }
    }

    /// Another lie each round, about what may reach us.
    fn lie(&mut self) {
        let block = self.chain.model(|model| model.head().hash);
        let txs: Vec<u64> = self.chain.model(|model| {
            let line = model.line();
            line.iter()
                .rev()
                .take(4)
                .flat_map(|hash| model.block(*hash).unwrap().txs.iter().map(|tx| tx.number).collect::<Vec<_>>())
                .collect()
        });
        let tx = if txs.is_empty() { 0 } else { *self.random.pick(&txs) };
        let to = self.random.pick(&self.chain.payees).address;
        let invented = Tx { value: U256::from(1_000), ..Tx::calling(1_000_000_000 + self.random.below(1_000), to) };
        let (mut lies, mut chain_id, mut line) = (vec![], None, None);
        match self.random.below(7) {
            0 => lies.push(Lie::HideLogs { tx }),
            1 => lies.push(Lie::HideTx { tx }),
            2 => lies.push(Lie::Invent { block, tx: invented }),
            3 => lies.push(Lie::Amount { tx, value: U256::from(7_777) }),
            4 => lies.push(Lie::Succeed { tx }),
            5 => chain_id = Some(1),
            _ => {
                self.tally.fault("lie: longer chain");
                line = Some(self.chain.model(|model| {
                    let honest = model.line();
                    model.mine_txs(vec![invented]);
                    model.mine_empty(7);
                    let longer = model.line();
                    model.set_line(honest);
                    longer
                }));
            }
        }
        self.story.tell(format!("endpoint {} lies: {lies:?}, chain {chain_id:?}, longer {}", self.liar, line.is_some()));
        self.nodes[self.liar].view(|view| {
            view.lies = lies;
            view.chain_id = chain_id;
            view.line = line;
        });
        self.disturbed = true;
    }

    fn reply(&mut self) -> Reply {
        match self.random.below(8) {
            0 => Reply::WrongId,
            1 => Reply::CutJson,
            2 => Reply::Status(429, "slow down".to_owned()),
            3 => Reply::Status(503, "<html>busy</html>".to_owned()),
            4 => Reply::Status(200, "<html>welcome</html>".to_owned()),
            5 => {
                self.tally.fault("null");
                Reply::Result(Value::Null)
            }
            6 => Reply::Refuse(-32005, "limit exceeded".to_owned()),
            _ if self.silent => Reply::Silence,
            _ => Reply::Refuse(-32000, "unknown block".to_owned()),
        }
    }

    fn calm(&mut self) {
        self.nodes[0].heal();
        self.disturbed = false;
    }

    async fn scan(&mut self) {
        let mut failures = 0;
        for _ in 0..500 {
            let outcome = self.daemon.scanner.tick(self.now).await;
            if self.style == Style::Twice && outcome.is_ok() {
                self.daemon.scanner.tick(self.now).await.unwrap();
            }
            match outcome {
                Ok(Progress::Idle) => return,
                Ok(Progress::Worked) => {}
                Err(ScanError::TooDeep { .. }) if self.depths == Depths::BelowWindow => {
                    self.expects_deep = false;
                    self.lost = true;
                }
                Err(error) => {
                    self.expected(error.disposition(), &error);
                    failures += 1;
                    if failures == 4 {
                        return;
                    }
                }
            }
        }
        panic!("the scanner never comes to rest");
    }

    async fn confirm(&mut self) {
        let mut failures = 0;
        for _ in 0..100 {
            match self.daemon.confirmer.tick(self.now).await {
                Ok(Progress::Idle) => return,
                Ok(Progress::Worked) => {}
                Err(error) => {
                    self.expected(ConfirmError::disposition(&error), &error);
                    failures += 1;
                    if failures == 4 {
                        return;
                    }
                }
            }
        }
        panic!("the confirmer never comes to rest");
    }

    /// Only a fault that was planted may be met, and only as something to try again.
    fn expected(&self, disposition: Disposition, error: &dyn std::error::Error) {
        assert!(self.disturbed && disposition == Disposition::Retry, "{error}, {:?}", error.source());
    }

    async fn keep_books(&mut self) {
        for _ in 0..100 {
            if self.daemon.bookkeeper.tick(self.spec.id, self.now).await.unwrap() == Progress::Idle {
                return;
            }
        }
        panic!("the bookkeeper never comes to rest");
    }

    // === what must hold on the way ===

    /// Credits whose block is no longer under the stored tip, now that the others look.
    async fn note_losses(&mut self) {
        let Some(tip) = books::tip(&self.daemon.db, self.spec.id).await else { return };
        let before = self.credited.len();
        self.credited.retain(|_, block| self.chain.is_under(*block, tip.hash));
        self.lost |= self.credited.len() < before;
    }

    /// W3: each new verdict is on the chain as it is now, and deep enough. Its head may be gone if the chain
    /// moved in between.
    async fn check_verdicts(&mut self, head_stays: bool) {
        let line = self.chain.model(|model| model.line());
        for judged in books::judged(&self.daemon.db, self.spec.id, self.last_verdict).await {
            let on_line = |number: u64, hash: B256| line.get(usize::try_from(number).unwrap()) == Some(&hash);
            let Judged { number, head_number, .. } = judged;
            let deep = head_number + 1 >= number + self.threshold;
            let paid = self.chain.model(|model| model.moved_in(judged.block));
            let real = paid.iter().any(|moved| moved.tx_hash == judged.tx_hash && moved.position == judged.position);
            let early = !(real && on_line(number, judged.block) && (on_line(head_number, judged.head) || !head_stays) && deep);
            self.tally.verdicts += 1;
            self.tally.early += u64::from(early);
            assert!(!early, "W3: an early or false verdict, {judged:?}");
            self.credited.insert(judged.id, judged.block);
            self.last_verdict = judged.id;
        }
    }

    // === the reckoning ===

    async fn end(&mut self) {
        self.calm();
        self.nodes[0].view(|view| view.lag = 0);
        self.style = Style::OneByOne;
        let stored = books::tip(&self.daemon.db, self.spec.id).await.map_or(0, |tip| tip.number);
        let missing = (stored + 1).saturating_sub(self.chain.height()) + self.threshold + 1;
        self.chain.model(|model| model.mine_empty(missing));
        self.story.tell(format!("{missing} empty blocks, to {}", self.shown()));
        self.settle().await;

        let db = self.daemon.db.clone();
        let tip = books::tip(&db, self.spec.id).await.unwrap();
        let line = self.chain.model(|model| model.line());
        assert_eq!(books::line(&db, self.spec.id).await, line[usize::try_from(tip.start).unwrap()..], "W4: the stored line");
        assert_eq!(tip.halted.is_some(), self.lost, "W6: outflow halted: {:?}", tip.halted);
        self.tally.halts += u64::from(self.lost);

        let paid = self.chain.paid(tip.start);
        self.compare_sightings(&paid).await;
        let credits = self.compare_credits(&paid).await;
        self.compare_with_fresh(tip.start, credits).await;
        self.tally.requests += self.node.usage().requests;
        for node in &self.nodes {
            for (kind, count) in node.faults() {
                *self.tally.faults.entry(kind).or_default() += count;
            }
        }
    }

    /// Everything is read, decided and booked.
    async fn settle(&mut self) {
        self.now += Duration::from_secs(60);
        for _ in 0..2 {
            self.scan().await;
            self.note_losses().await;
            self.confirm().await;
            self.check_verdicts(true).await;
            self.daemon.sightings.tick().await.unwrap();
            self.keep_books().await;
        }
        books::assert_sound(&self.daemon.db, self.spec.id).await;
    }

    /// W1, W2: what was seen is what was paid.
    async fn compare_sightings(&mut self, paid: &[(u64, B256, Moved)]) {
        let expected: BTreeSet<_> = paid.iter().map(|(_, block, moved)| (*block, moved.clone())).collect();
        let found = books::sightings(&self.daemon.db, self.spec.id).await;
        let distinct: BTreeSet<_> = found.iter().cloned().collect();
        let keys: BTreeSet<(B256, Position)> = found.iter().map(|(_, moved)| (moved.tx_hash, moved.position.clone())).collect();
        let missed: Vec<_> = expected.difference(&distinct).collect();
        let phantom: Vec<_> = distinct.difference(&expected).collect();
        let duplicated = found.len() - keys.len();
        self.tally.transfers += expected.len() as u64;
        self.tally.missed += missed.len() as u64;
        self.tally.phantom += phantom.len() as u64;
        self.tally.duplicated += duplicated as u64;
        assert!(missed.is_empty() && phantom.is_empty() && duplicated == 0, "missed {missed:?}, made up {phantom:?}, twice {duplicated}");
    }

    /// W1, W2: what is credited is what is deep enough and came from outside. Gives the sum at each
    /// address.
    async fn compare_credits(&mut self, paid: &[(u64, B256, Moved)]) -> BTreeMap<(Address, Asset), U256> {
        let deep = self.chain.height() + 1 - self.threshold;
        let due = paid.iter().filter(|(number, _, moved)| *number <= deep && !self.chain.is_ours(moved.sender));
        let mut expected = Vec::new();
        let mut sums: BTreeMap<(Address, Asset), U256> = BTreeMap::new();
        for (_, block, moved) in due {
            expected.push((moved.tx_hash, moved.position.clone(), *block));
            *sums.entry((moved.recipient, moved.asset)).or_default() += moved.amount;
        }
        let mut found = books::credits(&self.daemon.db, self.spec.id).await;
        expected.sort();
        found.sort();
        assert_eq!(found, expected, "credits that stand, against transfers that are deep enough");
        self.tally.credits += found.len() as u64;
        sums
    }

    /// W5: the books are those of a daemon that only ever saw the final chain. W7: and custody is what
    /// the chain paid in.
    async fn compare_with_fresh(&mut self, start: u64, credits: BTreeMap<(Address, Asset), U256>) {
        let chain = self.spec.id;
        // Mostly in ranges, which needs no more than that the final blocks lie a window below.
        let ranges = !self.random.one_in(4);
        let (chunk_blocks, reorg_window) = if ranges { (2, 4) } else { (50, WINDOW) };
        let options = ScanOptions { start: Some(BlockNumber(start)), chunk_blocks, ..ScanOptions::default() };
        let spec = spec_of(chain, reorg_window);
        let fresh = Daemon::start(&self.ground.fresh, &self.node, &spec, &self.book, options);
        if ranges {
            self.tally.fault("read afresh in ranges");
        }
        read_afresh(&fresh, &self.ground.fresh, chain, self.now).await;
        let (live, fresh) = (books::balances(&self.daemon.db, chain).await, books::balances(&self.ground.fresh.db, chain).await);
        books::assert_sides_equal(&live);
        assert_eq!(live, fresh, "W5: the books, against those of a fresh daemon");
        let custody = live.iter().filter(|row| row.0 == "custody").map(|(_, asset, address, _, units)| {
            let asset = Asset::from_marker(asset.parse().unwrap());
            ((address.as_deref().unwrap().parse().unwrap(), asset), units.parse().unwrap())
        });
        assert_eq!(custody.collect::<BTreeMap<(Address, Asset), U256>>(), credits, "W7: custody, against the chain");
        let (live, fresh) = (books::payments(&self.daemon.db, chain).await, books::payments(&self.ground.fresh.db, chain).await);
        assert_eq!(live, fresh, "W5: where the payments are, against those of a fresh daemon");
        self.tally.ledgers_equal += 1;
    }
}

async fn read_afresh(daemon: &Daemon, base: &Base, chain: ChainId, now: OffsetDateTime) {
    for _ in 0..100 {
        let mut progress = daemon.scanner.tick(now).await.unwrap();
        progress = progress.or(daemon.confirmer.tick(now).await.unwrap());
        progress = progress.or(daemon.sightings.tick().await.unwrap());
        progress = progress.or(daemon.bookkeeper.tick(chain, now).await.unwrap());
        if progress == Progress::Idle {
            return books::assert_sound(&base.db, chain).await;
        }
    }
    panic!("the fresh daemon never comes to rest");
}
