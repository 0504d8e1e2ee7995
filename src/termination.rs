//! How the process ends where Kubernetes looks: signals, panics, the termination message.

use std::{path::Path, process};

use tokio::signal::unix::{SignalKind, signal as listen};

use crate::{error::Error, transfer::progress::Progress, units::ByteSize};

/// What Kubernetes keeps of a termination message.
pub const MAX_MESSAGE_BYTES: usize = 4096;

/// The exit code of a bug: `EX_SOFTWARE`.
const BUG_EXIT_CODE: i32 = 70;

/// A signal that ends the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Kubernetes deletes the pod.
    Term,
    /// Somebody pressed Ctrl-C.
    Interrupt,
}

/// Resolves when the process is asked to end. As the first process of a container it would not be
/// ended by a signal that it does not handle.
pub async fn signal() -> Signal {
    let (Ok(mut term), Ok(mut interrupt)) = (listen(SignalKind::terminate()), listen(SignalKind::interrupt())) else {
        // Without handlers the system's defaults apply.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => Signal::Term,
        _ = interrupt.recv() => Signal::Interrupt,
    }
}

/// The error of a run that a signal ended.
pub fn interrupted(signal: Signal, progress: &Progress) -> Error {
    let (signal, number) = match signal {
        Signal::Term => ("SIGTERM", 15),
        Signal::Interrupt => ("SIGINT", 2),
    };
    let now = progress.snapshot();
    Error::Interrupted { signal, number, done: ByteSize(now.bytes), total: ByteSize(now.total_bytes) }
}

/// Makes a panic one readable line and the exit code of a bug.
pub fn report_panics(termination_log: &Path) {
    let termination_log = termination_log.to_owned();
    std::panic::set_hook(Box::new(move |panic| {
        let message = format!(
            "this is a bug in storage-initializer {}; please report it: {}",
            env!("CARGO_PKG_VERSION"),
            panic.to_string().replace(['\r', '\n'], " ")
        );
        write(&termination_log, &message);
        tracing::error!(exit_code = BUG_EXIT_CODE, "{message}");
        process::exit(BUG_EXIT_CODE);
    }));
}

/// Writes the termination message where Kubernetes has made a place for it. The file is never
/// created: outside a pod there is none.
pub fn write(termination_log: &Path, message: &str) {
    let file = std::fs::File::options().write(true).truncate(true).open(termination_log);
    if let Ok(mut file) = file {
        // The log has the same text; a message that cannot be written is not worth another.
        let _ = std::io::Write::write_all(&mut file, truncated(message).as_bytes());
    }
}

/// The beginning says what failed and the end what to change, so the middle is what goes.
fn truncated(message: &str) -> String {
    const GAP: &str = " [...] ";
    if message.len() <= MAX_MESSAGE_BYTES {
        return message.to_owned();
    }
    let half = (MAX_MESSAGE_BYTES - GAP.len()) / 2;
    let head = message.floor_char_boundary(half);
    let tail = message.ceil_char_boundary(message.len() - half);
    format!("{}{GAP}{}", &message[..head], &message[tail..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_keeps_its_beginning_and_its_end() {
        let long = format!("begin{}end", "ü".repeat(5000));
        let short = truncated(&long);
        assert!(short.len() <= MAX_MESSAGE_BYTES);
        assert!(short.starts_with("begin") && short.ends_with("end"));
        assert_eq!(truncated("short"), "short");
    }

    #[test]
    fn the_message_goes_only_where_kubernetes_has_made_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("termination-log");
        write(&file, "lost");
        assert!(!file.exists());
        std::fs::write(&file, "something longer from before").unwrap();
        write(&file, "done");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "done");
    }
}
