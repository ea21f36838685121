//! Who works on what: a lease for each chain, and one for what belongs to no chain. Each is an advisory lock, held by
//! a connection that a daemon keeps for its leases alone.
//!
//! The locks go with the connection, so what a dead daemon held is free at once. A daemon that only slept does not
//! know that its connection, and so its locks, are gone: a lease has a number too, which every unit of work under it
//! checks where it commits.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};
use time::OffsetDateTime;

use super::DbError;
use crate::units::ChainId;

/// What is divided between daemons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LeaseName {
    /// What belongs to no chain: seals, webhooks, what lapses, the memory of prices.
    House,
    Chain(ChainId),
}

impl fmt::Display for LeaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::House => f.write_str("house"),
            Self::Chain(chain) => write!(f, "chain:{chain}"),
        }
    }
}

impl LeaseName {
    /// A name as the database has it; none for one of another version.
    fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix("chain:") {
            Some(chain) => chain.parse().ok().map(Self::Chain),
            None => (text == "house").then_some(Self::House),
        }
    }
}

/// Proof that a lease was ours when it was taken. Its number grows with each taking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    pub(super) name: LeaseName,
    pub(super) number: i64,
}

impl Lease {
    pub const fn name(&self) -> LeaseName {
        self.name
    }
}

/// A daemon, as the server knows it: the process that serves its leases' connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holder(pub i32);

/// Who holds what now, and who would take it over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    pub held: BTreeMap<LeaseName, Holder>,
    pub asked: BTreeMap<LeaseName, Vec<Holder>>,
}

/// The connection that holds this daemon's leases, and which they are.
#[derive(Debug)]
pub struct Leases {
    connection: PgConnection,
    me: Holder,
    /// Says to people who it is.
    holder: String,
    held: BTreeMap<LeaseName, i64>,
    asked: Option<LeaseName>,
}

/// A lease as it stands in the database.
#[derive(Clone, Debug)]
pub struct LeaseRow {
    pub name: LeaseName,
    pub number: i64,
    /// Who took it last.
    pub holder: String,
    pub taken_at: OffsetDateTime,
    /// Whether somebody holds it now.
    pub held: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    #[error("the database cannot be reached")]
    Connect(#[source] sqlx::Error),
    #[error("another amanatd holds the lease {0}")]
    Held(LeaseName),
    #[error("the connection that held the daemon's leases is gone, or silent for too long")]
    Lost(#[source] sqlx::Error),
}

impl Leases {
    /// Connects; nothing is held yet. `holder` says to people who it is.
    pub async fn connect(url: &str, holder: &str) -> Result<Self, LeaseError> {
        let options = PgConnectOptions::from_str(url).map_err(LeaseError::Connect)?.application_name("amanatd lease");
        // Whoever takes a lease over waits for units of a daemon that sleeps; the server ends those after 15 seconds.
        let options = options.options([("lock_timeout", "40s"), ("statement_timeout", "45s")]);
        let mut connection = options.connect().await.map_err(LeaseError::Connect)?;
        let me = sqlx::query_scalar!(r#"select pg_backend_pid() as "pid!""#).fetch_one(&mut connection).await;
        let me = Holder(me.map_err(LeaseError::Connect)?);
        Ok(Self { connection, me, holder: holder.to_owned(), held: BTreeMap::new(), asked: None })
    }

    /// Connects and takes one lease, or fails because another holds it.
    pub async fn take(url: &str, name: LeaseName, holder: &str) -> Result<(Self, Lease), LeaseError> {
        let mut leases = Self::connect(url, holder).await?;
        let lease = leases.try_take(name).await?.ok_or(LeaseError::Held(name))?;
        Ok((leases, lease))
    }

    pub const fn me(&self) -> Holder {
        self.me
    }

    /// Those that we hold.
    pub fn held(&self) -> impl Iterator<Item = LeaseName> + '_ {
        self.held.keys().copied()
    }

    /// Takes a lease if nobody holds it. Units of work of whoever held it last are waited for.
    pub async fn try_take(&mut self, name: LeaseName) -> Result<Option<Lease>, LeaseError> {
        if let Some(number) = self.held.get(&name) {
            return Ok(Some(Lease { name, number: *number }));
        }
        let text = name.to_string();
        let taken = sqlx::query_scalar!(r#"select pg_try_advisory_lock(lease_key($1, 'held')) as "taken!""#, text)
            .fetch_one(&mut self.connection)
            .await
            .map_err(LeaseError::Lost)?;
        if !taken {
            return Ok(None);
        }
        let number = sqlx::query_scalar!(
            "insert into leases (name, number, holder, taken_at) values ($1, 1, $2, now())
             on conflict on constraint leases_pkey
             do update set number = leases.number + 1, holder = excluded.holder, taken_at = excluded.taken_at
             returning number",
            text,
            self.holder
        )
        .fetch_one(&mut self.connection)
        .await
        .map_err(LeaseError::Lost)?;
        // From here on no unit of the daemon before begins; those that have begun are waited for.
        for statement in ["select pg_advisory_lock(lease_key($1, 'units'))", "select pg_advisory_unlock(lease_key($1, 'units'))"] {
            sqlx::query(statement).bind(&text).execute(&mut self.connection).await.map_err(LeaseError::Lost)?;
        }
        self.held.insert(name, number);
        Ok(Some(Lease { name, number }))
    }

    /// Lets a lease go. Whoever worked under it must have ended; what has not is refused once somebody took it.
    pub async fn release(&mut self, name: LeaseName) -> Result<(), LeaseError> {
        if self.held.remove(&name).is_some() {
            self.unlock("select pg_advisory_unlock(lease_key($1, 'held'))", name).await?;
        }
        Ok(())
    }

    /// Asks for a lease that another holds, and for no other; or for none.
    pub async fn ask(&mut self, wanted: Option<LeaseName>) -> Result<(), LeaseError> {
        if self.asked == wanted {
            return Ok(());
        }
        if let Some(before) = self.asked.take() {
            self.unlock("select pg_advisory_unlock_shared(lease_key($1, 'asked'))", before).await?;
        }
        if let Some(name) = wanted {
            self.unlock("select pg_advisory_lock_shared(lease_key($1, 'asked'))", name).await?;
            self.asked = Some(name);
        }
        Ok(())
    }

    /// A statement about the locks of one lease.
    async fn unlock(&mut self, statement: &'static str, name: LeaseName) -> Result<(), LeaseError> {
        sqlx::query(statement).bind(name.to_string()).execute(&mut self.connection).await.map_err(LeaseError::Lost)?;
        Ok(())
    }

    /// Who holds what. Fails when the connection is gone and the leases with it. A server that does not answer in
    /// time counts as gone: behind a cut network it may have let the next daemon in already.
    pub async fn look(&mut self, limit: Duration) -> Result<Standing, LeaseError> {
        let asked = sqlx::query!(
            r#"
            select l.name as "name!", s.side as "side!", k.pid as "pid!"
            from leases l cross join (values ('held'), ('asked')) as s(side)
            join pg_locks k on k.locktype = 'advisory' and k.objsubid = 1 and k.granted
                and k.database = (select oid from pg_database where datname = current_database())
                and (k.classid::bigint << 32) | k.objid::bigint = lease_key(l.name, s.side)
            "#
        )
        .fetch_all(&mut self.connection);
        let rows = within(limit, asked).await?;
        let mut standing = Standing::default();
        for row in rows {
            let Some(name) = LeaseName::parse(&row.name) else { continue };
            if row.side == "held" {
                standing.held.insert(name, Holder(row.pid));
            } else {
                standing.asked.entry(name).or_default().push(Holder(row.pid));
            }
        }
        Ok(standing)
    }

    /// As [`Self::look`], and nothing is read.
    pub async fn check(&mut self, limit: Duration) -> Result<(), LeaseError> {
        within(limit, self.connection.ping()).await
    }
}

async fn within<T>(limit: Duration, asked: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, LeaseError> {
    match tokio::time::timeout(limit, asked).await {
        Ok(answer) => answer.map_err(LeaseError::Lost),
        Err(_) => Err(LeaseError::Lost(sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")))),
    }
}

/// Every lease that was ever taken, and whether somebody holds it now.
pub async fn list_leases(connection: &mut PgConnection) -> Result<Vec<LeaseRow>, DbError> {
    let rows = sqlx::query!(
        r#"
        select l.name as "name!", l.number as "number!", l.holder as "holder!", l.taken_at as "taken_at!",
            exists (
                select from pg_locks k where k.locktype = 'advisory' and k.objsubid = 1 and k.granted
                    and k.database = (select oid from pg_database where datname = current_database())
                    and (k.classid::bigint << 32) | k.objid::bigint = lease_key(l.name, 'held')
            ) as "held!"
        from leases l order by l.name
        "#
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .filter_map(|row| {
            let name = LeaseName::parse(&row.name)?;
            Some(LeaseRow { name, number: row.number, holder: row.holder, taken_at: row.taken_at, held: row.held })
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_it_is_written() {
        for name in [LeaseName::House, LeaseName::Chain(ChainId::new(31_337).unwrap())] {
            assert_eq!(LeaseName::parse(&name.to_string()), Some(name));
        }
        for other in ["daemon", "chain:", "chain:x", "chain:0", "House"] {
            assert_eq!(LeaseName::parse(other), None, "{other}");
        }
    }
}
