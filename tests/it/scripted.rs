//! A JSON-RPC node over a chain that exists only here: deep reorgs in no time, and every lie, delay and
//! broken answer that a real node would need luck for. What it says without a fault is consistent.
//!
//! Several nodes may serve one chain, each with a view, limits and lies of its own. Whatever they say that
//! is not so is counted by kind, so that a test can tell a fault that was met from one that never was.

#![allow(dead_code, reason = "every test takes its own part of the node")]

mod answer;
mod model;
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use answer::Window;
pub(crate) use answer::{Batches, BlockReceipts, Lie, PastHead, RangeText, Tags, View};
pub(crate) use model::{Emitted, Frame, FrameKind, Model, Moved, PAYER, Pay, Tx};

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

impl Reply {
    /// `None` for the answer that is no fault.
    fn kind(&self) -> Option<&'static str> {
        match self {
            Self::Honest => None,
            Self::Result(_) => Some("other result"),
            Self::Refuse(..) => Some("refused"),
            Self::Status(429, _) => Some("429"),
            Self::Status(..) => Some("status or HTML"),
            Self::WrongId => Some("wrong id"),
            Self::CutJson => Some("cut JSON"),
            Self::Huge(_) => Some("huge body"),
            Self::Silence => Some("silence"),
        }
    }
}

type Script = Box<dyn Fn(&str, &Value) -> Reply + Send>;

/// One node: a chain that others may serve too, and what is particular about this one.
#[derive(Default)]
struct Shared {
    model: Arc<Mutex<Model>>,
    view: Mutex<View>,
    script: Mutex<Option<Script>>,
    methods: Mutex<Vec<String>>,
    faults: Mutex<BTreeMap<&'static str, u64>>,
}

pub(crate) struct ScriptedNode {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: Option<JoinHandle<()>>,
}

impl ScriptedNode {
    /// A chain of one block.
    pub(crate) async fn start() -> Self {
        Self::serving(Arc::default()).await
    }

    /// A node of a chain that is there already.
    pub(crate) async fn serving(model: Arc<Mutex<Model>>) -> Self {
        let shared = Arc::new(Shared { model, ..Shared::default() });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Some(serve(listener, shared.clone()));
        Self { address, shared, server }
    }

    /// Another node of the same chain.
    pub(crate) async fn sibling(&self) -> Self {
        Self::serving(self.shared.model.clone()).await
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn model<T>(&self, change: impl FnOnce(&mut Model) -> T) -> T {
        change(&mut self.shared.model.lock().unwrap())
    }

    /// Changes what is particular about this node.
    pub(crate) fn view<T>(&self, change: impl FnOnce(&mut View) -> T) -> T {
        change(&mut self.shared.view.lock().unwrap())
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

    /// How often each kind of fault was met so far.
    pub(crate) fn faults(&self) -> BTreeMap<&'static str, u64> {
        self.shared.faults.lock().unwrap().clone()
    }

    pub(crate) fn forget_faults(&self) {
        self.shared.faults.lock().unwrap().clear();
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
    match serde_json::from_str(&body).unwrap() {
        Value::Array(requests) => handle_batch(&shared, &requests).await,
        request => match shared.respond(&request) {
            Reaction::Json(answer) => answer.to_string().into_response(),
            Reaction::Whole(reply, answer) => broken(reply, &answer.to_string()).await,
        },
    }
}

/// Answers in the order of the requests. A fault of the connection spoils all of them.
async fn handle_batch(shared: &Shared, requests: &[Value]) -> Response {
    if let Some(refused) = shared.refuse_batch(requests) {
        return refused.to_string().into_response();
    }
    let mut spoiled = None;
    let mut answers = Vec::with_capacity(requests.len());
    for request in requests {
        match shared.respond(request) {
            Reaction::Json(answer) => answers.push(answer),
            Reaction::Whole(reply, answer) => {
                spoiled = Some(reply);
                answers.push(answer);
            }
        }
    }
    let text = Value::Array(answers).to_string();
    match spoiled {
        Some(reply) => broken(reply, &text).await,
        None => text.into_response(),
    }
}

enum Reaction {
    Json(Value),
    /// A fault of the whole response, and what it would have been.
    Whole(Reply, Value),
}

impl Shared {
    fn respond(&self, request: &Value) -> Reaction {
        let (method, params, id) = (request["method"].as_str().unwrap(), &request["params"], &request["id"]);
        self.methods.lock().unwrap().push(method.to_owned());
        let reply = self.script.lock().unwrap().as_ref().map_or(Reply::Honest, |script| script(method, params));
        self.count(reply.kind());
        let honest = || self.through(|window| response(id, window.answer(method, params)));
        match reply {
            Reply::Honest => Reaction::Json(honest()),
            Reply::Result(result) => Reaction::Json(response(id, Ok(result))),
            Reply::Refuse(code, message) => Reaction::Json(response(id, Err((code, message)))),
            Reply::WrongId => {
                let mut answer = honest();
                answer["id"] = json!(999_999);
                Reaction::Json(answer)
            }
            Reply::Status(..) | Reply::CutJson | Reply::Huge(_) | Reply::Silence => Reaction::Whole(reply, honest()),
        }
    }

    /// As geth answers a batch that is too long: one error for all of it.
    fn refuse_batch(&self, requests: &[Value]) -> Option<Value> {
        let refusal = self.through(|window| window.batch_refusal(requests.len()))?;
        let one = response(&requests.first().map_or(Value::Null, |first| first["id"].clone()), Err(refusal));
        let alone = self.view.lock().unwrap().quirks.batches == Batches::Refused;
        Some(if alone { one } else { json!([one]) })
    }

    fn through<T>(&self, look: impl FnOnce(&Window<'_>) -> T) -> T {
        let (model, view) = (self.model.lock().unwrap(), self.view.lock().unwrap());
        let window = Window::of(&model, &view);
        let seen = look(&window);
        self.count(window.faults());
        seen
    }

    fn count(&self, kinds: impl IntoIterator<Item = &'static str>) {
        let mut faults = self.faults.lock().unwrap();
        for kind in kinds {
            *faults.entry(kind).or_default() += 1;
        }
    }
}

fn response(id: &Value, outcome: Result<Value, (i64, String)>) -> Value {
    match outcome {
        Ok(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }),
        Err((code, message)) => json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": message } }),
    }
}

/// A response that breaks on the way.
async fn broken(reply: Reply, honest: &str) -> Response {
    match reply {
        Reply::Status(status, text) => (StatusCode::from_u16(status).unwrap(), text).into_response(),
        Reply::CutJson => honest[..honest.len() / 2].to_owned().into_response(),
        Reply::Huge(bytes) => Body::from(" ".repeat(bytes) + honest).into_response(),
        Reply::Silence => {
            tokio::time::sleep(Duration::from_secs(3600)).await;
            StatusCode::OK.into_response()
        }
        Reply::Honest | Reply::Result(_) | Reply::Refuse(..) | Reply::WrongId => honest.to_owned().into_response(),
    }
}
