//! A Redis or a Redis Cluster, alike.

use std::collections::HashMap;
use std::time::Duration;

use redis::aio::{AsyncPushSender, MultiplexedConnection};
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{
    MultipleNodeRoutingInfo, ResponsePolicy, Route, RoutingInfo, SingleNodeRoutingInfo, SlotAddr,
};
use redis::{
    AsyncConnectionConfig, Client, Cmd, FromRedisValue, IntoConnectionInfo, Pipeline, ProtocolVersion, RedisResult,
    Value,
};
use tokio::time::timeout;

/// Which of Redis's two kinds of publish and subscribe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Plain,
    Sharded,
}

impl Kind {
    pub(super) fn publish(self) -> &'static str {
        if self == Self::Plain { "PUBLISH" } else { "SPUBLISH" }
    }

    pub(super) fn subscribe(self) -> &'static str {
        if self == Self::Plain { "SUBSCRIBE" } else { "SSUBSCRIBE" }
    }

    pub(super) fn unsubscribe(self) -> &'static str {
        if self == Self::Plain { "UNSUBSCRIBE" } else { "SUNSUBSCRIBE" }
    }

    fn count(self) -> &'static str {
        if self == Self::Plain { "NUMSUB" } else { "SHARDNUMSUB" }
    }

    fn list(self) -> &'static str {
        if self == Self::Plain { "CHANNELS" } else { "SHARDCHANNELS" }
    }
}

/// Where Redis is.
pub(super) enum Place {
    Single(Box<Client>),
    Cluster(Vec<redis::ConnectionInfo>),
}

impl Place {
    /// Reads where it is from URLs: several are nodes of one cluster.
    pub(super) fn parse(urls: &[String], cluster: bool) -> RedisResult<Self> {
        let mut nodes = Vec::new();
        for url in urls {
            let info = url.as_str().into_connection_info()?;
            let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
            nodes.push(info.set_redis_settings(settings));
        }
        if cluster {
            return Ok(Self::Cluster(nodes));
        }
        let node = nodes.pop().ok_or((redis::ErrorKind::InvalidClientConfig, "no URL"))?;
        Client::open(node).map(|client| Self::Single(Box::new(client)))
    }
}

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

impl Place {
    /// Connects. Answers may take as long as `patience`; what is published goes to `push`.
    pub(super) async fn connect(
        &self,
        patience: Duration,
        push: Option<impl AsyncPushSender>,
    ) -> RedisResult<Connection> {
        let connecting = async {
            match self {
                Self::Single(client) => {
                    let mut config = AsyncConnectionConfig::new()
                        .set_connection_timeout(Some(CONNECT_TIMEOUT))
                        .set_response_timeout(Some(patience));
                    if let Some(push) = push {
                        config = config.set_push_sender(push);
                    }
                    client.get_multiplexed_async_connection_with_config(&config).await.map(Connection::Single)
                }
                Self::Cluster(nodes) => {
                    let mut client = ClusterClientBuilder::new(nodes.clone())
                        .use_protocol(ProtocolVersion::RESP3)
                        .connection_timeout(CONNECT_TIMEOUT)
                        .response_timeout(patience);
                    if let Some(push) = push {
                        client = client.push_sender(push);
                    }
                    client.build()?.get_async_connection().await.map(Connection::Cluster)
                }
            }
        };
        let late = |_| Err((redis::ErrorKind::Io, "it took too long").into());
        timeout(2 * CONNECT_TIMEOUT, connecting).await.unwrap_or_else(late)
    }
}

/// A connection that takes commands from several tasks.
#[derive(Clone)]
pub(super) enum Connection {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Connection {
    pub(super) async fn run<T: FromRedisValue>(&mut self, pipeline: &Pipeline) -> RedisResult<T> {
        match self {
            Self::Single(connection) => pipeline.query_async(connection).await,
            Self::Cluster(connection) => pipeline.query_async(connection).await,
        }
    }

    pub(super) async fn call<T: FromRedisValue>(&mut self, command: &Cmd) -> RedisResult<T> {
        match self {
            Self::Single(connection) => command.query_async(connection).await,
            Self::Cluster(connection) => command.query_async(connection).await,
        }
    }

    pub(super) async fn ping(&mut self) -> RedisResult<()> {
        match self {
            Self::Single(connection) => redis::cmd("PING").exec_async(connection).await,
            Self::Cluster(connection) => redis::cmd("PING").exec_async(connection).await,
        }
    }

    pub(super) async fn count(&mut self, kind: Kind, channel: &str) -> RedisResult<usize> {
        let mut command = redis::cmd("PUBSUB");
        command.arg(kind.count()).arg(channel);
        let counted = match self {
            Self::Single(connection) => command.query_async::<Value>(connection).await?,
            // The channel's own node knows all its subscribers.
            Self::Cluster(connection) => {
                let node = SingleNodeRoutingInfo::SpecificNode(Route::with_key(channel, SlotAddr::Master));
                connection.route_command(command, RoutingInfo::SingleNode(node)).await?
            }
        };
        let counted: HashMap<String, usize> = HashMap::from_redis_value(counted)?;
        Ok(counted.into_values().sum())
    }
    /// Returns the channels that begin with `prefix` and have subscribers. Redis looks at all channels for that.
    pub(super) async fn channels(&mut self, kind: Kind, prefix: &str) -> RedisResult<Vec<String>> {
        let mut command = redis::cmd("PUBSUB");
        command.arg(kind.list()).arg(pattern(prefix));
        match self {
            Self::Single(connection) => command.query_async(connection).await,
            // Each node knows those of its own slots.
            Self::Cluster(connection) => {
                let nodes = (MultipleNodeRoutingInfo::AllMasters, Some(ResponsePolicy::CombineArrays));
                Vec::from_redis_value(connection.route_command(command, RoutingInfo::MultiNode(nodes)).await?)
                    .map_err(Into::into)
            }
        }
    }
}

/// The pattern of what begins with a text, in which no character stands for another.
fn pattern(prefix: &str) -> String {
    let mut pattern = String::with_capacity(prefix.len() + 1);
    for character in prefix.chars() {
        if matches!(character, '*' | '?' | '[' | ']' | '\\' | '^') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern.push('*');
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_stands_for_its_prefix_only() {
        assert_eq!(pattern("socket.io-instances#/#"), "socket.io-instances#/#*");
        assert_eq!(pattern(r"a*b?c[d]e\f^"), r"a\*b\?c\[d\]e\\f\^*");
    }
}
