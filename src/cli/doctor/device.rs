//! The Trezor, where one is asked for: is it there, is it the one whose keys issue addresses.

use super::{Report, causes};
use crate::account::{self, TrezorAccount};
use crate::cli::sign::desk::Desk;
use crate::db::Database;
use crate::signing::DeviceAddress;

const AREA: &str = "device";

pub(super) async fn examine(report: &mut Report, address: DeviceAddress, database: Option<&Database>) {
    let subject = "Trezor";
    let desk = match Desk::open(address).await {
        Ok(desk) => desk,
        Err(error) => {
            let remedy = "connect and unlock it; close other programs that use it; the udev rule and the group plugdev let it be opened";
            return report.fail(AREA, subject, causes(&error), remedy);
        }
    };
    match desk.device().features().await {
        Ok(features) => {
            report.ok(AREA, subject, format!("{} is there", features.model));
            for warning in features.warnings() {
                report.warn(AREA, subject, warning, "see the vendor's guide; amanatd works, whoever finds the device may too");
            }
        }
        Err(error) => return report.fail(AREA, subject, causes(&error), "unlock it, and update its firmware if it is refused"),
    }
    let Some(database) = database else {
        return report.warn(AREA, "accounts", "not compared: the database cannot be used", "mend the database first");
    };
    let accounts = match accounts(database).await {
        Ok(accounts) => accounts,
        Err(error) => return report.fail(AREA, "accounts", causes(&error), "look into PostgreSQL's log"),
    };
    for account in accounts {
        let subject = format!("account {}", account.label);
        match desk.attend(desk.device().account_xpub(account.xpub.account())).await {
            Ok(xpub) if xpub == account.xpub => report.ok(AREA, subject, "its public key is this device's"),
            Ok(_) => report.fail(
                AREA,
                subject,
                "this device has another seed or passphrase",
                "use the Trezor that the account was enrolled with",
            ),
            Err(error) => report.fail(AREA, subject, causes(&error), "unlock the device and try again"),
        }
    }
}

async fn accounts(database: &Database) -> Result<Vec<TrezorAccount>, crate::db::DbError> {
    account::store::list(&mut *database.connection().await?).await
}
