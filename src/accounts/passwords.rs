//! Passwords: Argon2id, off the event loop, and only a few at a time.

use std::sync::Arc;

use argon2::{
    Argon2,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use tokio::sync::Semaphore;

use crate::model::{Entropy, PasswordDigest, Secret};

/// What a password is checked against when there is no user, so that the answer takes as long. Made from 32 random bytes that nobody kept.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$Wn0yO1vVEX1Xc3T3VQkJ5w$pX3m1mA1z0m0L5v1Yk6c2Jr1eQ0C7m3D8y9Yy1m4b1o";
/// How many may wait for each one that is being checked.
const WAITING: usize = 16;

/// The most KiB and the most passes that the digest of a password may ask for: whoever logs in has them spent here.
const MOST_COST: (u32, u32) = (256 * 1024, 64);

/// Whether a text is an Argon2id digest in PHC form that a password can be checked against, at a bearable cost.
pub fn is_digest(phc: &str) -> bool {
    let Ok(hash) = PasswordHash::new(phc) else { return false };
    let Ok(params) = argon2::Params::try_from(&hash) else { return false };
    let (kib, passes) = MOST_COST;
    hash.algorithm.as_str() == "argon2id"
        && hash.salt.is_some()
        && hash.hash.is_some()
        && params.m_cost() <= kib
        && params.t_cost() <= passes
        && params.p_cost() <= 16
}

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

    /// Whether `password` is the one that `digest` was made from. Without a digest: no, and as late.
    pub async fn verify(
        &self,
        password: Secret,
        digest: Option<PasswordDigest>,
    ) -> Result<bool, Busy> {
        self.run(move || {
            let phc = digest.as_ref().map_or(NOBODY, PasswordDigest::phc);
            let matches = PasswordHash::new(phc).is_ok_and(|hash| {
                let password = password.expose().as_bytes();
                Argon2::default().verify_password(password, &hash).is_ok()
            });
            matches && digest.is_some() && !password.expose().is_empty()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_right_password_matches() {
        let passwords = Passwords::new(1);
        let digest = passwords.hash(Secret::new("correct horse"), Entropy::system()).await.unwrap();
        let check = async |text: &str, digest: Option<&PasswordDigest>| {
            let digest = digest.cloned();
            passwords.verify(Secret::new(text), digest).await.unwrap()
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
        assert_eq!(nobody.algorithm, made.algorithm);
        assert_eq!(nobody.version, made.version);
        assert_eq!(nobody.params.to_string(), made.params.to_string());
        let length = |hash: &PasswordHash| hash.hash.as_ref().unwrap().as_ref().len();
        assert_eq!(length(&nobody), length(&made));
    }

    #[test]
    fn a_digest_is_one_that_can_be_checked() {
        assert!(is_digest(NOBODY));
        for bad in [
            "",
            "x",
            "hunter2",
            &NOBODY.replace("argon2id", "argon2i"),
            &NOBODY.replace("m=19456", "m=999999999"),
            &NOBODY.replace("t=2", "t=9999"),
            "$argon2id$v=19$m=19456,t=2,p=1$Wn0yO1vVEX1Xc3T3VQkJ5w",
            "$2y$05$abcdefghijklmnopqrstuu",
        ] {
            assert!(!is_digest(bad), "{bad}");
        }
    }

    #[tokio::test]
    async fn the_queue_is_bounded() {
        let passwords = Passwords::new(1);
        let all = (0..200).map(|_| passwords.verify(Secret::new("x"), None));
        let mut tasks = tokio::task::JoinSet::new();
        for one in all.map(|_| passwords.clone()) {
            tasks.spawn(async move { one.verify(Secret::new("x"), None).await });
        }
        let answers = tasks.join_all().await;
        assert!(answers.contains(&Err(Busy)));
        assert!(answers.contains(&Ok(false)));
    }
}
