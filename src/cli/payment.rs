//! `payment …` and `dispute …`: what the marketplace's desk and resolvers do from a terminal.

use clap::{Args, Subcommand, ValueEnum};
use uuid::Uuid;

use super::Remote;
use super::console::{legible, say, table};
use super::database;
use super::threshold::second;
use crate::api::wire::{AcceptPayment, DisputeView, EndQuarantine, PaymentView, QuoteView, RefundPayment, ResolveDispute};
use crate::config::Config;
use crate::settings::{self, ChangeNote, PaymentDefault, SettingsError};
use crate::units::PaymentId;

#[derive(Debug, Subcommand)]
pub enum PaymentCommand {
    /// Show a payment: where it stands, what the books hold for it, what was ordered out of it.
    Show {
        #[command(flatten)]
        remote: Remote,
        payment: PaymentId,
    },
    /// Give up a payment that nothing came for.
    Cancel(Order),
    /// Order a release to the seller: all that is held, or a part.
    Release {
        #[command(flatten)]
        order: Order,
        /// In units of the token, fees included.
        #[arg(long)]
        amount: Option<String>,
    },
    /// Order a refund to an address that the buyer states.
    Refund(RefundArgs),
    /// A fresh quote for a payment whose quote has ended before it was paid.
    Requote(Order),
    /// Every quote of a payment, oldest first; the last one counts.
    Quotes {
        #[command(flatten)]
        remote: Remote,
        payment: PaymentId,
    },
    /// Take what came late, too much or too little after all. Late money is valued by a fresh quote first.
    Accept {
        #[command(flatten)]
        order: Order,
        /// Take what is there as the whole, although it is less than was due.
        #[arg(long)]
        less_than_due: bool,
        /// Why, for the record.
        #[arg(long)]
        reason: String,
    },
    /// Take back an order that is not planned yet.
    Withdraw {
        #[command(flatten)]
        order: Order,
        /// The payout, as `payment show` lists it.
        payout: Uuid,
    },
    /// End the quarantine of a payment's address. For resolvers.
    EndQuarantine {
        #[command(flatten)]
        order: Order,
        /// Its money does not count: it goes to suspense, to be refunded or accepted.
        #[arg(long)]
        to_suspense: bool,
        /// Why, for the record.
        #[arg(long)]
        reason: String,
    },
    /// The terms of payments that are created without naming their own.
    #[command(subcommand)]
    Default(DefaultCommand),
}

/// A command on one payment of a running daemon.
#[derive(Debug, Args)]
pub struct Order {
    #[command(flatten)]
    remote: Remote,
    payment: PaymentId,
    /// The Idempotency-Key; a call with the same key again takes effect once. A new one without it.
    #[arg(long)]
    key: Option<String>,
}

impl Order {
    fn key(&self) -> String {
        self.key.clone().unwrap_or_else(|| Uuid::new_v4().to_string())
    }
}

/// What a refund is taken from.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum RefundSource {
    Held,
    Received,
    Suspense,
}

#[derive(Debug, Args)]
pub struct RefundArgs {
    #[command(flatten)]
    order: Order,
    /// held; received: a part that never became whole; suspense: too much, late, twice, of another kind.
    #[arg(long)]
    from: RefundSource,
    /// Where the buyer wants it. Ask; do not take the sender from a block explorer.
    #[arg(long)]
    to: String,
    /// In units of what is refunded; all of it without it.
    #[arg(long)]
    amount: Option<String>,
    /// Of suspense: the chain it is on, if not the payment's.
    #[arg(long, value_name = "CHAIN_ID")]
    chain: Option<u64>,
    /// Of suspense: the symbol of what it is, if not the payment's token.
    #[arg(long, value_name = "SYMBOL")]
    token: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum DefaultCommand {
    /// What counts now.
    List,
    /// Change one, for payments that are created from now on.
    Set {
        /// tolerance_bps, late_window_seconds, platform_fee_bps, provider_fee_bps, platform_fee_min_millionths or
        /// provider_fee_min_millionths (of a whole token).
        which: PaymentDefault,
        value: i64,
        /// Who decided it.
        #[arg(long)]
        by: String,
        /// Why, for the record.
        #[arg(long)]
        reason: String,
    },
}

pub(super) async fn run(command: PaymentCommand, config: impl FnOnce() -> anyhow::Result<Config>) -> anyhow::Result<()> {
    let payment = match command {
        PaymentCommand::Show { remote, payment } => remote.client()?.payment(payment).await?,
        PaymentCommand::Cancel(order) => order.remote.client()?.cancel(order.payment, &order.key()).await?,
        PaymentCommand::Release { order, amount } => {
            order.remote.client()?.release_part(order.payment, amount.as_deref(), &order.key()).await?
        }
        PaymentCommand::Refund(args) => refund(args).await?,
        PaymentCommand::Accept { order, less_than_due, reason } => {
            order.remote.client()?.accept(order.payment, &AcceptPayment { less_than_due, reason }, &order.key()).await?
        }
        PaymentCommand::Requote(order) => {
            let anew = order.remote.client()?.requote(order.payment, &order.key()).await?;
            show_quotes(std::slice::from_ref(&anew.quote));
            say(format!("received {} base units, missing {}", anew.received_units, anew.missing_units));
            anew.payment
        }
        PaymentCommand::Quotes { remote, payment } => {
            show_quotes(&remote.client()?.quotes(payment).await?);
            return Ok(());
        }
        PaymentCommand::Withdraw { order, payout } => order.remote.client()?.withdraw_payout(order.payment, payout, &order.key()).await?,
        PaymentCommand::EndQuarantine { order, to_suspense, reason } => {
            order.remote.client()?.end_quarantine(order.payment, &EndQuarantine { to_suspense, reason }, &order.key()).await?
        }
        PaymentCommand::Default(command) => return defaults(command, &config()?).await,
    };
    show(&payment);
    Ok(())
}

async fn refund(args: RefundArgs) -> anyhow::Result<PaymentView> {
    let from = match args.from {
        RefundSource::Held => "held",
        RefundSource::Received => "received",
        RefundSource::Suspense => "suspense",
    };
    let asked = RefundPayment { from: from.to_owned(), to: args.to, amount: args.amount, chain_id: args.chain, token: args.token };
    Ok(args.order.remote.client()?.refund(args.order.payment, &asked, &args.order.key()).await?)
}

fn show_quotes(quotes: &[QuoteView]) {
    let rows: Vec<Vec<String>> = quotes
        .iter()
        .map(|quote| {
            vec![
                quote.id.to_string(),
                quote.kind.clone(),
                format!("{} {}", quote.amount, quote.currency),
                quote.settle_amount.clone(),
                quote.required_units.clone(),
                quote.token_price_usd.clone(),
                quote.peg_state.clone(),
                second(quote.quoted_at),
                second(quote.expires_at),
            ]
        })
        .collect();
    table(&["quote", "kind", "of", "settle amount", "required units", "token price", "peg", "quoted", "holds until"], &rows, &[3, 4, 5]);
}

fn show(payment: &PaymentView) {
    let escrow = payment.escrow_state.as_deref().unwrap_or("-");
    say(format!("payment {}: {}, escrow {escrow}, version {}", payment.id, legible(&payment.status), payment.state_version));
    let terms = &payment.terms;
    let rows = [
        ("due", format!("{} {} on chain {}", payment.amount, payment.token, payment.chain_id)),
        ("received", format!("{} base units", payment.received_units)),
        ("deposit address", format!("{}  {}  {}", payment.deposit_address, payment.deposit_path, payment.destination_status)),
        ("seller", payment.seller_address.to_string()),
        ("expires", format!("{}, late until {}", payment.expires_at, terms.late_until)),
        ("fees", format!("platform {} and provider {} base units of the whole", terms.platform_fee_units, terms.provider_fee_units)),
    ];
    for (name, value) in rows {
        say(format!("  {name:<16} {}", legible(&value)));
    }
    if !payment.claims.is_empty() {
        let rows: Vec<Vec<String>> = payment
            .claims
            .iter()
            .map(|claim| vec![claim.account.clone(), format!("{} {}", claim.amount, claim.symbol), claim.chain_id.to_string()])
            .collect();
        table(&["in the books", "amount", "chain"], &rows, &[2]);
    }
    if !payment.payouts.is_empty() {
        let rows: Vec<Vec<String>> = payment
            .payouts
            .iter()
            .map(|payout| {
                vec![
                    payout.id.to_string(),
                    payout.kind.clone(),
                    payout.state.clone(),
                    payout.from.clone(),
                    payout.gross_units.clone(),
                    payout.net_units.clone(),
                    payout.to_address.to_string(),
                ]
            })
            .collect();
        table(&["payout", "kind", "state", "from", "units", "to recipient", "recipient"], &rows, &[4, 5]);
    }
    for exception in payment.exceptions.iter().filter(|exception| exception.open) {
        say(format!("open: {}: {}", legible(&exception.kind), legible(&exception.detail)));
    }
    for dispute in &payment.disputes {
        say_dispute(dispute);
    }
}

fn say_dispute(dispute: &DisputeView) {
    let decided = match (&dispute.resolution, &dispute.resolved_by) {
        (Some(resolution), Some(by)) => format!("; decided {resolution} by {by}"),
        _ => String::new(),
    };
    let line = format!("dispute {} of payment {}: {} ({}){decided}", dispute.id, dispute.payment_id, dispute.state, dispute.reason);
    say(legible(&line));
}

// === defaults ===

async fn defaults(command: DefaultCommand, config: &Config) -> anyhow::Result<()> {
    let db = database::open(config).await?;
    if let DefaultCommand::Set { which, value, by, reason } = command {
        let note = ChangeNote { changed_by: by, user: None, reason };
        let set = db.unit::<_, SettingsError, _>(move |connection| {
            Box::pin(async move { settings::store::set_payment_default(connection, which, value, &note).await })
        });
        set.await?;
    }
    let defaults = settings::store::get_payment_defaults(&mut *db.connection().await?).await?;
    let rows: Vec<Vec<String>> =
        PaymentDefault::ALL.iter().map(|which| vec![which.name().to_owned(), defaults.get(*which).to_string()]).collect();
    table(&["default", "value"], &rows, &[1]);
    Ok(())
}

// === disputes ===

#[derive(Debug, Subcommand)]
pub enum DisputeCommand {
    /// Disputes that wait for a resolver, oldest first.
    List {
        #[command(flatten)]
        remote: Remote,
    },
    /// Freeze what a payment holds until a resolver decides.
    Open {
        #[command(flatten)]
        order: Order,
        /// What is wrong, for the record.
        #[arg(long)]
        reason: String,
    },
    /// End a dispute. For resolvers.
    Resolve(ResolveArgs),
}

/// How a dispute can end.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum ResolutionArg {
    /// All that is disputed goes back to the buyer.
    Refund,
    /// The seller delivers again; the money stays in escrow.
    Replacement,
    /// The buyer gets a part back, the seller the rest.
    Compensation,
    /// The money stays in escrow.
    NoAction,
}

#[derive(Debug, Args)]
pub struct ResolveArgs {
    #[command(flatten)]
    remote: Remote,
    dispute: Uuid,
    resolution: ResolutionArg,
    /// Why, for the record.
    #[arg(long)]
    note: String,
    /// For a refund or a compensation: where the buyer wants it.
    #[arg(long, value_name = "ADDRESS")]
    refund_to: Option<String>,
    /// For a compensation: what the buyer gets, in units of the token.
    #[arg(long, value_name = "AMOUNT")]
    refund_amount: Option<String>,
    /// The Idempotency-Key; a new one without it.
    #[arg(long)]
    key: Option<String>,
}

pub(super) async fn run_dispute(command: DisputeCommand) -> anyhow::Result<()> {
    match command {
        DisputeCommand::List { remote } => {
            let open = remote.client()?.disputes().await?;
            if open.is_empty() {
                say("no dispute is open");
            }
            for dispute in &open {
                say_dispute(dispute);
            }
        }
        DisputeCommand::Open { order, reason } => {
            say_dispute(&order.remote.client()?.open_dispute(order.payment, &reason, &order.key()).await?);
        }
        DisputeCommand::Resolve(args) => {
            let resolution = match args.resolution {
                ResolutionArg::Refund => "refund",
                ResolutionArg::Replacement => "replacement",
                ResolutionArg::Compensation => "compensation",
                ResolutionArg::NoAction => "no_action",
            };
            let decision = ResolveDispute {
                resolution: resolution.to_owned(),
                note: args.note,
                refund_to: args.refund_to,
                refund_amount: args.refund_amount,
            };
            let key = args.key.unwrap_or_else(|| Uuid::new_v4().to_string());
            say_dispute(&args.remote.client()?.resolve_dispute(args.dispute, &decision, &key).await?);
        }
    }
    Ok(())
}
