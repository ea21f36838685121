//! `account enrol`, `list` and `rebuild`.

mod rebuild;

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Subcommand;
use zeroize::Zeroizing;

use super::console::{say, table};
use super::database;
use super::sign::desk::Desk;
use crate::account::store::DeviceHint;
use crate::account::{self, AccountError, AccountIndex, AccountXpub, AddressIndex, Branch, Capacity, DerivationPath, Deriver, Room};
use crate::config::Config;
use crate::db::Database;
use crate::signing::DeviceAddress;

#[derive(Debug, Subcommand)]
pub enum AccountCommand {
    /// Read an account's public key from the Trezor and start issuing addresses under it.
    #[command(visible_alias = "add")]
    Enrol {
        /// A name for people.
        #[arg(long)]
        label: String,
        /// m/44'/60'/N': 0 to 100.
        #[arg(long, default_value = "0", value_name = "N")]
        account: AccountIndex,
        /// usb, or usb:BUS:ADDRESS.
        #[arg(long, default_value = "usb")]
        device: DeviceAddress,
        /// Take the account's xpub from this file instead of the device, which must hold it when it signs.
        #[arg(long, value_name = "FILE", conflicts_with = "device")]
        xpub_file: Option<PathBuf>,
        /// Do not show the account's first address on the device for comparison.
        #[arg(long)]
        no_compare: bool,
    },
    /// List accounts, how many addresses each has left, and the operator's own addresses.
    List,
    /// Derive every address ever issued again, from the public keys and the counters, and compare the table row by row.
    Rebuild {
        /// Only the account with this label.
        #[arg(long)]
        account: Option<String>,
        /// Insert rows that are missing. A row that is there is never changed.
        #[arg(long)]
        missing: bool,
        /// Count every deposit index below N as issued, also where the database has forgotten it: after the restore of an older backup.
        #[arg(long, value_name = "N", requires = "missing", requires = "account", value_parser = clap::value_parser!(u32).range(1..=1_000_001))]
        issued_below: Option<u32>,
    },
}

pub(super) async fn run(command: AccountCommand, config: &Config) -> anyhow::Result<()> {
    let db = database::open(config).await?;
    match command {
        AccountCommand::Enrol { label, account, device, xpub_file, no_compare } => {
            if !(1..=100).contains(&label.chars().count()) {
                anyhow::bail!("--label must have 1 to 100 characters");
            }
            let (xpub, hint) = match xpub_file {
                Some(path) => (from_file(&path, account)?, DeviceHint::default()),
                None => from_device(account, device, !no_compare).await?,
            };
            store(&db, label, xpub, hint).await?;
        }
        AccountCommand::Rebuild { account, missing, issued_below } => {
            return rebuild::run(&db, account.as_deref(), missing.then_some(issued_below.unwrap_or(0))).await;
        }
        AccountCommand::List => {
            if !list(&db).await? {
                return Ok(());
            }
        }
    }
    operator_addresses(&db).await
}

/// Reads an xpub exported elsewhere. What the file holds is never repeated: it may be a private key.
fn from_file(path: &Path, account: AccountIndex) -> anyhow::Result<AccountXpub> {
    let text = Zeroizing::new(std::fs::read_to_string(path).with_context(|| format!("--xpub-file {}", path.display()))?);
    AccountXpub::parse_for(text.trim(), account).with_context(|| format!("--xpub-file {}", path.display()))
}

/// Reads the xpub from the device, and has the officer compare the account's first address.
async fn from_device(account: AccountIndex, device: DeviceAddress, compare: bool) -> anyhow::Result<(AccountXpub, DeviceHint)> {
    let desk = Desk::open(device).await?;
    let features = desk.device().features().await?;
    for warning in features.warnings() {
        say(format!("note: {warning}"));
    }
    let xpub = desk.attend(desk.device().account_xpub(account)).await?;
    let first = DerivationPath::new(account, Branch::Deposit, AddressIndex::FIRST);
    let derived = Deriver::new(&xpub, Branch::Deposit)?.address(first.index)?;
    if compare {
        say(format!("The device shows the address at {first}. It must read:\n\n    {derived}\n\nConfirm on the device if it does."));
        let shown = desk.attend(desk.device().show_address(first)).await?;
        if shown != derived {
            anyhow::bail!("the device says {shown} for {first}, the account's key gives {derived}; nothing was stored");
        }
    }
    Ok((xpub, DeviceHint { device_id: features.device_id, model: Some(features.model) }))
}

async fn store(db: &Database, label: String, xpub: AccountXpub, hint: DeviceHint) -> anyhow::Result<()> {
    let (named, key) = (label.clone(), xpub.clone());
    db.unit(move |connection| {
        Box::pin(async move {
            account::store::insert(connection, &named, &key, &hint).await?;
            Ok::<(), AccountError>(())
        })
    })
    .await?;
    say(format!("account {label:?} enrolled: m/44'/60'/{}', fingerprint {}\n", xpub.account(), xpub.fingerprint()));
    Ok(())
}

/// Whether there is any.
async fn list(db: &Database) -> anyhow::Result<bool> {
    let mut connection = db.connection().await?;
    let accounts = account::store::list(&mut connection).await?;
    if accounts.is_empty() {
        say("no account is enrolled; connect the Trezor and run `amanatd account enrol --label NAME`");
        return Ok(false);
    }
    let counters = account::store::list_counters(&mut connection).await?;
    let issuing = counters.iter().find(|counter| counter.remaining() > 0).map(|counter| counter.id);
    let rows: Vec<Vec<String>> = accounts
        .iter()
        .zip(&counters)
        .map(|(account, counter)| {
            vec![
                account.label.clone(),
                format!("m/44'/60'/{}'", account.xpub.account()),
                account.xpub.fingerprint().to_string(),
                counter.next_deposit_index.to_string(),
                counter.remaining().to_string(),
                if issuing == Some(account.id) { "issuing" } else { "" }.to_owned(),
            ]
        })
        .collect();
    table(&["label", "path", "fingerprint", "issued", "remaining", ""], &rows, &[3, 4]);
    let capacity = Capacity::of(&counters);
    if capacity.room != Room::Enough {
        say(format!("\n{}", capacity.advice()));
    }
    say("");
    Ok(true)
}

async fn operator_addresses(db: &Database) -> anyhow::Result<()> {
    let mut connection = db.connection().await?;
    let rows: Vec<Vec<String>> = account::store::list_operator_addresses(&mut connection)
        .await?
        .iter()
        .map(|address| vec![address.purpose.name().to_owned(), address.path.to_string(), address.address.to_string()])
        .collect();
    table(&["the operator's own", "path", "address"], &rows, &[]);
    say("Send native coin to both: gas pays for fuel, treasury for releases.");
    Ok(())
}
