//! The `syncwatch` program: reads the settings, then runs the server or makes a token.

use std::env;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use syncwatch::app::{self, StartError};
use syncwatch::cli::{self, Command};
use syncwatch::config::Config;
use syncwatch::telemetry;

fn main() -> ExitCode {
    match cli::parse(env::args_os(), env::vars_os(), Path::new(".env")) {
        Ok(Command::Serve(config)) => serve(*config),
        Ok(Command::Token(request)) => request.run(),
        Err(stop) => stop.report(),
    }
}

/// Runs the server to its end: status 0 after a signal to stop, 2 where it cannot start.
fn serve(config: Config) -> ExitCode {
    let repeats = telemetry::init(&config);
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("the system gives no threads: {error}")),
    };
    runtime.spawn(repeats.clone().report());
    let ended = runtime.block_on(app::run(config, stop_signal()));
    repeats.report_all();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(StartError::Settings(error)) => cli::Stop::Settings(error).report(),
        Err(error) => fail(&error.to_string()),
    }
}

fn fail(message: &str) -> ExitCode {
    // With standard error closed there is nobody to tell.
    let _closed = writeln!(io::stderr(), "syncwatch: {message}");
    ExitCode::from(2)
}

/// Ready at the first SIGTERM or SIGINT.
async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(mut terminate), Ok(mut interrupt)) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        }
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!(%error, "signals cannot be waited for: only a kill will stop this process");
            std::future::pending().await
        }
    }
}
