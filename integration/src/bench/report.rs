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

    /// The CPU seconds of a client, on the case's scale.
    pub(super) fn cpu(&self, client: Client) -> Spread {
        let divisor = self.case.cpu_divisor();
        self.spread(client, |run| run.cost.cpu.as_secs_f64() / divisor)
    }

    /// The wall time of a client, in seconds.
    pub(super) fn wall(&self, client: Client) -> Spread {
        self.spread(client, |run| run.cost.wall.as_secs_f64())
    }

    /// What the CPU seconds are called.
    pub(super) fn cpu_title(&self) -> &'static str {
        match self.case.scale {
            Scale::PerGib => "CPU-s per GiB",
            Scale::Total => "CPU-s",
        }
    }

    /// Title, table, notes.
    pub(super) fn markdown(&self) -> String {
        let ours = self.case.clients.contains(&Client::Ours).then_some(Client::Ours);
        let is_start = self.case.name == "start";
        let first = if is_start { " exec to first request, ms |" } else { "" };
        let mut text = format!(
            "### {}\n\n{} rounds; median (minimum to maximum).\n\n\
             | client | {} | wall, s |{first} peak RSS, MiB | ours / its CPU-s | ours / its wall |\n| --- | --- | --- |{} --- | --- | --- |\n",
            self.case.title,
            self.rounds.len(),
            self.cpu_title(),
            if is_start { " --- |" } else { "" }
        );
        for client in &self.case.clients {
            let ratio = |figure: fn(&Run) -> f64| match ours {
                Some(ours) if ours != *client => self.ratio(ours, *client, figure).to_string(),
                _ => String::new(),
            };
            let first = if is_start {
                let ms = |run: &Run| run.first_request.unwrap_or_default().as_secs_f64() * 1e3;
                format!(" {} |", self.spread(*client, ms))
            } else {
                String::new()
            };
            let _ = writeln!(
                text,
                "| {} | {} | {} |{first} {} | {} | {} |",
                client.title(),
                self.cpu(*client),
                self.wall(*client),
                self.memory(*client),
                ratio(|run| run.cost.cpu.as_secs_f64()),
                ratio(|run| run.cost.wall.as_secs_f64()),
            );
        }
        for note in self.notes.iter().cloned().chain(self.distance()) {
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
    fn ratio(&self, ours: Client, theirs: Client, figure: fn(&Run) -> f64) -> Spread {
        Spread::of(self.runs(ours).zip(self.runs(theirs)).map(|(ours, theirs)| figure(ours) / figure(theirs)).collect())
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

    /// How much of what the distance allows each client took.
    fn distance(&self) -> Vec<String> {
        let Some(pace) = self.case.pace else { return Vec::new() };
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
        vec![self.case.clients.iter().map(line).collect::<Vec<_>>().join("\n")]
    }
}
