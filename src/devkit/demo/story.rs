//! The story: three payments, one of them underpaid, one reorged out and in again, one that stays in
//! escrow; a threshold that rises meanwhile; fuel, sweeps, two releases; and the table.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use alloy::primitives::{Address, B256};
use anyhow::Context;

use super::narrator::Narrator;
use crate::api::Client;
use crate::api::wire::{CreatePayment, IntentView, PaymentView, Reconciliation, TransferView};
use crate::cli::table_lines;
use crate::devkit::chain::PAYERS;
use crate::devkit::stage::{PATIENCE, Stage};
use crate::units::{PaymentId, parse_units};

const CHAIN: u64 = 31_337;
const SELLERS: [&str; 3] = [
    "0x1111111111111111111111111111111111111111",
    "0x2222222222222222222222222222222222222222",
    "0x3333333333333333333333333333333333333333",
];

pub(super) struct Story {
    stage: Stage,
    narrator: Narrator,
    kill: bool,
    kills: u32,
    clients: Option<Clients>,
    shown_session: bool,
}

/// Who speaks to the daemon, each with a token of its own.
#[derive(Clone)]
struct Clients {
    marketplace: Client,
    officer: Client,
}

impl Story {
    pub(super) fn new(stage: Stage, narrator: Narrator, kill: bool) -> Self {
        Self { stage, narrator, kill, kills: 0, clients: None, shown_session: false }
    }

    pub(super) fn into_stage(self) -> Stage {
        self.stage
    }

    /// Whether the books equal the chain at the end.
    pub(super) async fn tell(&mut self) -> anyhow::Result<bool> {
        self.prepare().await?;
        self.fund_operator().await?;
        let first = self.create(0, "USDC", "250").await?;
        let second = self.create(1, "USDT", "75.5").await?;
        let third = self.create(2, "USDC", "40").await?;
        self.underpay(&first).await?;
        self.raise_threshold().await?;
        self.complete(&first).await?;
        self.reorg(&second).await?;
        self.pay_in_full(&third).await?;
        self.outflow("Fuel", "each deposit address gets the gas for its own sweep", "fuel", 3).await?;
        self.outflow("Sweep", "deposits go to the treasury", "sweep", 3).await?;
        self.release(&[first.id, second.id]).await?;
        self.outflow("Release", "the sellers are paid", "release", 2).await?;
        self.wait_released(&[first.id, second.id]).await?;
        self.explain(first.id)?;
        self.conclude().await
    }

    // === acts ===

    async fn prepare(&mut self) -> anyhow::Result<()> {
        self.narrator.step("Prepare: schema, account, people, tokens");
        self.show_run(&["migrate"])?;
        let device = self.stage.trezor.endpoint();
        self.show_run(&["account", "enrol", "--label", "demo", "--device", &device])?;
        let officer = self.show_run(&["user", "create", "--name", "custody officer", "--role", "guard"])?;
        self.stage.write("officer.id", &officer)?;
        self.narrator.command("amanatd token create …   (three tokens, shown once, stored as hashes)");
        let marketplace = self.stage.client("marketplace", &["payments:read", "payments:write", "intents:read", "ledger:read"], None)?;
        let officer = self.stage.client("officer", &["intents:read", "intents:approve"], Some(&officer))?;
        self.stage.client("station", &["signing", "intents:read"], None)?;
        self.clients = Some(Clients { marketplace, officer });
        self.narrator.command("amanatd serve");
        self.stage.start_daemon().await?;
        self.until("the chain is scanned", async |story| {
            let chains = story.marketplace()?.chains().await?;
            Ok(chains.iter().any(|chain| chain.scanned_number.is_some()).then_some(()))
        })
        .await?;
        self.narrator.fact("API", &self.stage.api_url());
        self.checkpoint().await
    }

    /// The operator's own coin at the operator's own addresses; it becomes the operator's float.
    async fn fund_operator(&mut self) -> anyhow::Result<()> {
        self.narrator.step("Fund the operator's addresses with native coin");
        let chains = self.marketplace()?.chains().await?;
        let addresses = chains.into_iter().find(|chain| chain.chain_id == CHAIN).context("the local chain is watched")?.operator_addresses;
        for address in &addresses {
            self.narrator.fact(&address.purpose, &format!("{}  {}  +10 ETH", address.address, address.path));
            let hash = self.stage.chain.send_native(PAYERS[0], address.address, parse_units("10", 18)?).await?;
            self.stage.chain.mined(hash).await?;
        }
        self.checkpoint().await?;
        self.stage.chain.mine(3).await?;
        self.until("the operator's float is in the ledger", async |story| {
            let books = story.marketplace()?.reconciliation().await?;
            let booked = books.sides.iter().any(|side| side.symbol == "ETH" && side.custody == "20");
            Ok(booked.then_some(()))
        })
        .await?;
        self.checkpoint().await
    }

    async fn create(&mut self, seller: usize, token: &str, amount: &str) -> anyhow::Result<PaymentView> {
        self.narrator.step(&format!("POST /v1/payments: {amount} {token}"));
        let asked = CreatePayment {
            amount: amount.to_owned(),
            currency: token.to_owned(),
            chain_id: CHAIN,
            token: token.to_owned(),
            seller_address: SELLERS[seller].to_owned(),
            buyer_id: None,
            seller_id: None,
            purchase_request_id: None,
            purchase_request_external_ref: Some(format!("demo-{}", seller + 1)),
            expires_in_seconds: Some(86_400),
            ..CreatePayment::default()
        };
        let key = format!("demo-payment-{seller}");
        let client = self.marketplace()?.clone();
        let payment = client.create_payment(&asked, &key).await?;
        // The same key again is the same payment: an answer that was lost costs nothing.
        self.checkpoint().await?;
        let again = client.create_payment(&asked, &key).await?;
        anyhow::ensure!(again.id == payment.id, "the same Idempotency-Key made a second payment");
        self.narrator.fact("payment", &payment.id.to_string());
        self.narrator.fact("address", &format!("{}  {}", payment.deposit_address, payment.deposit_path));
        Ok(payment)
    }

    async fn underpay(&mut self, payment: &PaymentView) -> anyhow::Result<()> {
        self.narrator.step("The first buyer pays 100 of 250 USDC");
        self.pay(payment, "100").await?;
        let seen = self.transfer(payment.id, "the transfer is seen", |transfer| transfer.state == "waiting").await?;
        self.narrator.fact("depth", &format!("{} of {}", seen.depth, seen.threshold));
        self.narrator.fact("status", &self.status(payment.id, "processing").await?);
        self.checkpoint().await
    }

    async fn raise_threshold(&mut self) -> anyhow::Result<()> {
        self.narrator.step("The threshold rises from 3 to 5 while the transfer waits");
        self.show_run(&["threshold", "set", "--chain", "31337", "--blocks", "5", "--by", "demo", "--reason", "more caution"])?;
        self.checkpoint().await
    }

    async fn complete(&mut self, payment: &PaymentView) -> anyhow::Result<()> {
        self.stage.chain.mine(2).await?;
        let waiting = self.transfer(payment.id, "depth 3 of 5", |transfer| transfer.depth == 3 && transfer.threshold == 5).await?;
        self.narrator.fact("depth", &format!("{} of {}: three would have been enough before", waiting.depth, waiting.threshold));
        self.checkpoint().await?;
        self.stage.chain.mine(2).await?;
        self.transfer(payment.id, "depth 5", |transfer| transfer.state == "confirmed").await?;
        let partial = self.payment(payment.id, "the part is credited", |payment| payment.received_units == "100000000").await?;
        let open: Vec<&str> =
            partial.exceptions.iter().filter(|exception| exception.open).map(|exception| exception.kind.as_str()).collect();
        self.narrator.fact("credited", &format!("100 of 250 USDC; status {}, exception {}", partial.status, open.join(", ")));
        self.checkpoint().await?;
        self.narrator.step("The first buyer pays the missing 150 USDC");
        self.pay(payment, "150").await?;
        self.stage.chain.mine(4).await?;
        self.funded(payment.id).await
    }

    async fn reorg(&mut self, payment: &PaymentView) -> anyhow::Result<()> {
        self.narrator.step("The second buyer pays 75.5 USDT, and a reorg takes the payment out");
        let hash = self.pay(payment, "75.5").await?;
        self.stage.chain.mine(1).await?;
        let seen = self.transfer(payment.id, "depth 2", |transfer| transfer.depth == 2).await?;
        self.narrator.fact("depth", &format!("{} of {}, {}", seen.depth, seen.threshold, block(&seen)));
        self.checkpoint().await?;
        let raw: String = self.stage.chain.call("eth_getRawTransactionByHash", (hash,)).await?;
        self.stage.chain.reorg(2, Vec::new()).await?;
        self.stage.chain.mine(1).await?;
        self.transfer(payment.id, "the transfer is orphaned", |transfer| transfer.state == "orphaned").await?;
        self.narrator
            .fact("reorg", &format!("two blocks replaced; the transfer is orphaned, status {}", self.status(payment.id, "pending").await?));
        self.checkpoint().await?;
        self.narrator.step("The same transaction is included again");
        let again: B256 = self.stage.chain.call("eth_sendRawTransaction", (raw,)).await?;
        anyhow::ensure!(again == hash, "the chain made another transaction of it");
        self.stage.chain.mined(again).await?;
        let back = self
            .transfer(payment.id, "the transfer is back", |transfer| transfer.state == "waiting" && transfer.block_hash != seen.block_hash)
            .await?;
        self.narrator.fact("included", &format!("{}: same hash, other block, credited once", block(&back)));
        self.checkpoint().await?;
        self.stage.chain.mine(4).await?;
        self.funded(payment.id).await
    }

    async fn pay_in_full(&mut self, payment: &PaymentView) -> anyhow::Result<()> {
        self.narrator.step("The third buyer pays 40 USDC; it will stay in escrow");
        self.pay(payment, "40").await?;
        self.stage.chain.mine(4).await?;
        self.funded(payment.id).await
    }

    /// One kind of outflow: planned by the daemon, approved by the officer, signed on the device, sent,
    /// mined to its depth, settled.
    async fn outflow(&mut self, title: &str, what: &str, kind: &'static str, count: usize) -> anyhow::Result<()> {
        self.narrator.step(&format!("{title}: {what}"));
        let planned = self
            .until(&format!("{count} {kind} intents are planned"), async |story| {
                let intents = story.officer()?.intents(Some("planned")).await?;
                let found: Vec<IntentView> = intents.into_iter().filter(|intent| intent.kind == kind).collect();
                Ok((found.len() == count).then_some(found))
            })
            .await?;
        for intent in &planned {
            self.narrator.fact(kind, &format!("{} {} to {}  {}", intent.amount, intent.symbol, intent.to_address, intent.from_path));
        }
        self.checkpoint().await?;
        for intent in &planned {
            self.officer()?.approve(intent.id, intent.digest).await?;
        }
        self.narrator.fact("approved", &format!("{count} by the officer, each by its digest"));
        self.checkpoint().await?;
        self.sign()?;
        self.checkpoint().await?;
        self.settled(kind, &planned).await
    }

    async fn settled(&mut self, kind: &'static str, intents: &[IntentView]) -> anyhow::Result<()> {
        self.until(&format!("the {kind} transactions are with the node"), async |story| {
            let open = story.officer()?.intents(Some("signing,signed,uncertain")).await?;
            Ok(open.is_empty().then_some(()))
        })
        .await?;
        self.stage.chain.mine(1).await?;
        self.checkpoint().await?;
        for intent in intents {
            let id = intent.id;
            let mined = self
                .until("the transaction is mined", async |story| {
                    let intent = story.officer()?.intent(id).await?;
                    Ok((intent.state == "mined").then_some(intent))
                })
                .await?;
            self.narrator.fact("mined", &format!("tx {}", mined.tx_hash.unwrap_or_default()));
        }
        self.stage.chain.mine(4).await?;
        self.checkpoint().await?;
        self.until(&format!("the {kind} transactions are settled"), async |story| {
            let open = story.officer()?.intents(None).await?;
            Ok((!open.iter().any(|intent| intent.kind == kind)).then_some(()))
        })
        .await?;
        self.narrator.fact("settled", &format!("{} in the ledger, at depth 5", intents.len()));
        self.checkpoint().await
    }

    async fn release(&mut self, payments: &[PaymentId]) -> anyhow::Result<()> {
        self.narrator.step("The marketplace asks for two releases: POST /v1/payments/{id}/release");
        for payment in payments {
            let view = self.marketplace()?.release(*payment, &format!("release-{payment}")).await?;
            self.narrator.fact("payment", &format!("{payment}  {}", view.escrow_state.unwrap_or_default()));
            self.checkpoint().await?;
        }
        Ok(())
    }

    async fn wait_released(&mut self, payments: &[PaymentId]) -> anyhow::Result<()> {
        for payment in payments {
            let done =
                self.payment(*payment, "the payment is released", |payment| payment.escrow_state.as_deref() == Some("released")).await?;
            let asset = done.token_contract;
            let paid = self.stage.chain.balance_of(asset, done.seller_address).await?;
            anyhow::ensure!(paid.to_string() == done.amount_units, "the seller of {payment} holds {paid}, not {}", done.amount_units);
            self.narrator.fact("released", &format!("{} {} to {}; status {}", done.amount, done.token, done.seller_address, done.status));
        }
        Ok(())
    }

    /// Why the first payment counts and may leave, decided again from what is stored.
    fn explain(&mut self, payment: PaymentId) -> anyhow::Result<()> {
        self.narrator.step("Why the first payment counts, and why its money may leave");
        self.show_run(&["confirm", "explain", &payment.to_string()])?;
        self.show_run(&["verify"]).map(drop)
    }

    /// The table: where the money is, and whose it is.
    async fn conclude(&mut self) -> anyhow::Result<bool> {
        self.checkpoint().await?;
        self.narrator.title("Where the money is: every custody account against the chain");
        let books = self.marketplace()?.reconciliation().await?;
        self.narrator.rows(&custody_table(&books, &self.names().await?));
        self.narrator.title("Whose it is: the books of each asset");
        self.narrator.rows(&sides_table(&books));
        if self.kill {
            self.narrator.plain(&format!("The daemon was killed with SIGKILL and started again {} times on the way.", self.kills));
        }
        let verdict = if books.equal { "All equal." } else { "NOT EQUAL." };
        self.narrator.plain(verdict);
        Ok(books.equal)
    }

    /// What each custody address is for.
    async fn names(&self) -> anyhow::Result<BTreeMap<Address, String>> {
        let client = self.marketplace()?;
        let operator = client.chains().await?.into_iter().flat_map(|chain| chain.operator_addresses);
        let mut names: BTreeMap<Address, String> = operator.map(|own| (own.address, own.purpose)).collect();
        for (place, payment) in client.payments(None).await?.payments.into_iter().enumerate() {
            names.insert(payment.deposit_address, format!("deposit {}", place + 1));
        }
        Ok(names)
    }

    // === doing things ===

    /// Runs a command of the operator's and shows it with what it printed.
    fn show_run(&self, words: &[&str]) -> anyhow::Result<String> {
        self.narrator.command(&format!("amanatd {}", words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")));
        let printed = self.stage.run(words)?;
        self.narrator.rows(&printed.lines().map(|line| format!("  {line}")).collect::<Vec<_>>());
        Ok(printed)
    }

    /// A buyer's wallet pays; the transaction is in a block when this returns.
    async fn pay(&self, payment: &PaymentView, amount: &str) -> anyhow::Result<B256> {
        let units = parse_units(amount, 6)?;
        let chain = &self.stage.chain;
        let buyer: Address = PAYERS[1];
        chain.mined(chain.mint(payment.token_contract, buyer, units).await?).await?;
        let hash = chain.transfer_token(payment.token_contract, buyer, payment.deposit_address, units).await?;
        chain.mined(hash).await?;
        self.narrator.fact("tx", &hash.to_string());
        Ok(hash)
    }

    /// A session at the signing station. The first is shown whole, the others in short.
    fn sign(&mut self) -> anyhow::Result<()> {
        let device = self.stage.trezor.endpoint();
        let file = |name| self.stage.path(name).to_string_lossy().into_owned();
        let (url, token, chains, definitions) = (self.stage.api_url(), file("station.token"), file("chains.toml"), file("definitions"));
        let words = [
            "sign",
            "--once",
            "--url",
            &url,
            "--token-file",
            &token,
            "--chains",
            &chains,
            "--definitions",
            &definitions,
            "--device",
            &device,
        ];
        self.narrator.command(&format!("amanatd sign --once --device {device} …"));
        let mut station = self.stage.command(&words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("start the station")?;
        let printed = station.stdout.take().context("the station's output")?;
        for line in BufReader::new(printed).lines() {
            let line = line?;
            let signed = line.starts_with("signed");
            // The narrator shows the screens themselves, as they appear.
            if (!self.shown_session && !line.contains("look at the device")) || signed || line.ends_with("left") {
                self.narrator.plain(&format!("  {line}"));
            }
            self.shown_session |= signed;
        }
        let output = station.wait_with_output()?;
        if !output.status.success() {
            anyhow::bail!("the station failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }

    /// Between two steps: with `--kill`, the daemon dies here and starts again.
    async fn checkpoint(&mut self) -> anyhow::Result<()> {
        if self.kill {
            self.stage.kill_daemon()?;
            self.stage.start_daemon().await?;
            self.kills += 1;
        }
        Ok(())
    }

    // === waiting and reading ===

    fn marketplace(&self) -> anyhow::Result<&Client> {
        Ok(&self.clients.as_ref().context("tokens were made")?.marketplace)
    }

    fn officer(&self) -> anyhow::Result<&Client> {
        Ok(&self.clients.as_ref().context("tokens were made")?.officer)
    }

    /// Asks until there is an answer; says what it waited for when patience ends.
    async fn until<T>(&self, what: &str, mut ask: impl AsyncFnMut(&Self) -> anyhow::Result<Option<T>>) -> anyhow::Result<T> {
        let started = Instant::now();
        let mut last = None;
        while started.elapsed() < PATIENCE {
            match ask(self).await {
                Ok(Some(found)) => return Ok(found),
                Ok(None) => {}
                Err(error) => last = Some(error),
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        let last = last.map(|error| format!("; last error: {error:#}")).unwrap_or_default();
        anyhow::bail!("waited {} s until {what}{last}; the daemon's log ends with:\n{}", PATIENCE.as_secs(), self.stage.log_tail())
    }

    async fn payment(&self, id: PaymentId, what: &str, reached: impl Fn(&PaymentView) -> bool) -> anyhow::Result<PaymentView> {
        self.until(what, async |story| Ok(Some(story.marketplace()?.payment(id).await?).filter(&reached))).await
    }

    async fn transfer(&self, id: PaymentId, what: &str, reached: impl Fn(&TransferView) -> bool) -> anyhow::Result<TransferView> {
        self.until(what, async |story| {
            let payment = story.marketplace()?.payment(id).await?;
            Ok(payment.transfers.into_iter().rev().find(&reached))
        })
        .await
    }

    async fn status(&self, id: PaymentId, status: &str) -> anyhow::Result<String> {
        Ok(self.payment(id, status, |payment| payment.status == status).await?.status)
    }

    async fn funded(&mut self, id: PaymentId) -> anyhow::Result<()> {
        let funded = self.payment(id, "the payment is funded", |payment| payment.escrow_state.as_deref() == Some("funded")).await?;
        self.narrator.fact("funded", &format!("{} {}; status {}, escrow funded", funded.amount, funded.token, funded.status));
        self.checkpoint().await
    }
}

fn block(transfer: &TransferView) -> String {
    format!("block {} {}", transfer.block_number, short(transfer.block_hash))
}

fn short(hash: B256) -> String {
    hash.to_string().chars().take(10).collect()
}

fn quoted(word: &str) -> String {
    if word.contains(' ') { format!("{word:?}") } else { word.to_owned() }
}

fn custody_table(books: &Reconciliation, names: &BTreeMap<Address, String>) -> Vec<String> {
    let rows: Vec<Vec<String>> = books
        .chains
        .iter()
        .flat_map(|chain| &chain.lines)
        .map(|line| {
            let equal = if line.equal { "equal" } else { "DIFFERENT" };
            let name = names.get(&line.address).cloned().unwrap_or_default();
            vec![name, line.address.to_string(), line.symbol.clone(), line.ledger.clone(), line.chain.clone(), equal.to_owned()]
        })
        .collect();
    table_lines(&["", "address", "asset", "ledger", "chain", ""], &rows, &[3, 4])
}

fn sides_table(books: &Reconciliation) -> Vec<String> {
    let rows: Vec<Vec<String>> = books
        .sides
        .iter()
        .map(|side| {
            let equal = if side.equal { "equal" } else { "DIFFERENT" };
            vec![side.symbol.clone(), side.custody.clone(), side.debit.clone(), side.credit.clone(), equal.to_owned()]
        })
        .collect();
    table_lines(&["asset", "custody", "custody + fees paid", "claims", ""], &rows, &[1, 2, 3])
}
