//! `seal list`, `seal export` and `seal sign`: what an officer and an auditor do with seals.

use std::io::Write;

use alloy::primitives::hex;
use anyhow::Context;
use clap::Subcommand;

use super::console::{say, table};
use super::database;
use super::sign::desk::Desk;
use crate::account::{self, AddressIndex, Branch, DerivationPath, Purpose};
use crate::config::Config;
use crate::db::{Database, DbError};
use crate::ledger::seal::{self, Head, officer_address, signed_by};
use crate::signing::DeviceAddress;

#[derive(Debug, Subcommand)]
pub enum SealCommand {
    /// The last seals, and who signed them.
    List {
        #[arg(long, default_value = "20", value_parser = clap::value_parser!(i64).range(1..=1_000))]
        limit: i64,
    },
    /// Heads of all seals after a number, one JSON line each: to be kept where the database's owner cannot reach.
    Export {
        #[arg(long, default_value = "0")]
        after: i64,
    },
    /// Sign a seal on the Trezor. The signature is checked against the enrolled account before it is stored.
    Sign {
        /// The account with this label.
        #[arg(long)]
        account: String,
        /// This seal; the last one if absent.
        #[arg(long)]
        number: Option<i64>,
        /// usb, or usb:BUS:ADDRESS.
        #[arg(long, default_value = "usb")]
        device: DeviceAddress,
    },
}

pub(super) async fn run(command: SealCommand, config: &Config) -> anyhow::Result<()> {
    let db = database::open(config).await?;
    match command {
        SealCommand::List { limit } => list(&db, limit).await,
        SealCommand::Export { after } => export(&db, after).await,
        SealCommand::Sign { account, number, device } => sign(&db, &account, number, device).await,
    }
}

async fn list(db: &Database, limit: i64) -> anyhow::Result<()> {
    let mut connection = db.connection().await?;
    let after = (seal::store::get_last_number(&mut connection).await? - limit).max(0);
    let seals = seal::store::list(&mut connection, after, limit).await?;
    if seals.is_empty() {
        say("no seal yet; the daemon seals what was posted within seconds");
        return Ok(());
    }
    let signatures = seal::store::list_signatures(&mut connection, after, 10_000).await?;
    let rows: Vec<Vec<String>> = seals
        .iter()
        .map(|seal| {
            let signers = signatures.iter().filter(|signature| signature.seal == seal.head.number);
            vec![
                seal.head.number.to_string(),
                seal.head.entries.to_string(),
                seal.head.entries_total.to_string(),
                seal.head.sealed_at.date().to_string(),
                seal.hash.to_string(),
                signers.map(|signature| signature.address.to_string()).collect::<Vec<_>>().join(" "),
            ]
        })
        .collect();
    table(&["seal", "entries", "in all", "on", "hash", "signed by"], &rows, &[0, 1, 2]);
    Ok(())
}

async fn export(db: &Database, after: i64) -> anyhow::Result<()> {
    const PAGE: i64 = 100;
    let mut after = after;
    let mut out = std::io::stdout().lock();
    // Ends: each page begins after the last one.
    loop {
        let seals = seal::store::list(&mut *db.connection().await?, after, PAGE).await?;
        for seal in &seals {
            writeln!(out, "{}", seal.head.line())?;
            after = seal.head.number;
        }
        if i64::try_from(seals.len()).is_ok_and(|read| read < PAGE) {
            return Ok(());
        }
    }
}

async fn sign(db: &Database, label: &str, number: Option<i64>, device: DeviceAddress) -> anyhow::Result<()> {
    let mut connection = db.connection().await?;
    let account = account::store::get_by_label(&mut connection, label).await?;
    let number = match number {
        Some(number) => number,
        None => seal::store::get_last_number(&mut connection).await?,
    };
    let sealed = seal::store::list(&mut connection, number - 1, 1).await?.into_iter().next();
    let head: Head = sealed.map(|seal| seal.head).filter(|head| head.number == number).context("there is no such seal")?;
    drop(connection);
    let (_, index) =
        Purpose::OPERATOR.into_iter().find(|(purpose, _)| *purpose == Purpose::Gas).context("the gas address has its place")?;
    let index = AddressIndex::new(index).context("the operator's places are small")?;
    let path = DerivationPath::new(account.xpub.account(), Branch::Operator, index);
    let address = officer_address(&account).context("the account's key gives no address for officers")?;

    let desk = Desk::open(device).await?;
    let open = desk.attend(desk.device().open_account(account.xpub.clone())).await?;
    say(format!("The device shows this text, to be signed by {address} ({path}):\n\n{}\n", head.message()));
    say("Confirm on the device if it does. The signature says that you saw this seal; it moves no money.");
    let signature = desk.attend(open.sign_message(path, head.message())).await?;
    if signed_by(&head, &signature) != Some(address) {
        anyhow::bail!("the signature is not one of {address} over this seal; nothing was stored");
    }
    let stored = signature.clone();
    db.unit(move |connection| {
        Box::pin(async move {
            seal::store::insert_signature(connection, number, account.id, address, &stored).await?;
            Ok::<(), DbError>(())
        })
    })
    .await
    .map_err(|error| match error.constraint() {
        Some("ledger_seal_signatures_once_key") => anyhow::anyhow!("{address} has signed seal {number} already"),
        Some(_) | None => error.into(),
    })?;
    say(format!("seal {number} signed by {address}: 0x{}", hex::encode(signature)));
    Ok(())
}
