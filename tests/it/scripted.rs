//! A JSON-RPC node over a chain that exists only here: deep reorgs in no time, and every lie, delay and
//! broken answer that a real node would need luck for. What it says without a fault is consistent.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use alloy::consensus::Header;
use alloy::primitives::{Address, B256, U256, keccak256};
use amanatd::scan::matching::TRANSFER_TOPIC;
use amanatd::units::{BlockNumber, BlockRef};
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// One payment, in a transaction of its own. The same `tx` is the same transaction, in whichever block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pay {
    pub(crate) tx: u64,
    /// `None`: the chain's own coin.
    pub(crate) token: Option<Address>,
    pub(crate) to: Address,
    pub(crate) value: u64,
}

impl Pay {
    pub(crate) fn tx_hash(&self) -> B256 {
        keccak256(self.tx.to_be_bytes())
    }
}

#[derive(Clone, Debug)]
struct ModelBlock {
    header: Header,
    hash: B256,
    pays: Vec<Pay>,
}

/// Blocks by hash, and the line of canonical ones from genesis on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    blocks: HashMap<B256, ModelBlock>,
    line: Vec<B256>,
    salt: u64,
}

pub(crate) const PAYER: Address = Address::repeat_byte(0x77);
const CHAIN_ID: u64 = 31_337;

impl Model {
    fn new() -> Self {
        let mut model = Self::default();
        model.mine(vec![]);
        model
    }

    pub(crate) fn head(&self) -> BlockRef {
        BlockRef { number: BlockNumber(self.line.len() as u64 - 1), hash: *self.line.last().unwrap() }
    }

    pub(crate) fn line(&self) -> Vec<B256> {
        self.line.clone()
    }

    /// Puts a line back that was canonical before.
    pub(crate) fn set_line(&mut self, line: Vec<B256>) {
        self.line = line;
    }

    pub(crate) fn mine(&mut self, pays: Vec<Pay>) -> BlockRef {
        self.salt += 1;
        let number = self.line.len() as u64;
        let mut header = Header {
            parent_hash: self.line.last().copied().unwrap_or_default(),
            number,
            timestamp: 1_800_000_000 + number,
            gas_limit: 30_000_000,
            base_fee_per_gas: Some(7),
            // What makes two blocks of one height differ.
            extra_data: self.salt.to_be_bytes().to_vec().into(),
            ..Header::default()
        };
        for pay in &pays {
            if let Some(token) = pay.token {
                header.logs_bloom.accrue_raw_log(token, &topics(pay));
            }
        }
        let hash = header.hash_slow();
        self.blocks.insert(hash, ModelBlock { header, hash, pays });
        self.line.push(hash);
        self.head()
    }

    pub(crate) fn mine_empty(&mut self, count: u64) {
        for _ in 0..count {
            self.mine(vec![]);
        }
    }

    /// Takes the newest blocks off the line. They stay known by their hash, as on a real node.
    pub(crate) fn cut(&mut self, depth: u64) {
        let kept = self.line.len() - usize::try_from(depth).unwrap();
        self.line.truncate(kept);
    }

    /// What the chain as it is now answers, kept for later.
    pub(crate) fn answers(&self) -> impl Fn(&str, &Value) -> Value + Send + use<> {
        let model = self.clone();
        move |method, params| model.answer(method, params).unwrap()
    }

    /// The receipt that a transaction would have in one block.
    pub(crate) fn receipt_in(&self, block: B256, tx: u64) -> Value {
        let mut alone = self.clone();
        alone.line = vec![block];
        alone.receipt(keccak256(tx.to_be_bytes()))
    }

    fn by_number(&self, tag: &str) -> Option<&ModelBlock> {
        let number = match tag {
            "latest" => self.line.len() - 1,
            hex => usize::from_str_radix(hex.trim_start_matches("0x"), 16).unwrap(),
        };
        self.line.get(number).map(|hash| &self.blocks[hash])
    }

    /// The honest answer; an error object's fields where a node would refuse.
    fn answer(&self, method: &str, params: &Value) -> Result<Value, (i64, &'static str)> {
        let full = params[1].as_bool().unwrap_or(false);
        let hash_of = |value: &Value| serde_json::from_value::<B256>(value.clone()).unwrap();
        Ok(match method {
            "eth_chainId" => json!(format!("{CHAIN_ID:#x}")),
            "eth_getBlockByNumber" => self.by_number(params[0].as_str().unwrap()).map_or(Value::Null, |block| block_json(block, full)),
            "eth_getBlockByHash" => self.blocks.get(&hash_of(&params[0])).map_or(Value::Null, |block| block_json(block, full)),
            "eth_getLogs" => {
                let block = self.blocks.get(&hash_of(&params[0]["blockHash"])).ok_or((-32000, "unknown block"))?;
                let asked = params[0]["address"].as_array().unwrap();
                let logs = logs_json(block);
                json!(logs.into_iter().filter(|log| asked.contains(&log["address"])).collect::<Vec<_>>())
            }
            "eth_getTransactionReceipt" => self.receipt(hash_of(&params[0])),
            other => panic!("the scripted node does not know {other}"),
        })
    }

    fn receipt(&self, tx_hash: B256) -> Value {
        let mined = self.line.iter().map(|hash| &self.blocks[hash]).find_map(|block| {
            let index = block.pays.iter().position(|pay| pay.tx_hash() == tx_hash)?;
            Some((block, index))
        });
        let Some((block, index)) = mined else { return Value::Null };
        let logs: Vec<Value> = logs_json(block).into_iter().filter(|log| log["transactionHash"] == json!(tx_hash)).collect();
        json!({
            "transactionHash": tx_hash, "status": "0x1", "blockHash": block.hash,
            "blockNumber": hex(block.header.number), "transactionIndex": hex(index as u64),
            "gasUsed": "0x5208", "effectiveGasPrice": "0x7", "logs": logs,
        })
    }
}

fn topics(pay: &Pay) -> [B256; 3] {
    [TRANSFER_TOPIC, PAYER.into_word(), pay.to.into_word()]
}

fn hex(number: u64) -> String {
    format!("{number:#x}")
}

fn block_json(block: &ModelBlock, full: bool) -> Value {
    let mut json = serde_json::to_value(&block.header).unwrap();
    json["hash"] = json!(block.hash);
    json["transactions"] = block
        .pays
        .iter()
        .enumerate()
        .map(|(index, pay)| {
            let (to, value) = pay.token.map_or((pay.to, pay.value), |token| (token, 0));
            let tx = json!({
                "hash": pay.tx_hash(), "from": PAYER, "to": to, "value": hex(value),
                "blockHash": block.hash, "transactionIndex": hex(index as u64),
            });
            if full { tx } else { json!(pay.tx_hash()) }
        })
        .collect();
    json
}

fn logs_json(block: &ModelBlock) -> Vec<Value> {
    let with_token = block.pays.iter().filter_map(|pay| pay.token.map(|token| (pay, token)));
    with_token
        .enumerate()
        .map(|(index, (pay, token))| {
            json!({
                "blockHash": block.hash, "transactionHash": pay.tx_hash(), "logIndex": hex(index as u64), "address": token,
                "topics": topics(pay), "data": B256::from(U256::from(pay.value)), "removed": false,
            })
        })
        .collect()
}

// === the node ===

/// What comes back instead of the honest answer.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    Honest,
    Result(Value),
    Refuse(i64, String),
    Status(u16, String),
    /// The honest answer under the id of another request.
    WrongId,
    /// The honest answer, cut in the middle.
    CutJson,
    /// So many bytes of white space before the honest answer.
    Huge(usize),
    /// Nothing, ever.
    Silence,
}

type Script = Box<dyn Fn(&str, &Value) -> Reply + Send>;

#[derive(Default)]
struct Shared {
    model: Mutex<Model>,
    script: Mutex<Option<Script>>,
    methods: Mutex<Vec<String>>,
}

pub(crate) struct ScriptedNode {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: Option<JoinHandle<()>>,
}

impl ScriptedNode {
    /// A chain of one block.
    pub(crate) async fn start() -> Self {
        let shared = Arc::new(Shared { model: Mutex::new(Model::new()), ..Shared::default() });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Some(serve(listener, shared.clone()));
        Self { address, shared, server }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn model<T>(&self, change: impl FnOnce(&mut Model) -> T) -> T {
        change(&mut self.shared.model.lock().unwrap())
    }

    /// From now on answers like this.
    pub(crate) fn script(&self, script: impl Fn(&str, &Value) -> Reply + Send + 'static) {
        *self.shared.script.lock().unwrap() = Some(Box::new(script));
    }

    /// Answers one method with a fault, the others honestly.
    pub(crate) fn spoil(&self, method: &'static str, reply: Reply) {
        self.script(move |asked, _| if asked == method { reply.clone() } else { Reply::Honest });
    }

    pub(crate) fn heal(&self) {
        *self.shared.script.lock().unwrap() = None;
    }

    /// The methods called since the last time.
    pub(crate) fn take_methods(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.methods.lock().unwrap())
    }

    /// Closes the port.
    pub(crate) async fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            server.abort();
            let _ = server.await;
        }
    }

    /// Opens the same port again.
    pub(crate) async fn resume(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.server = Some(serve(listener, self.shared.clone()));
    }
}

impl Drop for ScriptedNode {
    fn drop(&mut self) {
        if let Some(server) = &self.server {
            server.abort();
        }
    }
}

fn serve(listener: TcpListener, shared: Arc<Shared>) -> JoinHandle<()> {
    let router = Router::new().route("/", post(handle)).with_state(shared);
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() })
}

async fn handle(State(shared): State<Arc<Shared>>, body: String) -> Response {
    let request: Value = serde_json::from_str(&body).unwrap();
    let (method, params, id) = (request["method"].as_str().unwrap().to_owned(), request["params"].clone(), request["id"].clone());
    shared.methods.lock().unwrap().push(method.clone());
    let reply = shared.script.lock().unwrap().as_ref().map_or(Reply::Honest, |script| script(&method, &params));
    let honest = || match shared.model.lock().unwrap().answer(&method, &params) {
        Ok(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }),
        Err((code, message)) => json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": message } }),
    };
    match reply {
        Reply::Honest => honest().to_string().into_response(),
        Reply::Result(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }).to_string().into_response(),
        Reply::Refuse(code, message) => {
            json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": message } }).to_string().into_response()
        }
        Reply::Status(status, text) => (StatusCode::from_u16(status).unwrap(), text).into_response(),
        Reply::WrongId => {
            let mut answer = honest();
            answer["id"] = json!(999_999);
            answer.to_string().into_response()
        }
        Reply::CutJson => {
            let text = honest().to_string();
            text[..text.len() / 2].to_owned().into_response()
        }
        Reply::Huge(bytes) => Body::from(" ".repeat(bytes) + &honest().to_string()).into_response(),
        Reply::Silence => {
            tokio::time::sleep(Duration::from_secs(3600)).await;
            StatusCode::OK.into_response()
        }
    }
}
