//! Two hard-coded servers that bound what any server can reach: `limit --kind raw|tungstenite --port PORT`.
//!
//! Both speak what the modes over WebSocket need, in the namespace `/bench`, and nothing else: no checks, no limits, no
//! timeouts of clients. `raw` is what system calls alone cost; `tungstenite` is what they cost through tokio and
//! tokio-tungstenite, with one task and one channel for each connection.

mod packet;
mod raw;
mod tungstenite;

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::ExitCode;

use clap::{Arg, Command, value_parser};

fn serve() -> io::Result<()> {
    let matches = Command::new("limit")
        .about("What bounds a Socket.IO server: one that is hard-coded for the benchmark")
        .args([
            Arg::new("kind").long("kind").value_name("KIND").required(true).value_parser(["raw", "tungstenite"]),
            Arg::new("port").long("port").value_name("PORT").default_value("3000").value_parser(value_parser!(u16)),
        ])
        .get_matches();
    let port = *matches.get_one::<u16>("port").expect("it has a default");
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    listener.set_nonblocking(true)?;
    writeln!(io::stdout(), "listening on {}", listener.local_addr()?)?;
    match matches.get_one::<String>("kind").map(String::as_str) {
        Some("raw") => raw::serve(listener),
        _ => tungstenite::serve(listener),
    }
}

fn main() -> ExitCode {
    serve().map_or_else(
        |error| {
            let _ = writeln!(io::stderr(), "limit: {error}"); // with standard error closed there is nobody to tell
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}
