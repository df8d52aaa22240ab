//! Room passwords: Argon2id, off the async threads, so many at a time and so many waiting.
//!
//! One hash takes 19 MiB and tens of milliseconds on purpose. The bounds keep a flood of joins with wrong passwords
//! from taking the machine: past them the answer is [`PasswordError::Busy`], and nothing has been computed.

use std::fmt;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use argon2::password_hash::{self, PasswordHasher, PasswordVerifier, phc::PasswordHash};
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::Semaphore;
use tokio::{task, time};

/// Hashes and verifies passwords. Clones share the same bounds.
#[derive(Clone, Debug)]
pub struct Passwords {
    /// One permit per call that is waiting or working.
    places: Arc<Semaphore>,
    /// One permit per call that is working.
    workers: Arc<Semaphore>,
    deadline: Duration,
    cost: Params,
}

/// Why there is no answer about a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasswordError {
    /// Too many are waiting, or it would have taken too long. Nothing has been computed; to be tried again later.
    Busy,
    /// What is stored is not a hash. This says nothing about the password.
    MalformedHash,
    /// The computation itself failed, for want of memory for example.
    Failed,
}

impl Passwords {
    /// Works on as many cores as there are, with 64 calls waiting for each, and 3 s to wait at most.
    pub fn new() -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Self::bounded(cores, cores * LINE_PER_WORKER, DEADLINE, cost(MEMORY_KIB))
    }

    fn bounded(workers: usize, line: usize, deadline: Duration, cost: Params) -> Self {
        Self {
            places: Arc::new(Semaphore::new(workers + line)),
            workers: Arc::new(Semaphore::new(workers)),
            deadline,
            cost,
        }
    }

    /// Returns the hash of a password as a PHC string: Argon2id with a salt of its own.
    ///
    /// # Errors
    /// [`PasswordError::Busy`] and [`PasswordError::Failed`].
    pub async fn hash(&self, password: String) -> Result<String, PasswordError> {
        let argon2 = self.argon2();
        self.run(move || {
            let hash = argon2.hash_password(password.as_bytes()).map_err(|_| PasswordError::Failed)?;
            Ok(hash.to_string())
        })
        .await
    }

    /// Tells whether `password` is the one behind `hash`, with the costs the hash itself names.
    ///
    /// # Errors
    /// Every [`PasswordError`]; only `Ok(false)` means that the password is wrong.
    pub async fn verify(&self, password: String, hash: String) -> Result<bool, PasswordError> {
        let argon2 = self.argon2();
        self.run(move || {
            let hash = PasswordHash::new(&hash).map_err(|_| PasswordError::MalformedHash)?;
            // Without salt or output there is nothing to compare with, which the library calls a wrong password.
            if hash.salt.is_none() || hash.hash.is_none() {
                return Err(PasswordError::MalformedHash);
            }
            match argon2.verify_password(password.as_bytes(), &hash) {
                Ok(()) => Ok(true),
                Err(password_hash::Error::PasswordInvalid) => Ok(false),
                Err(password_hash::Error::OutOfMemory | password_hash::Error::Internal) => Err(PasswordError::Failed),
                Err(_) => Err(PasswordError::MalformedHash),
            }
        })
        .await
    }

    /// Waits for a worker's permit within the bounds, then computes on a blocking thread.
    ///
    /// The permits go with the computation: a caller that gives up does not make room before the work is done.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, PasswordError> + Send + 'static,
    ) -> Result<T, PasswordError> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| PasswordError::Busy)?;
        let worker = time::timeout(self.deadline, Arc::clone(&self.workers).acquire_owned())
            .await
            .map_err(|_| PasswordError::Busy)?
            .map_err(|_| PasswordError::Failed)?;
        let working = task::spawn_blocking(move || {
            let _permits = (place, worker);
            work()
        });
        working.await.unwrap_or(Err(PasswordError::Failed))
    }

    fn argon2(&self) -> Argon2<'static> {
        Argon2::new(Algorithm::Argon2id, Version::V0x13, self.cost.clone())
    }
}

impl Default for Passwords {
    fn default() -> Self {
        Self::new()
    }
}

fn cost(memory_kib: u32) -> Params {
    Params::new(memory_kib, PASSES, LANES, None).expect("the costs are within what Argon2 allows")
}

impl fmt::Display for PasswordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Busy => "too many passwords are being checked",
            Self::MalformedHash => "the stored password hash is malformed",
            Self::Failed => "the password could not be hashed",
        })
    }
}

impl std::error::Error for PasswordError {}

/// Memory of one hash. This, the passes and the lanes are OWASP's second choice for Argon2id: least memory per core
/// among those with two passes.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// Calls that may wait for each core: at some 30 ms a hash, all of them are served within the deadline.
const LINE_PER_WORKER: usize = 64;

/// Longest wait for a core. A join that takes longer is better tried again.
const DEADLINE: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn cheap(workers: usize, line: usize) -> Passwords {
        Passwords::bounded(workers, line, Duration::from_millis(200), cost(8))
    }

    #[tokio::test]
    async fn a_password_verifies_against_its_own_hash_only() {
        let passwords = cheap(2, 2);
        let hash = passwords.hash("secret".to_owned()).await.unwrap();
        assert_eq!(passwords.verify("secret".to_owned(), hash.clone()).await, Ok(true));
        for wrong in ["", "Secret", "secret ", &"x".repeat(128)] {
            assert_eq!(passwords.verify(wrong.to_owned(), hash.clone()).await, Ok(false));
        }
        assert_ne!(passwords.hash("secret".to_owned()).await.unwrap(), hash);
    }

    #[tokio::test]
    async fn the_real_cost_is_argon2id_with_19_mib_and_two_passes() {
        let passwords = Passwords::new();
        let hash = passwords.hash("secret".to_owned()).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        // A hash made under other costs stays good.
        assert_eq!(cheap(1, 1).verify("secret".to_owned(), hash).await, Ok(true));
    }

    #[tokio::test]
    async fn a_malformed_hash_is_not_a_wrong_password() {
        let passwords = cheap(1, 1);
        let good = passwords.hash("secret".to_owned()).await.unwrap();
        let other_kind = "$scrypt$ln=16,r=8,p=1$aM15713r3Xsvxbi31lqr1Q$nFNh2CVHVjNldFVKDHDlm4CbdRSCdEBsjjJxD+iCs5E";
        for bad in ["", "secret", "$argon2id$", "$2b$12$abc", other_kind, good.rsplit_once('$').unwrap().0] {
            let answer = passwords.verify("secret".to_owned(), bad.to_owned()).await;
            assert_eq!(answer, Err(PasswordError::MalformedHash), "{bad}");
        }
    }

    /// Occupies all workers until the sender is dropped or used.
    async fn occupy(passwords: &Passwords, calls: usize) -> Vec<mpsc::Sender<()>> {
        let mut holds = Vec::new();
        for _ in 0..calls {
            let (hold, held) = mpsc::channel::<()>();
            let (started, start) = tokio::sync::oneshot::channel();
            let passwords = passwords.clone();
            tokio::spawn(async move {
                let work = move || {
                    let _ = started.send(());
                    let _ = held.recv();
                    Ok(())
                };
                passwords.run(work).await
            });
            start.await.unwrap();
            holds.push(hold);
        }
        holds
    }

    #[tokio::test]
    async fn more_callers_than_the_line_allows_are_told_busy_at_once() {
        let passwords = Passwords::bounded(1, 2, Duration::from_secs(60), cost(8));
        let holds = occupy(&passwords, 1).await;
        let waiting: Vec<_> = (0..2)
            .map(|_| {
                let passwords = passwords.clone();
                tokio::spawn(async move { passwords.hash("x".to_owned()).await })
            })
            .collect();
        while passwords.places.available_permits() > 0 {
            task::yield_now().await;
        }
        assert_eq!(passwords.hash("x".to_owned()).await, Err(PasswordError::Busy));
        drop(holds);
        for call in waiting {
            assert!(call.await.unwrap().is_ok());
        }
        assert!(passwords.hash("x".to_owned()).await.is_ok());
    }

    #[tokio::test]
    async fn a_wait_past_the_deadline_is_busy() {
        let passwords = cheap(1, 2);
        let holds = occupy(&passwords, 1).await;
        assert_eq!(passwords.hash("x".to_owned()).await, Err(PasswordError::Busy));
        drop(holds);
    }

    #[tokio::test]
    async fn a_caller_that_gives_up_keeps_its_place_until_the_work_is_done() {
        let passwords = cheap(1, 0);
        let (hold, held) = mpsc::channel::<()>();
        let call = passwords.run(move || {
            let _ = held.recv();
            Ok(())
        });
        assert!(time::timeout(Duration::from_millis(20), call).await.is_err());
        assert_eq!(passwords.hash("x".to_owned()).await, Err(PasswordError::Busy));
        drop(hold);
        while passwords.places.available_permits() == 0 {
            time::sleep(Duration::from_millis(1)).await;
        }
        assert!(passwords.hash("x".to_owned()).await.is_ok());
    }

    #[tokio::test]
    async fn a_panic_in_the_work_is_a_failure_and_frees_the_worker() {
        let passwords = cheap(1, 0);
        let panics = || -> Result<(), PasswordError> { panic!("on purpose") };
        assert_eq!(passwords.run(panics).await, Err(PasswordError::Failed));
        assert!(passwords.hash("x".to_owned()).await.is_ok());
    }
}
