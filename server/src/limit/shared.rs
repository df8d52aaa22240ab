//! A limit that instances share.

use std::time::Duration;

use super::{Attempt, Limiter, SOON};
use crate::redis::{Redis, Script, Unavailable};

/// Counts like [`Limiter`], together with all other instances on the same Redis, by whose clock windows end.
///
/// Without Redis, and while it is away, each instance counts for itself: a client gets as many wrong tries of each then.
#[derive(Debug)]
pub struct SharedLimiter {
    name: &'static str,
    most: u32,
    window: Duration,
    local: Limiter<String>,
    redis: Option<Redis>,
}

/// A try under way. Dropped, it was not wrong.
#[derive(Debug)]
pub struct SharedAttempt<'a>(Counted<'a>);

#[derive(Debug)]
enum Counted<'a> {
    Here(Attempt<'a, String>),
    InRedis(Ending),
}

/// Tells Redis how a try has ended, once it is dropped.
#[derive(Debug)]
struct Ending {
    redis: Redis,
    key: String,
    window: Duration,
    wrong: bool,
}

impl SharedLimiter {
    /// Allows `most` wrong tries in each window; `name` tells it from other limits in Redis.
    pub fn new(name: &'static str, most: u32, window: Duration, redis: Option<Redis>) -> Self {
        Self { name, most, window, local: Limiter::new(most, window), redis }
    }

    /// Begins a try.
    ///
    /// # Errors
    /// How long to wait, where none is allowed now.
    pub async fn attempt(&self, key: String) -> Result<SharedAttempt<'_>, Duration> {
        if let Some(redis) = &self.redis {
            let name = redis.key(&format!("syncwatch:rate:{}:{key}", self.name));
            let most = self.most.to_string();
            match run(redis, &name, ["begin", &most, &millis(self.window)]).await {
                Ok(0) => {
                    let ending = Ending { redis: redis.clone(), key: name, window: self.window, wrong: false };
                    return Ok(SharedAttempt(Counted::InRedis(ending)));
                }
                Ok(wait_ms) => return Err(u64::try_from(wait_ms).map_or(SOON, Duration::from_millis)),
                // It is told by the connection that Redis is away.
                Err(_) => {}
            }
        }
        Ok(SharedAttempt(Counted::Here(self.local.attempt(key)?)))
    }
}

impl SharedAttempt<'_> {
    /// Ends the try: it was wrong.
    pub fn wrong(self) {
        match self.0 {
            Counted::Here(attempt) => attempt.wrong(),
            Counted::InRedis(mut ending) => ending.wrong = true,
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let (redis, key, window) = (self.redis.clone(), std::mem::take(&mut self.key), millis(self.window));
        let how = if self.wrong { "wrong" } else { "right" };
        tokio::spawn(async move {
            // A try whose end is not told counts until its window ends.
            let _untold = run(&redis, &key, [how, "", &window]).await;
        });
    }
}

async fn run(redis: &Redis, key: &str, arguments: [&str; 3]) -> Result<i64, Unavailable> {
    let answer = redis.run(&RATE, &[key], &arguments).await?;
    Ok(redis::from_redis_value(answer).unwrap_or(0))
}

fn millis(window: Duration) -> String {
    window.as_millis().to_string()
}

static RATE: Script = Script::new(include_str!("../state/rate.lua"));

#[cfg(test)]
mod tests {
    use syncwatch_backends::Redis as Server;
    use tokio::task::yield_now;
    use tokio::time::Instant;

    use super::*;
    use crate::config::{RedisServer, RedisSettings};

    fn redis(server: &Server) -> Redis {
        let servers = vec![RedisServer { host: "127.0.0.1".to_owned(), port: server.port() }];
        let (tls, user, password, key_prefix) = (false, None, None, "test:".to_owned());
        let settings = RedisSettings { servers, tls, user, password, db_state: 0, db_rate: 2, key_prefix };
        Redis::without_channels(&settings, settings.db_rate)
    }

    fn limiter(server: &Server, most: u32, window: Duration) -> SharedLimiter {
        SharedLimiter::new("test", most, window, Some(redis(server)))
    }

    /// What Redis holds of a key: wrong tries and those under way.
    fn held(server: &Server) -> String {
        server
            .cli(&["-n", "2", "HMGET", "test:syncwatch:rate:test:a", "wrong", "under_way"])
            .unwrap()
            .replace('\n', " ")
    }

    async fn until_held(server: &Server, expected: &str) {
        let began = Instant::now();
        while held(server) != expected {
            assert!(began.elapsed() < Duration::from_secs(10), "{} is not {expected}", held(server));
            yield_now().await;
        }
    }

    async fn attempt(limiter: &SharedLimiter) -> Result<SharedAttempt<'_>, Duration> {
        limiter.attempt("a".to_owned()).await
    }

    #[tokio::test]
    async fn instances_count_wrong_tries_together() {
        let server = Server::start().unwrap();
        let [one, other] = [(); 2].map(|()| limiter(&server, 3, MINUTE));
        attempt(&one).await.unwrap().wrong();
        until_held(&server, "1 0").await;
        let (second, third) = (attempt(&one).await.unwrap(), attempt(&other).await.unwrap());
        // As many as may be wrong are wrong or under way.
        assert_eq!(attempt(&other).await.err(), Some(SOON));
        drop(second); // it was right
        until_held(&server, "1 1").await;
        third.wrong();
        attempt(&other).await.unwrap().wrong();
        until_held(&server, "3 0").await;
        for limiter in [&one, &other] {
            let wait = attempt(limiter).await.err().unwrap();
            assert!(wait > SOON && wait <= MINUTE, "{wait:?}");
            assert!(limiter.attempt("b".to_owned()).await.is_ok());
        }
    }

    #[tokio::test]
    async fn who_is_never_wrong_is_not_remembered_and_a_window_ends() {
        let server = Server::start().unwrap();
        let limiter = limiter(&server, 1, Duration::from_millis(300));
        drop(attempt(&limiter).await.unwrap());
        until_held(&server, "").await;
        attempt(&limiter).await.unwrap().wrong();
        let began = Instant::now();
        until_held(&server, "").await;
        assert!(began.elapsed() < Duration::from_secs(5));
        assert!(attempt(&limiter).await.is_ok());
    }

    #[tokio::test]
    async fn while_redis_is_away_each_counts_for_itself() {
        let mut server = Server::start().unwrap();
        let limiter = limiter(&server, 1, MINUTE);
        attempt(&limiter).await.unwrap().wrong();
        until_held(&server, "1 0").await;
        server.kill().unwrap();
        attempt(&limiter).await.unwrap().wrong();
        assert!(attempt(&limiter).await.is_err());
        server.restart().unwrap();
        let began = Instant::now();
        while attempt(&limiter).await.is_err() {
            assert!(began.elapsed() < Duration::from_secs(10));
        }
    }

    const MINUTE: Duration = Duration::from_secs(60);
}
