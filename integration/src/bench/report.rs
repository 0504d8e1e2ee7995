//! The figures of a case as a Markdown table.

use std::{fmt::Write as _, time::Duration};

use super::{
    cases::{Case, Scale},
    clients::Client,
    server::Statistics,
};
use crate::measure::{Cost, Spread};

const MIB: f64 = (1 << 20) as f64;

/// One client in one round.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) client: Client,
    pub(super) cost: Cost,
    pub(super) statistics: Statistics,
    /// From the start of the process.
    pub(super) first_request: Option<Duration>,
}

/// A case with its runs.
#[derive(Clone, Debug)]
pub(super) struct CaseReport {
    pub(super) case: Case,
    /// In each round one run per client, in any order.
    pub(super) rounds: Vec<Vec<Run>>,
    /// Sentences below the table.
    pub(super) notes: Vec<String>,
}

impl CaseReport {
    pub(super) fn new(case: Case) -> Self {
        Self { case, rounds: Vec::new(), notes: Vec::new() }
    }

    /// The CPU time of a client, in the case's unit.
    pub(super) fn cpu(&self, client: Client) -> Spread {
        let (factor, _) = self.case.cpu_unit();
        self.spread(client, |run| run.cost.cpu.as_secs_f64() * factor)
    }

    /// The wall time of a client, in the case's unit.
    pub(super) fn wall(&self, client: Client) -> Spread {
        let (factor, _) = self.case.wall_unit();
        self.spread(client, |run| run.cost.wall.as_secs_f64() * factor)
    }

    /// Title, table, notes.
    pub(super) fn markdown(&self) -> String {
        let mut columns = vec!["client", self.case.cpu_unit().1, self.case.wall_unit().1];
        let is_start = self.case.scale == Scale::Milliseconds;
        if is_start {
            columns.push("exec to first request, ms");
        }
        columns.push("peak RSS, MiB");
        let is_compared = self.case.clients.contains(&Client::Ours) && self.case.clients.len() > 1;
        if is_compared {
            columns.extend(["ours / its CPU", "ours / its wall"]);
        }
        let rounds = if self.rounds.len() == 1 { "One round." } else { "rounds; median (minimum to maximum)." };
        let count = if self.rounds.len() == 1 { String::new() } else { format!("{} ", self.rounds.len()) };
        let mut text = format!("### {}\n\n{count}{rounds}\n\n", self.case.title);
        let _ = writeln!(text, "| {} |\n|{}", columns.join(" | "), " --- |".repeat(columns.len()));
        for client in self.case.clients.iter().copied() {
            let mut cells =
                vec![client.title().to_owned(), self.cpu(client).to_string(), self.wall(client).to_string()];
            if is_start {
                let milliseconds = |run: &Run| run.first_request.unwrap_or_default().as_secs_f64() * 1e3;
                cells.push(self.spread(client, milliseconds).to_string());
            }
            cells.push(self.memory(client));
            if is_compared && client == Client::Ours {
                cells.extend([String::new(), String::new()]);
            } else if is_compared {
                cells.push(self.ratio(client, |run| run.cost.cpu.as_secs_f64()).to_string());
                cells.push(self.ratio(client, |run| run.cost.wall.as_secs_f64()).to_string());
            }
            let _ = writeln!(text, "| {} |", cells.join(" | "));
        }
        for note in self.notes.iter().chain(&self.distance()).chain(&self.server()) {
            let _ = write!(text, "\n{note}\n");
        }
        text + "\n"
    }

    fn runs(&self, client: Client) -> impl Iterator<Item = &Run> {
        self.rounds.iter().flatten().filter(move |run| run.client == client)
    }

    fn spread(&self, client: Client, figure: impl Fn(&Run) -> f64) -> Spread {
        Spread::of(self.runs(client).map(figure).collect())
    }

    /// Pair by pair: the runs of one round belong together.
    fn ratio(&self, theirs: Client, figure: fn(&Run) -> f64) -> Spread {
        let pairs = self.runs(Client::Ours).zip(self.runs(theirs));
        Spread::of(pairs.map(|(ours, theirs)| figure(ours) / figure(theirs)).collect())
    }

    /// The largest process; of several processes also all in sum.
    fn memory(&self, client: Client) -> String {
        let largest = self.spread(client, |run| run.cost.peak_rss_bytes as f64 / MIB);
        let sums: Vec<f64> =
            self.runs(client).filter_map(|run| run.cost.peak_tree_bytes).map(|sum| sum as f64 / MIB).collect();
        let one = format!("{:.1} ({:.1} to {:.1})", largest.median, largest.min, largest.max);
        if sums.is_empty() {
            return one;
        }
        let sum = Spread::of(sums);
        format!("{one}; all processes {:.1} ({:.1} to {:.1})", sum.median, sum.min, sum.max)
    }

    /// What the server had to do meanwhile, on the same cores.
    fn server(&self) -> Option<String> {
        let first = *self.case.clients.first()?;
        let (factor, unit) = self.case.cpu_unit();
        let cpu = self.spread(first, |run| run.statistics.cpu.as_secs_f64() * factor);
        Some(format!(
            "The server, on the same cores and not in the table: {cpu} {unit} while it served {}.",
            first.title()
        ))
    }

    /// How much of what the distance allows each client took.
    fn distance(&self) -> Option<String> {
        let pace = self.case.pace?;
        let line = |client: &Client| {
            let rate = self.spread(*client, |run| self.case.bytes() as f64 / 1e6 / run.cost.wall.as_secs_f64());
            let bodies = self.spread(*client, |run| run.statistics.peak_bodies as f64);
            let share = self.spread(*client, |run| {
                let limit = run.statistics.peak_bodies as f64 * pace.bytes_per_second as f64;
                self.case.bytes() as f64 / run.cost.wall.as_secs_f64() / limit
            });
            format!(
                "- {}: {:.0} MB/s ({:.0} to {:.0}) with {:.0} answers at once at most, {share} of what so many give",
                client.title(),
                rate.median,
                rate.min,
                rate.max,
                bodies.median
            )
        };
        Some(self.case.clients.iter().map(line).collect::<Vec<_>>().join("\n"))
    }
}
