//! The database as the daemon meets it: reached, with the right role, at the right schema, with its guards on;
//! and by what time.

use secrecy::ExposeSecret;

use super::{Level, Report, causes};
use crate::config::Config;
use crate::daemon::now;
use crate::db::{self, Database, DatabaseLimits, DbError, SelfTestError};

/// More than this and the two clocks disagree: credentials, quotes and dated thresholds go by them.
const SKEW_WARN_SECONDS: u64 = 1;
const SKEW_FAIL_SECONDS: u64 = 5;

/// `None` where what needs the database cannot be looked at.
pub(super) async fn examine(report: &mut Report, config: &Config) -> Option<Database> {
    const AREA: &str = "database";
    let url = config.database.url.expose_secret();
    let place = db::place_of(url);
    let limits = DatabaseLimits { connections_max: 2, ..DatabaseLimits::default() };
    let database = match Database::connect(url, limits).await {
        Ok(database) => database,
        Err(error) => {
            report.fail(AREA, place, causes(&error), "start PostgreSQL; correct database.url, its password, pg_hba.conf or the firewall");
            return None;
        }
    };
    report.ok(AREA, place, "reached");
    let tested = match database.connection().await {
        Ok(mut connection) => db::self_test(&mut connection).await,
        Err(error) => Err(error.into()),
    };
    let usable = schema(report, tested);
    clock(report, &database).await;
    migrator(report, config).await;
    if usable {
        continuity(report, &database).await;
    }
    usable.then_some(database)
}

/// A failover or restore that nobody has reconciled, and who works on what.
async fn continuity(report: &mut Report, database: &Database) {
    const AREA: &str = "failover";
    let looked = async {
        let mut connection = database.connection().await?;
        let losses = db::continuity::list_open_losses(&mut connection).await?;
        Ok::<_, DbError>((losses, db::list_leases(&mut connection).await?))
    };
    match looked.await {
        Ok((losses, leases)) => {
            for loss in &losses {
                report.fail(
                    AREA,
                    format!("loss {}", loss.id),
                    loss.detail.clone(),
                    "amanatd failover status says what has to happen first",
                );
            }
            if losses.is_empty() {
                report.ok(AREA, "of the database", "nothing is to be reconciled");
            }
            for lease in leases.iter().filter(|lease| lease.held) {
                report.ok("leases", lease.name.to_string(), format!("held by {}", lease.holder));
            }
        }
        Err(error) => report.fail(AREA, "of the database", causes(&error), "look into PostgreSQL's log"),
    }
}

/// The start-up self-test, by its parts: what comes after the first difference was not looked at.
fn schema(report: &mut Report, tested: Result<(), SelfTestError>) -> bool {
    let Err(error) = tested else {
        report.ok("role", "of the daemon", "neither superuser nor owner; changes nothing that must not change");
        report.ok("migrations", "of the schema", "those of this binary");
        report.ok("guards", "of the tables", "on, and as shipped");
        return true;
    };
    let (area, remedy) = match &error {
        SelfTestError::Db(_) => ("database", "look into PostgreSQL's log"),
        SelfTestError::Replica => ("database", "point database.url at the primary, or promote this server if the primary is gone for good"),
        SelfTestError::Superuser { .. } | SelfTestError::Owner { .. } => ("role", "connect as amanat_app in database.url"),
        SelfTestError::ReplicationRole { .. } => ("role", "revoke set on parameter session_replication_role from the role"),
        SelfTestError::TooStrong { .. } => ("role", "run migrations/bootstrap.sql again, or revoke that right; ask who granted it"),
        SelfTestError::NotMigrated { .. } => ("migrations", "amanatd migrate, or systemctl start amanatd-migrate"),
        SelfTestError::UnknownMigration { .. } => {
            ("migrations", "install the newer amanatd that migrated this database; an older one cannot serve it")
        }
        SelfTestError::ChangedMigration { .. } => ("migrations", "this is another build's database: install the binary that made it"),
        SelfTestError::Trigger { .. } | SelfTestError::Function { .. } | SelfTestError::Constraint { .. } | SelfTestError::Index { .. } => {
            ("guards", "a superuser changed it: find out who and why, run `amanatd verify`, and restore it as the migrations have it")
        }
    };
    report.fail(area, "of the database", causes(&error), remedy);
    false
}

async fn clock(report: &mut Report, database: &Database) {
    let theirs = match database.clock().await {
        Ok(theirs) => theirs,
        Err(error) => return report.fail("clock", "of the database", causes(&error), "look into PostgreSQL's log"),
    };
    let ahead = (now() - theirs).whole_seconds();
    let level = judge_skew(ahead);
    let remedy = if level == Level::Ok { "" } else { "synchronise both hosts' clocks (timedatectl)" };
    report.add(level, "clock", "of the database", format!("this host is {ahead} s ahead"), remedy);
}

const fn judge_skew(ahead_seconds: i64) -> Level {
    let apart = ahead_seconds.unsigned_abs();
    if apart > SKEW_FAIL_SECONDS {
        Level::Failure
    } else if apart > SKEW_WARN_SECONDS {
        Level::Warning
    } else {
        Level::Ok
    }
}

async fn migrator(report: &mut Report, config: &Config) {
    let Some(url) = &config.database.migrator_url else {
        return report.ok("role", "of the migrator", "not configured here; only `amanatd migrate` needs it");
    };
    match db::may_migrate(url.expose_secret()).await {
        Ok(()) => report.ok("role", "of the migrator", "may become the owner"),
        Err(error) => {
            report.warn("role", "of the migrator", causes(&error), "correct migrator-url; the daemon runs without it, an upgrade does not")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_apart_are_judged_either_way() {
        let judged = [-6, -5, -1, 0, 1, 2, 5, 6, i64::MIN].map(judge_skew);
        use Level::{Failure, Ok, Warning};
        assert_eq!(judged, [Failure, Warning, Ok, Ok, Ok, Warning, Warning, Failure, Failure]);
    }
}
