//! Lua scripts, which Redis runs as one step.

use std::sync::OnceLock;

use redis::{Cmd, ToRedisArgs, cmd};

/// A Lua script of ours. Redis knows it by its hash once it has run it.
#[derive(Debug)]
pub struct Script {
    code: &'static str,
    hash: OnceLock<String>,
}

impl Script {
    /// Makes a script of its text.
    pub const fn new(code: &'static str) -> Self {
        Self { code, hash: OnceLock::new() }
    }

    /// The command that runs the script if Redis knows it.
    pub(super) fn by_hash<K: AsRef<[u8]>, A: ToRedisArgs>(&self, keys: &[K], arguments: &[A]) -> Cmd {
        let hash = self.hash.get_or_init(|| redis::Script::new(self.code).get_hash().to_owned());
        command("EVALSHA", hash, keys, arguments)
    }

    /// The command that runs the script and makes it known to Redis.
    pub(super) fn by_text<K: AsRef<[u8]>, A: ToRedisArgs>(&self, keys: &[K], arguments: &[A]) -> Cmd {
        command("EVAL", self.code, keys, arguments)
    }
}

fn command<K: AsRef<[u8]>, A: ToRedisArgs>(name: &str, script: &str, keys: &[K], arguments: &[A]) -> Cmd {
    let mut command = cmd(name);
    command.arg(script).arg(keys.len());
    for key in keys {
        command.arg(key.as_ref());
    }
    for argument in arguments {
        command.arg(argument);
    }
    command
}
