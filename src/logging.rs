//! What a user sees while it runs: log lines on stderr, plain or JSON; on a terminal a progress bar,
//! elsewhere a heartbeat.
//!
//! Other crates are never logged: the AWS SDK and hyper print requests and answers with headers and
//! bodies, some of them in warnings, and a session token or a metadata service's keys are in there.
//! What their failures say is in this program's own errors.

use std::{
    io::{self, IsTerminal as _, Write},
    sync::Arc,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tracing::{Level, Metadata, level_filters::LevelFilter};
use tracing_subscriber::{
    Layer as _,
    filter::{Targets, filter_fn},
    fmt::MakeWriter,
    layer::SubscriberExt as _,
};

use crate::{
    settings::{Logging, Origin, Sourced},
    transfer::progress::{Progress, Snapshot},
    units::{ByteSize, Rate, TimeSpan},
};

/// How often the heartbeat speaks: often enough for whoever watches, seldom enough for a log.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// The targets of this crate.
const OWN_TARGET: &str = "storage_initializer";

/// What writes to stderr, and the bar that it writes around.
#[derive(Clone, Debug)]
pub struct Terminal {
    bar: ProgressBar,
    is_terminal: bool,
}

/// Starts logging as `logging` wants it.
///
/// Returns the terminal for [`Terminal::show`], and a complaint about a level that cannot be read,
/// for the log itself.
pub fn start(logging: &Logging) -> (Terminal, Option<String>) {
    let is_terminal = io::stderr().is_terminal() && !logging.json;
    let terminal = Terminal { bar: ProgressBar::hidden(), is_terminal };
    let (targets, complaint) = match read_level(&logging.level) {
        Ok(targets) => (targets, None),
        Err(complaint) => (Targets::new().with_default(LevelFilter::INFO), Some(complaint)),
    };
    let layer = tracing_subscriber::fmt::layer().with_writer(terminal.clone()).with_target(false);
    let layer =
        if logging.json { layer.json().flatten_event(true).boxed() } else { layer.with_ansi(is_terminal).boxed() };
    let filter = filter_fn(move |metadata| is_logged(metadata, &targets));
    let subscriber = tracing_subscriber::registry().with(layer.with_filter(filter));
    // A second call, as tests make it, keeps the first subscriber.
    let _ = tracing::subscriber::set_global_default(subscriber);
    (terminal, complaint)
}

/// `RUST_LOG` may hold targets, as everywhere in Rust; `LOG_LEVEL` is one level. There a typing error
/// would be a target that nobody has, and nothing at all would be logged.
fn read_level(level: &Sourced<String>) -> Result<Targets, String> {
    let (text, origin) = (level.value.trim(), &level.origin);
    if *origin == Origin::Environment("RUST_LOG") {
        return text.parse().map_err(|error| format!("{origin}: {error}; using info"));
    }
    let name = if text.eq_ignore_ascii_case("warning") { "warn" } else { text };
    let level: LevelFilter = name
        .parse()
        .map_err(|_| format!("{origin}: {text:?} is not error, warn, info, debug, trace or off; using info"))?;
    Ok(Targets::new().with_default(level))
}

/// The error is the last line, and what Kubernetes shows: no filter hides it.
fn is_logged(metadata: &Metadata<'_>, targets: &Targets) -> bool {
    let is_own = metadata.target().starts_with(OWN_TARGET);
    is_own && (*metadata.level() == Level::ERROR || targets.would_enable(metadata.target(), metadata.level()))
}

impl Terminal {
    /// Shows `progress` until the returned guard is dropped.
    pub fn show(&self, progress: Arc<Progress>) -> Shown {
        let terminal = self.clone();
        let task = if self.is_terminal {
            tokio::spawn(async move { terminal.draw(&progress).await })
        } else {
            tokio::spawn(async move { beat(&progress).await })
        };
        Shown { terminal: self.clone(), task }
    }

    async fn draw(&self, progress: &Progress) {
        let template = "{bar:30} {percent:>3}% {bytes}/{total_bytes} {bytes_per_sec} {eta}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style);
        }
        self.bar.set_draw_target(ProgressDrawTarget::stderr());
        let mut ticks = tokio::time::interval(Duration::from_millis(200));
        loop {
            ticks.tick().await;
            let now = progress.snapshot();
            self.bar.set_length(now.total_bytes);
            self.bar.set_position(now.bytes);
        }
    }
}

/// Progress is shown as long as this lives.
#[derive(Debug)]
pub struct Shown {
    terminal: Terminal,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.task.abort();
        self.terminal.bar.finish_and_clear();
    }
}

async fn beat(progress: &Progress) {
    let started = Instant::now();
    let first = progress.snapshot();
    let mut last = (started, first.bytes);
    let mut ticks = tokio::time::interval(HEARTBEAT);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let now = progress.snapshot();
        let rate = Rate::over(now.bytes.saturating_sub(last.1), last.0.elapsed());
        last = (Instant::now(), now.bytes);
        tracing::info!(
            percent = now.percent(),
            done = %ByteSize(now.bytes),
            total = %ByteSize(now.total_bytes),
            files = now.files,
            rate = %rate,
            left = %time_left(&first, &now, started.elapsed()),
            "downloading"
        );
    }
}

/// By the rate since the start, which jumps less than the last few seconds'.
fn time_left(first: &Snapshot, now: &Snapshot, elapsed: Duration) -> String {
    let bytes = now.bytes.saturating_sub(first.bytes);
    if bytes == 0 {
        return "unknown".to_owned();
    }
    let left = now.total_bytes.saturating_sub(now.bytes) as f64 / bytes as f64;
    TimeSpan(elapsed.mul_f64(left)).to_string()
}

/// One log line; the bar makes room for it.
#[derive(Debug)]
pub struct Line(ProgressBar);

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.suspend(|| io::stderr().write_all(line))?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

impl<'a> MakeWriter<'a> for Terminal {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line(self.bar.clone())
    }
}
