//! Which instances live.
//!
//! Each renews a lease in Redis every [`RENEW_EVERY`], by Redis's clock. One whose lease is older than [`LEASE_MS`] is
//! suspected; one that is suspected for [`PATIENCE`] on end, with Redis answering all the while, is lost. So an instance
//! is found lost after 10 seconds at the most, and a Redis that stood still for a while, in which nobody could renew
//! anything, does not make all of them lost.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use tokio::time::Instant;

use super::{Answer, Cluster, LEASE, Trouble};

/// How often the lease is renewed.
pub const RENEW_EVERY: Duration = Duration::from_secs(1);

/// How old a lease may be, in milliseconds, before its instance is suspected.
pub const LEASE_MS: i64 = 5_000;

/// How long an instance is suspected before it is lost.
pub const PATIENCE: Duration = Duration::from_secs(4);

/// The instances there are, as far as is known here.
#[derive(Debug, Default)]
pub struct Leases {
    live: BTreeSet<u32>,
    suspects: BTreeMap<u32, Instant>,
    looked_at: Option<Instant>,
}

impl Leases {
    /// Takes note of the ages of all leases in milliseconds, and of the instances that have connections in rooms. Returns
    /// those that are lost, until they are [buried](Self::bury).
    pub fn look(&mut self, ages: &BTreeMap<u32, i64>, seated: impl IntoIterator<Item = u32>, now: Instant) -> Vec<u32> {
        // While nobody looked, nobody may have been able to renew anything.
        if self.looked_at.is_some_and(|last| now - last > PATIENCE / 2) {
            self.suspects.clear();
        }
        self.looked_at = Some(now);
        self.live = ages.iter().filter(|(_, age_ms)| **age_ms <= LEASE_MS).map(|(instance, _)| *instance).collect();
        let live = &self.live;
        self.suspects.retain(|instance, _| !live.contains(instance));
        for instance in ages.keys().copied().chain(seated).filter(|instance| !live.contains(instance)) {
            self.suspects.entry(instance).or_insert(now);
        }
        let lost = self.suspects.iter().filter(|(_, since)| now - **since >= PATIENCE);
        lost.map(|(instance, _)| *instance).collect()
    }

    /// Forgets an instance whose connections have been taken out of all rooms.
    pub fn bury(&mut self, instance: u32) {
        self.suspects.remove(&instance);
    }

    /// Whether an instance was alive when last looked.
    pub fn is_live(&self, instance: u32) -> bool {
        self.live.contains(&instance)
    }

    /// How many of the instances that were alive when last looked come before this one in taking over a room of a lost
    /// instance. Instances that agree on who is alive have the same order, which is another for each room.
    pub fn rank(&self, instance: u32, code: &str) -> usize {
        let own = (weight(instance, code), instance);
        self.live.iter().filter(|other| (weight(**other, code), **other) > own).count()
    }
}

/// Rendezvous hashing: the instance with the highest weight has a room. Where instances of different builds disagree on it,
/// a room is taken over twice, or later.
fn weight(instance: u32, code: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (instance, code).hash(&mut hasher);
    hasher.finish()
}

impl Cluster {
    /// Takes the number of this instance, if it is free.
    pub(super) async fn claim(&self) -> Result<bool, Trouble> {
        let arguments = [self.instance.to_string(), "claim".to_owned()];
        let taken = self.redis.run(&LEASE, &[self.leases_key()], &arguments).await?;
        Ok(matches!(taken, redis::Value::Int(1)))
    }

    /// Renews the lease of this instance, and returns the age of every lease in milliseconds.
    ///
    /// # Errors
    /// Where Redis cannot be asked.
    pub async fn renew(&self) -> Result<BTreeMap<u32, i64>, Trouble> {
        let arguments = [self.instance.to_string(), String::new()];
        let mut answer = Answer::of(self.redis.run(&LEASE, &[self.leases_key()], &arguments).await?)?;
        let mut ages = BTreeMap::new();
        while answer.0.len() > 0 {
            let (instance, age_ms) = (answer.word()?, answer.word()?);
            // What is not a number was not put there by an instance.
            if let (Ok(instance), Ok(age_ms)) = (instance.parse(), age_ms.parse::<f64>()) {
                ages.insert(instance, age_ms as i64);
            }
        }
        Ok(ages)
    }

    /// Ends the lease of an instance, and forgets which rooms it looked after.
    ///
    /// # Errors
    /// Where Redis cannot be asked.
    pub async fn bury(&self, instance: u32) -> Result<(), Trouble> {
        self.redis.call(redis::cmd("ZREM").arg(self.leases_key()).arg(instance)).await?;
        self.redis.call(redis::cmd("DEL").arg(self.rooms_key(instance))).await?;
        Ok(())
    }

    /// Ends the lease of this instance at once. The others look after its rooms as if it were lost.
    ///
    /// # Errors
    /// Where Redis cannot be asked.
    pub async fn resign(&self) -> Result<(), Trouble> {
        self.redis.call(redis::cmd("ZADD").arg(self.leases_key()).arg(0).arg(self.instance)).await?;
        Ok(())
    }

    /// Takes note that this instance looks after rooms, so that others do once it is lost.
    ///
    /// # Errors
    /// Where Redis cannot be asked.
    pub async fn look_after(&self, codes: &[String]) -> Result<(), Trouble> {
        if codes.is_empty() {
            return Ok(());
        }
        self.redis.call(redis::cmd("SADD").arg(self.rooms_key(self.instance)).arg(codes)).await?;
        Ok(())
    }

    /// Takes note that this instance does not look after a room any more.
    ///
    /// # Errors
    /// Where Redis cannot be asked.
    pub async fn leave_alone(&self, code: &str) -> Result<(), Trouble> {
        self.taken_over(self.instance, &[code.to_owned()]).await
    }

    /// Takes note that an instance, which may be lost, does not look after rooms any more.
    ///
    /// # Errors
    /// Where Redis cannot be asked.
    pub async fn taken_over(&self, instance: u32, codes: &[String]) -> Result<(), Trouble> {
        if codes.is_empty() {
            return Ok(());
        }
        self.redis.call(redis::cmd("SREM").arg(self.rooms_key(instance)).arg(codes)).await?;
        Ok(())
    }

    /// The codes of the rooms that an instance looks after, or did before it was lost.
    ///
    /// # Errors
    /// Where Redis cannot be asked.
    pub async fn rooms_of(&self, instance: u32) -> Result<Vec<String>, Trouble> {
        let codes = self.redis.call(redis::cmd("SMEMBERS").arg(self.rooms_key(instance))).await?;
        redis::from_redis_value(codes).map_err(super::malformed)
    }

    fn leases_key(&self) -> String {
        self.redis.key("syncwatch:instances")
    }

    fn rooms_key(&self, instance: u32) -> String {
        self.redis.key(&format!("syncwatch:instance:{instance}:rooms"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks each second at leases of these ages.
    fn watch(leases: &mut Leases, from: Instant, ages: impl Fn(i64) -> Vec<(u32, i64)>) -> Vec<(i64, Vec<u32>)> {
        let look = |second: i64| {
            let now = from + Duration::from_secs(second as u64);
            (second, leases.look(&ages(second).into_iter().collect(), [], now))
        };
        (0..20).map(look).filter(|(_, lost)| !lost.is_empty()).collect()
    }

    #[test]
    fn an_instance_that_does_not_renew_is_lost_within_ten_seconds() {
        let mut leases = Leases::default();
        let found = watch(&mut leases, Instant::now(), |second| vec![(1, 0), (2, second * 1_000)]);
        assert_eq!(found.first(), Some(&(10, vec![2])));
        assert!(leases.is_live(1) && !leases.is_live(2));
        leases.bury(2);
        assert!(leases.suspects.is_empty());
    }

    #[test]
    fn each_room_is_taken_over_by_one_of_the_living_and_most_keep_theirs_when_one_more_dies() {
        let watching = |live: &[u32]| {
            let mut leases = Leases::default();
            leases.look(&live.iter().map(|instance| (*instance, 0)).collect(), [], Instant::now());
            leases
        };
        let (three, two) = (watching(&[1, 2, 3]), watching(&[1, 3]));
        let mut shares = BTreeMap::new();
        for number in 0..3_000 {
            let code = format!("ROOM{number:04}");
            let mut ranks: Vec<_> = [1, 2, 3].map(|instance| (three.rank(instance, &code), instance)).into();
            ranks.sort_unstable();
            assert_eq!(ranks.iter().map(|(rank, _)| *rank).collect::<Vec<_>>(), [0, 1, 2]);
            let (_, first) = ranks[0];
            *shares.entry(first).or_insert(0) += 1;
            if first != 2 {
                assert_eq!(two.rank(first, &code), 0);
            }
        }
        assert!(shares.values().all(|share| (800..1_200).contains(share)), "{shares:?}");
    }

    #[test]
    fn a_redis_that_stood_still_makes_nobody_lost() {
        let mut leases = Leases::default();
        let from = Instant::now();
        leases.look(&[(1, 0), (2, 0)].into(), [], from);
        // A minute later it answers again; one has renewed by then, the other does so a second later.
        let found = watch(&mut leases, from + Duration::from_secs(60), |second| {
            vec![(1, 0), (2, if second == 0 { 60_000 } else { 0 })]
        });
        assert_eq!(found, []);
    }

    #[test]
    fn time_in_which_nobody_looked_is_not_held_against_anybody() {
        let mut leases = Leases::default();
        let from = Instant::now();
        let late = |second| from + Duration::from_secs(second);
        assert!(leases.look(&[(1, 0), (2, 9_000)].into(), [], late(0)).is_empty());
        assert!(leases.look(&[(1, 0), (2, 19_000)].into(), [], late(10)).is_empty());
        assert!(leases.look(&[(1, 0), (2, 22_000)].into(), [], late(12)).is_empty());
        assert_eq!(leases.look(&[(1, 0), (2, 24_000)].into(), [], late(14)), [2]);
    }

    #[test]
    fn one_that_is_seated_without_a_lease_is_lost_in_time() {
        let mut leases = Leases::default();
        let from = Instant::now();
        let seconds = (0..6).map(|second| from + Duration::from_secs(second));
        let lost: Vec<_> = seconds.map(|now| leases.look(&[(1, 0)].into(), [7], now)).collect();
        assert_eq!(lost, [vec![], vec![], vec![], vec![], vec![7], vec![7]]);
    }
}
