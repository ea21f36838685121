//! Intents: the list, and one as an officer must read it before approving.

use alloy::primitives::{Address, U256};
use askama::Template;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use serde::Deserialize;
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::payments::Filter;
use super::{PAGE, given, read_place, write_place};
use crate::chains::ChainBook;
use crate::console::identity::session::Officer;
use crate::console::page::{Frame, Refusal, html};
use crate::console::show::{self, Chip, Moment, filters};
use crate::console::store::EventFilter;
use crate::console::{Console, ConsoleError, store};
use crate::intent::{self, Intent, IntentError, IntentState};
use crate::signing::{self, Definitions, ExpectedScreens, Transfer};
use crate::units::{Asset, IntentId, format_units};
use crate::{account, approval, broadcast};

/// An intent in a list.
pub(in crate::console) struct IntentLine {
    pub id: String,
    pub kind: String,
    pub chip: Chip,
    pub amount: String,
    pub chain: String,
    pub to: String,
    pub to_path: Option<String>,
    pub approvals: u8,
    pub required: u8,
    pub created: Option<Moment>,
    pub tx: Option<String>,
}

impl IntentLine {
    pub(in crate::console) async fn of(
        connection: &mut PgConnection,
        intent: &Intent,
        created: Option<Moment>,
        book: &ChainBook,
    ) -> Result<Self, ConsoleError> {
        Ok(Self {
            id: intent.id.to_string(),
            kind: intent.kind.name().to_owned(),
            chip: show::intent_state(intent.state.name()),
            amount: show::amount(intent.amount.units, intent.amount.asset, book),
            chain: show::chain_name(intent.chain(), book),
            to: intent.to.to_string(),
            to_path: own_path(connection, intent).await?,
            approvals: approval::store::count(connection, intent).await?,
            required: intent.approvals_required,
            created,
            tx: broadcast::store::find_by_intent(connection, intent.id).await?.map(|outbound| outbound.tx_hash.to_string()),
        })
    }
}

/// Intents for a list, and those whose rows were changed outside the daemon: one of them hides no other.
pub(in crate::console) struct IntentList {
    pub lines: Vec<IntentLine>,
    pub altered: Vec<String>,
}

impl IntentList {
    pub(in crate::console) async fn read(
        connection: &mut PgConnection,
        found: Vec<(IntentId, OffsetDateTime)>,
        console: &Console,
    ) -> Result<Self, ConsoleError> {
        let (now, book) = (console.now(), &console.api.book);
        let mut list = Self { lines: Vec::with_capacity(found.len()), altered: Vec::new() };
        for (id, created_at) in found {
            match intent::store::get(connection, id).await {
                Ok(intent) => list.lines.push(IntentLine::of(connection, &intent, Some(Moment::of(created_at, now)), book).await?),
                Err(IntentError::DigestMismatch(id)) => list.altered.push(id.to_string()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(list)
    }
}

/// Where the recipient sits, if it is one of ours.
async fn own_path(connection: &mut PgConnection, intent: &Intent) -> Result<Option<String>, ConsoleError> {
    let Some(id) = account::store::find_address_id(connection, intent.to).await? else { return Ok(None) };
    let address = account::store::get_address(connection, id).await?;
    Ok(Some(format!("{} · {}", address.purpose.name(), address.path)))
}

// === the list ===

#[derive(Debug, Deserialize)]
pub(in crate::console) struct Asked {
    #[serde(default)]
    show: Option<String>,
    #[serde(default)]
    before: Option<String>,
}

#[derive(Template)]
#[template(path = "intents.html")]
struct IntentsPage {
    frame: Frame,
    filters: Vec<Filter>,
    list: IntentList,
    older: Option<String>,
    show: String,
}

pub(in crate::console) async fn list(
    State(console): State<Console>,
    officer: Officer,
    Query(asked): Query<Asked>,
) -> Result<Response, Refusal> {
    let (chosen, open) = match given(asked.show).as_deref() {
        None | Some("open") => ("open", Some(true)),
        Some("closed") => ("closed", Some(false)),
        Some("all") => ("all", None),
        Some(_) => return Err(Refusal::Field("Intents are shown as open, closed or all.".to_owned())),
    };
    let before = given(asked.before).as_deref().map(read_place).transpose()?;
    let mut connection = console.api.db.connection().await?;
    let found = store::list_intents(&mut connection, open, before, PAGE).await?;
    let full = i64::try_from(found.len()).is_ok_and(|length| length == PAGE);
    let older = found.last().filter(|_| full).map(|(id, at)| write_place(*at, id));
    let list = IntentList::read(&mut connection, found, &console).await?;
    let filters = [("Open", "open"), ("Closed", "closed"), ("All", "all")];
    html(&IntentsPage {
        frame: Frame::of("Intents", "intents", &console, &officer),
        filters: filters.map(|(name, value)| Filter { name, value, chosen: value == chosen }).into(),
        list,
        older,
        show: chosen.to_owned(),
    })
}

// === one intent ===

#[derive(Template)]
#[template(path = "intent.html")]
struct IntentPage {
    frame: Frame,
    line: IntentLine,
    why: &'static str,
    asset: String,
    units: String,
    from: String,
    from_path: String,
    groups: Vec<String>,
    nonce: u64,
    gas_limit: String,
    max_fee: String,
    priority_fee: String,
    ceiling: String,
    payment: Option<String>,
    requested_by: String,
    station: Option<String>,
    digest: String,
    call: Call,
    screens: Vec<Vec<String>>,
    notes: Vec<String>,
    refused: Option<String>,
    approvals: Vec<ApprovalLine>,
    /// Why this officer cannot approve now; nothing if they can.
    barred: Option<String>,
    outcome: Option<Outcome>,
    events: Vec<super::events::Line>,
}

/// What the bytes say, read back from the bytes.
struct Call {
    to: String,
    to_is: String,
    value: String,
    data: String,
    reads: String,
}

struct ApprovalLine {
    name: String,
    how: &'static str,
    at: Moment,
    stale: bool,
}

struct Outcome {
    block: String,
    succeeded: bool,
    fee: String,
}

pub(in crate::console) async fn get(State(console): State<Console>, officer: Officer, Path(id): Path<String>) -> Result<Response, Refusal> {
    let id: IntentId = id.parse().map_err(|_| Refusal::Unknown("There is no such intent.".to_owned()))?;
    let now = console.now();
    let book = &console.api.book;
    let mut connection = console.api.db.connection().await?;
    let connection = &mut *connection;
    let intent = intent::store::get(connection, id).await?;
    let spec = book
        .get(intent.chain())
        .ok_or_else(|| Refusal::Unknown(format!("Chain {} of this intent is no longer listed in chains.toml.", intent.chain())))?;
    let line = IntentLine::of(connection, &intent, None, book).await?;
    let rows = store::list_approvals(connection, &intent).await?;
    let outbound = broadcast::store::find_by_intent(connection, id).await?;
    let native = spec.native_asset();

    let mine = rows.iter().any(|row| row.officer == officer.holder.user && !row.stale);
    let barred = if intent.state != IntentState::Planned {
        Some(format!("It is {} and takes no approval now.", intent.state))
    } else if intent.was_asked_for_by(&format!("user:{}", officer.holder.user)) {
        Some("You asked for it, so another officer has to approve.".to_owned())
    } else if mine {
        Some("You have approved it.".to_owned())
    } else {
        None
    };
    let (call, screens, notes, refused) = match signing::request_for(&intent, spec) {
        Ok(request) => {
            let definitions = Definitions::load(None, spec, intent.amount.asset.asset);
            let expected = ExpectedScreens::of(&request, spec, &definitions);
            let unsigned = request.to_unsigned();
            let to = unsigned.to.to().copied().unwrap_or_default();
            let call = read_call(to, unsigned.value, &unsigned.input, &intent, book);
            (call, expected.screens.into_iter().map(|screen| screen.lines).collect(), expected.notes, None)
        }
        Err(error) => {
            let empty = Call { to: String::new(), to_is: String::new(), value: String::new(), data: String::new(), reads: String::new() };
            (empty, Vec::new(), Vec::new(), Some(error.to_string()))
        }
    };
    let events = store::list_events(connection, &EventFilter { intent: Some(id), ..EventFilter::default() }, 100).await?;
    let page = IntentPage {
        frame: Frame::of(format!("{} {}", title(intent.kind.name()), show::short(&id.to_string())), "intents", &console, &officer),
        why: why(intent.kind.name()),
        asset: match intent.amount.asset.asset {
            Asset::Native => "the chain's own coin".to_owned(),
            Asset::Token(contract) => contract.to_string(),
        },
        units: intent.amount.units.to_string(),
        from: intent.from.address.to_string(),
        from_path: format!("{} · {}", intent.from.purpose.name(), intent.from.path),
        groups: show::in_groups(intent.to),
        nonce: intent.nonce,
        gas_limit: show::grouped(&intent.fees.gas_limit.to_string()),
        max_fee: show::gwei(intent.fees.max_fee_per_gas),
        priority_fee: show::gwei(intent.fees.max_priority_fee_per_gas),
        ceiling: show::amount(U256::from(intent.fees.gas_limit) * U256::from(intent.fees.max_fee_per_gas), native, book),
        payment: intent.payment.map(|payment| payment.to_string()),
        requested_by: intent.requested_by.clone(),
        station: intent.station.clone(),
        digest: intent.digest.to_string(),
        call,
        screens,
        notes,
        refused,
        approvals: rows
            .into_iter()
            .map(|row| ApprovalLine {
                name: row.name,
                how: if row.at_console { "passkey at the console" } else { "token" },
                at: Moment::of(row.created_at, now),
                stale: row.stale,
            })
            .collect(),
        barred,
        outcome: outbound.and_then(|outbound| outbound.included).map(|included| Outcome {
            block: show::grouped(&included.block.number.0.to_string()),
            succeeded: included.succeeded,
            fee: show::amount(included.fee_paid, native, book),
        }),
        events: events.into_iter().map(|row| super::events::Line::of(row, now, book)).collect(),
        line,
    };
    html(&page)
}

fn read_call(to: Address, value: U256, input: &[u8], intent: &Intent, book: &ChainBook) -> Call {
    let facts = book.asset(intent.amount.asset);
    let reads = match Transfer::from_call(to, value, input) {
        Ok(Transfer { asset: Asset::Native, to, amount }) => format!("send {} to {to}", show::amount(amount, native_of(intent), book)),
        Ok(Transfer { asset: Asset::Token(_), to, amount }) => {
            let shown =
                facts.map_or_else(|| amount.to_string(), |facts| format!("{} {}", format_units(amount, facts.decimals), facts.symbol));
            format!("transfer(to: {to}, amount: {amount}), which is {shown}")
        }
        Err(error) => format!("not a transfer: {error}"),
    };
    Call {
        to: to.to_string(),
        to_is: match intent.amount.asset.asset {
            Asset::Native => "the recipient".to_owned(),
            Asset::Token(_) => format!("the contract of {}", facts.map_or("the token", |facts| facts.symbol)),
        },
        value: show::amount(value, native_of(intent), book),
        data: if input.is_empty() { "empty".to_owned() } else { alloy::hex::encode_prefixed(input) },
        reads,
    }
}

fn native_of(intent: &Intent) -> crate::units::AssetId {
    crate::units::AssetId { chain: intent.chain(), asset: Asset::Native }
}

fn title(kind: &str) -> &'static str {
    match kind {
        "sweep" => "Sweep",
        "release" => "Release",
        "refund" => "Refund",
        "fuel" => "Fuel",
        "cancel" => "Cancel",
        _ => "Intent",
    }
}

fn why(kind: &str) -> &'static str {
    match kind {
        "sweep" => "Collects a deposit: from its address to the treasury.",
        "release" => "Pays the seller from the treasury. Compare amount and recipient with what the marketplace says the seller is owed.",
        "refund" => "Pays the buyer back. Compare amount and recipient with what was decided.",
        "fuel" => "Sends coin for gas to a deposit address, so that it can be swept.",
        "cancel" => "Takes a nonce with a transfer of nothing to ourselves.",
        _ => "Moves money.",
    }
}
