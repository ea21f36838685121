//! `migrate` and `check`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use secrecy::ExposeSecret;

use super::console::say;
use crate::config::Config;
use crate::daemon::now;
use crate::db::{self, Database, DatabaseLimits};
use crate::quote::{self, Oracle};
use crate::units::ChainId;

/// Reads nothing of the configuration but the migrator's connection, so that whoever migrates needs no other secret.
pub(super) async fn migrate(config: &Path) -> anyhow::Result<()> {
    let url = Config::migrator_url(config)?
        .context("the migrator's connection is not configured: set database.migrator_url, or the credential migrator-url")?;
    let count = db::migrate(url.expose_secret()).await.with_context(|| format!("database {}", db::place_of(url.expose_secret())))?;
    say(format!("schema is at migration {count}"));
    Ok(())
}

/// Everything `serve` would refuse, without serving.
pub(super) async fn check(config: &Config) -> anyhow::Result<()> {
    say(format!("configuration  {} chains, API on {}, metrics on {}", config.chains.len(), config.api_listen, config.metrics_listen));
    say(format!("screening      {}", screening(config)?));
    open(config).await?;
    say("database       reached; schema, guards and rights as they must be");
    quoting(config).await?;
    for (chain, settings) in &config.chains {
        let spec = config.book.get(*chain).context("a configured chain is in the chain book")?;
        let node = settings.node(*chain)?;
        node.set_clock(now());
        node.verify(spec).await?;
        let head = node.head().await?;
        say(format!("chain {chain:<8} {}: chain id and decimals agree; head {}", spec.name, head.block.number));
    }
    Ok(())
}

/// Whether quotes can be given with what is configured.
async fn quoting(config: &Config) -> anyhow::Result<()> {
    if !config.oracle.quoting_enabled {
        say("quoting        off; a payment in another currency than its token is refused");
        return Ok(());
    }
    let db = open(config).await?;
    let mut nodes = BTreeMap::new();
    for (chain, settings) in &config.chains {
        nodes.insert(*chain, Arc::new(settings.node(*chain)?));
    }
    let oracle = Oracle::new(Arc::new(config.book.clone()), Arc::new(nodes), &config.oracle.sources)?;
    let lacking = oracle.lint(&quote::store::get_limits(&mut *db.connection().await?).await?, now());
    if !lacking.is_empty() {
        anyhow::bail!("quoting is enabled and cannot work: {}", lacking.join("; "));
    }
    // Feeds are compared with chains.toml at the first look.
    oracle.fetch(now(), true).await?;
    say(format!("quoting        on; sources {}", oracle.sources().join(", ")));
    Ok(())
}

/// What credited money is screened by.
fn screening(config: &Config) -> anyhow::Result<String> {
    let options = config.screening.open().context("screening")?;
    let mut by = Vec::new();
    if let Some(list) = options.list {
        let list = list.current();
        by.push(format!("a list of {} addresses (SHA-256 {})", list.entries(), list.sha256()));
    }
    if options.oracle {
        let with = |chain: &ChainId| config.book.get(*chain).is_some_and(|spec| spec.sanctions_oracle.is_some());
        let (with, without): (Vec<ChainId>, Vec<ChainId>) = config.chains.keys().partition(|chain| with(chain));
        let listed = |chains: Vec<ChainId>| chains.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let none = if without.is_empty() { String::new() } else { format!(" (none on {})", listed(without)) };
        by.push(format!("the sanctions oracle on {}{none}", if with.is_empty() { "no chain".to_owned() } else { listed(with) }));
    }
    if let Some(provider) = options.provider {
        by.push(format!("the provider {}", provider.identity()));
    }
    Ok(if by.is_empty() { "none: transfers are noted as not screened, and pass".to_owned() } else { format!("by {}", by.join("; ")) })
}

/// The pool of a command that runs once, tested like the daemon's.
pub(super) async fn open(config: &Config) -> anyhow::Result<Database> {
    let limits = DatabaseLimits { connections_max: 2, ..DatabaseLimits::default() };
    let url = config.database.url.expose_secret();
    let database = Database::connect(url, limits).await.with_context(|| format!("database {}", db::place_of(url)))?;
    let mut connection = database.connection().await?;
    db::self_test(&mut connection).await?;
    drop(connection);
    Ok(database)
}
