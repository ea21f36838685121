//! Several daemons on one stage, each a process with a configuration, ports and a state directory of its own, and a
//! database that can be swapped under them: they find it through a link, as through a name that moves.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use alloy::primitives::{Address, U256};
use amanatd::api::Client;
use amanatd::api::wire::{CreatePayment, IntentView, PaymentView};
use amanatd::devkit::chain::PAYERS;
use amanatd::devkit::child;
use amanatd::devkit::postgres::PrivatePostgres;
use amanatd::devkit::stage::{PATIENCE, Stage, StageOptions};
use amanatd::units::{PaymentId, parse_units};
use rustix::process::{Pid, Signal, kill_process};
use secrecy::SecretString;

const BINARY: &str = env!("CARGO_BIN_EXE_amanatd");
pub(crate) const SELLER: &str = "0x1111111111111111111111111111111111111111";

/// A daemon.
pub(crate) struct Member {
    config: PathBuf,
    pub(crate) api: String,
    metrics: String,
    log: PathBuf,
    child: Option<Child>,
}

impl Member {
    pub(crate) fn said(&self, words: &str) -> bool {
        self.log().contains(words)
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub(crate) fn start(&mut self) {
        let mut words = child::dies_with_us("KILL");
        words.extend([BINARY.to_owned(), "--config".to_owned(), self.config.display().to_string(), "serve".to_owned()]);
        let mut command = child::command(&words).unwrap();
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&self.log).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).env_remove("RUST_LOG");
        self.child = Some(child::spawn(command).unwrap());
    }

    pub(crate) async fn ready(&mut self) {
        let url = format!("{}/readyz", self.metrics);
        let started = Instant::now();
        loop {
            let answer = reqwest::Client::builder().no_proxy().build().unwrap().get(&url).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return;
            }
            if let Some(status) = self.child.as_mut().unwrap().try_wait().unwrap() {
                panic!("it ended ({status}):\n{}", self.log());
            }
            assert!(started.elapsed() < PATIENCE, "it is not ready:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What `/readyz` says.
    pub(crate) async fn readiness(&self) -> String {
        reqwest::get(format!("{}/readyz", self.metrics)).await.unwrap().text().await.unwrap()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(self.child.as_ref().unwrap()), signal).unwrap();
    }

    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub(crate) fn stop(&mut self) {
        let mut child = self.child.take().unwrap();
        let status = child::stop(&mut child, Signal::TERM, PATIENCE).unwrap();
        assert_eq!(status.code(), Some(0), "{status}:\n{}", self.log());
    }

    /// Ends by itself.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.as_mut().unwrap().try_wait().unwrap() {
                self.child = None;
                return status;
            }
            assert!(started.elapsed() < PATIENCE, "it goes on:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The daemons, and everything they stand on.
pub(crate) struct Troupe {
    pub(crate) members: Vec<Member>,
    pub(crate) officer: Client,
    pub(crate) stage: Stage,
    token: String,
    made: u32,
}

impl Troupe {
    /// Everything but the daemons.
    pub(crate) async fn gather(name: &str, members: usize) -> Self {
        let directory = std::env::temp_dir().join(format!("amanatd-{name}-{}", std::process::id()));
        let options = StageOptions { binary: PathBuf::from(BINARY), directory, durable: false };
        let stage = Stage::start(options).await.unwrap();
        point(&stage, &stage.postgres);
        let link = stage.path("pg").display().to_string();
        let text = std::fs::read_to_string(stage.path("amanatd.toml")).unwrap();
        let text = text.replace(&stage.postgres.socket_folder().display().to_string(), &link);
        // Commands on the stage go through the link too, and compare with nothing.
        stage.write("amanatd.toml", &text).unwrap();
        let members: Vec<Member> = (0..members).map(|number| member(&stage, number, &text)).collect();
        stage.run(&["migrate"]).unwrap();
        let device = stage.trezor.endpoint();
        stage.trezor.officer().confirm_all();
        stage.run(&["account", "enrol", "--label", "main", "--device", &device]).unwrap();
        let officer = stage.run(&["user", "create", "--name", "custody officer", "--role", "guard"]).unwrap();
        stage.client("market", &["payments:read", "payments:write", "ledger:read"], None).unwrap();
        stage.client("officer", &["intents:read", "intents:approve"], Some(&officer)).unwrap();
        stage.client("station", &["signing", "intents:read"], None).unwrap();
        let secret = |name: &str| std::fs::read_to_string(stage.path(&format!("{name}.token"))).unwrap().trim().to_owned();
        let officer = Client::new(&members[0].api, SecretString::from(secret("officer"))).unwrap();
        Self { token: secret("market"), members, officer, stage, made: 0 }
    }

    pub(crate) fn sql(&self, postgres: &PrivatePostgres, statements: &str) -> String {
        postgres.sql("amanat", statements).unwrap().trim().to_owned()
    }

    /// The database's name points to this server from now on.
    pub(crate) fn point(&self, postgres: &PrivatePostgres) {
        point(&self.stage, postgres);
    }

    pub(crate) fn market(&self, member: usize) -> Client {
        Client::new(&self.members[member].api, SecretString::from(self.token.clone())).unwrap()
    }

    pub(crate) async fn until<T>(&self, what: &str, mut ask: impl AsyncFnMut(&Self) -> Option<T>) -> T {
        let started = Instant::now();
        loop {
            if let Some(found) = ask(self).await {
                return found;
            }
            let logs = || self.members.iter().map(Member::log).collect::<Vec<_>>().join("\n---\n");
            assert!(started.elapsed() < PATIENCE, "{what}:\n{}", logs());
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }

    /// Who holds a lease, among the members; `None` where nobody does.
    pub(crate) fn holder(&self, postgres: &PrivatePostgres, lease: &str) -> Option<usize> {
        let holder = format!(
            "select l.holder from leases l where l.name = '{lease}' and exists (select from pg_locks k where k.locktype = 'advisory' \
             and k.granted and k.objsubid = 1 and (k.classid::bigint << 32) | k.objid::bigint = lease_key(l.name, 'held'))"
        );
        let holder = postgres.sql("amanat", &holder).unwrap();
        let pid = holder.trim().strip_prefix("pid ")?.split(' ').next()?.parse::<u32>().ok()?;
        self.members.iter().position(|member| member.child.is_some() && member.pid() == pid)
    }

    // === money ===

    /// The operator's addresses get coin, and the books know it.
    pub(crate) async fn fund_operator(&self) {
        let market = self.market(0);
        let chains =
            self.until("the chain is read", async |_| market.chains().await.ok().filter(|chains| chains[0].scanned_number.is_some())).await;
        for address in &chains[0].operator_addresses {
            let sent = self.stage.chain.send_native(PAYERS[0], address.address, parse_units("10", 18).unwrap()).await.unwrap();
            self.stage.chain.mined(sent).await.unwrap();
        }
        self.stage.chain.mine(4).await.unwrap();
        self.until("the operator's float is booked", async |_| {
            let books = market.reconciliation().await.ok()?;
            books.sides.iter().any(|side| side.symbol == "ETH" && side.custody == "20").then_some(())
        })
        .await;
    }

    /// A payment of one USDC, through one of the members.
    pub(crate) async fn create(&mut self, member: usize) -> PaymentView {
        self.made += 1;
        let asked = CreatePayment {
            amount: "1".to_owned(),
            currency: "USDC".to_owned(),
            chain_id: 31_337,
            token: "USDC".to_owned(),
            seller_address: SELLER.to_owned(),
            expires_in_seconds: Some(86_400),
            ..CreatePayment::default()
        };
        let (client, key) = (self.market(member), format!("troupe-{}", self.made));
        self.until("a payment is taken", async |_| client.create_payment(&asked, &key).await.ok()).await
    }

    /// Its buyer pays, and the payment is deep enough to count.
    pub(crate) async fn pay(&self, to: Address) {
        let paid = self.stage.chain.mint(self.stage.usdc, to, U256::from(1_000_000)).await.unwrap();
        self.stage.chain.mined(paid).await.unwrap();
        self.stage.chain.mine(6).await.unwrap();
    }

    pub(crate) async fn reached(&self, member: usize, id: PaymentId, escrow_state: &str) -> PaymentView {
        let market = self.market(member);
        self.until(escrow_state, async |_| {
            market.payment(id).await.ok().filter(|payment| payment.escrow_state.as_deref() == Some(escrow_state))
        })
        .await
    }

    /// One outflow of a kind: approved, signed, sent, mined and settled.
    pub(crate) async fn outflow(&self, kind: &str) -> IntentView {
        let planned = self
            .until(&format!("a {kind} is planned"), async |troupe| {
                troupe.officer.intents(Some("planned")).await.ok()?.into_iter().find(|intent| intent.kind == kind)
            })
            .await;
        self.officer.approve(planned.id, planned.digest).await.unwrap();
        self.sign();
        self.until("it is with the node", async |troupe| {
            troupe.officer.intent(planned.id).await.ok().filter(|intent| ["broadcast", "mined"].contains(&intent.state.as_str()))
        })
        .await;
        self.stage.chain.mine(6).await.unwrap();
        self.until("it is settled", async |troupe| troupe.officer.intent(planned.id).await.ok().filter(|intent| intent.state == "settled"))
            .await
    }

    /// A session at the station, which signs whatever is approved.
    pub(crate) fn sign(&self) {
        let file = |name: &str| self.stage.path(name).display().to_string();
        let (url, token, chains, definitions) = (&self.members[0].api, file("station.token"), file("chains.toml"), file("definitions"));
        let device = self.stage.trezor.endpoint();
        let words = [
            "sign",
            "--once",
            "--url",
            url,
            "--token-file",
            &token,
            "--chains",
            &chains,
            "--definitions",
            &definitions,
            "--device",
            &device,
        ];
        self.stage.run(&words).unwrap();
    }
}

/// A configuration like the stage's, on ports of its own, with a file that remembers the database.
fn member(stage: &Stage, number: usize, text: &str) -> Member {
    let port = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (api, metrics) = (format!("127.0.0.1:{}", port()), format!("127.0.0.1:{}", port()));
    let host = |url: String| url.strip_prefix("http://").unwrap().to_owned();
    let text = text
        .replace(&host(stage.api_url()), &api)
        .replace(&host(stage.metrics_url()), &metrics)
        .replace(&host(stage.console_origin()), &format!("localhost:{}", api.rsplit(':').next().unwrap()))
        .replace("[database]\n", &format!("[database]\nhigh_water_file = \"high-water-{number}.json\"\n"));
    Member {
        config: stage.write(&format!("member-{number}.toml"), &text).unwrap(),
        api: format!("http://{api}"),
        metrics: format!("http://{metrics}"),
        log: stage.path(&format!("member-{number}.log")),
        child: None,
    }
}

fn point(stage: &Stage, postgres: &PrivatePostgres) {
    let (link, draft) = (stage.path("pg"), stage.path("pg.new"));
    let _ = std::fs::remove_file(&draft);
    std::os::unix::fs::symlink(postgres.socket_folder(), &draft).unwrap();
    std::fs::rename(&draft, &link).unwrap();
}

impl Troupe {
    /// Removes what the run left. What it was is no longer needed when it has passed.
    pub(crate) fn tidy(self) {
        let directory: PathBuf = Path::new(&self.stage.path("")).to_path_buf();
        drop(self);
        let _ = std::fs::remove_dir_all(directory);
    }
}
