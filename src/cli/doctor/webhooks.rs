//! Where events go: may each endpoint be reached by our own rules, does its name resolve, does anything wait.
//! Nothing is sent.

use super::{Report, causes};
use crate::config::Config;
use crate::daemon::now;
use crate::db::{Database, DbError};
use crate::webhook::{self, Endpoint, Totals};

const AREA: &str = "webhooks";
/// An event that waits longer than this is worth a look.
const WAIT_SECONDS: i64 = 3_600;

pub(super) async fn examine(report: &mut Report, config: &Config, database: &Database) {
    let (endpoints, totals) = match read(database).await {
        Ok(read) => read,
        Err(error) => return report.fail(AREA, "of the database", causes(&error), "look into PostgreSQL's log"),
    };
    if endpoints.is_empty() {
        return report.ok(AREA, "endpoints", "none; the marketplace reads GET /v1/events, or is not told");
    }
    for endpoint in &endpoints {
        examine_endpoint(report, config, endpoint).await;
    }
    let waited = totals.oldest.map_or(0, |oldest| (now() - oldest).whole_seconds());
    if waited > WAIT_SECONDS {
        let remedy = "amanatd webhook deliveries --state pending, then attempts: their answers say why";
        report.warn(AREA, "deliveries", format!("{} wait, the oldest for {waited} s", totals.pending), remedy);
    } else {
        report.ok(AREA, "deliveries", format!("{} wait", totals.pending));
    }
    if totals.dead > 0 {
        let remedy = "amanatd webhook deliveries --state dead, and redeliver when their server takes events again";
        report.warn(AREA, "deliveries", format!("{} were given up", totals.dead), remedy);
    }
}

async fn read(database: &Database) -> Result<(Vec<Endpoint>, Totals), DbError> {
    let mut connection = database.connection().await?;
    Ok((webhook::store::list_endpoints(&mut connection).await?, webhook::store::totals(&mut connection).await?))
}

async fn examine_endpoint(report: &mut Report, config: &Config, endpoint: &Endpoint) {
    let subject = endpoint.id.to_string();
    if let Some(disabled) = &endpoint.disabled {
        let remedy = "amanatd webhook enable, once its server is back";
        return report.warn(AREA, subject, format!("disabled: {}", disabled.reason), remedy);
    }
    let url = match config.webhook_guard.read(&endpoint.url) {
        Ok(url) => url,
        Err(error) => {
            let remedy = "disable it and add the right URL, or list its network in webhooks.allowed_networks";
            return report.fail(AREA, subject, error.to_string(), remedy);
        }
    };
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = url.port_or_known_default().unwrap_or(443);
    let addresses = match tokio::net::lookup_host((host.as_str(), port)).await {
        Ok(addresses) => addresses,
        Err(error) => {
            return report.fail(AREA, subject, format!("{host}: {error}"), "the name does not resolve: ask its owner, or mend DNS here");
        }
    };
    let tls = url.scheme() == "https";
    let refused = addresses.into_iter().find_map(|address| config.webhook_guard.check(address.ip(), tls).err());
    match refused {
        Some(error) => {
            let remedy = "no event is sent there: ask why the name resolves to it, or list its network in webhooks.allowed_networks";
            report.fail(AREA, subject, format!("{host}: {error}"), remedy);
        }
        None => report.ok(AREA, subject, format!("{host} resolves to what may be called")),
    }
}
