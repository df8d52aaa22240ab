//! How often something may go wrong before it is refused without being tried.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Counts per key within a window of time that starts with the key's first count.
///
/// Bounded: at most [`MAX_KEYS`] keys; while there are as many, new ones go uncounted, since refusing them would let
/// an attacker with many addresses lock everybody out.
#[derive(Debug)]
pub struct Limiter<K> {
    most: u32,
    window: Duration,
    keys: Mutex<HashMap<K, Window>>,
}

#[derive(Debug)]
struct Window {
    until: Instant,
    count: u32,
}

/// Most keys that are counted at a time.
pub const MAX_KEYS: usize = 50_000;

impl<K: Eq + Hash> Limiter<K> {
    /// Allows `most` counts in each window.
    pub fn new(most: u32, window: Duration) -> Self {
        Self { most, window, keys: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, Window>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells whether another try is allowed.
    ///
    /// # Errors
    /// How long to wait, where it is not.
    pub fn check(&self, key: &K) -> Result<(), Duration> {
        let now = Instant::now();
        match self.lock().get(key) {
            Some(window) if window.count >= self.most && now < window.until => Err(window.until - now),
            Some(_) | None => Ok(()),
        }
    }

    /// Counts a try that went wrong.
    pub fn count(&self, key: K) {
        let now = Instant::now();
        let mut keys = self.lock();
        if keys.len() >= MAX_KEYS {
            keys.retain(|_, window| now < window.until);
        }
        let full = keys.len() >= MAX_KEYS;
        let fresh = Window { until: now + self.window, count: 0 };
        match keys.get_mut(&key) {
            Some(window) => {
                if now >= window.until {
                    *window = fresh;
                }
                window.count += 1;
            }
            None if full => {}
            None => {
                keys.insert(key, Window { count: 1, ..fresh });
            }
        }
    }
}

/// Returns what to count an address by: itself, or the network of 64 bits for IPv6, where one client has as many addresses
/// as it likes. An IPv4 address in IPv6's clothes is what it is.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_addresses_of_one_client_count_together() {
        for (address, counted_by) in [
            ("192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
            ("2001:db8:1:2:ffff::", "2001:db8:1:2::"),
            ("2001:db8:1:3::1", "2001:db8:1:3::"),
        ] {
            assert_eq!(network(address.parse().unwrap()).to_string(), counted_by, "{address}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_is_refused_until_its_window_ends() {
        let limiter = Limiter::new(2, Duration::from_secs(60));
        for _ in 0..2 {
            assert_eq!(limiter.check(&1), Ok(()));
            limiter.count(1);
        }
        tokio::time::advance(Duration::from_secs(20)).await;
        assert_eq!(limiter.check(&1), Err(Duration::from_secs(40)));
        assert_eq!(limiter.check(&2), Ok(()));
        tokio::time::advance(Duration::from_secs(40)).await;
        assert_eq!(limiter.check(&1), Ok(()));
        limiter.count(1);
        assert_eq!(limiter.check(&1), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn keys_are_bounded_and_make_room_when_their_windows_end() {
        let limiter = Limiter::new(1, Duration::from_secs(60));
        for key in 0..=MAX_KEYS {
            limiter.count(key);
        }
        assert_eq!(limiter.lock().len(), MAX_KEYS);
        assert_eq!(limiter.check(&MAX_KEYS), Ok(()));
        assert!(limiter.check(&0).is_err());
        tokio::time::advance(Duration::from_secs(60)).await;
        limiter.count(MAX_KEYS);
        assert_eq!(limiter.lock().len(), 1);
    }
}
