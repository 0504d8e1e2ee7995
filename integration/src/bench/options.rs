//! The command line.

use std::path::PathBuf;

use super::{cases::Case, clients::Client};

/// What `--help` and a mistake show.
pub(super) const USAGE: &str = "\
usage: bench [OPTIONS]
  --case NAME[,NAME]      only these: tls-4x512 plain-4x512 tls-1x4096 tls-4x1024 plain-1x4096 tls-5000x16k
                          tls-500x4m distant distant-4x1024 memory-64m start, and for --callgrind tls-2x64 plain-2x64
                          tls-500x16k
  --clients NAME[,NAME]   only these: ours limited s5cmd kserve awscli curl floor
  --rounds N              how often (default: 5, start 21)
  --destination DIR       where to download to: on a disk (default: .)
  --out FILE              write the report there, as Markdown
  --plot FILE             write the plot there, as SVG
  --ballast               hold the machine's free memory between the runs, and give each run what it needs of it: for
                          virtual machines whose host takes free memory back
  --callgrind FILE        run our binary under valgrind, once, and leave the profile there
environment: STORAGE_INITIALIZER_BIN BENCH_S5CMD BENCH_KSERVE_PYTHON BENCH_AWS BENCH_CURL replace a program;
             XDG_CACHE_HOME is where the data and the peers are kept";

/// What to run.
#[derive(Debug)]
pub(super) struct Options {
    cases: Vec<String>,
    clients: Option<Vec<Client>>,
    rounds: Option<usize>,
    pub(super) destination: PathBuf,
    pub(super) out: Option<PathBuf>,
    pub(super) plot: Option<PathBuf>,
    pub(super) callgrind: Option<PathBuf>,
    pub(super) ballast: bool,
}

impl Options {
    /// Reads the arguments.
    pub(super) fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            cases: Vec::new(),
            clients: None,
            rounds: None,
            destination: ".".into(),
            out: None,
            plot: None,
            callgrind: None,
            ballast: false,
        };
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
            match argument.as_str() {
                "--case" => options.cases.extend(value()?.split(',').map(str::to_owned)),
                "--clients" => {
                    let named = value()?;
                    let known = |name| Client::of(name).ok_or(format!("{name} is no client"));
                    options.clients = Some(named.split(',').map(known).collect::<Result<_, _>>()?);
                }
                "--rounds" => {
                    let rounds = value()?.parse().ok().filter(|rounds| *rounds > 0);
                    options.rounds = Some(rounds.ok_or("--rounds needs a number, 1 at least")?);
                }
                "--ballast" => options.ballast = true,
                "--destination" => options.destination = value()?.into(),
                "--out" => options.out = Some(value()?.into()),
                "--plot" => options.plot = Some(value()?.into()),
                "--callgrind" => options.callgrind = Some(value()?.into()),
                _ => return Err(format!("{argument} is no option")),
            }
        }
        let known = Case::all();
        match options.cases.iter().find(|name| known.iter().all(|case| case.name != **name)) {
            Some(unknown) => Err(format!("{unknown} is no case")),
            None => Ok(options),
        }
    }

    /// The cases to run, each with its clients and rounds.
    pub(super) fn cases(&self) -> Vec<Case> {
        let mut cases = Case::all();
        match self.cases.as_slice() {
            [] => cases.retain(|case| case.standard),
            named => cases.retain(|case| named.iter().any(|name| name == case.name)),
        }
        for case in &mut cases {
            case.rounds = if self.callgrind.is_some() { 1 } else { self.rounds.unwrap_or(case.rounds) };
            if self.callgrind.is_some() {
                case.clients = vec![Client::Ours];
            } else if let Some(clients) = self.clients.as_ref().filter(|_| !case.clients.contains(&Client::Limited)) {
                case.clients = clients.clone();
            }
        }
        cases
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, String> {
        Options::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn a_case_can_be_chosen_with_its_clients_and_rounds() {
        let cases = parse("--case tls-4x512 --clients ours,floor --rounds 3").unwrap().cases();
        assert_eq!(cases.len(), 1);
        assert_eq!(cases[0].clients, [Client::Ours, Client::Floor]);
        assert_eq!(cases[0].rounds, 3);
    }

    #[test]
    fn what_is_unknown_is_named() {
        assert_eq!(parse("--case nothing").unwrap_err(), "nothing is no case");
        assert_eq!(parse("--clients ours,nobody").unwrap_err(), "nobody is no client");
        assert_eq!(parse("--rounds").unwrap_err(), "--rounds needs a value");
        assert_eq!(parse("--fast").unwrap_err(), "--fast is no option");
    }
}
