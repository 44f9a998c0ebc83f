//! Hashing and checking passwords with Argon2id, on blocking threads and only a few at a time.

pub(super) mod digest_formats;
pub(super) mod pepper;

use std::sync::Arc;

use argon2::{
    Argon2,
    password_hash::{PasswordHasher, phc::PasswordHash},
};
use tokio::sync::Semaphore;

use super::passwords::digest_formats::DigestFormat;
use crate::model::{Entropy, PasswordDigest, Secret};

/// The digest for unknown users, so that the response takes as long as for a known user. It was
/// made from 32 random bytes that were thrown away.
const UNKNOWN_USER: &str = "$argon2id$v=19$m=19456,t=2,p=1$Wn0yO1vVEX1Xc3T3VQkJ5w$pX3m1mA1z0m0L5v1Yk6c2Jr1eQ0C7m3D8y9Yy1m4b1o";
/// The number of checks that may wait for each running check.
const WAITING: usize = 16;

/// Checks and makes password digests. A cheap handle.
#[derive(Debug, Clone)]
pub struct Passwords {
    running: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

/// Too many passwords are being checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy;

impl Passwords {
    /// Runs at most `at_once` checks at the same time. Each takes 19 MiB of memory.
    pub fn new(at_once: usize) -> Self {
        let at_once = at_once.max(1);
        Self {
            running: Arc::new(Semaphore::new(at_once)),
            waiting: Arc::new(Semaphore::new(at_once * (1 + WAITING))),
        }
    }

    /// Whether `digest` was made from `password`.
    ///
    /// The time does not tell whether the user exists or which digest the user has. Without a
    /// digest the result is `false` after the same time. `foreign_sample` is a digest of another
    /// system; it is given while some users have such digests. Then one digest of our own and one
    /// foreign digest are checked for every user.
    pub async fn verify(
        &self,
        password: Secret,
        digest: Option<PasswordDigest>,
        foreign_sample: Option<PasswordDigest>,
    ) -> Result<bool, Busy> {
        let padding = timing_padding(digest.as_ref(), foreign_sample);
        Ok(self.find_match(password, digest.into_iter().collect(), padding).await?.is_some())
    }

    /// The index of the first of `digests` that was made from `text`. All digests are checked, and
    /// then those in `padding`, whose results are ignored, so that the time is always the same.
    pub async fn find_match(
        &self,
        text: Secret,
        digests: Vec<PasswordDigest>,
        padding: Vec<PasswordDigest>,
    ) -> Result<Option<usize>, Busy> {
        self.run(move || {
            let matches = |digest: &PasswordDigest| {
                let format = DigestFormat::detect(digest.phc());
                format.is_some_and(|format| format.matches(digest.phc(), text.expose().as_bytes()))
            };
            let matching: Vec<bool> = digests.iter().map(matches).collect();
            padding.iter().for_each(|digest| _ = std::hint::black_box(matches(digest)));
            matching.into_iter().position(|matches| matches).filter(|_| !text.expose().is_empty())
        })
        .await
    }

    /// Hashes a new password.
    pub async fn hash(&self, password: Secret, entropy: Entropy) -> Result<PasswordDigest, Busy> {
        self.run(move || {
            let salt: [u8; 16] = entropy.bytes();
            let hash: PasswordHash = Argon2::default()
                .hash_password_with_salt(password.expose().as_bytes(), &salt)
                .expect("Argon2id takes any password below 4 GiB");
            PasswordDigest::new(hash.to_string())
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Busy> {
        let _queue_permit = self.waiting.try_acquire().map_err(|_| Busy)?;
        let run_permit = self.running.clone().acquire_owned().await.map_err(|_| Busy)?;
        tokio::task::spawn_blocking(move || {
            let result = work();
            drop(run_permit);
            result
        })
        .await
        .map_err(|_| Busy)
    }
}

/// The digests that are checked in addition to a user's digest, so that the work is the same for
/// every user: one digest of our own, and one foreign digest while there is a sample.
fn timing_padding(
    digest: Option<&PasswordDigest>,
    foreign_sample: Option<PasswordDigest>,
) -> Vec<PasswordDigest> {
    let own = || PasswordDigest::new(UNKNOWN_USER);
    match (digest, foreign_sample) {
        (None, None) => vec![own()],
        (None, Some(sample)) => vec![own(), sample],
        (Some(digest), Some(_)) if !digest.is_ours() => vec![own()],
        (Some(_), sample) => sample.into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_right_password_matches() {
        let passwords = Passwords::new(1);
        let digest = passwords.hash(Secret::new("correct horse"), Entropy::system()).await.unwrap();
        let check = async |text: &str, digest: Option<&PasswordDigest>| {
            let digest = digest.cloned();
            passwords.verify(Secret::new(text), digest, None).await.unwrap()
        };
        assert!(check("correct horse", Some(&digest)).await);
        assert!(!check("wrong horse", Some(&digest)).await);
        assert!(!check("", Some(&digest)).await);
        assert!(!check("", None).await);
        assert!(!check("correct horse", None).await);
        let empty = passwords.hash(Secret::new(""), Entropy::system()).await.unwrap();
        assert!(!check("", Some(&empty)).await);
    }

    #[test]
    fn digest_for_unknown_users_costs_the_same() {
        let unknown = PasswordHash::new(UNKNOWN_USER).unwrap();
        let made: PasswordHash = Argon2::default().hash_password_with_salt(b"x", &[1; 16]).unwrap();
        assert!(PasswordDigest::new(UNKNOWN_USER).is_ours());
        assert!(PasswordDigest::new(made.to_string()).is_ours());
        assert_eq!(unknown.algorithm, made.algorithm);
        assert_eq!(unknown.version, made.version);
        assert_eq!(unknown.params.to_string(), made.params.to_string());
        let length = |hash: &PasswordHash| hash.hash.as_ref().unwrap().as_ref().len();
        assert_eq!(length(&unknown), length(&made));
    }

    #[test]
    fn every_user_causes_the_same_checks() {
        let digest = |text: &str| Some(PasswordDigest::new(text));
        let [ours, foreign] = [digest(UNKNOWN_USER), digest("{SHA}qZk+NkcGgWq6PiVxeFDCbJzQ2J0=")];
        for (sample, expected) in [(None, [1, 0]), (foreign.clone(), [1, 1])] {
            for user in [&None, &ours, &foreign] {
                if sample.is_none() && *user == foreign {
                    continue;
                }
                let mut all = timing_padding(user.as_ref(), sample.clone());
                all.extend(user.clone());
                let own = all.iter().filter(|digest| digest.is_ours()).count();
                assert_eq!([own, all.len() - own], expected, "{user:?} {sample:?}");
            }
        }
    }

    #[tokio::test]
    async fn first_matching_digest_is_found() {
        let passwords = Passwords::new(1);
        let sha = |text: &str| match text {
            "abc" => PasswordDigest::new("{SHA}qZk+NkcGgWq6PiVxeFDCbJzQ2J0="),
            _ => PasswordDigest::new("{SHA}2jmj7l5rSw0yVb/vlWAYkK/YBwk="),
        };
        let find = async |text: &str, digests: &[&str]| {
            let digests = digests.iter().map(|text| sha(text)).collect();
            let padding = vec![sha("abc"), PasswordDigest::new("nonsense")];
            passwords.find_match(Secret::new(text), digests, padding).await.unwrap()
        };
        assert_eq!(find("abc", &["", "abc", "abc"]).await, Some(1));
        assert_eq!(find("abc", &[""]).await, None);
        assert_eq!(find("abc", &[]).await, None);
        // An empty text is never accepted, even if a digest matches it.
        assert_eq!(find("", &["", "abc"]).await, None);
    }

    #[tokio::test]
    async fn the_queue_is_bounded() {
        let passwords = Passwords::new(1);
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..200 {
            let passwords = passwords.clone();
            tasks.spawn(async move { passwords.verify(Secret::new("x"), None, None).await });
        }
        let results = tasks.join_all().await;
        assert!(results.contains(&Err(Busy)));
        assert!(results.contains(&Ok(false)));
    }
}
