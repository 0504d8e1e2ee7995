//! Runs the real binary as Kubernetes would: its arguments, its environment, and nothing else.
//!
//! The environment is empty but for `PATH` and the place of the termination log, so that a developer's own
//! `AWS_PROFILE` never decides a test. Every run is bounded in time: one that hangs is killed, and the test fails with
//! its output. The binary is `$STORAGE_INITIALIZER_BIN`, or is built once per test process.

use std::ffi::{OsStr, OsString};
use std::fs::{self, Permissions};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use tempfile::TempDir;

pub use rustix::process::Signal;
use rustix::process::{PidfdFlags, WaitId, WaitIdOptions};

/// How long a run may take unless a test says otherwise.
const RUN_LIMIT: Duration = Duration::from_secs(120);

/// The user and group of an unprivileged run: any but root will do.
const UNPRIVILEGED: u32 = 1000;

/// How the binary is built, where it is built here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Profile {
    /// Fast to build.
    Dev,
    /// Fast to run, for benchmarks.
    Release,
}

/// A run of the binary, before it starts.
#[derive(Debug)]
pub struct Initializer {
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    current_dir: Option<PathBuf>,
    uid: Option<u32>,
    limit: Duration,
}

impl Default for Initializer {
    fn default() -> Self {
        Self::new()
    }
}

impl Initializer {
    /// A run without arguments of the binary in the development profile.
    pub fn new() -> Self {
        Self::with_profile(Profile::Dev)
    }

    /// A run without arguments of the binary in a profile.
    pub fn with_profile(profile: Profile) -> Self {
        Self::of_program(&binary(profile))
    }

    /// A run of another program, for example of a peer in a benchmark.
    pub fn of_program(program: &Path) -> Self {
        Self {
            program: program.to_owned(),
            arguments: Vec::new(),
            environment: Vec::new(),
            current_dir: None,
            uid: None,
            limit: RUN_LIMIT,
        }
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        let (name, value) = (name.as_ref().to_owned(), value.as_ref().to_owned());
        self.environment.push((name, value));
        self
    }

    /// Adds an argument.
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    pub fn args(self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        arguments.into_iter().fold(self, Self::arg)
    }

    /// Has another program start it, whose last argument is followed by the run's own command line.
    pub fn under(mut self, program: &Path, arguments: impl IntoIterator<Item = OsString>) -> Self {
        let own = std::mem::replace(&mut self.program, program.to_owned());
        let of_run = std::mem::take(&mut self.arguments);
        self.arguments = arguments.into_iter().chain([own.into()]).chain(of_run).collect();
        self
    }

    /// Sets the working directory.
    pub fn current_dir(mut self, path: &Path) -> Self {
        self.current_dir = Some(path.to_owned());
        self
    }

    /// Runs as this user and group, without supplementary groups; only root can ask for another user.
    pub fn uid(mut self, uid: u32) -> Self {
        self.uid = Some(uid);
        self
    }

    /// Runs it as a user whom the modes of files stop: where the tests run as root, as user and group 1000. The test
    /// sees to it that its directories let that user pass.
    pub fn unprivileged(mut self) -> Self {
        self.uid = rustix::process::geteuid().is_root().then_some(UNPRIVILEGED);
        self
    }

    /// Sets how long it may run.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Runs it to its end.
    #[track_caller]
    pub fn run(self) -> Outcome {
        self.spawn().wait()
    }

    /// Starts it.
    pub fn spawn(self) -> Running {
        let directory = tempfile::tempdir().expect("a directory for the termination log");
        let termination_log = directory.path().join("termination-log");
        // The kubelet makes the file; the container only writes to it.
        fs::write(&termination_log, "").expect("an empty termination log");
        let program = if self.uid.is_some() { copied(&self.program, directory.path()) } else { self.program.clone() };
        let mut command = Command::new(program);
        command
            .args(&self.arguments)
            .env_clear()
            .envs(path_variable())
            .env("TERMINATION_LOG", &termination_log)
            .envs(self.environment)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(current_dir) = &self.current_dir {
            command.current_dir(current_dir);
        }
        if let Some(uid) = self.uid {
            command.uid(uid).gid(uid);
            open_to_others(directory.path(), &termination_log);
        }
        let mut child = command.spawn().unwrap_or_else(|error| panic!("run {}: {error}", self.program.display()));
        let stdout = Output::of(child.stdout.take().expect("stdout is a pipe"));
        let stderr = Output::of(child.stderr.take().expect("stderr is a pipe"));
        Running {
            child,
            stdout,
            stderr,
            termination_log,
            _directory: directory,
            started: Instant::now(),
            limit: self.limit,
        }
    }
}

/// A copy where any user may run it: the original may be below somebody's home. By a command, because a program that
/// this process has open for writing at the moment of another thread's fork cannot be run (ETXTBSY).
fn copied(program: &Path, directory: &Path) -> PathBuf {
    let copy = directory.join("program");
    let status = Command::new("cp").args([program, copy.as_path()]).status();
    assert!(status.is_ok_and(|status| status.success()), "copy {}", program.display());
    copy
}

fn open_to_others(directory: &Path, termination_log: &Path) {
    let open = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode));
    open(directory, 0o755).and_then(|()| open(termination_log, 0o666)).expect("open the termination log to others");
}

#[allow(
    clippy::disallowed_methods,
    reason = "the ban is for the product, where one module reads the environment; the harness is not in it"
)]
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

fn path_variable() -> Option<(&'static str, OsString)> {
    variable("PATH").map(|path| ("PATH", path))
}

/// The path of the product's binary, built at most once per process and profile.
pub fn binary(profile: Profile) -> PathBuf {
    static DEV: OnceLock<PathBuf> = OnceLock::new();
    static RELEASE: OnceLock<PathBuf> = OnceLock::new();
    if let Some(path) = variable("STORAGE_INITIALIZER_BIN") {
        return path.into();
    }
    let built = match profile {
        Profile::Dev => &DEV,
        Profile::Release => &RELEASE,
    };
    built.get_or_init(|| build(profile)).clone()
}

fn build(profile: Profile) -> PathBuf {
    let cargo = variable("CARGO").unwrap_or_else(|| "cargo".into());
    // This package is a directory of the workspace, next to the product's `src`.
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new(cargo);
    command.args(["build", "--bin", "storage-initializer", "--message-format=json-render-diagnostics"]);
    match profile {
        // The workspace's features are those of `cargo test`, so that no dependency is compiled a second time.
        Profile::Dev => command.arg("--workspace"),
        // What is shipped has no features but its own.
        Profile::Release => command.args(["--release", "--package", "storage-initializer"]),
    };
    command.current_dir(package.parent().unwrap_or(package)).stderr(Stdio::inherit());
    let output = command.output().expect("run cargo");
    assert!(output.status.success(), "cargo could not build the binary");
    executable(&String::from_utf8_lossy(&output.stdout)).expect("cargo names the executable it built")
}

/// The path in the message about the binary, among the messages of <https://doc.rust-lang.org/cargo/reference/external-tools.html>.
fn executable(messages: &str) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == "storage-initializer")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
}

/// A run that has not ended. Dropping it kills it.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdout: Output,
    stderr: Output,
    termination_log: PathBuf,
    _directory: TempDir,
    started: Instant,
    limit: Duration,
}

impl Running {
    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("signal a child that was not waited for");
    }

    /// A hold on the process that does not mistake another one for it.
    pub fn hold(&self) -> ProcessHold {
        let pid = rustix::process::Pid::from_child(&self.child);
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty());
        ProcessHold(pidfd.expect("open a child that was not waited for"))
    }

    /// What it wrote to stderr so far.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Blocks until stderr contains a text; panics where the run ends or its time is over without it.
    #[track_caller]
    pub fn wait_for_stderr(&self, text: &str) {
        let deadline = self.started + self.limit;
        let found = self.stderr.wait(deadline, |written| written.contains(text));
        assert!(found, "{text:?} is not in stderr:\n{}", self.stderr());
    }

    /// Waits for its end. One that takes too long is killed, and this panics with its output.
    #[track_caller]
    pub fn wait(mut self) -> Outcome {
        let deadline = self.started + self.limit;
        // Both pipes end with the process: the end of the run is an event, not a poll.
        let ended = self.stdout.wait_end(deadline) && self.stderr.wait_end(deadline);
        if !ended {
            let _ = self.child.kill();
        }
        let status = self.child.wait().expect("wait for a child");
        let elapsed = self.started.elapsed();
        assert!(
            ended,
            "killed after {:?}; stderr:\n{}\nstdout:\n{}",
            self.limit,
            self.stderr.text(),
            self.stdout.text()
        );
        let message = fs::read(&self.termination_log).unwrap_or_default();
        let message = String::from_utf8_lossy(&message).into_owned();
        Outcome {
            status,
            stdout: self.stdout.text(),
            stderr: self.stderr.text(),
            elapsed,
            termination_message: Some(message).filter(|message| !message.is_empty()),
        }
    }
}

/// A process, wherever it is in its life: a signal to one that has gone does nothing.
#[derive(Debug)]
pub struct ProcessHold(OwnedFd);

impl ProcessHold {
    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let _ = rustix::process::pidfd_send_signal(&self.0, signal);
    }

    /// After a SIGSTOP: returns when it stands still or has gone.
    pub fn wait_stopped(&self) {
        // Whoever waits for its end goes on waiting.
        let options = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        let _ = rustix::process::waitid(WaitId::PidFd(self.0.as_fd()), options);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Nothing happens to a child that was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A pipe that a thread reads, so that the child never blocks on it.
#[derive(Debug)]
struct Output {
    shared: Arc<(Mutex<Written>, Condvar)>,
}

#[derive(Debug, Default)]
struct Written {
    bytes: Vec<u8>,
    ended: bool,
}

impl Output {
    fn of(mut pipe: impl Read + Send + 'static) -> Self {
        let shared = Arc::new((Mutex::new(Written::default()), Condvar::new()));
        let writer = shared.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 8192];
            loop {
                let count = pipe.read(&mut buffer).unwrap_or(0);
                let mut written = lock(&writer.0);
                written.bytes.extend_from_slice(&buffer[..count]);
                written.ended = count == 0;
                writer.1.notify_all();
                if count == 0 {
                    break;
                }
            }
        });
        Self { shared }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&lock(&self.shared.0).bytes).into_owned()
    }

    /// Whether `wanted` came to be true of the text before its end and the deadline.
    fn wait(&self, deadline: Instant, wanted: impl Fn(&str) -> bool) -> bool {
        let is_there = |written: &Written| wanted(&String::from_utf8_lossy(&written.bytes));
        let written = self.wait_until(deadline, |written| written.ended || is_there(written));
        is_there(&written)
    }

    fn wait_end(&self, deadline: Instant) -> bool {
        self.wait_until(deadline, |written| written.ended).ended
    }

    fn wait_until(&self, deadline: Instant, done: impl Fn(&Written) -> bool) -> MutexGuard<'_, Written> {
        let left = deadline.saturating_duration_since(Instant::now());
        let (written, _) = self
            .shared
            .1
            .wait_timeout_while(lock(&self.shared.0), left, |written| !done(written))
            .unwrap_or_else(|poison| poison.into_inner());
        written
    }
}

fn lock(written: &Mutex<Written>) -> MutexGuard<'_, Written> {
    written.lock().unwrap_or_else(|poison| poison.into_inner())
}

/// What became of a run.
#[derive(Debug)]
pub struct Outcome {
    /// The exit code or the signal.
    pub status: ExitStatus,
    /// All of stdout.
    pub stdout: String,
    /// All of stderr.
    pub stderr: String,
    /// From the start to the end of the process.
    pub elapsed: Duration,
    /// What is in the termination log, if anything is.
    pub termination_message: Option<String>,
}

impl Outcome {
    /// The exit code, where no signal ended it.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// The signal that ended it, where one did.
    pub fn signal(&self) -> Option<i32> {
        self.status.signal()
    }

    /// The last line on stderr that is not blank, which is what Kubernetes shows.
    pub fn last_line(&self) -> &str {
        let mut lines = self.stderr.lines().rev();
        lines.find(|line| !line.trim().is_empty()).unwrap_or_default()
    }

    /// Panics with the whole output where the exit code is another one.
    #[track_caller]
    pub fn assert_exit(&self, code: i32) -> &Self {
        assert!(
            self.code() == Some(code),
            "expected exit code {code}, got {}; stderr:\n{}\nstdout:\n{}",
            self.status,
            self.stderr,
            self.stdout
        );
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Initializer {
        Initializer::of_program(Path::new("/bin/sh")).arg("-c").arg(script)
    }

    #[test]
    fn the_environment_is_empty_but_for_what_was_asked() {
        let outcome = shell("env").env("AWS_REGION", "eu-central-1").run();
        let names: Vec<&str> = outcome.stdout.lines().filter_map(|line| line.split('=').next()).collect();
        for name in &names {
            // The shell itself sets the last three.
            let known = ["PATH", "TERMINATION_LOG", "AWS_REGION", "PWD", "SHLVL", "_"];
            assert!(known.contains(name), "{name} leaked");
        }
        assert!(names.contains(&"AWS_REGION"));
    }

    #[test]
    fn exit_code_last_line_and_termination_message_are_reported() {
        let outcome = shell("echo first >&2; echo last >&2; echo; printf why > $TERMINATION_LOG; exit 77").run();
        outcome.assert_exit(77);
        assert_eq!(outcome.last_line(), "last");
        assert_eq!(outcome.termination_message.as_deref(), Some("why"));
        assert_eq!(outcome.signal(), None);
    }

    #[test]
    #[should_panic(expected = "the reason")]
    fn a_wrong_exit_code_shows_stderr() {
        shell("echo the reason >&2; exit 1").run().assert_exit(0);
    }

    #[test]
    fn a_signal_reaches_a_running_process() {
        let running = shell("trap 'kill $!; exit 143' TERM; echo ready >&2; sleep 60 >/dev/null 2>&1 & wait").spawn();
        running.wait_for_stderr("ready");
        assert!(running.pid() > 0);
        running.signal(Signal::TERM);
        running.wait().assert_exit(143);
    }

    #[test]
    #[should_panic(expected = "killed after")]
    fn a_run_that_hangs_is_killed() {
        shell("echo ready; exec tail -f /dev/null").limit(Duration::from_millis(200)).run();
    }

    #[test]
    fn cargo_messages_name_the_executable() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"serde"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"storage-initializer"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"storage-initializer"},"executable":"/t/debug/storage-initializer"}"#;
        assert_eq!(executable(messages), Some("/t/debug/storage-initializer".into()));
    }
}
