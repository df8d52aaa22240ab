//! The servers that commands and subscriptions go to: one, or the nodes of a Redis Cluster.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, PushInfo, RedisError, Value, cmd, pipe};
use tokio::sync::{Notify, watch};
use tokio::time::{self, Instant};

use super::link::{Access, Link, Purpose, Renewal, send};
use super::listener::{Listener, PLAIN, SHARDED, Words};
use super::outbox::Outbox;
use super::slots::{Slots, read_address, slot_of};
use super::task::Task;
use super::unavailable::{Cause, Unavailable};
use crate::config::{RedisServer, RedisSettings};

/// The servers, and the connections to them.
#[derive(Debug)]
pub(super) struct Nodes {
    shared: Arc<Shared>,
    _surveyor: Option<Task>,
}

#[derive(Debug)]
struct Shared {
    /// The servers named in the settings.
    named: Vec<RedisServer>,
    is_cluster: bool,
    access: Access,
    outbox: Arc<Outbox>,
    links: Mutex<HashMap<RedisServer, Arc<Link>>>,
    listeners: Mutex<HashMap<RedisServer, Arc<Listener>>>,
    /// What is known of a cluster; nothing before it has been looked at.
    survey: watch::Sender<Option<Result<Slots, Unavailable>>>,
    /// Told when what is known does not seem right.
    doubt: Arc<Notify>,
}

/// A connection for commands.
#[derive(Debug)]
struct Commands;

impl Purpose for Commands {
    async fn prepare(&self, _: &mut MultiplexedConnection) -> Result<(), Unavailable> {
        Ok(())
    }

    fn pushed(&self, _: PushInfo, _: &Renewal) {}
}

impl Nodes {
    pub(super) fn new(settings: &RedisSettings, database: u16, outbox: Outbox) -> Self {
        let is_cluster = settings.is_cluster();
        let shared = Arc::new(Shared {
            named: settings.servers.clone(),
            is_cluster,
            access: Access::new(settings, if is_cluster { 0 } else { database }),
            outbox: Arc::new(outbox),
            links: Mutex::default(),
            listeners: Mutex::default(),
            survey: watch::Sender::new(None),
            doubt: Arc::default(),
        });
        for server in &shared.named {
            shared.link(server);
        }
        let surveyor = is_cluster.then(|| Task::spawn(survey(Arc::clone(&shared))));
        Self { shared, _surveyor: surveyor }
    }

    pub(super) fn is_cluster(&self) -> bool {
        self.shared.is_cluster
    }

    /// The commands for channels here.
    pub(super) fn words(&self) -> Words {
        if self.shared.is_cluster { SHARDED } else { PLAIN }
    }

    /// Sends a command to whoever has its key, and waits for the answer.
    pub(super) async fn call(&self, command: &Cmd, key: Option<&[u8]>, until: Instant) -> Result<Value, Unavailable> {
        let mut server = self.shared.owner(key, until).await?;
        let mut is_asking = false;
        for _ in 0..=REDIRECTIONS {
            let link = self.shared.link(&server);
            let connected = within(until, Cause::Down, link.connection()).await;
            let mut connection = connected.inspect_err(|_| self.shared.doubt.notify_one())?;
            let answer = async {
                if is_asking {
                    send_asking(&mut connection, command).await
                } else {
                    send(&mut connection, command).await
                }
            };
            let error = match time::timeout_at(until, answer).await {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(error)) => error,
                Err(_) => return Err(Unavailable::new(Cause::Unanswered, "not in time")),
            };
            is_asking = false;
            match error.code() {
                Some("MOVED") if self.shared.is_cluster => {
                    self.shared.doubt.notify_one();
                    server = redirected(&error, &server)?;
                }
                Some("ASK") if self.shared.is_cluster => {
                    is_asking = true;
                    server = redirected(&error, &server)?;
                }
                Some("TRYAGAIN") => time::sleep(A_MOMENT).await,
                // A server that has become a replica keeps its connections, while its name leads elsewhere.
                Some("READONLY") => {
                    link.renewal().ask();
                    self.shared.doubt.notify_one();
                    return Err(error.into());
                }
                Some(_) | None => return Err(error.into()),
            }
        }
        Err(Unavailable::new(Cause::ClusterDown, "redirected too often"))
    }

    /// Begins to listen to a channel.
    pub(super) async fn follow(&self, channel: &str, until: Instant) -> Result<(), Unavailable> {
        loop {
            let server = self.shared.owner(Some(channel.as_bytes()), until).await?;
            let listener = self.shared.listener(&server);
            match within(until, Cause::Unanswered, listener.follow(channel)).await {
                Err(misdirected) if misdirected.is_misdirected() && Instant::now() + A_MOMENT < until => {
                    self.shared.doubt.notify_one();
                    time::sleep(A_MOMENT).await;
                }
                followed => return followed,
            }
        }
    }

    /// Listens to a channel no more.
    pub(super) async fn forget(&self, channel: &str, until: Instant) -> Result<(), Unavailable> {
        let listeners: Vec<_> = lock(&self.shared.listeners).values().cloned().collect();
        for listener in listeners {
            if within(until, Cause::Unanswered, listener.forget(channel)).await? {
                break;
            }
        }
        Ok(())
    }

    /// The servers that have keys.
    pub(super) async fn servers(&self, until: Instant) -> Result<Vec<RedisServer>, Unavailable> {
        if self.shared.is_cluster {
            Ok(self.shared.slots(until).await?.servers())
        } else {
            Ok(self.shared.named.clone())
        }
    }

    /// Sends a command to one server, whatever its key.
    pub(super) async fn ask(&self, server: &RedisServer, command: &Cmd, until: Instant) -> Result<Value, Unavailable> {
        let mut connection = within(until, Cause::Down, self.shared.link(server).connection()).await?;
        within(until, Cause::Unanswered, async { Ok(send(&mut connection, command).await?) }).await
    }

    /// Whether a server has a key, as far as is known.
    pub(super) fn has(&self, server: &RedisServer, key: &str) -> bool {
        match &*self.shared.survey.borrow() {
            Some(Ok(slots)) => slots.owner(slot_of(key.as_bytes())) == Some(server),
            Some(Err(_)) | None => true,
        }
    }
}

impl Shared {
    fn link(&self, server: &RedisServer) -> Arc<Link> {
        let make = || Arc::new(Link::new(server.clone(), &self.access, Arc::new(Commands)));
        Arc::clone(get_or_insert(&mut lock(&self.links), server, make))
    }

    fn listener(&self, server: &RedisServer) -> Arc<Listener> {
        let words = if self.is_cluster { SHARDED } else { PLAIN };
        let make = || {
            Arc::new(Listener::new(
                server.clone(),
                &self.access,
                Arc::clone(&self.outbox),
                words,
                Arc::clone(&self.doubt),
            ))
        };
        Arc::clone(get_or_insert(&mut lock(&self.listeners), server, make))
    }

    /// The server that has a key; any, where there is none.
    async fn owner(&self, key: Option<&[u8]>, until: Instant) -> Result<RedisServer, Unavailable> {
        if !self.is_cluster {
            return self.named.first().cloned().ok_or_else(|| Unavailable::new(Cause::Down, "no server is named"));
        }
        let slots = self.slots(until).await?;
        let owner = match key {
            Some(key) => slots.owner(slot_of(key)).cloned(),
            None => {
                let servers = slots.servers();
                servers.iter().find(|server| self.link(server).is_up()).or(servers.first()).cloned()
            }
        };
        owner.ok_or_else(|| {
            self.doubt.notify_one();
            Unavailable::new(Cause::ClusterDown, "nobody serves its slot")
        })
    }

    async fn slots(&self, until: Instant) -> Result<Slots, Unavailable> {
        let mut survey = self.survey.subscribe();
        let known = within(until, Cause::Down, async {
            let known = survey.wait_for(Option::is_some).await;
            Ok(known.ok().and_then(|known| known.clone()))
        });
        known.await?.unwrap_or_else(|| Err(Unavailable::new(Cause::Down, "the server is stopping")))
    }

    /// Asks the nodes, those first that can be asked at once, which of them serves what.
    async fn look(&self) -> Result<Slots, Unavailable> {
        let mut links: Vec<_> =
            lock(&self.links).iter().map(|(server, link)| (server.clone(), Arc::clone(link))).collect();
        links.sort_by_key(|(_, link)| !link.is_up());
        let mut last = Unavailable::new(Cause::Down, "no node is known");
        for (server, link) in links {
            let asking = async {
                let answer = send(&mut link.connection().await?, cmd("CLUSTER").arg("SLOTS")).await?;
                Slots::read(&answer, &server).ok_or_else(|| Unavailable::new(Cause::Refused, "unreadable slots"))
            };
            match within(Instant::now() + LOOK_WITHIN, Cause::Down, asking).await {
                Ok(slots) => return Ok(slots),
                Err(cause) => last = cause,
            }
        }
        Err(last)
    }

    /// Brings connections and subscriptions to where the slots are.
    fn rearrange(&self, slots: &Slots) {
        let servers = slots.servers();
        for server in &servers {
            self.link(server);
        }
        lock(&self.links).retain(|server, _| servers.contains(server) || self.named.contains(server));
        let listeners: Vec<_> =
            lock(&self.listeners).iter().map(|(server, it)| (server.clone(), Arc::clone(it))).collect();
        let mut moved: HashMap<&RedisServer, Vec<String>> = HashMap::new();
        for (server, listener) in &listeners {
            let owner = |channel: &str| slots.owner(slot_of(channel.as_bytes()));
            for channel in listener.give_up(|channel| owner(channel).is_some_and(|owner| owner != server)) {
                if let Some(owner) = owner(&channel) {
                    moved.entry(owner).or_default().push(channel);
                }
            }
        }
        for (server, channels) in moved {
            self.listener(server).take_over(channels);
        }
        lock(&self.listeners).retain(|server, listener| servers.contains(server) || !listener.is_idle());
    }
}

/// Keeps what is known of a cluster up to date.
async fn survey(shared: Arc<Shared>) {
    loop {
        let found = shared.look().await;
        let found_nothing = found.is_err();
        shared.survey.send_if_modified(|known| {
            // What was known before may still hold.
            let is_news = known.as_ref() != Some(&found) && (found.is_ok() || !matches!(known, Some(Ok(_))));
            if is_news {
                *known = Some(found.clone());
            }
            is_news
        });
        if let Ok(slots) = &found {
            shared.rearrange(slots);
        }
        if !found_nothing {
            let _doubted = time::timeout(LOOK_EVERY, shared.doubt.notified()).await;
        }
        time::sleep(LOOK_PAUSE).await;
    }
}

async fn send_asking(connection: &mut MultiplexedConnection, command: &Cmd) -> Result<Value, RedisError> {
    let mut both = pipe();
    both.cmd("ASKING").add_command(command.clone());
    let answer = connection.send_packed_commands(&both, 1, 1).await?.pop();
    answer.unwrap_or(Value::Nil).extract_error()
}

fn redirected(error: &RedisError, asked: &RedisServer) -> Result<RedisServer, Unavailable> {
    let address = error.redirect_node().and_then(|(address, _)| read_address(address, asked));
    address.ok_or_else(|| Unavailable::new(Cause::ClusterDown, "an unreadable redirection"))
}

async fn within<T>(
    until: Instant,
    cause: Cause,
    work: impl Future<Output = Result<T, Unavailable>>,
) -> Result<T, Unavailable> {
    time::timeout_at(until, work).await.unwrap_or_else(|_| Err(Unavailable::new(cause, "not in time")))
}

fn get_or_insert<'a, K: Hash + Eq + Clone, V>(map: &'a mut HashMap<K, V>, key: &K, make: impl FnOnce() -> V) -> &'a V {
    if !map.contains_key(key) {
        map.insert(key.clone(), make());
    }
    &map[key]
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How often a command may be sent on to another node.
const REDIRECTIONS: usize = 5;

/// How long to wait while slots are on their way from one node to another.
const A_MOMENT: Duration = Duration::from_millis(50);

/// How often the nodes are asked which of them serves what, unless there is a reason to: at most once in a pause.
const LOOK_EVERY: Duration = Duration::from_secs(10);
const LOOK_PAUSE: Duration = Duration::from_millis(200);

/// How long one node may take to say it.
const LOOK_WITHIN: Duration = Duration::from_secs(1);
