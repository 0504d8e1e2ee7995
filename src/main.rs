//! The process edge: arguments, runtime, signals, exit code.

use std::{process::ExitCode, sync::Arc};

use clap::Parser as _;
use storage_initializer::{
    cli::Arguments,
    env::Environment,
    error::Error,
    logging::{self, Terminal},
    report::Report,
    run,
    settings::{Logging, Settings},
    termination,
    transfer::progress::Progress,
};

fn main() -> ExitCode {
    let arguments = Arguments::try_parse();
    if let Err(answer) = &arguments
        && !answer.use_stderr()
    {
        // Help and version are answers, on stdout and with success.
        let _ = answer.print();
        return ExitCode::SUCCESS;
    }
    let environment = Environment::of_process();
    let logging = Logging::read(&environment);
    let (terminal, complaint) = logging::start(&logging);
    termination::report_panics(&logging.termination_log);
    if let Some(complaint) = complaint {
        tracing::warn!("{complaint}");
    }
    let result = arguments
        .map_err(|usage| Error::Usage(usage.into()))
        .and_then(|arguments| download(&environment, &arguments, &terminal));
    let (message, code) = match &result {
        Ok(report) => (report.to_string(), 0),
        Err(error) => (error.one_line(), error.exit_code()),
    };
    termination::write(&logging.termination_log, &message);
    match result {
        Ok(_) => tracing::info!("model in place: {message}"),
        Err(_) => tracing::error!(exit_code = code, "{message}"),
    }
    ExitCode::from(code)
}

fn download(environment: &Environment, arguments: &Arguments, terminal: &Terminal) -> Result<Report, Error> {
    let settings = Settings::read(environment, &arguments.sources_and_destinations)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Error::Runtime)?;
    let progress = Arc::new(Progress::default());
    let result = runtime.block_on(async {
        tokio::select! {
            signal = termination::signal() => Err(termination::interrupted(signal, &progress)),
            result = run(&settings, terminal, Arc::clone(&progress)) => result,
        }
    });
    // A write that is under way is not worth waiting for: its file has no final name yet.
    runtime.shutdown_background();
    result
}
