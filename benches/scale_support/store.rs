//! A store with many users, a key each.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use keyward::{
    accounts::{Accounts, Passwords},
    model::{Digest, Entropy, Key, KeyId, KeyText, Scheme, Timestamp, User},
    store::{Batch, SledStore, Store, Table, encode},
};

use super::{Outcome, ask::SAMPLE};

/// The users or keys of one commit.
const BATCH: usize = 5_000;
/// From so many users on, keys are written in the order of their ids and not as they are made: a key that comes anywhere has its whole bucket written, and
/// ten million of them would take 32 GB of disk. Their buckets are fuller for it.
const SORTED: usize = 2_000_001;

/// How large a store is to be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Users with a key each, and the administrator.
    pub users: usize,
    /// Resources, on paths of their own, besides the users themselves.
    pub resources: usize,
}

/// A store on the disk, for as long as this lives.
pub struct Made {
    /// The store's folder.
    pub path: PathBuf,
    /// How long it took to make it; none: it was there.
    pub took: Option<Duration>,
    /// The credentials of some of its users, far from each other.
    pub sample: Vec<String>,
    /// Removed when this is dropped, on the way out of a failure too.
    _folder: Option<tempfile::TempDir>,
}

impl Made {
    /// Makes it in a temporary folder, or finds it in a folder where it may stay.
    pub fn find_or_make(keep: Option<&Path>, size: Size) -> Outcome<Self> {
        let (folder, home) = match keep {
            Some(keep) => (None, keep.join(format!("{}-{}", size.users, size.resources))),
            None => {
                let folder = tempfile::tempdir()?;
                let home = folder.path().to_owned();
                (Some(folder), home)
            }
        };
        let path = home.join("store");
        let sample = path.with_extension("sample");
        let mut took = None;
        if !sample.exists() {
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(&home)?;
            has_room(&home, size)?;
            let begun = Instant::now();
            // Written last: where it is, the store is whole.
            fs::write(&sample, fill(&path, size)?.join("\n"))?;
            took = Some(begun.elapsed());
        }
        let sample = fs::read_to_string(&sample)?.lines().map(str::to_owned).collect();
        Ok(Self { path, took, sample, _folder: folder })
    }

    /// The bytes that it takes on the disk.
    pub fn disk(&self) -> Outcome<u64> {
        size_of(&self.path)
    }
}

fn has_room(home: &Path, size: Size) -> Outcome<()> {
    let disk = rustix::fs::statvfs(home)?;
    let each = if size.users < SORTED { 4_000 } else { 1_200 };
    let (free, wanted) = (disk.f_bavail * disk.f_frsize, size.users as u64 * each);
    match free < wanted {
        true => Err(format!(
            "{} users may take {} GB of disk while they are made, and {} has {}. Set TMPDIR to a folder with more, or give one with --keep",
            size.users,
            wanted / 1_000_000_000,
            home.display(),
            free / 1_000_000_000
        )
        .into()),
        false => Ok(()),
    }
}

/// Makes the store and returns the credentials of some users.
fn fill(path: &Path, size: Size) -> Outcome<Vec<String>> {
    let runtime = tokio::runtime::Runtime::new()?;
    let entropy = Entropy::system();
    let store = Arc::new(SledStore::open(path, 64)?);
    let accounts =
        Accounts::open(store.clone(), &path.with_extension("pepper"), Passwords::new(1))?;
    runtime.block_on(accounts.first_start())?.ok_or("the store is not new")?;
    let pepper = accounts.pepper().clone();
    // What it holds in memory is not needed.
    drop(accounts);
    let commit = |batch: Batch| runtime.block_on(store.commit(batch));
    for first in (0..size.resources).step_by(BATCH) {
        let mut batch = Batch::new();
        for number in first..size.resources.min(first + BATCH) {
            put_resource(&mut batch, number);
        }
        commit(batch)?;
    }
    let (mut sample, mut waiting) = (Vec::new(), Vec::new());
    // User 1 is the administrator.
    let last = size.users as u64 + 1;
    let apart = (size.users / SAMPLE).max(1) as u64;
    for first in (2..=last).step_by(BATCH) {
        let mut batch = Batch::new();
        for uid in first..=last.min(first + BATCH as u64 - 1) {
            let text = KeyText::generate("kw", &entropy);
            let secret = text.text.expose();
            let key = MadeKey {
                id: text.id,
                user: uid,
                digest: pepper.digest(secret),
                last_four: text.last_four().as_bytes().try_into()?,
            };
            if uid % apart == 0 && sample.len() < SAMPLE {
                sample.push(STANDARD.encode(format!("{}:{secret}", name(uid))));
            }
            put_user(&mut batch, uid, key.id);
            match size.users < SORTED {
                true => key.put(&mut batch)?,
                false => waiting.push(key),
            }
        }
        commit(batch)?;
    }
    waiting.sort_unstable_by_key(|key| key.id);
    for keys in waiting.chunks(BATCH) {
        let mut batch = Batch::new();
        keys.iter().try_for_each(|key| key.put(&mut batch))?;
        commit(batch)?;
    }
    Ok(sample)
}

fn name(uid: u64) -> String {
    format!("machine-{uid}")
}

fn put_resource(batch: &mut Batch, number: usize) {
    let id = format!("app-{number}");
    let resource = serde_json::json!({
        "id": id,
        "enabled": true,
        "handler": "respond",
        "path": format!("/app-{number}/{{thing}}"),
        "granularity": "resource",
        "methods": ["GET"],
        "formats": ["any"],
        "authentication": ["*"],
    });
    batch.put(Table::Resources, id, encode(&resource));
}

fn put_user(batch: &mut Batch, uid: u64, key: KeyId) {
    let now = Timestamp(1_790_000_000);
    let user = User {
        uid,
        uuid: uuid::Builder::from_random_bytes([uid as u8; 16]).into_uuid(),
        name: name(uid),
        mail: None,
        init: None,
        status: true,
        roles: Vec::new(),
        password: None,
        created: now,
        changed: now,
        access: Timestamp(0),
        login: Timestamp(0),
        langcode: "en".into(),
        preferred_langcode: None,
        preferred_admin_langcode: None,
        timezone: None,
        attributes: BTreeMap::new(),
        rate_limit: None,
        credits: None,
    };
    let (at_user, at_key) = (uid.to_be_bytes(), key.number().to_be_bytes());
    batch.put(Table::Users, at_user, encode(&user));
    batch.put(Table::Names, name(uid), encode(&uid));
    batch.put(Table::Owners, [at_user, at_key].concat(), encode(&()));
}

/// What a key's record is made of, in little room: there may be ten million that wait.
struct MadeKey {
    id: KeyId,
    user: u64,
    digest: Digest,
    last_four: [u8; 4],
}

impl MadeKey {
    fn put(&self, batch: &mut Batch) -> Outcome<()> {
        let key = Key {
            id: self.id,
            user: self.user,
            application: None,
            label: String::new(),
            prefix: "kw".into(),
            last_four: std::str::from_utf8(&self.last_four)?.to_owned(),
            digest: self.digest,
            scheme: Scheme::Own,
            slow: None,
            former_digest: None,
            universal: false,
            scopes: None,
            created: Timestamp(1_790_000_000),
            expires: None,
            revoked: None,
            rotated: None,
            networks: Vec::new(),
            rate_limit: None,
            credits: None,
        };
        batch.put(Table::Keys, self.id.number().to_be_bytes(), encode(&key));
        Ok(())
    }
}

fn size_of(folder: &Path) -> Outcome<u64> {
    let mut total = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let about = entry.metadata()?;
        total += if about.is_dir() { size_of(&entry.path())? } else { about.len() };
    }
    Ok(total)
}
