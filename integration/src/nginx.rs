//! Debian's nginx with a configuration of the project's own, where the machine has it.

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Where Debian puts what a user's `PATH` does not have.
const SBIN: &str = "/usr/sbin";

/// How often a port is drawn: another process may take it between the draw and its use.
const DRAWS: usize = 5;

/// A running nginx; dropping it ends it.
#[derive(Debug)]
pub struct Nginx {
    prefix: TempDir,
    port: u16,
}

impl Nginx {
    /// Starts nginx with a copy of `config` as it is, and these files beside it, in each of which `[port]` is the port that
    /// it is to listen on. `None` where the machine has no nginx; panics where nginx does not like what it gets.
    pub fn start(config: &Path, files: &[(&str, &str)]) -> Option<Self> {
        let program = program("nginx")?;
        let mut said = String::new();
        for _ in 0..DRAWS {
            let prefix = open_directory();
            let port = free_port();
            fs::copy(config, prefix.path().join("nginx.conf")).expect("copy the configuration");
            for (name, content) in files {
                fs::write(prefix.path().join(name), content.replace("[port]", &port.to_string()))
                    .expect("write a file");
            }
            // It goes to the background once it listens: its exit is the event to wait for.
            let mut command = Command::new(&program);
            command.arg("-p").arg(prefix.path()).args(["-c", "nginx.conf", "-e", "error.log"]);
            let output = command.stdin(Stdio::null()).output().expect("run nginx");
            if output.status.success() {
                return Some(Self { prefix, port });
            }
            said = String::from_utf8_lossy(&output.stderr).into_owned();
            if !said.contains("Address already in use") {
                break;
            }
        }
        panic!("nginx does not start: {said}")
    }

    /// Where it listens on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A file of its own, such as a log; empty where there is none.
    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.prefix.path().join(name)).unwrap_or_default()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let file = self.prefix.path().join("nginx.pid");
        let pid = fs::read_to_string(&file).ok().and_then(|text| Pid::from_raw(text.trim().parse().ok()?));
        if pid.is_some_and(|pid| kill_process(pid, Signal::TERM).is_ok()) {
            // It is nobody's child. It removes the file as its last act.
            while file.exists() {
                std::thread::yield_now();
            }
        }
    }
}

/// Where the machine has this program.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    #[allow(clippy::disallowed_methods, reason = "the ban is for the product, where one module reads the environment")]
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain([PathBuf::from(SBIN)]);
    directories.map(|directory| directory.join(name)).find(|program| program.is_file())
}

/// A directory that the workers' user can pass.
pub(crate) fn open_directory() -> TempDir {
    let directory = tempfile::tempdir().expect("a directory for a server");
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).expect("open a directory to others");
    directory
}

/// A port of 127.0.0.1 that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("bind a port of 127.0.0.1");
    listener.local_addr().expect("ask a listener for its address").port()
}
