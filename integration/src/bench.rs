//! The benchmark: the release binary beside its peers and beside the floor, on one server, in one run.
//!
//! `just bench` runs it. In each round every client downloads the same objects from the same server, one after the other,
//! to the same directory on a disk; the output is checked, removed and synced in between. Rounds begin with another client
//! each, so that none is always the first. A ratio is of two runs of one round, because a machine's mood lasts longer than
//! a round; its median, minimum and maximum are over the rounds.
//!
//! The program is all of its own parts: started with the right first argument it is the server, the floor, or the
//! parent of one run ([`crate::measure`]).

mod ballast;
mod cases;
mod clients;
mod data;
mod floor;
mod machine;
mod memory;
mod options;
mod plot;
mod report;
mod rounds;
mod server;

use std::{fs, process::ExitCode};

use crate::{
    initializer::{Profile, binary},
    measure::measure_if_asked,
};
use ballast::Ballast;
use options::Options;
use report::CaseReport;
use rounds::Failure;

/// The environment is read here alone.
#[allow(
    clippy::disallowed_methods,
    reason = "the ban is for the product, where one module reads the environment; the harness is not in it"
)]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The benchmark's `main`.
pub fn main() -> ExitCode {
    measure_if_asked();
    server::serve_if_asked();
    floor::floor_if_asked();
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(message) => {
            eprintln!("bench: {message}\n\n{}", options::USAGE);
            return ExitCode::from(64);
        }
    };
    if let Err(refusal) = machine::refuse_memory_file_system(&options.destination) {
        eprintln!("bench: {refusal}");
        return ExitCode::from(64);
    }
    let cache = data::cache();
    let data = data::data_file(&cache);
    let mut reports: Vec<CaseReport> = Vec::new();
    let mut skipped = String::new();
    let ballast = if options.ballast { Ballast::new(&options.destination) } else { Ok(Ballast::none()) };
    let mut ballast = match ballast {
        Ok(ballast) => ballast,
        Err(error) => {
            eprintln!("bench: {}: {error}", options.destination.display());
            return ExitCode::FAILURE;
        }
    };
    for case in options.cases() {
        match rounds::run(&case, &options, &cache, &data, &mut ballast) {
            // Times under valgrind are no news: its own file has the counts.
            Ok(_) if options.callgrind.is_some() => {}
            Ok(report) => {
                print!("{}", report.markdown());
                reports.push(report);
            }
            Err(Failure::Impossible(reason)) => skipped += &format!("### {}\n\nSkipped: {reason}.\n\n", case.title),
            Err(Failure::Broken(reason)) => {
                eprintln!("bench: {}: {reason}", case.name);
                return ExitCode::FAILURE;
            }
        }
    }
    if options.callgrind.is_some() {
        return ExitCode::SUCCESS;
    }
    let size = fs::metadata(binary(Profile::Release)).map(|metadata| metadata.len()).unwrap_or_default();
    let facts = machine::describe(&options.destination, size);
    print!("{skipped}{facts}");
    let sections: String = reports.iter().map(CaseReport::markdown).chain([skipped]).collect();
    for (path, text) in [(&options.out, format!("{facts}\n{sections}")), (&options.plot, plot::svg(&reports))] {
        if let Some(path) = path {
            fs::write(path, text).unwrap_or_else(|error| panic!("write {}: {error}", path.display()));
        }
    }
    ExitCode::SUCCESS
}
