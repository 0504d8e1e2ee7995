//! The real `kserve-storage` and this program on the same server, in the same environment: the same trees, and the same
//! success or failure, but for the differences that [`differences`] names and docs/SEMANTICS.md explains.
//!
//! Cases are generated from a seed, so that a failure can be repeated. Where a deliberate difference applies to a case,
//! KServe gets the case without its cause (the sibling of the prefix removed, the number written as a string), and the
//! results have to agree again; or this program has to refuse, with the exit code that the difference names.
//!
//! It needs a Python with `kserve-storage` in it: `integration/differential.sh` sees to that and names it in
//! `STORAGE_INITIALIZER_KSERVE_PYTHON`. Without that the test says what it leaves out, and passes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(unreachable_pub, reason = "the modules of one test")]

mod case;
mod differences;
mod generate;
mod kserve;
mod store;

use std::collections::BTreeMap;
use std::io::Write as _;

use case::Case;
use differences::{Difference, Effect};
use generate::Generator;
use kserve::KServe;
use store::Stage;

/// How many cases are generated.
const CASES: usize = 390;

/// Any number; another one makes other cases. `STORAGE_INITIALIZER_DIFFERENTIAL_SEED` overrides it.
const SEED: u64 = 20_260_801;

#[allow(clippy::disallowed_methods, reason = "the ban is for the product, where one module reads the environment")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Past the capture of the test harness: this is for whoever reads the log of a run that passed.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

#[test]
fn kserve_and_this_program_agree_but_for_the_named_differences() {
    let Some(python) = variable("STORAGE_INITIALIZER_KSERVE_PYTHON") else {
        say(&format!(
            "differential: LEFT OUT {CASES} generated cases against kserve-storage: STORAGE_INITIALIZER_KSERVE_PYTHON names \
             no Python; integration/differential.sh makes one and runs this test with it"
        ));
        return;
    };
    let seed = variable("STORAGE_INITIALIZER_DIFFERENTIAL_SEED").map_or(SEED, |seed| seed.parse().unwrap());
    let mut kserve = KServe::start(&python);
    let stage = Stage::new();
    let mut generator = Generator::new(seed);
    let mut outcome = Tally::default();
    let archives = generate::archives();
    let cases = (0..CASES).map(|number| generator.case(number)).chain(
        archives
            .into_iter()
            .enumerate()
            .map(|(number, (name, archive))| generate::of_archive(CASES + number, name, archive)),
    );
    for case in cases {
        let number = case.number;
        if let Err(disagreement) = compare(&stage, &mut kserve, &case, &mut outcome) {
            outcome.disagreements.push(format!("case {number}: {disagreement}\n{case:#?}"));
        }
    }
    outcome.report(seed);
}

/// What the cases came to.
#[derive(Default)]
struct Tally {
    downloaded: usize,
    refused: usize,
    /// How many cases a difference applied to, and in how many of them KServe really does otherwise.
    differences: BTreeMap<Difference, (usize, usize)>,
    disagreements: Vec<String>,
}

fn compare(stage: &Stage, kserve: &mut KServe, case: &Case, tally: &mut Tally) -> Result<(), String> {
    let applying: Vec<Difference> = Difference::ALL.into_iter().filter(|difference| difference.applies(case)).collect();
    let ours = stage.run_ours(case, kserve);
    let as_it_is = stage.run_kserve(case, kserve);
    let differs = !ours.agrees_with(&as_it_is);
    for difference in &applying {
        let (applied, seen) = tally.differences.entry(*difference).or_default();
        *applied += 1;
        *seen += usize::from(differs && applying.len() == 1);
    }
    if ours.tree.is_some() {
        tally.downloaded += 1;
    } else {
        tally.refused += 1;
    }
    let refusals: Vec<i32> = applying.iter().filter_map(|difference| difference.refusal()).collect();
    if ours.code.is_some_and(|code| refusals.contains(&code)) {
        return Ok(());
    }
    let theirs = if applying.is_empty() {
        as_it_is
    } else {
        let neutral = applying.iter().fold(case.clone(), |case, difference| match difference.effect() {
            Effect::Neutralised(neutralise) => neutralise(case),
            Effect::Refused(_) => case,
        });
        stage.run_kserve(&neutral, kserve)
    };
    // Where a refusal is due, another of the case's pairs may be what failed, and then for both.
    if ours.agrees_with(&theirs) && (refusals.is_empty() || ours.tree.is_none()) {
        Ok(())
    } else {
        Err(format!("with {applying:?}\nours: {ours:?}\nKServe's: {theirs:?}"))
    }
}

impl Tally {
    fn report(&self, seed: u64) {
        say(&format!(
            "differential: seed {seed}: {} cases, {} downloaded, {} refused by this program; {} disagreements",
            self.downloaded + self.refused,
            self.downloaded,
            self.refused,
            self.disagreements.len()
        ));
        for difference in Difference::ALL {
            let (applied, seen) = self.differences.get(&difference).copied().unwrap_or_default();
            say(&format!("differential: {applied:4} cases, {seen:4} seen by themselves: {}", difference.title()));
        }
        assert!(self.disagreements.is_empty(), "{}", self.disagreements.join("\n\n"));
        // A difference that no case shows would be an excuse and not a difference. Other seeds may miss one.
        if seed != SEED {
            return;
        }
        let unseen: Vec<_> = Difference::ALL
            .into_iter()
            .filter(|difference| !matches!(self.differences.get(difference), Some((_, 1..))))
            .collect();
        assert!(unseen.is_empty(), "KServe was never seen to do otherwise: {unseen:?}");
    }
}

#[test]
fn every_difference_is_explained_in_the_documentation() {
    let semantics = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/SEMANTICS.md");
    let semantics = std::fs::read_to_string(semantics).unwrap();
    let section = semantics.split("## What KServe does otherwise").nth(1).unwrap_or_default();
    let section = section.split("\n## ").next().unwrap_or_default();
    let missing: Vec<_> =
        Difference::ALL.into_iter().filter(|difference| !section.contains(difference.title())).collect();
    assert!(missing.is_empty(), "not in docs/SEMANTICS.md: {missing:?}");
}
