//! Debian's squid with a configuration of the project's own, where the machine has it.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::nginx::{free_port, open_directory, program};

/// How often a port is drawn: another process may take it between the draw and its use.
const DRAWS: usize = 5;

/// A running squid; dropping it ends it.
#[derive(Debug)]
pub struct Squid {
    child: Child,
    directory: TempDir,
    port: u16,
}

impl Squid {
    /// Starts squid with `config`, in which `[port]` is the port that it is to listen on and `[directory]` where `files` and
    /// the logs are. `None` where the machine has no squid; panics where squid does not like what it gets.
    pub fn start(config: &Path, files: &[(&str, &str)]) -> Option<Self> {
        let program = program("squid")?;
        let config = fs::read_to_string(config).expect("read the configuration");
        let mut said = String::new();
        for _ in 0..DRAWS {
            let directory = open_directory();
            // Started by root, it writes its logs as another user.
            fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).expect("open a directory");
            let port = free_port();
            let place = directory.path().to_string_lossy();
            let config = config.replace("[port]", &port.to_string()).replace("[directory]", &place);
            for (name, content) in files.iter().copied().chain([("squid.conf", config.as_str())]) {
                fs::write(directory.path().join(name), content).expect("write a file");
            }
            let mut command = Command::new(&program);
            command.args(["-N", "-d", "1", "-f"]).arg(directory.path().join("squid.conf"));
            let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
            let mut squid = Self { child: child.expect("run squid"), directory, port };
            said.clear();
            if squid.listens(&mut said) {
                return Some(squid);
            }
            if !said.contains("Address already in use") {
                break;
            }
        }
        panic!("squid does not start: {said}")
    }

    /// Reads what it says until it says that it listens. From there on a thread reads, so that it never blocks on its stderr.
    fn listens(&mut self, said: &mut String) -> bool {
        let stderr = self.child.stderr.take().expect("stderr is a pipe");
        let mut lines = BufReader::new(stderr).lines().map_while(Result::ok);
        for line in lines.by_ref() {
            said.push_str(&line);
            said.push('\n');
            if line.contains("Accepting HTTP Socket connections") {
                std::thread::spawn(move || lines.for_each(drop));
                return true;
            }
        }
        false
    }

    /// What belongs into `HTTPS_PROXY` behind `http://`, and, if need be, `user:password@`.
    pub fn authority(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// A file of its own, such as a log; empty where there is none.
    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.directory.path().join(name)).unwrap_or_default()
    }
}

impl Drop for Squid {
    fn drop(&mut self) {
        // It has nothing that it would have to put in order.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
