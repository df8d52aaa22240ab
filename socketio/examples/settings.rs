//! A server whose settings come from the command line, for clients that need others than the defaults:
//! `cargo run -p socketio --example settings -- 3000 path=/ add_trailing_slash=false`.
//!
//! It sends back what comes with `echo`, and answers `measure` with how many bytes it was given.

use std::error::Error;

use socketio::engineio::Origins;
use socketio::server::Config;
use socketio::{Ack, Binary, Data, Io, Socket};
use tokio::net::TcpListener;

fn set(config: &mut Config, setting: &str) -> Result<(), Box<dyn Error>> {
    let (name, value) = setting.split_once('=').ok_or("a setting is name=value")?;
    let engine = &mut config.engine;
    match name {
        "path" => engine.path = value.to_owned(),
        "add_trailing_slash" => engine.add_trailing_slash = value.parse()?,
        "max_payload_bytes" => engine.max_payload_bytes = value.parse()?,
        "origins" => {
            engine.origins = Origins::parse(value).ok_or("origins are * or a list like https://example.org")?
        }
        _ => return Err(format!("there is no setting {name}").into()),
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let port: u16 = arguments.next().as_deref().unwrap_or("3000").parse()?;
    let mut config = Config::default();
    for setting in arguments {
        set(&mut config, &setting)?;
    }
    let io = Io::builder()
        .config(config)
        .namespace("/", |root| {
            // Errors mean that the client has left.
            root.on_ack("echo", async |_: Socket, what: Data, ack: Option<Ack>| {
                let _left = ack.map(|ack| ack.send(what));
            })
            .on_ack("measure", async |_: Socket, bytes: Binary, ack: Option<Ack>| {
                let _left = ack.map(|ack| ack.send((bytes.0.len(),)));
            });
        })
        .build()?;
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    io.serve(listener, async {
        // Without the signal the server runs until it is killed.
        let _stop = tokio::signal::ctrl_c().await;
    })
    .await;
    Ok(())
}
