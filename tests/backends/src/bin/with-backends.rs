//! Runs a program with a private Redis and a private PostgreSQL, whose addresses it finds in `REDIS_URL` and `DATABASE_URL`.

use std::env;
use std::io;
use std::process::{Command, ExitCode};

use syncwatch_backends::{Postgres, Redis};

fn main() -> io::Result<ExitCode> {
    let mut words = env::args_os().skip(1);
    let program = words.next().ok_or_else(|| io::Error::other("a program to run is needed"))?;
    let (redis, postgres) = (Redis::start()?, Postgres::start()?);
    let mut command = Command::new(program);
    command.args(words).env("REDIS_URL", redis.url()).env("DATABASE_URL", postgres.url());
    let code = command.status()?.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(1)))
}
