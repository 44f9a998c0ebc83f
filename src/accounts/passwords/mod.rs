//! Passwords: Argon2id, off the event loop, and only a few at a time.

pub(super) mod digest_formats;
pub(super) mod pepper;

use std::sync::Arc;

use argon2::{
    Argon2,
    password_hash::{PasswordHasher, phc::PasswordHash},
};
use tokio::sync::Semaphore;

use super::passwords::digest_formats::Format;
use crate::model::{Entropy, PasswordDigest, Secret};

/// What a password is checked against when there is no user, so that the answer takes as long. Made from 32 random bytes that nobody kept.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$Wn0yO1vVEX1Xc3T3VQkJ5w$pX3m1mA1z0m0L5v1Yk6c2Jr1eQ0C7m3D8y9Yy1m4b1o";
/// How many may wait for each one that is being checked.
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
    /// At most `at_once` passwords are worked on at the same time. Each takes 19 MiB while it lasts.
    pub fn new(at_once: usize) -> Self {
        let at_once = at_once.max(1);
        Self {
            running: Arc::new(Semaphore::new(at_once)),
            waiting: Arc::new(Semaphore::new(at_once * (1 + WAITING))),
        }
    }

    /// Whether `password` is the one that `digest` was made from. Without a digest: no, and as late. `example` is another system's digest, while
    /// users have such: then one of ours and one of theirs are checked, whoever is named.
    pub async fn verify(
        &self,
        password: Secret,
        digest: Option<PasswordDigest>,
        example: Option<PasswordDigest>,
    ) -> Result<bool, Busy> {
        let for_time = for_time(digest.as_ref(), example);
        Ok(self.find(password, digest.into_iter().collect(), for_time).await?.is_some())
    }

    /// The first of `digests` that `text` was made into. All are checked, and then those that are there for the time that they take.
    pub async fn find(
        &self,
        text: Secret,
        digests: Vec<PasswordDigest>,
        for_time: Vec<PasswordDigest>,
    ) -> Result<Option<usize>, Busy> {
        self.run(move || {
            let matches = |digest: &PasswordDigest| {
                let format = Format::of(digest.phc());
                format.is_some_and(|it| it.matches(digest.phc(), text.expose().as_bytes()))
            };
            let matching: Vec<bool> = digests.iter().map(matches).collect();
            for_time.iter().for_each(|digest| _ = std::hint::black_box(matches(digest)));
            matching.into_iter().position(|it| it).filter(|_| !text.expose().is_empty())
        })
        .await
    }

    /// The digest of a new password.
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
        let _place = self.waiting.try_acquire().map_err(|_| Busy)?;
        let turn = self.running.clone().acquire_owned().await.map_err(|_| Busy)?;
        tokio::task::spawn_blocking(move || {
            let done = work();
            drop(turn);
            done
        })
        .await
        .map_err(|_| Busy)
    }
}

/// What is checked besides a user's digest, so that it is the same for everybody: one of ours, and one of theirs while there are any.
fn for_time(
    digest: Option<&PasswordDigest>,
    example: Option<PasswordDigest>,
) -> Vec<PasswordDigest> {
    let nobody = || PasswordDigest::new(NOBODY);
    match (digest, example) {
        (None, None) => vec![nobody()],
        (None, Some(example)) => vec![nobody(), example],
        (Some(digest), Some(_)) if !digest.is_ours() => vec![nobody()],
        (Some(_), example) => example.into_iter().collect(),
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
    fn nobodys_digest_costs_what_everybodys_does() {
        let nobody = PasswordHash::new(NOBODY).unwrap();
        let made: PasswordHash = Argon2::default().hash_password_with_salt(b"x", &[1; 16]).unwrap();
        assert!(PasswordDigest::new(NOBODY).is_ours());
        assert!(PasswordDigest::new(made.to_string()).is_ours());
        assert_eq!(nobody.algorithm, made.algorithm);
        assert_eq!(nobody.version, made.version);
        assert_eq!(nobody.params.to_string(), made.params.to_string());
        let length = |hash: &PasswordHash| hash.hash.as_ref().unwrap().as_ref().len();
        assert_eq!(length(&nobody), length(&made));
    }

    #[test]
    fn the_same_is_checked_whoever_is_named() {
        let digest = |text: &str| Some(PasswordDigest::new(text));
        let [ours, theirs] = [digest(NOBODY), digest("{SHA}qZk+NkcGgWq6PiVxeFDCbJzQ2J0=")];
        for (example, expected) in [(None, [1, 0]), (theirs.clone(), [1, 1])] {
            for user in [&None, &ours, &theirs] {
                if example.is_none() && *user == theirs {
                    continue;
                }
                let mut all = for_time(user.as_ref(), example.clone());
                all.extend(user.clone());
                let of_ours = all.iter().filter(|one| one.is_ours()).count();
                assert_eq!([of_ours, all.len() - of_ours], expected, "{user:?} {example:?}");
            }
        }
    }

    #[tokio::test]
    async fn all_are_checked_and_the_first_that_matches_is_found() {
        let passwords = Passwords::new(1);
        let sha = |text: &str| match text {
            "abc" => PasswordDigest::new("{SHA}qZk+NkcGgWq6PiVxeFDCbJzQ2J0="),
            _ => PasswordDigest::new("{SHA}2jmj7l5rSw0yVb/vlWAYkK/YBwk="),
        };
        let find = async |text: &str, digests: &[&str]| {
            let digests = digests.iter().map(|one| sha(one)).collect();
            let for_time = vec![sha("abc"), PasswordDigest::new("nonsense")];
            passwords.find(Secret::new(text), digests, for_time).await.unwrap()
        };
        assert_eq!(find("abc", &["", "abc", "abc"]).await, Some(1));
        assert_eq!(find("abc", &[""]).await, None);
        assert_eq!(find("abc", &[]).await, None);
        // The digest of nothing is there, and nothing is no secret.
        assert_eq!(find("", &["", "abc"]).await, None);
    }

    #[tokio::test]
    async fn the_queue_is_bounded() {
        let passwords = Passwords::new(1);
        let all = (0..200).map(|_| passwords.verify(Secret::new("x"), None, None));
        let mut tasks = tokio::task::JoinSet::new();
        for one in all.map(|_| passwords.clone()) {
            tasks.spawn(async move { one.verify(Secret::new("x"), None, None).await });
        }
        let answers = tasks.join_all().await;
        assert!(answers.contains(&Err(Busy)));
        assert!(answers.contains(&Ok(false)));
    }
}
