//! A Postgres cluster of our own, from the system's binaries: unix socket only, never root, gone
//! with the process that started it. Tests and `amanatd demo` use it; nothing here is ever part
//! of a release, and nothing here knows the schema.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::Signal;
use thiserror::Error;
use uuid::Uuid;

use super::child;

/// The role that owns the cluster.
pub const SUPERUSER: &str = "postgres";
/// The role that the daemon connects as.
pub const APP: &str = "amanat_app";
/// The role that runs migrations.
pub const MIGRATOR: &str = "amanat_migrator";

/// Where to look before anything else.
pub const BINARIES_ENV: &str = "AMANATD_POSTGRES_BIN";

/// A unix socket's path is limited by the kernel; `/.s.PGSQL.5432` is part of it.
const SOCKET_PATH_MAX: usize = 107;
const READY_WITHIN: Duration = Duration::from_secs(60);
const STOP_WITHIN: Duration = Duration::from_secs(30);
const PREFIX: &str = "amanatd-pg-";

/// How to run the cluster.
#[derive(Debug, Clone, Default)]
pub struct PostgresOptions {
    /// Keep the data here and find it again next time. `None`: a temporary folder.
    pub directory: Option<PathBuf>,
    /// Keep fsync on. Tests turn it off; the demo and the benches never do.
    pub durable: bool,
}

/// Why there is no private Postgres.
#[derive(Debug, Error)]
pub enum PostgresError {
    /// No server binaries.
    #[error(
        "no Postgres server binaries found; tried: {tried}. Install them with `make setup` \
         (Debian and Ubuntu: the package postgresql), or set {BINARIES_ENV}"
    )]
    NotInstalled {
        /// Every place we looked.
        tried: String,
    },
    /// Postgres refuses to run as root and we found nobody else.
    #[error(
        "Postgres will not run as root, and no other account can use {directory}: there is no \
         account named postgres that may enter it, and unshare failed ({why})"
    )]
    OnlyRoot {
        /// The folder the server would have to enter.
        directory: PathBuf,
        /// What the last attempt said.
        why: String,
    },
    /// The folder is somebody else's.
    #[error("{directory} belongs to user {owner}, who is neither us nor an account we can use")]
    NotOurs {
        /// The data folder.
        directory: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// The data was made by another major version.
    #[error("{directory} holds data of Postgres {found}, but the server here is {server}")]
    OtherVersion {
        /// The data folder.
        directory: PathBuf,
        /// The version that wrote it.
        found: String,
        /// The version we would start.
        server: u32,
    },
    /// A name that we will not put into a statement.
    #[error("{0:?} is not a database or role name: use a to z, 0 to 9 and _, at most 63 characters")]
    BadName(String),
    /// A program failed.
    #[error("{what} failed: {output}")]
    Failed {
        /// The step.
        what: String,
        /// What the program said.
        output: String,
    },
    /// The operating system refused something.
    #[error("{what}")]
    Io {
        /// The step.
        what: String,
        /// The reason.
        #[source]
        source: io::Error,
    },
}

/// A running cluster. Dropping it stops it; a temporary one also leaves no files.
#[derive(Debug)]
pub struct PrivatePostgres {
    child: Option<Child>,
    account: Account,
    binaries: Binaries,
    base: PathBuf,
    socket: PathBuf,
    temporary: Vec<PathBuf>,
    durable: bool,
    /// Held while we live: a later run removes temporary folders whose lock is free.
    _locks: Vec<File>,
    templates: Mutex<HashSet<String>>,
}

/// One cluster for the whole process, for test binaries. It is in a static, so it is never
/// dropped: the kernel stops it with the process, and the next run removes its files.
pub fn shared() -> Result<&'static PrivatePostgres, PostgresError> {
    static SHARED: OnceLock<PrivatePostgres> = OnceLock::new();
    static STARTING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(running) = SHARED.get() {
        return Ok(running);
    }
    let started = PrivatePostgres::start(PostgresOptions::default())?;
    Ok(SHARED.get_or_init(|| started))
}

impl PrivatePostgres {
    /// Creates the cluster where there is none, starts it, and waits until it answers.
    pub fn start(options: PostgresOptions) -> Result<Self, PostgresError> {
        let binaries = Binaries::find()?;
        let mut temporary = Vec::new();
        let mut lock = None;
        let base = match &options.directory {
            Some(directory) => {
                private_folder(directory)?;
                directory.canonicalize().map_err(io_error(format!("open {}", directory.display())))?
            }
            None => {
                remove_abandoned();
                let (folder, held) = temporary_folder()?;
                temporary.push(folder.clone());
                lock = Some(held);
                folder
            }
        };
        let data = base.join("data");
        let account = Account::choose(&base, &data)?;
        account.own(&base)?;
        let socket = if socket_fits(&base) {
            base.clone()
        } else {
            let (folder, held) = temporary_folder()?;
            account.own(&folder)?;
            temporary.push(folder.clone());
            lock = Some(held);
            folder
        };
        let mut cluster = Self {
            child: None,
            account,
            binaries,
            base,
            socket,
            temporary,
            durable: options.durable,
            _locks: lock.into_iter().collect(),
            templates: Mutex::new(HashSet::new()),
        };
        cluster.init(&data)?;
        cluster.wait_for_predecessor(&data)?;
        cluster.launch(&data)?;
        cluster.wait_until_ready()?;
        Ok(cluster)
    }

    /// The address of a database, for sqlx and for psql.
    pub fn url(&self, role: &str, database: &str) -> String {
        format!("postgres://{role}@localhost/{database}?host={}", self.socket.display())
    }

    /// The folder of the socket: `psql -h <folder>`.
    pub fn socket_folder(&self) -> &Path {
        &self.socket
    }

    /// The server's process id, for tests that look at or kill it.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Creates an empty database.
    pub fn create_database(&self, name: &str) -> Result<(), PostgresError> {
        check_name(name)?;
        self.sql("postgres", &format!("create database {name}")).map(drop)
    }

    /// Whether there is a database of that name.
    pub fn has_database(&self, name: &str) -> Result<bool, PostgresError> {
        check_name(name)?;
        let answer = self.sql("postgres", &format!("select count(*) from pg_database where datname = '{name}'"))?;
        Ok(answer.trim() == "1")
    }

    /// Copies a database that nobody is connected to.
    pub fn create_database_from(&self, template: &str, name: &str) -> Result<(), PostgresError> {
        check_name(template)?;
        check_name(name)?;
        // Copying files forces two checkpoints: cheap without fsync, dear with it. Before
        // version 15 it is the only way and cannot be asked for.
        let strategy = if !self.durable && self.binaries.major >= 15 { " strategy file_copy" } else { "" };
        self.sql("postgres", &format!("create database {name} template {template}{strategy}")).map(drop)
    }

    /// Drops a database and throws out whoever is connected to it.
    pub fn drop_database(&self, name: &str) -> Result<(), PostgresError> {
        check_name(name)?;
        self.sql("postgres", &format!("drop database if exists {name} with (force)")).map(drop)
    }

    /// Makes the template once per cluster. `prepare` gets the name of an empty database, fills
    /// it, and leaves no connection behind. When it fails the template does not exist, so the
    /// next caller tries again instead of copying half a schema.
    pub fn template<E: From<PostgresError>>(&self, name: &str, prepare: impl FnOnce(&str) -> Result<(), E>) -> Result<(), E> {
        check_name(name)?;
        let mut ready = self.templates.lock().unwrap_or_else(PoisonError::into_inner);
        if ready.contains(name) {
            return Ok(());
        }
        if !self.has_database(name)? {
            let draft = format!("{name}_draft");
            self.drop_database(&draft)?;
            self.create_database(&draft)?;
            prepare(&draft)?;
            self.sql("postgres", &format!("alter database {draft} rename to {name}"))?;
        }
        ready.insert(name.to_owned());
        Ok(())
    }

    /// A new database with a name of its own, copied from `template`.
    pub fn fresh_database(&self, template: &str) -> Result<String, PostgresError> {
        let name = format!("t_{}", Uuid::new_v4().simple());
        self.create_database_from(template, &name)?;
        Ok(name)
    }

    /// Runs statements as the superuser and gives back what psql prints: unaligned rows.
    pub fn sql(&self, database: &str, statements: &str) -> Result<String, PostgresError> {
        self.psql(SUPERUSER, database, &["-c", statements], statements)
    }

    /// Runs a file of statements as the superuser, in one transaction.
    pub fn sql_file(&self, database: &str, file: &Path) -> Result<String, PostgresError> {
        let name = file.display().to_string();
        self.psql(SUPERUSER, database, &["-1", "-f", &name], &name)
    }

    /// Stops the server and says how that went. Dropping does the same in silence.
    pub fn stop(mut self) -> Result<(), PostgresError> {
        self.shut_down()
    }

    /// Kills every process of the server at once (SIGKILL), as a crash of the machine would end them, and starts it
    /// again. What was not on the disk is gone.
    pub fn kill_and_restart(&mut self) -> Result<(), PostgresError> {
        self.kill()?;
        self.restart()
    }

    /// Kills every process of the server at once (SIGKILL); its files stay as they are.
    pub fn kill(&mut self) -> Result<(), PostgresError> {
        if let Some(mut child) = self.child.take() {
            let postmaster = child.id();
            // It forks no more once it is stopped, so none of its children is missed.
            rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::STOP)
                .map_err(|error| io_error("stop postgres")(error.into()))?;
            let processes = children_of(postmaster);
            for process in &processes {
                // One that has ended meanwhile is what is wanted.
                let _ = rustix::process::kill_process(*process, Signal::KILL);
            }
            child.kill().map_err(io_error("kill postgres"))?;
            child.wait().map_err(io_error("wait for postgres"))?;
            // A server does not start while one of the old processes still holds its memory.
            let started = Instant::now();
            while started.elapsed() < STOP_WITHIN && processes.iter().any(|process| is_running(*process)) {
                thread::sleep(Duration::from_millis(5));
            }
        }
        Ok(())
    }

    /// Ends the server in an orderly way; its files stay, and [`Self::restart`] starts it again.
    pub fn halt(&mut self) -> Result<(), PostgresError> {
        match self.child.take() {
            Some(mut child) => child::stop(&mut child, Signal::INT, STOP_WITHIN).map(drop).map_err(io_error("stop postgres")),
            None => Ok(()),
        }
    }

    /// Starts the server that was killed or halted.
    pub fn restart(&mut self) -> Result<(), PostgresError> {
        let data = self.data();
        self.wait_for_predecessor(&data)?;
        self.launch(&data)?;
        self.wait_until_ready()
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.base.join("data")
    }

    /// A replica of this cluster by `pg_basebackup`, which streams from it and takes reads.
    pub fn replica(&self) -> Result<Self, PostgresError> {
        let (base, lock) = temporary_folder()?;
        self.account.own(&base)?;
        let data = base.join("data");
        let script =
            format!("pg_basebackup --pgdata='{}' --write-recovery-conf --checkpoint=fast --wal-method=stream --no-sync", data.display());
        self.shell(&script, &[])?;
        let mut cluster = Self {
            child: None,
            account: self.account.clone(),
            binaries: self.binaries.clone(),
            base: base.clone(),
            socket: base.clone(),
            temporary: vec![base],
            durable: self.durable,
            _locks: vec![lock],
            templates: Mutex::new(HashSet::new()),
        };
        cluster.launch(&data)?;
        cluster.wait_until_ready()?;
        Ok(cluster)
    }

    /// A folder that the server's account owns, gone with this cluster.
    pub fn folder(&mut self) -> Result<PathBuf, PostgresError> {
        let (folder, lock) = temporary_folder()?;
        self.account.own(&folder)?;
        self._locks.push(lock);
        self.temporary.push(folder.clone());
        Ok(folder)
    }

    /// Runs a script of an operator's as the account that owns the cluster, with the server's programs in PATH.
    pub fn shell(&self, script: &str, variables: &[(&str, &str)]) -> Result<String, PostgresError> {
        let mut words = self.account.prefix(None);
        words.extend(["sh", "-euc", script].map(String::from));
        let mut shell = child::command(&words).map_err(io_error("sh"))?;
        bare_environment(&mut shell);
        let path = std::env::var("PATH").unwrap_or_default();
        shell.env("PATH", format!("{}:{path}", self.binaries.folder.display())).stdin(Stdio::null());
        shell.env("PGHOST", &self.socket).env("PGUSER", SUPERUSER).envs(variables.iter().copied());
        run(&mut shell, script)
    }

    fn psql(&self, role: &str, database: &str, arguments: &[&str], what: &str) -> Result<String, PostgresError> {
        let mut psql = Command::new(self.binaries.program("psql"));
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", role, "-d", database])
            .arg("-h")
            .arg(&self.socket)
            .args(arguments)
            .stdin(Stdio::null());
        bare_environment(&mut psql);
        run(&mut psql, what)
    }

    fn init(&self, data: &Path) -> Result<(), PostgresError> {
        let version = data.join("PG_VERSION");
        if version.exists() {
            let found = fs::read_to_string(&version).map_err(io_error("read PG_VERSION"))?;
            if found.trim() != self.binaries.major.to_string() {
                return Err(PostgresError::OtherVersion {
                    directory: data.to_path_buf(),
                    found: found.trim().to_owned(),
                    server: self.binaries.major,
                });
            }
            return Ok(());
        }
        // An initdb that was interrupted leaves a folder that it would later refuse.
        if data.exists() {
            fs::remove_dir_all(data).map_err(io_error(format!("remove {}", data.display())))?;
        }
        let mut words = self.account.prefix(None);
        words.push(self.binaries.program("initdb").to_string_lossy().into_owned());
        words.extend(["-U", SUPERUSER, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-instructions"].map(String::from));
        if !self.durable {
            words.push("--no-sync".into());
        }
        words.push("-D".into());
        words.push(data.to_string_lossy().into_owned());
        let mut initdb = child::command(&words).map_err(io_error("initdb"))?;
        bare_environment(&mut initdb);
        initdb.stdin(Stdio::null());
        run(&mut initdb, "initdb").map(drop)
    }

    /// A demo that was killed leaves a server that is still shutting down: wait for it.
    fn wait_for_predecessor(&self, data: &Path) -> Result<(), PostgresError> {
        let pid_file = data.join("postmaster.pid");
        let started = Instant::now();
        while started.elapsed() < STOP_WITHIN {
            let Ok(text) = fs::read_to_string(&pid_file) else {
                return Ok(());
            };
            let alive = text
                .lines()
                .next()
                .is_some_and(|pid| fs::read_to_string(format!("/proc/{}/comm", pid.trim())).is_ok_and(|name| name.trim() == "postgres"));
            if !alive {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(50));
        }
        Err(PostgresError::Failed {
            what: format!("starting Postgres in {}", data.display()),
            output: "another server is running there; stop it first".into(),
        })
    }

    fn launch(&mut self, data: &Path) -> Result<(), PostgresError> {
        let log = OpenOptions::new().create(true).append(true).open(self.log_path()).map_err(io_error("open the server's log"))?;
        // INT is Postgres's fast shutdown: it also leaves the files clean.
        let mut words = self.account.prefix(Some("INT"));
        words.push(self.binaries.program("postgres").to_string_lossy().into_owned());
        words.push("-D".into());
        words.push(data.to_string_lossy().into_owned());
        let mut settings = vec![
            "listen_addresses=".to_owned(),
            format!("unix_socket_directories={}", self.socket.display()),
            "max_connections=200".to_owned(),
            "cluster_name=amanatd-devkit".to_owned(),
            "timezone=UTC".to_owned(),
            "log_timezone=UTC".to_owned(),
        ];
        if !self.durable {
            settings.extend(["fsync=off", "synchronous_commit=off", "full_page_writes=off", "jit=off"].map(String::from));
        }
        for setting in settings {
            words.push("-c".into());
            words.push(setting);
        }
        let mut postgres = child::command(&words).map_err(io_error("postgres"))?;
        bare_environment(&mut postgres);
        let errors = log.try_clone().map_err(io_error("open the server's log"))?;
        postgres.stdin(Stdio::null()).stdout(log).stderr(errors);
        // A group of its own: Ctrl-C in a terminal must reach us first, not the database.
        std::os::unix::process::CommandExt::process_group(&mut postgres, 0);
        self.child = Some(child::spawn(postgres).map_err(io_error("start postgres"))?);
        Ok(())
    }

    fn wait_until_ready(&mut self) -> Result<(), PostgresError> {
        let started = Instant::now();
        loop {
            let ended = match &mut self.child {
                Some(child) => child.try_wait().map_err(io_error("wait for postgres"))?,
                None => None,
            };
            if let Some(status) = ended {
                self.child = None;
                return Err(PostgresError::Failed { what: format!("starting Postgres ({status})"), output: self.log_tail() });
            }
            // Asking before the socket exists would only cost a process.
            if self.socket.join(".s.PGSQL.5432").exists() {
                match self.sql("postgres", "select 1") {
                    Ok(_) => return Ok(()),
                    Err(error) if started.elapsed() > READY_WITHIN => return Err(error),
                    Err(_) => {}
                }
            } else if started.elapsed() > READY_WITHIN {
                return Err(PostgresError::Failed {
                    what: format!("waiting {} s for Postgres", READY_WITHIN.as_secs()),
                    output: self.log_tail(),
                });
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn log_path(&self) -> PathBuf {
        self.base.join("log")
    }

    fn log_tail(&self) -> String {
        let text = fs::read_to_string(self.log_path()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    fn shut_down(&mut self) -> Result<(), PostgresError> {
        let mut result = Ok(());
        if let Some(mut child) = self.child.take() {
            // QUIT stops at once and leaves recovery to the next start: right for files that
            // are about to be removed, wrong for a demo that will be started again.
            let signal = if self.durable { Signal::INT } else { Signal::QUIT };
            result = child::stop(&mut child, signal, STOP_WITHIN).map(drop).map_err(io_error("stop postgres"));
        }
        for folder in self.temporary.drain(..) {
            if let Err(source) = fs::remove_dir_all(&folder) {
                result = result.and(Err(PostgresError::Io { what: format!("remove {}", folder.display()), source }));
            }
        }
        result
    }
}

impl Drop for PrivatePostgres {
    fn drop(&mut self) {
        // Nobody is left to tell; what could not be removed goes with the next start.
        let _ = self.shut_down();
    }
}

/// Who runs the server.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Account {
    /// We are not root: ourselves.
    Ourselves,
    /// We are root: this account, through `setpriv`. With `passes`, the one right that lets it
    /// through folders that only root may enter: a checkout under /root.
    Other { uid: u32, gid: u32, passes: Option<&'static str> },
    /// We are root and there is no such account: a user namespace in which we are not.
    Namespace,
}

impl Account {
    fn choose(base: &Path, data: &Path) -> Result<Self, PostgresError> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self::Ourselves);
        }
        let candidate = system_account();
        let owner = data.metadata().ok().map(|found| found.uid());
        match (owner, candidate) {
            // The data exists: only its owner can run the server on it.
            (Some(0), _) => return Ok(Self::Namespace),
            (Some(owner), Some((uid, _))) if owner != uid => return Err(PostgresError::NotOurs { directory: data.to_path_buf(), owner }),
            (Some(owner), None) => return Err(PostgresError::NotOurs { directory: data.to_path_buf(), owner }),
            (Some(_), Some(_)) | (None, _) => {}
        }
        if let Some((uid, gid)) = candidate {
            // Not `test -x`, which asks on behalf of the account and forgets the right.
            let probe = ["test", "-d", &base.to_string_lossy()].map(str::to_owned);
            // The second only reads; containers often have only the third.
            for passes in [None, Some("dac_read_search"), Some("dac_override")] {
                let account = Self::Other { uid, gid, passes };
                if account.try_run(&probe).is_ok() {
                    return Ok(account);
                }
            }
        }
        match Self::Namespace.try_run(&["true".to_owned()]) {
            Ok(()) => Ok(Self::Namespace),
            Err(why) => Err(PostgresError::OnlyRoot { directory: base.to_path_buf(), why }),
        }
    }

    /// The words before the program. `signal`: what it gets when we die.
    fn prefix(&self, signal: Option<&str>) -> Vec<String> {
        let mut words: Vec<String> = Vec::new();
        match self {
            Self::Ourselves => {}
            Self::Other { uid, gid, passes } => {
                words.extend(["setpriv".into(), format!("--reuid={uid}"), format!("--regid={gid}"), "--clear-groups".into()]);
                if let Some(right) = passes {
                    words.extend([format!("--inh-caps=+{right}"), format!("--ambient-caps=+{right}")]);
                }
                if let Some(signal) = signal {
                    words.extend(["--pdeathsig".into(), signal.into()]);
                }
                words.push("--".into());
                return words;
            }
            Self::Namespace => {
                words.extend(["unshare", "--user", "--map-user=1000", "--map-group=1000", "--"].map(String::from));
            }
        }
        // Entering a namespace clears the death signal, so it is asked for inside.
        if let Some(signal) = signal {
            words.extend(child::dies_with_us(signal));
        }
        words
    }

    fn try_run(&self, program: &[String]) -> Result<(), String> {
        let mut words = self.prefix(None);
        words.extend_from_slice(program);
        let mut command = child::command(&words).map_err(|e| e.to_string())?;
        bare_environment(&mut command);
        run(&mut command, &words.join(" ")).map(drop).map_err(|e| e.to_string())
    }

    fn own(&self, folder: &Path) -> Result<(), PostgresError> {
        match self {
            Self::Ourselves | Self::Namespace => Ok(()),
            Self::Other { uid, gid, .. } => {
                chown(folder, Some(*uid), Some(*gid)).map_err(io_error(format!("give {} to user {uid}", folder.display())))
            }
        }
    }
}

/// Whether a process has not ended yet; one that waits to be reaped has.
fn is_running(process: rustix::process::Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero())).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !matches!(rest.split_whitespace().next(), Some("Z" | "X")))
}

/// Processes whose parent this is.
fn children_of(parent: u32) -> Vec<rustix::process::Pid> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let is_child = |pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The name is in parentheses and may hold anything; after it come the state and the parent.
        stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)).is_some_and(|found| found == parent.to_string())
    };
    processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(is_child)
        .filter_map(rustix::process::Pid::from_raw)
        .collect()
}

/// Uid and gid of the account that Debian's package creates.
fn system_account() -> Option<(u32, u32)> {
    let passwd = fs::read_to_string("/etc/passwd").ok()?;
    let line = passwd.lines().find(|line| line.starts_with("postgres:"))?;
    let mut fields = line.split(':').skip(2);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// The server's programs, all of one version.
#[derive(Debug, Clone)]
struct Binaries {
    folder: PathBuf,
    major: u32,
}

impl Binaries {
    /// Environment, `pg_config`, the newest Debian folder, `PATH`.
    fn find() -> Result<Self, PostgresError> {
        let mut tried = Vec::new();
        let mut folders: Vec<(String, PathBuf)> = Vec::new();
        if let Some(folder) = std::env::var_os(BINARIES_ENV) {
            folders.push((format!("{BINARIES_ENV}={}", folder.display()), folder.into()));
        }
        match Command::new("pg_config").arg("--bindir").output() {
            Ok(output) if output.status.success() => {
                let folder = String::from_utf8_lossy(&output.stdout).trim().to_owned();
                folders.push((format!("pg_config --bindir = {folder}"), folder.into()));
            }
            _ => tried.push("pg_config --bindir (not there)".to_owned()),
        }
        match newest_debian_folder() {
            Some(folder) => folders.push((folder.display().to_string(), folder)),
            None => tried.push("/usr/lib/postgresql/*/bin (not there)".to_owned()),
        }
        match child::find_in_path("postgres").and_then(|p| p.parent().map(Path::to_path_buf)) {
            Some(folder) => folders.push((format!("PATH: {}", folder.display()), folder)),
            None => tried.push("postgres in PATH (not there)".to_owned()),
        }
        for (name, folder) in folders {
            let missing: Vec<&str> =
                ["postgres", "initdb", "psql"].into_iter().filter(|program| !child::is_executable(&folder.join(program))).collect();
            if !missing.is_empty() {
                tried.push(format!("{name} (no {})", missing.join(", ")));
                continue;
            }
            let version = run(Command::new(folder.join("postgres")).arg("--version"), "postgres --version")?;
            match major_version(&version) {
                Some(major) => return Ok(Self { folder, major }),
                None => tried.push(format!("{name} (odd version {version:?})")),
            }
        }
        Err(PostgresError::NotInstalled { tried: tried.join("; ") })
    }

    fn program(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

fn newest_debian_folder() -> Option<PathBuf> {
    fs::read_dir("/usr/lib/postgresql")
        .ok()?
        .flatten()
        .filter_map(|entry| {
            let version: u32 = entry.file_name().to_str()?.parse().ok()?;
            let folder = entry.path().join("bin");
            child::is_executable(&folder.join("postgres")).then_some((version, folder))
        })
        .max()
        .map(|(_, folder)| folder)
}

/// `postgres (PostgreSQL) 15.18 (Debian …)` is 15.
fn major_version(text: &str) -> Option<u32> {
    let number = text.split_whitespace().find(|w| w.starts_with(|c: char| c.is_ascii_digit()))?;
    number.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn check_name(name: &str) -> Result<(), PostgresError> {
    let fine = !name.is_empty()
        && name.len() <= 63
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    if fine { Ok(()) } else { Err(PostgresError::BadName(name.to_owned())) }
}

fn socket_fits(folder: &Path) -> bool {
    folder.join(".s.PGSQL.5432").as_os_str().len() <= SOCKET_PATH_MAX
}

/// A folder that only its owner may enter.
fn private_folder(folder: &Path) -> Result<(), PostgresError> {
    if let Some(parent) = folder.parent() {
        fs::create_dir_all(parent).map_err(io_error(format!("create {}", parent.display())))?;
    }
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => fs::set_permissions(folder, fs::Permissions::from_mode(0o700))
            .map_err(io_error(format!("close {} to others", folder.display()))),
        Err(source) => Err(PostgresError::Io { what: format!("create {}", folder.display()), source }),
    }
}

/// A new folder with a short path, and the lock that says we still need it.
fn temporary_folder() -> Result<(PathBuf, File), PostgresError> {
    let id = Uuid::new_v4().simple().to_string();
    let name = format!("{PREFIX}{}", &id[..12]);
    let folder = [std::env::temp_dir(), PathBuf::from("/tmp")]
        .into_iter()
        .map(|place| place.join(&name))
        .find(|folder| socket_fits(folder))
        .unwrap_or_else(|| PathBuf::from("/tmp").join(&name));
    fs::DirBuilder::new().mode(0o700).create(&folder).map_err(io_error(format!("create {}", folder.display())))?;
    let lock = File::create(folder.join("lock")).map_err(io_error("create the lock file"))?;
    lock.lock().map_err(io_error("lock the folder"))?;
    Ok((folder, lock))
}

/// Removes what killed runs left behind: our folders whose lock nobody holds. Anything that
/// cannot be judged or removed stays.
fn remove_abandoned() {
    let mut places = vec![std::env::temp_dir(), PathBuf::from("/tmp")];
    places.dedup();
    for entry in places.iter().filter_map(|place| fs::read_dir(place).ok()).flatten().flatten() {
        let ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        // Between making the folder and taking the lock it looks abandoned.
        let old = entry
            .metadata()
            .and_then(|m| m.modified())
            .is_ok_and(|at| SystemTime::now().duration_since(at).is_ok_and(|age| age.as_secs() > 30));
        if !ours || !old {
            continue;
        }
        let Ok(lock) = File::open(entry.path().join("lock")) else {
            continue;
        };
        if lock.try_lock().is_ok() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Nothing of the caller's `PG*` variables or language may reach these programs.
fn bare_environment(command: &mut Command) {
    command.env_clear().env("LC_ALL", "C").env("TZ", "UTC").env("HOME", "/").current_dir("/");
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
}

fn run(command: &mut Command, what: &str) -> Result<String, PostgresError> {
    let Output { status, stdout, stderr } = command.output().map_err(io_error(format!("run {}", command.get_program().display())))?;
    if status.success() {
        return Ok(String::from_utf8_lossy(&stdout).into_owned());
    }
    Err(PostgresError::Failed { what: what.to_owned(), output: format!("{status}: {}", String::from_utf8_lossy(&stderr).trim()) })
}

fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> PostgresError {
    let what = what.into();
    move |source| PostgresError::Io { what, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn major_version_is_read_from_what_debian_prints() {
        assert_eq!(major_version("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"), Some(15));
        assert_eq!(major_version("postgres (PostgreSQL) 18beta2"), Some(18));
        assert_eq!(major_version("postgres"), None);
    }

    #[test]
    fn names_that_would_need_quoting_are_refused() {
        assert!(check_name("tmpl_0a1b").is_ok());
        for bad in ["", "A", "a b", "a\"b", "1a", "a;drop", &"a".repeat(64)] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_long_folder_does_not_get_the_socket() {
        assert!(socket_fits(Path::new("/tmp/amanatd-pg-0123456789ab")));
        assert!(!socket_fits(&Path::new("/tmp").join("x".repeat(100))));
    }
}
