//! The files under `deploy/`, each with the program it is for, in front of several instances.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use syncwatch_backends::{Postgres, Redis};
use syncwatch_tests::{Client, Opcode, Raw, Response, Server, create_room, until};
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(15);

/// A reverse proxy and the instances behind it.
struct Site {
    servers: Vec<Server>,
    address: SocketAddr,
    proxy: Child,
    _files: TempDir,
    _redis: Redis,
    _postgres: Postgres,
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ended = self.proxy.kill();
        let _reaped = self.proxy.wait();
    }
}

impl Site {
    /// Starts instances, and in front of them what `proxy` makes of a directory of its own, the address to listen on and
    /// the addresses of the instances.
    async fn behind<const N: usize>(proxy: impl FnOnce(&Path, SocketAddr, [SocketAddr; N]) -> Command) -> Self {
        let (redis, postgres) = (Redis::start().unwrap(), Postgres::start().unwrap());
        let (redis_url, database_url) = (redis.url(), postgres.url());
        let env = [
            ("DATABASE_URL", database_url.as_str()),
            ("REDIS_URL", redis_url.as_str()),
            ("GUEST_ROOMS", "true"),
            ("TRUSTED_PROXIES", "127.0.0.1"),
        ];
        let mut servers = Vec::new();
        for _ in 0..N {
            servers.push(Server::with(&env).await);
        }
        let files = tempfile::tempdir().unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut command = proxy(files.path(), address, std::array::from_fn(|number| servers[number].addr()));
        let proxy = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let site = Self { servers, address, proxy, _files: files, _redis: redis, _postgres: postgres };
        until(SOON, "the proxy listens", || async { TcpStream::connect(address).is_ok() }).await;
        until(SOON, "the proxy finds an instance", || async { site.get("/health/live").await.status == 200 }).await;
        site
    }

    async fn get(&self, path: &str) -> Response {
        self.send(&format!("GET {path} HTTP/1.1\r\nhost: watch.example\r\nconnection: close\r\n\r\n")).await
    }

    async fn post(&self, path: &str, body: &str) -> Response {
        let head = format!("POST {path} HTTP/1.1\r\nhost: watch.example\r\nconnection: close\r\n");
        self.send(&format!("{head}content-type: text/plain\r\ncontent-length: {}\r\n\r\n{body}", body.len())).await
    }

    async fn send(&self, request: &str) -> Response {
        let mut raw = Raw::connect(self.address).await;
        raw.write(request.as_bytes()).await;
        raw.response().await
    }

    /// Everything that a proxy can get wrong.
    async fn serves(mut self) {
        self.has_the_page("/").await;
        self.has_the_page("/watch/").await;
        let room = create_room(&self.servers[0], "owner", json!({ "password": "open sesame" })).await;
        self.lets_people_in(&room).await;
        self.takes_polling("/").await;
        self.takes_polling("/watch/").await;
        for base in ["/", "/", "/", "/watch/"] {
            self.takes_upgrades(base).await;
        }
        let mut relayed = 0;
        for server in &self.servers {
            relayed += relayed_requests(server).await;
        }
        assert!(relayed > 0, "it sends requests to any instance");
        self.says_who_comes(&room).await;
        let body = "x".repeat(20_000);
        assert_eq!(self.post("/api/rooms", &body).await.status, 413, "the server's limit, not the proxy's");
        // Whichever it is, who comes from then on finds the other.
        self.servers[0].kill_hard().await;
        let address = self.address;
        for _ in 0..5 {
            until(SOON, "the other instance is found", || async {
                Client::attempt(address, &json!({})).await.is_some()
            })
            .await;
        }
    }

    async fn has_the_page(&self, base: &str) {
        for file in ["", "app.js", "client.js", "style.css", "r/ABCD2345", "r/app.js"] {
            let answer = self.get(&format!("{base}{file}")).await;
            assert_eq!(answer.status, 200, "{base}{file}");
        }
        let page = self.get(base).await;
        assert!(page.text().contains("src=\"app.js\""), "the page finds its files beside it");
    }

    async fn lets_people_in(&self, room: &Value) {
        let join = json!({ "roomCode": room["code"], "password": "open sesame", "guestName": "Zoë" });
        let mut one = Client::through(self.address, None).await;
        let mut two = Client::through(self.address, None).await;
        assert_eq!(one.ask("room:join", join.clone()).await["ok"], true);
        assert_eq!(two.ask("room:join", join).await["ok"], true);
        one.next("room:participant:joined").await;
    }

    /// A client that never upgrades.
    async fn takes_polling(&self, base: &str) {
        let open = self.get(&format!("{base}socket.io/?EIO=4&transport=polling")).await;
        let open: Value = serde_json::from_str(open.text().strip_prefix('0').unwrap()).unwrap();
        let path = format!("{base}socket.io/?EIO=4&transport=polling&sid={}", open["sid"].as_str().unwrap());
        assert_eq!(self.post(&path, "40/sync,").await.text(), "ok");
        assert!(self.get(&path).await.text().starts_with("40/sync,{"));
        assert_eq!(self.post(&path, "42/sync,1[\"time:ping\",{\"clientTime\":1}]").await.text(), "ok");
        let mut heard = String::new();
        while !heard.contains("43/sync,1[") {
            let answer = self.get(&path).await;
            assert_eq!(answer.status, 200, "{heard}");
            heard.push_str(&answer.text());
        }
        assert_eq!(self.post(&path, "1").await.text(), "ok");
    }

    /// A client that polls first, whose WebSocket becomes its transport.
    async fn takes_upgrades(&self, base: &str) {
        let open = self.get(&format!("{base}socket.io/?EIO=4&transport=polling")).await;
        let open: Value = serde_json::from_str(open.text().strip_prefix('0').unwrap()).unwrap();
        let sid = open["sid"].as_str().unwrap();
        let path = format!("{base}socket.io/?EIO=4&transport=polling&sid={sid}");
        assert_eq!(self.post(&path, "40/sync,").await.text(), "ok");
        assert!(self.get(&path).await.text().starts_with("40/sync,{"));
        let mut raw = Raw::connect(self.address).await;
        let websocket = format!("{base}socket.io/?EIO=4&transport=websocket&sid={sid}");
        assert_eq!(raw.upgrade(&websocket, "").await.status, 101);
        raw.text("2probe").await;
        assert_eq!(raw.text_frame().await.as_deref(), Some("3probe"));
        assert_eq!(self.get(&path).await.text(), "6");
        raw.text("5").await;
        for number in 1..=50 {
            raw.text(&format!("42/sync,{number}[\"time:ping\",{{\"clientTime\":1}}]")).await;
        }
        let mut acks = Vec::new();
        while acks.len() < 50 {
            let packet = raw.text_frame().await.expect("the session lives");
            if let Some(ack) = packet.strip_prefix("43/sync,") {
                acks.push(ack.split('[').next().unwrap().parse::<u32>().unwrap());
            }
        }
        assert_eq!(acks, (1..=50).collect::<Vec<_>>());
        raw.send(Opcode::Close, true, &[]).await;
        assert_eq!(raw.closed(SOON).await, None);
    }

    /// A client that claims another address with each try is locked out like any other.
    async fn says_who_comes(&self, room: &Value) {
        let wrong = json!({ "roomCode": room["code"], "password": "open barley", "guestName": "Kassim" });
        for number in 0..30 {
            let mut guesser = Client::through(self.address, Some(&format!("192.0.2.{number}"))).await;
            assert_eq!(guesser.ask("room:join", wrong.clone()).await["error"]["code"], "INVALID_PASSWORD");
        }
        let mut guesser = Client::through(self.address, Some("198.51.100.7")).await;
        assert_eq!(guesser.ask("room:join", wrong).await["error"]["code"], "RATE_LIMIT_EXCEEDED");
    }
}

/// How many requests an instance has passed on to others.
async fn relayed_requests(server: &Server) -> u64 {
    let metrics = Raw::get(server.addr(), "/metrics", "").await.text();
    let line = metrics.lines().find_map(|line| line.strip_prefix("syncwatch_relayed_requests_total "));
    line.unwrap().parse().unwrap()
}

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(name)
}

/// A file with other addresses in place of those it has.
fn with_addresses(name: &str, addresses: &[(&str, String)]) -> String {
    let mut text = fs::read_to_string(file(name)).unwrap();
    for (old, new) in addresses {
        assert!(text.contains(old), "{name} has {old}");
        text = text.replace(old, new);
    }
    text
}

#[tokio::test]
async fn nginx_passes_everything_on() {
    let nginx = |files: &Path, address: SocketAddr, [one, two, three]: [SocketAddr; 3]| {
        let site = with_addresses(
            "deploy/nginx.conf",
            &[
                ("listen 80;", format!("listen {address};")),
                ("127.0.0.1:4000", one.to_string()),
                ("127.0.0.1:4001", format!("{two}; server {three}")),
            ],
        );
        fs::write(files.join("site.conf"), site).unwrap();
        let dir = files.display();
        let places = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {dir}/{name};"))
            .concat();
        let main = format!(
            "daemon off; master_process off; pid {dir}/pid; error_log {dir}/error.log;\n\
             events {{}} http {{ access_log off; {places} include {dir}/site.conf; }}"
        );
        fs::write(files.join("nginx.conf"), main).unwrap();
        let mut command = Command::new("nginx");
        command.arg("-e").arg(files.join("error.log")).arg("-c").arg(files.join("nginx.conf")).arg("-p").arg(files);
        command
    };
    Site::behind(nginx).await.serves().await;
}

#[tokio::test]
async fn haproxy_passes_everything_on() {
    let haproxy = |_: &Path, address: SocketAddr, [one, two]: [SocketAddr; 2]| {
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(file("deploy/haproxy.cfg"));
        command.env("BIND", address.to_string()).env("ONE", one.to_string()).env("TWO", two.to_string());
        command
    };
    Site::behind(haproxy).await.serves().await;
}

#[tokio::test]
async fn caddy_passes_everything_on() {
    let caddy = |files: &Path, address: SocketAddr, [one, two]: [SocketAddr; 2]| {
        let site = with_addresses(
            "deploy/Caddyfile",
            &[("127.0.0.1:4000", one.to_string()), ("127.0.0.1:4001", two.to_string())],
        );
        let path = files.join("Caddyfile");
        fs::write(&path, format!("{{\n\tadmin off\n}}\n{site}")).unwrap();
        let mut command = Command::new("caddy");
        command.args(["run", "--adapter", "caddyfile", "--config"]).arg(path);
        // By the port alone: the tests ask for another host than the one they connect to.
        command.env("SITE", format!("http://:{}", address.port())).env("HOME", files).env("XDG_DATA_HOME", files);
        command
    };
    Site::behind(caddy).await.serves().await;
}

#[test]
fn compose_makes_sense_of_its_file_and_asks_for_secrets() {
    let compose = |secrets: &[(&str, &str)]| {
        let mut command = Command::new("docker-compose");
        command.arg("-f").arg(file("compose.yaml")).args(["--project-directory", "/", "config"]);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap());
        command.envs(secrets.iter().copied()).output().unwrap()
    };
    let secrets = [("JWT_SECRET", "one"), ("POSTGRES_PASSWORD", "two"), ("REDIS_PASSWORD", "three")];
    let made = compose(&secrets);
    let text = String::from_utf8(made.stdout).unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    assert_eq!(text.matches("DATABASE_URL: postgres://syncwatch:two@postgres/syncwatch").count(), 2);
    assert_eq!(text.matches("REDIS_URL: redis://:three@redis").count(), 2);
    for left_out in 0..secrets.len() {
        let others: Vec<_> = secrets.iter().copied().filter(|secret| *secret != secrets[left_out]).collect();
        let refused = compose(&others);
        assert!(!refused.status.success());
        assert!(String::from_utf8_lossy(&refused.stderr).contains(secrets[left_out].0));
    }
}
