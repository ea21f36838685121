//! `statement` and `balances`: the ledger as files for auditors and bookkeepers.

use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write};
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::console::{note, printable};
use super::database;
use crate::config::Config;
use crate::ledger::statement::{BalanceLines, Filter, Format, StatementLines};
use crate::units::{LedgerAccountId, PaymentId};

/// Which entries, and how they are written.
#[derive(Clone, Debug, Args)]
pub struct StatementArgs {
    /// Entries of this payment.
    #[arg(long, value_name = "ID")]
    payment: Option<PaymentId>,
    /// Entries of this account, with its balance after each; `amanatd balances` shows the numbers.
    #[arg(long, value_name = "NUMBER")]
    account: Option<i64>,
    /// Entries posted at or after this instant (RFC 3339).
    #[arg(long, value_name = "TIME", value_parser = instant)]
    from: Option<OffsetDateTime>,
    /// Entries posted before this instant (RFC 3339).
    #[arg(long, value_name = "TIME", value_parser = instant)]
    until: Option<OffsetDateTime>,
    #[command(flatten)]
    output: Output,
}

/// Of when, and how.
#[derive(Clone, Debug, Args)]
pub struct BalancesArgs {
    /// Balances at this instant (RFC 3339) instead of now: everything posted up to it.
    #[arg(long, value_name = "TIME", value_parser = instant)]
    at: Option<OffsetDateTime>,
    #[command(flatten)]
    output: Output,
}

#[derive(Clone, Debug, Args)]
struct Output {
    /// csv or json.
    #[arg(long, default_value = "csv")]
    format: Format,
    /// Write to this new file instead of standard output.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) fn instant(text: &str) -> Result<OffsetDateTime, String> {
    OffsetDateTime::parse(text, &Rfc3339).map_err(|_| format!("{text:?} is not a time such as 2026-12-31T23:59:59Z"))
}

pub(super) async fn statement(args: StatementArgs, config: &Config) -> anyhow::Result<()> {
    let db = database::open(config).await?;
    let filter = Filter { payment: args.payment, account: args.account.map(LedgerAccountId), from: args.from, until: args.until };
    let mut lines = StatementLines::new(db, filter, args.output.format);
    let mut sink = args.output.open()?;
    while let Some(piece) = lines.next().await? {
        sink.write(&piece)?;
    }
    sink.finish()
}

pub(super) async fn balances(args: BalancesArgs, config: &Config) -> anyhow::Result<()> {
    let db = database::open(config).await?;
    let mut lines = BalanceLines::new(db, args.at, args.output.format);
    let mut sink = args.output.open()?;
    while let Some(piece) = lines.next().await? {
        sink.write(&piece)?;
    }
    sink.finish()
}

/// A file, a pipe, or a terminal, which nothing in an entry may steer.
struct Sink {
    place: String,
    terminal: bool,
    writer: Box<dyn Write>,
    file: Option<File>,
}

impl Output {
    fn open(&self) -> anyhow::Result<Sink> {
        match &self.output {
            Some(path) => {
                let file = File::create_new(path).with_context(|| format!("--output {}", path.display()))?;
                let writer = Box::new(BufWriter::new(file.try_clone()?));
                Ok(Sink { place: path.display().to_string(), terminal: false, writer, file: Some(file) })
            }
            None => {
                let terminal = std::io::stdout().is_terminal();
                Ok(Sink { place: "standard output".to_owned(), terminal, writer: Box::new(std::io::stdout()), file: None })
            }
        }
    }
}

impl Sink {
    fn write(&mut self, piece: &str) -> anyhow::Result<()> {
        let written = match self.terminal {
            true => self.writer.write_all(printable(piece).as_bytes()),
            false => self.writer.write_all(piece.as_bytes()),
        };
        written.with_context(|| format!("writing to {}", self.place))
    }

    fn finish(mut self) -> anyhow::Result<()> {
        self.writer.flush().with_context(|| format!("writing to {}", self.place))?;
        if let Some(file) = self.file {
            file.sync_all().with_context(|| format!("writing to {}", self.place))?;
            note(format!("written: {}", self.place));
        }
        Ok(())
    }
}
