//! Child processes that never outlive us.
//!
//! A server that a test or the demo starts must stop when we stop, also when we are killed and no
//! destructor runs. `setpriv --pdeathsig` asks the kernel for that, without unsafe code. The
//! kernel ties the request to the parent *thread*, so children are spawned from one thread that
//! lives as long as the process, never from a test's own thread.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

struct Job {
    command: Command,
    reply: Sender<io::Result<Child>>,
}

/// Spawns from the thread that lives as long as the process.
pub fn spawn(command: Command) -> io::Result<Child> {
    static KEEPER: OnceLock<Sender<Job>> = OnceLock::new();
    let keeper = KEEPER.get_or_init(|| {
        let (send, receive) = channel::<Job>();
        // The sender is in a static, so `recv` ends only with the process.
        thread::spawn(move || {
            while let Ok(mut job) = receive.recv() {
                // A caller that went away has no use for the answer.
                let _ = job.reply.send(job.command.spawn());
            }
        });
        send
    });
    let (reply, answer) = channel();
    keeper.send(Job { command, reply }).map_err(|_| io::Error::other("the thread that spawns children has ended"))?;
    answer.recv().map_err(|_| io::Error::other("the thread that spawns children has ended"))?
}

/// What to put before a command line so that the child gets `signal` (INT, KILL …) when this
/// process dies. Empty where `setpriv` is missing: the child then stops only with its guard.
pub fn dies_with_us(signal: &str) -> Vec<String> {
    match find_in_path("setpriv") {
        Some(path) => vec![path.to_string_lossy().into_owned(), "--pdeathsig".into(), signal.into(), "--".into()],
        None => Vec::new(),
    }
}

/// A [`Command`] from a list whose first word is the program.
pub fn command<S: AsRef<OsStr>>(words: &[S]) -> io::Result<Command> {
    let (program, arguments) = words.split_first().ok_or_else(|| io::Error::other("an empty command line"))?;
    let mut command = Command::new(program);
    command.args(arguments);
    Ok(command)
}

/// Signals our own child by its pid and waits; after `bound` it is killed outright.
pub fn stop(child: &mut Child, signal: Signal, bound: Duration) -> io::Result<ExitStatus> {
    if let Some(status) = child.try_wait()? {
        return Ok(status);
    }
    // The child has not been reaped, so its pid cannot belong to anybody else.
    kill_process(Pid::from_child(child), signal).map_err(io::Error::from)?;
    let started = Instant::now();
    while started.elapsed() < bound {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        thread::sleep(Duration::from_millis(5));
    }
    child.kill()?;
    child.wait()
}

/// The first executable of that name in `PATH`.
pub fn find_in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|candidate| is_executable(candidate))
}

/// Whether this is a file that somebody may run.
pub fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}
