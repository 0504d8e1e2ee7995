//! The process edge: arguments, runtime, signals, exit code.

use std::{process::ExitCode, sync::Arc};

use clap::Parser as _;
use storage_initializer::{
    check,
    cli::{Arguments, Command, Output, Pairs},
    env::Environment,
    error::Error,
    logging::{self, Terminal},
    manifest_commands,
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
    let ended = arguments.map_err(|usage| Error::Usage(usage.into())).and_then(|arguments| match &arguments.command {
        None => download(&environment, &arguments, &terminal).map(Ended::Download),
        Some(Command::Check { output, config, strict, .. }) if !config.is_empty() => {
            manifest_commands::check(config, *strict, *output).map(Ended::Told)
        }
        Some(Command::Check { output, pairs, .. }) => check(&environment, pairs, *output).map(Ended::Told),
        Some(Command::Migrate(arguments)) => manifest_commands::migrate(arguments).map(Ended::Told),
    });
    match ended {
        Ok(Ended::Told(code)) => ExitCode::from(code),
        Ok(Ended::Download(report)) => {
            termination::write(&logging.termination_log, &report.within(termination::MAX_MESSAGE_BYTES));
            tracing::info!("model in place: {report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            let (message, code) = (error.one_line(), error.exit_code());
            termination::write(&logging.termination_log, &message);
            tracing::error!(exit_code = code, "{message}");
            ExitCode::from(code)
        }
    }
}

enum Ended {
    Download(Report),
    /// With this exit code; what there is to tell is on stdout.
    Told(u8),
}

fn download(environment: &Environment, arguments: &Arguments, terminal: &Terminal) -> Result<Report, Error> {
    let settings = Settings::read(environment, &arguments.pairs.sources_and_destinations)?;
    let progress = Arc::new(Progress::default());
    let work = run(&settings, terminal, Arc::clone(&progress));
    let report = until_signalled(&progress, work)??;
    match &arguments.report {
        Some(path) => Ok(report.write(path).map(|()| report)?),
        None => Ok(report),
    }
}

fn check(environment: &Environment, pairs: &Pairs, output: Output) -> Result<u8, Error> {
    let progress = Progress::default();
    let check = until_signalled(&progress, check::check(environment, &pairs.sources_and_destinations))?;
    match output {
        Output::Text => println!("{check}"),
        Output::Json => println!("{}", check.to_json()),
    }
    Ok(check.exit_code())
}

/// Runs `work` to its end, or to SIGTERM's.
fn until_signalled<T>(progress: &Progress, work: impl Future<Output = T>) -> Result<T, Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Error::Runtime)?;
    let result = runtime.block_on(async {
        tokio::select! {
            // The handlers first: as the first process of a container it could not be ended without them.
            biased;
            signal = termination::signal() => Err(termination::interrupted(signal, progress)),
            output = work => Ok(output),
        }
    });
    // Nothing that is under way is worth waiting for: its file has no final name yet. The process ends with it.
    std::mem::forget(runtime);
    result
}
