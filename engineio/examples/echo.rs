//! Sends every message back: `cargo run --example echo -- --port 3000`.
#![allow(clippy::print_stdout)]

use std::error::Error;

use engineio::server::{Application, Body, Handler, Handshake, Limits, Link, Socket, serve};
use engineio::{Config, Frame, Message, Server};
use tokio::net::TcpListener;

struct Echo;

impl Application for Echo {
    type Handler = Self;

    fn open(&self, _: &Handshake<'_>, _: Socket<()>) -> Self {
        Self
    }
}

impl Handler for Echo {
    type Mail = ();

    fn on_message(&mut self, message: Message, link: &mut Link<'_>) {
        // Nothing is read from a client that takes too little of what it is sent, so an echo always has room.
        if link.send(Frame::message(&message)).is_err() {
            link.close();
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip_while(|argument| argument != "--port");
    let port: u16 = arguments.nth(1).as_deref().unwrap_or("3000").parse()?;

    let server = Server::new(Config::default(), Echo)?;
    let service = {
        let server = server.clone();
        move |request: http::Request<hyper::body::Incoming>, peer| {
            let server = server.clone();
            async move {
                if server.owns(request.uri().path()) {
                    return server.handle(request, peer).await;
                }
                let mut response = http::Response::new(Body::from("nothing here\n"));
                *response.status_mut() = http::StatusCode::NOT_FOUND;
                Ok(response)
            }
        }
    };
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("listening on http://{}{}/", listener.local_addr()?, server.config().path);
    serve(listener, Limits::default(), service, async {
        // Where no signal can be waited for, this stops at once.
        let _signal = tokio::signal::ctrl_c().await;
        server.close().await;
    })
    .await;
    Ok(())
}
