//! The `syncwatch` program: reads the settings, then runs the server or makes a token.

use std::env;
use std::path::Path;
use std::process::ExitCode;

use syncwatch::cli::{self, Command};
use syncwatch::config::Config;
use syncwatch::telemetry;

fn main() -> ExitCode {
    match cli::parse(env::args_os(), env::vars_os(), Path::new(".env")) {
        Ok(Command::Serve(config)) => serve(&config),
        Ok(Command::Token(request)) => request.run(),
        Err(stop) => stop.report(),
    }
}

/// Runs the server to its end.
fn serve(config: &Config) -> ExitCode {
    telemetry::init(config);
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    // `app::run(config)` goes here.
    ExitCode::SUCCESS
}
