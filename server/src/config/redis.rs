//! Where Redis is and how its keys are laid out.

use percent_encoding::percent_decode_str;

use super::Secret;

/// Where Redis is and how its keys are laid out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisSettings {
    /// The servers: one, or several nodes of a Redis Cluster, through which the others are found.
    pub servers: Vec<RedisServer>,
    /// Whether the connections use TLS.
    pub tls: bool,
    /// User of the access control list; without one the default user.
    pub user: Option<String>,
    /// Password, if one is asked for.
    pub password: Option<Secret>,
    /// Database number of the realtime state. A cluster has number 0 only.
    pub db_state: u16,
    /// Database number of the rate limits. A cluster has number 0 only.
    pub db_rate: u16,
    /// Put before every key.
    pub key_prefix: String,
}

/// The address of a Redis server.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RedisServer {
    /// Host name or IP address, the latter without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl RedisSettings {
    /// Whether this is a Redis Cluster: several servers are named.
    pub fn is_cluster(&self) -> bool {
        self.servers.len() > 1
    }
}

/// What a URL says: `redis://[[user]:password@]host[:port][,host[:port]...][/number]`, or `rediss` for TLS.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RedisUrl {
    pub(super) servers: Vec<RedisServer>,
    pub(super) tls: bool,
    pub(super) user: Option<String>,
    pub(super) password: Option<Secret>,
    pub(super) db: Option<u16>,
}

impl RedisUrl {
    /// The URL of one server, reached without TLS or password.
    pub(super) fn of(server: RedisServer) -> Self {
        Self { servers: vec![server], tls: false, user: None, password: None, db: None }
    }

    /// Reads a URL; none where it is not of that form.
    pub(super) fn parse(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let tls = match scheme {
            "redis" => false,
            "rediss" => true,
            _ => return None,
        };
        let (authority, db) = match rest.split_once('/') {
            None | Some((_, "")) => (rest.trim_end_matches('/'), None),
            Some((authority, number)) => (authority, Some(super::table::whole(number)?.try_into().ok()?)),
        };
        let (credentials, hosts) = match authority.rsplit_once('@') {
            Some((credentials, hosts)) => (Some(credentials), hosts),
            None => (None, authority),
        };
        let (user, password) = match credentials {
            Some(credentials) => {
                let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
                (decoded(user)?, decoded(password)?)
            }
            None => Default::default(),
        };
        let servers = hosts.split(',').map(server).collect::<Option<_>>()?;
        let given = |text: String| Some(text).filter(|text| !text.is_empty());
        Some(Self { servers, tls, user: given(user), password: given(password).map(Secret::new), db })
    }
}

fn server(address: &str) -> Option<RedisServer> {
    let (host, port) = match address.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            (host, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
        }
        None => match address.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (address, None),
        },
    };
    let port = match port {
        Some(port) => super::table::whole(port)?.try_into().ok().filter(|&port| port != 0)?,
        None => DEFAULT_PORT,
    };
    super::table::is_host(host).then(|| RedisServer { host: host.to_owned(), port })
}

fn decoded(text: &str) -> Option<String> {
    Some(percent_decode_str(text).decode_utf8().ok()?.into_owned())
}

/// The port of Redis where none is named.
const DEFAULT_PORT: u16 = 6379;

#[cfg(test)]
mod tests {
    use super::*;

    fn url(servers: &[(&str, u16)]) -> RedisUrl {
        let servers = servers.iter().map(|&(host, port)| RedisServer { host: host.to_owned(), port }).collect();
        RedisUrl { servers, tls: false, user: None, password: None, db: None }
    }

    #[test]
    fn a_url_names_one_server_or_the_nodes_of_a_cluster() {
        assert_eq!(RedisUrl::parse("redis://redis"), Some(url(&[("redis", 6379)])));
        assert_eq!(RedisUrl::parse("redis://redis:1/"), Some(url(&[("redis", 1)])));
        assert_eq!(RedisUrl::parse("redis://[::1]/3"), Some(RedisUrl { db: Some(3), ..url(&[("::1", 6379)]) }));
        assert_eq!(RedisUrl::parse("rediss://10.0.0.1"), Some(RedisUrl { tls: true, ..url(&[("10.0.0.1", 6379)]) }));
        let nodes = [("a", 1), ("::1", 2), ("c", 6379)];
        assert_eq!(RedisUrl::parse("redis://a:1,[::1]:2,c"), Some(url(&nodes)));
    }

    #[test]
    fn a_url_may_have_a_user_and_a_password() {
        let with = |user: Option<&str>, password: Option<&str>| {
            Some(RedisUrl {
                user: user.map(str::to_owned),
                password: password.map(Secret::new),
                ..url(&[("a", 6379), ("b", 6379)])
            })
        };
        assert_eq!(RedisUrl::parse("redis://:pw@a,b"), with(None, Some("pw")));
        assert_eq!(RedisUrl::parse("redis://me:p%40w%2F:@a,b"), with(Some("me"), Some("p@w/:")));
        assert_eq!(RedisUrl::parse("redis://me@a,b"), with(Some("me"), None));
    }

    #[test]
    fn what_is_no_such_url_is_refused() {
        for bad in [
            "redis",
            "redis://",
            "redis://:1",
            "redis:///0",
            "redis://a b",
            "redis://a:0",
            "redis://a:65536",
            "redis://a/x",
            "redis://a/65536",
            "redis://a,",
            "redis://a/0?protocol=2",
            "redis://[::1",
            "redis://[::1]x",
            "redis://::1",
            "redis://a,redis://b",
            "redis://:%ff@a",
            "http://a",
            "rediss://a#insecure",
        ] {
            assert_eq!(RedisUrl::parse(bad), None, "{bad}");
        }
    }
}
