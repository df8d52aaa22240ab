//! How often something may go wrong before it is refused without being tried.

mod shared;

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

pub use shared::{SharedAttempt, SharedLimiter};

/// Counts tries that went wrong per key, within a window of time that starts with the key's first one.
///
/// Tries under way count as well, so that many at once get no further than one after the other. Bounded: at most
/// [`MAX_KEYS`] keys; while there are as many, new ones go uncounted, since refusing them would let an attacker with many
/// addresses lock everybody out.
#[derive(Debug)]
pub struct Limiter<K: Eq + Hash> {
    most: u32,
    window: Duration,
    keys: Mutex<HashMap<K, Window>>,
}

#[derive(Debug)]
struct Window {
    until: Instant,
    wrong: u32,
    under_way: u32,
}

/// A try under way. Dropped, it was not wrong.
#[derive(Debug)]
pub struct Attempt<'a, K: Eq + Hash> {
    /// None where there was no room to count the try.
    counted: Option<(&'a Limiter<K>, K)>,
    wrong: bool,
}

/// Most keys that are counted at a time.
pub const MAX_KEYS: usize = 50_000;

/// How long to wait where only tries under way stand against another one.
const SOON: Duration = Duration::from_secs(1);

impl<K: Eq + Hash + Clone> Limiter<K> {
    /// Allows `most` wrong tries in each window.
    pub fn new(most: u32, window: Duration) -> Self {
        Self { most, window, keys: Mutex::default() }
    }

    /// Begins a try.
    ///
    /// # Errors
    /// How long to wait, where none is allowed now.
    pub fn attempt(&self, key: K) -> Result<Attempt<'_, K>, Duration> {
        let now = Instant::now();
        let mut keys = self.lock();
        if keys.len() >= MAX_KEYS {
            keys.retain(|_, window| window.under_way > 0 || now < window.until);
        }
        let counted = keys.len() < MAX_KEYS || keys.contains_key(&key);
        if counted {
            let fresh = Window { until: now + self.window, wrong: 0, under_way: 0 };
            let window = keys.entry(key.clone()).or_insert(fresh);
            if now >= window.until {
                window.until = now + self.window;
                window.wrong = 0;
            }
            if window.wrong >= self.most {
                return Err(window.until - now);
            }
            if window.wrong + window.under_way >= self.most {
                return Err(SOON);
            }
            window.under_way += 1;
        }
        Ok(Attempt { counted: counted.then_some((self, key)), wrong: false })
    }
}

impl<K: Eq + Hash> Limiter<K> {
    fn lock(&self) -> MutexGuard<'_, HashMap<K, Window>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash> Attempt<'_, K> {
    /// Ends the try: it was wrong.
    pub fn wrong(mut self) {
        self.wrong = true;
    }
}

impl<K: Eq + Hash> Drop for Attempt<'_, K> {
    fn drop(&mut self) {
        let Some((limiter, key)) = &self.counted else { return };
        let mut keys = limiter.lock();
        if let Some(window) = keys.get_mut(key) {
            window.under_way -= 1;
            window.wrong += u32::from(self.wrong);
            // Who makes no mistakes is not worth a key.
            if window.under_way == 0 && window.wrong == 0 {
                keys.remove(key);
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
            limiter.attempt(1).unwrap().wrong();
        }
        tokio::time::advance(Duration::from_secs(20)).await;
        assert_eq!(limiter.attempt(1).err(), Some(Duration::from_secs(40)));
        assert!(limiter.attempt(2).is_ok());
        tokio::time::advance(Duration::from_secs(40)).await;
        limiter.attempt(1).unwrap().wrong();
        assert!(limiter.attempt(1).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn tries_at_once_get_no_further_than_tries_in_a_row() {
        let limiter = Limiter::new(3, Duration::from_secs(60));
        limiter.attempt("a").unwrap().wrong();
        let (second, third) = (limiter.attempt("a").unwrap(), limiter.attempt("a").unwrap());
        assert_eq!(limiter.attempt("a").err(), Some(SOON));
        drop(second); // it was right
        let fourth = limiter.attempt("a").unwrap();
        third.wrong();
        fourth.wrong();
        assert_eq!(limiter.attempt("a").err(), Some(Duration::from_secs(60)));
    }

    #[test]
    fn who_is_never_wrong_is_not_remembered() {
        let limiter = Limiter::new(1, Duration::from_secs(60));
        drop(limiter.attempt("a").unwrap());
        assert!(limiter.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn keys_are_bounded_and_make_room_when_their_windows_end() {
        let limiter = Limiter::new(1, Duration::from_secs(60));
        for key in 0..=MAX_KEYS {
            limiter.attempt(key).unwrap().wrong();
        }
        assert_eq!(limiter.lock().len(), MAX_KEYS);
        assert!(limiter.attempt(MAX_KEYS).is_ok());
        assert!(limiter.attempt(0).is_err());
        tokio::time::advance(Duration::from_secs(60)).await;
        limiter.attempt(MAX_KEYS).unwrap().wrong();
        assert_eq!(limiter.lock().len(), 1);
    }
}
