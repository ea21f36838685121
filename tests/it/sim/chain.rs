//! The chain of one history and who is paid in it: grows, loses blocks, takes transactions in again.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use alloy::primitives::{Address, B256, U256};
use amanatd::units::Asset;

use super::Random;
use super::tally::Tally;
use crate::scripted::{Emitted, Frame, FrameKind, Model, Moved, PAYER, Tx};

const UNLISTED: Address = Address::repeat_byte(0x66);
const STRANGER: Address = Address::repeat_byte(0x88);
const CONTRACT: Address = Address::repeat_byte(0x33);

/// Every kind of transaction that is made.
pub(super) const KINDS: [&str; 19] = [
    "exact",
    "under",
    "over",
    "two to one address",
    "two addresses at once",
    "wrong token",
    "native",
    "native and token",
    "unlisted token",
    "unlisted beside listed",
    "zero",
    "four topics",
    "dirty topic",
    "short data",
    "failed",
    "failed native",
    "to a stranger",
    "between our own",
    "by contract",
];

/// An address of ours, and what is due there; nothing for one without a payment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Payee {
    pub(super) address: Address,
    pub(super) due: u64,
}

pub(super) struct Chain {
    pub(super) model: Arc<Mutex<Model>>,
    pub(super) payees: Vec<Payee>,
    /// The listed tokens; payments are due in the first.
    tokens: Vec<Address>,
    /// Taken out of the chain by a reorg, and on offer again.
    pool: Vec<Tx>,
    next_tx: u64,
}

impl Chain {
    pub(super) fn new(model: Arc<Mutex<Model>>, tokens: Vec<Address>) -> Self {
        Self { model, payees: vec![], tokens, pool: vec![], next_tx: 1 }
    }

    pub(super) fn model<T>(&self, look: impl FnOnce(&mut Model) -> T) -> T {
        look(&mut self.model.lock().unwrap())
    }

    pub(super) fn height(&self) -> u64 {
        self.model(|model| model.head().number.0)
    }

    pub(super) fn grow(&mut self, random: &mut Random, blocks: u64, tally: &mut Tally) {
        for _ in 0..blocks {
            let mut held = self.held();
            let count = *random.pick(&[0, 0, 1, 1, 2, 3]);
            let txs = (0..count).map(|_| self.next(random, &mut held, tally)).collect();
            self.model(|model| model.mine_txs(txs));
            tally.blocks += 1;
        }
    }

    /// Takes blocks off the line. Some of what was in them is offered again, some never comes back, and
    /// some is replaced by something else.
    pub(super) fn cut(&mut self, random: &mut Random, depth: u64, tally: &mut Tally) {
        let (line, blocks) = self.model(|model| {
            let line = model.line();
            let gone = line[line.len() - usize::try_from(depth).unwrap()..].to_vec();
            let txs: Vec<Tx> = gone.iter().flat_map(|hash| model.block(*hash).unwrap().txs.clone()).collect();
            model.cut(depth);
            (line, txs)
        });
        debug_assert!(line.len() as u64 > depth);
        for tx in blocks {
            match random.below(20) {
                0..12 => self.pool.push(tx),
                12..16 => tally.fault("dropped"),
                _ => {
                    tally.fault("replaced");
                    let replaced = self.replace(random, tx);
                    self.pool.push(replaced);
                }
            }
        }
    }

    /// Another transaction of the same sender in its place: with another amount, or to another of us.
    fn replace(&mut self, random: &mut Random, tx: Tx) -> Tx {
        let number = self.number();
        let to = random.pick(&self.payees).address;
        let mut tx = Tx { number, ..tx };
        match tx.logs.first_mut() {
            Some(log) if log.moves.is_some() => *log = Emitted::transfer(log.contract, PAYER, to, U256::from(1 + random.below(200))),
            _ => tx.value += U256::from(1),
        }
        tx
    }

    fn number(&mut self) -> u64 {
        self.next_tx += 1;
        self.next_tx
    }

    /// The transactions that the line holds: none may be in it twice.
    fn held(&self) -> BTreeSet<u64> {
        self.model(|model| model.line().iter().flat_map(|hash| model.block(*hash).unwrap().txs.iter().map(|tx| tx.number)).collect())
    }

    fn next(&mut self, random: &mut Random, held: &mut BTreeSet<u64>, tally: &mut Tally) -> Tx {
        if !self.pool.is_empty() && !random.one_in(3) {
            let at = usize::try_from(random.below(self.pool.len() as u64)).unwrap();
            let tx = self.pool.swap_remove(at);
            if held.insert(tx.number) {
                tally.fault("included again");
                return tx;
            }
        }
        let (kind, tx) = self.make(random);
        *tally.transactions.entry(kind).or_default() += 1;
        held.insert(tx.number);
        tx
    }

    fn make(&mut self, random: &mut Random) -> (&'static str, Tx) {
        let number = self.number();
        // Half of it goes to the first payment, so that it is paid in parts, too much, and twice.
        let payee = if random.one_in(2) { self.payees[1] } else { *random.pick(&self.payees) };
        let other = *random.pick(&self.payees);
        let (token, second) = (self.tokens[0], self.tokens[1]);
        let due = if payee.due == 0 { 1 + random.below(100) } else { payee.due };
        let some = 1 + random.below(150);
        let kind = *random.pick(&[
            "exact",
            "exact",
            "exact",
            "exact",
            "under",
            "under",
            "under",
            "over",
            "over",
            "two to one address",
            "two to one address",
            "two addresses at once",
            "two addresses at once",
            "wrong token",
            "native",
            "native and token",
            "unlisted token",
            "unlisted beside listed",
            "zero",
            "four topics",
            "dirty topic",
            "short data",
            "failed",
            "failed native",
            "to a stranger",
            "between our own",
            "by contract",
            "by contract",
        ]);
        let units = U256::from;
        let pay = |contract, to, amount: u64| Emitted::transfer(contract, PAYER, to, units(amount));
        let logs = |logs: Vec<Emitted>| Tx { logs, ..Tx::calling(number, token) };
        let to = payee.address;
        let tx = match kind {
            "exact" => logs(vec![pay(token, to, due)]),
            "under" => logs(vec![pay(token, to, 1 + random.below(due))]),
            "over" => logs(vec![pay(token, to, due + some)]),
            "two to one address" => logs(vec![pay(token, to, due / 2 + 1), pay(token, to, due / 2 + 1)]),
            "two addresses at once" => logs(vec![pay(token, to, due), pay(token, other.address, some)]),
            "wrong token" => logs(vec![pay(second, to, due)]),
            "native" => Tx { value: units(some), ..Tx::calling(number, to) },
            "native and token" => Tx { value: units(some), ..Tx { to: Some(to), ..logs(vec![pay(token, other.address, some)]) } },
            "unlisted token" => logs(vec![pay(UNLISTED, to, due)]),
            "unlisted beside listed" => logs(vec![pay(UNLISTED, to, due), pay(second, other.address, some), pay(token, to, some)]),
            "zero" => Tx { logs: vec![pay(token, to, 0)], ..Tx::calling(number, to) },
            "four topics" => logs(vec![Emitted::four_topics(token, to, units(due)), pay(token, to, some)]),
            "dirty topic" => logs(vec![Emitted::dirty_topic(token, to, units(due))]),
            "short data" => logs(vec![Emitted::short_data(token, to, units(due))]),
            "failed" => Tx { succeeded: false, ..logs(vec![pay(token, to, due)]) },
            "failed native" => Tx { succeeded: false, value: units(some), ..Tx::calling(number, to) },
            "to a stranger" => logs(vec![pay(token, STRANGER, due)]),
            "between our own" => logs(vec![Emitted::transfer(token, other.address, to, units(some))]),
            "by contract" => by_contract(number, to, some),
            other => unreachable!("{other} is not made"),
        };
        (kind, tx)
    }

    /// What reached us on the line from a height on, with the block.
    pub(super) fn paid(&self, from: u64) -> Vec<(u64, B256, Moved)> {
        let ours: BTreeSet<Address> = self.payees.iter().map(|payee| payee.address).collect();
        let listed = |asset| match asset {
            Asset::Native => true,
            Asset::Token(contract) => self.tokens.contains(&contract),
        };
        self.model(|model| {
            let line = model.line();
            let numbered = (0_u64..).zip(line).skip(usize::try_from(from).unwrap());
            numbered
                .flat_map(|(number, hash)| model.moved_in(hash).into_iter().map(move |moved| (number, hash, moved)))
                .filter(|(_, _, moved)| ours.contains(&moved.recipient) && listed(moved.asset))
                .collect()
        })
    }

    pub(super) fn is_ours(&self, address: Address) -> bool {
        self.payees.iter().any(|payee| payee.address == address)
    }

    /// Whether one block is another, or below it on the same branch.
    pub(super) fn is_under(&self, below: B256, tip: B256) -> bool {
        self.model(|model| {
            let Some(wanted) = model.block(below).map(|block| block.header.number) else { return false };
            let mut at = tip;
            loop {
                let Some(block) = model.block(at) else { return false };
                if block.header.number <= wanted {
                    return at == below;
                }
                at = block.header.parent_hash;
            }
        })
    }
}

/// A contract pays us deep inside, beside calls that only look as if they did.
fn by_contract(number: u64, to: Address, some: u64) -> Tx {
    let paid = Frame { calls: vec![Frame::call(CONTRACT, to, some)], ..Frame::call(CONTRACT, CONTRACT, 0) };
    let taken_back = Frame { failed: true, calls: vec![Frame::call(CONTRACT, to, 7)], ..Frame::call(CONTRACT, CONTRACT, 0) };
    let delegated = Frame { kind: FrameKind::DelegateCall, ..Frame::call(CONTRACT, to, 9) };
    Tx { value: U256::from(some), calls: vec![taken_back, paid, delegated], ..Tx::calling(number, CONTRACT) }
}
