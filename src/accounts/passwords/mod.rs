//! Hashing passwords with Argon2id, and checking password digests. Blocking threads do the work,
//! and only a few run at once.

mod crypt64;
pub(super) mod digest_formats;
mod opaque;
pub(super) mod pepper;
mod phpass;
mod queue;

use std::{
    hash::{BuildHasher as _, RandomState},
    net::IpAddr,
    sync::Arc,
};

use self::{
    digest_formats::DigestFormat,
    queue::{FairQueue, Party, Slot},
};
use crate::model::{Entropy, PasswordDigest, Secret, client_network, fold};
use argon2::{
    Argon2,
    password_hash::{PasswordHasher, phc::PasswordHash},
};

/// The digest that is checked for an unknown user, so that the response takes as long as for a
/// known user. Nobody knows its password, which was 32 random bytes that were not kept.
const UNKNOWN_USER: &str = "$argon2id$v=19$m=19456,t=2,p=1$Wn0yO1vVEX1Xc3T3VQkJ5w$pX3m1mA1z0m0L5v1Yk6c2Jr1eQ0C7m3D8y9Yy1m4b1o";

/// A cheap handle that hashes passwords and checks password digests.
#[derive(Debug, Clone)]
pub struct Passwords {
    queue: Arc<FairQueue>,
    hasher: RandomState,
}

/// The turn of a client and a user in the queue of checks: the right to run one check.
#[derive(Debug)]
pub struct CheckTurn(Slot);

/// Too many passwords are being checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy;

impl Passwords {
    /// Runs at most `at_once` checks at the same time. A check of an Argon2id digest that Keyward
    /// made takes 19 MiB of memory.
    pub fn new(at_once: usize) -> Self {
        Self { queue: FairQueue::new(at_once), hasher: RandomState::new() }
    }

    /// Waits for the turn of this client and this user, who need not exist. Clients take turns, and
    /// so do the users of one client: a client with many wrong passwords delays another client by
    /// at most one check.
    ///
    /// # Errors
    /// Too many checks are waiting, of all clients or of this client.
    pub async fn turn(&self, client: IpAddr, user: &str) -> Result<CheckTurn, Busy> {
        let user = Some(self.hasher.hash_one(fold(user)));
        self.queue.slot(Party { client: Some(client_network(client)), user }).await.map(CheckTurn)
    }

    /// Hashes a new password, prepared as in RFC 8265.
    pub async fn hash(&self, password: Secret, entropy: Entropy) -> Result<PasswordDigest, Busy> {
        let turn = self.queue.slot(Party { client: None, user: None }).await.map(CheckTurn)?;
        let hash = move || {
            let salt: [u8; 16] = entropy.bytes();
            let hash: PasswordHash = Argon2::default()
                .hash_password_with_salt(opaque::prepare(password.expose()).as_bytes(), &salt)
                .expect("Argon2id takes any password below 4 GiB");
            PasswordDigest::new(hash.to_string())
        };
        turn.run(hash).await
    }
}

impl CheckTurn {
    /// Whether `digest` was made from `password`, in its prepared form or as it was sent.
    ///
    /// The duration does not reveal whether the user exists, or which kind of digest the user has.
    /// If `digest` is `None`, the result is `false` after the same duration. `foreign_sample` is an
    /// imported digest of another system, or `None` if no user has such a digest. With a sample,
    /// every call checks one digest in Keyward's format and one imported digest.
    pub async fn verify(
        self,
        password: Secret,
        digest: Option<PasswordDigest>,
        foreign_sample: Option<PasswordDigest>,
    ) -> Result<bool, Busy> {
        let padding = timing_padding(digest.as_ref(), foreign_sample);
        let texts = opaque::candidates(password);
        Ok(self.find_any(texts, digest.into_iter().collect(), padding).await?.is_some())
    }

    /// The index of the first digest in `digests` that was made from `text`. All `digests` and all
    /// digests in `padding` are checked, and the results for `padding` are ignored. So the duration
    /// does not depend on which digest matches.
    pub async fn find_match(
        self,
        text: Secret,
        digests: Vec<PasswordDigest>,
        padding: Vec<PasswordDigest>,
    ) -> Result<Option<usize>, Busy> {
        self.find_any(vec![text], digests, padding).await
    }

    /// The index of the first digest that was made from one of the texts. Every text is compared
    /// with every digest.
    async fn find_any(
        self,
        texts: Vec<Secret>,
        digests: Vec<PasswordDigest>,
        padding: Vec<PasswordDigest>,
    ) -> Result<Option<usize>, Busy> {
        self.run(move || {
            let matches = |digest: &PasswordDigest| {
                let Some(format) = DigestFormat::detect(digest.phc()) else { return false };
                let matches = |text: &Secret| {
                    let text = text.expose().as_bytes();
                    format.matches(digest.phc(), text) && !text.is_empty()
                };
                texts.iter().filter(|text| matches(text)).count() > 0
            };
            let matching: Vec<bool> = digests.iter().map(matches).collect();
            padding.iter().for_each(|digest| _ = std::hint::black_box(matches(digest)));
            matching.into_iter().position(|matches| matches)
        })
        .await
    }

    /// Runs `work` on a blocking thread. The turn ends with the work, even if the request was
    /// cancelled.
    async fn run<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Busy> {
        let slot = self.0;
        let work = move || {
            let result = work();
            drop(slot);
            result
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| Busy)
    }
}

/// The digests to check in addition to a user's digest, so that the work is the same for every
/// user. Together these are one digest in Keyward's format, and one imported digest if there is a
/// sample.
fn timing_padding(
    digest: Option<&PasswordDigest>,
    foreign_sample: Option<PasswordDigest>,
) -> Vec<PasswordDigest> {
    let unknown_user = || PasswordDigest::new(UNKNOWN_USER);
    match (digest, foreign_sample) {
        (None, None) => vec![unknown_user()],
        (None, Some(sample)) => vec![unknown_user(), sample],
        (Some(digest), Some(_)) if !digest.is_ours() => vec![unknown_user()],
        (Some(_), sample) => sample.into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    async fn turn(passwords: &Passwords) -> CheckTurn {
        passwords.turn(CLIENT, "ann").await.unwrap()
    }

    #[tokio::test]
    async fn only_the_right_password_matches() {
        let passwords = Passwords::new(1);
        let digest = passwords.hash(Secret::new("correct horse"), Entropy::system()).await.unwrap();
        let check = async |text: &str, digest: Option<&PasswordDigest>| {
            let digest = digest.cloned();
            turn(&passwords).await.verify(Secret::new(text), digest, None).await.unwrap()
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
    fn digest_for_unknown_users_costs_as_much_as_a_real_digest() {
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
    fn number_of_checks_is_the_same_for_every_user() {
        let digest = |text: &str| Some(PasswordDigest::new(text));
        let [ours, imported] = [digest(UNKNOWN_USER), digest("{SHA}qZk+NkcGgWq6PiVxeFDCbJzQ2J0=")];
        for (sample, expected) in [(None, [1, 0]), (imported.clone(), [1, 1])] {
            for user_digest in [&None, &ours, &imported] {
                // Without a sample no user has an imported digest.
                if sample.is_none() && *user_digest == imported {
                    continue;
                }
                let mut checked = timing_padding(user_digest.as_ref(), sample.clone());
                checked.extend(user_digest.clone());
                let count = checked.iter().filter(|digest| digest.is_ours()).count();
                let counts = [count, checked.len() - count];
                assert_eq!(counts, expected, "{user_digest:?} {sample:?}");
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
            turn(&passwords).await.find_match(Secret::new(text), digests, padding).await.unwrap()
        };
        assert_eq!(find("abc", &["", "abc", "abc"]).await, Some(1));
        assert_eq!(find("abc", &[""]).await, None);
        assert_eq!(find("abc", &[]).await, None);
        // An empty text is never accepted, even if a digest matches it.
        assert_eq!(find("", &["", "abc"]).await, None);
    }
}
