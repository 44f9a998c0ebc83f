//! Creates a store with many users and one key per user.

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
    store::{self, Batch, EngineKind, Store, Table, encode, table},
};

use super::Outcome;

/// The maximum number of users whose credentials are kept in [`BenchStore::sample`].
pub const SAMPLE: usize = 20_000;
/// Number of users, keys or resources in one commit.
const BATCH: usize = 5_000;
/// For at least this number of users, keys are written in the order of their ids.
///
/// In random order, each new key makes the store write the whole bucket of that key, so ten million
/// keys would need 32 GB of disk. The order of ids avoids these writes. As a side effect, the
/// buckets are fuller.
const MIN_USERS_FOR_SORTED_KEYS: usize = 2_000_001;

/// The size of a store.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// The store's engine.
    pub engine: EngineKind,
    /// Number of users, without the administrator. Each user has one key.
    pub users: usize,
    /// Number of resources, without the built-in user resource. Each resource has its own path.
    pub resources: usize,
}

/// A store on disk.
pub struct BenchStore {
    /// The store's folder.
    pub path: PathBuf,
    /// How long the creation took. `None` means that an existing store is used.
    pub creation_time: Option<Duration>,
    /// Credentials of up to [`SAMPLE`] users, spread evenly over all users.
    pub sample: Vec<String>,
    /// Deletes the temporary folder on drop, also after an error.
    _folder: Option<tempfile::TempDir>,
}

impl BenchStore {
    /// Finds a store in the folder `kept_folder`, or creates the store. `None` means that the store
    /// is created in a temporary folder.
    pub fn find_or_create(kept_folder: Option<&Path>, size: Size) -> Outcome<Self> {
        let (temporary, parent) = match kept_folder {
            Some(folder) => {
                let name = format!("{}-{}-{}", size.engine.name(), size.users, size.resources);
                (None, folder.join(name))
            }
            None => {
                let folder = tempfile::tempdir()?;
                let parent = folder.path().to_owned();
                (Some(folder), parent)
            }
        };
        let path = parent.join("store");
        let sample = path.with_extension("sample");
        let mut creation_time = None;
        if !sample.exists() {
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(&parent)?;
            check_disk_space(&parent, size)?;
            let begun = Instant::now();
            // The sample is written after all records, so a file with a sample means that the store
            // is complete.
            fs::write(&sample, fill(&path, size)?.join("\n"))?;
            creation_time = Some(begun.elapsed());
        }
        let sample = fs::read_to_string(&sample)?.lines().map(str::to_owned).collect();
        Ok(Self { path, creation_time, sample, _folder: temporary })
    }

    /// Size of the store on disk, in bytes.
    pub fn disk(&self) -> Outcome<u64> {
        folder_size(&self.path)
    }
}

fn check_disk_space(folder: &Path, size: Size) -> Outcome<()> {
    let disk = rustix::fs::statvfs(folder)?;
    let is_sorted = size.users >= MIN_USERS_FOR_SORTED_KEYS || size.engine != EngineKind::Sled;
    let bytes_per_user = if is_sorted { 1_200 } else { 4_000 };
    let (free, wanted) = (disk.f_bavail * disk.f_frsize, size.users as u64 * bytes_per_user);
    if free < wanted {
        return Err(format!(
            "creating {} users needs up to {} GB of disk, but {} has {} GB free; set TMPDIR or --keep to a folder with more",
            size.users,
            wanted / 1_000_000_000,
            folder.display(),
            free / 1_000_000_000
        )
        .into());
    }
    Ok(())
}

/// Creates the records. Returns the credentials of some users.
fn fill(path: &Path, size: Size) -> Outcome<Vec<String>> {
    let runtime = tokio::runtime::Runtime::new()?;
    let entropy = Entropy::system();
    let store: Arc<dyn Store> = store::open(size.engine, path, 64)?;
    let accounts =
        Accounts::open(store.clone(), &path.with_extension("pepper"), Passwords::new(1))?;
    runtime.block_on(accounts.first_start())?.ok_or("the store is not new")?;
    let pepper = accounts.pepper().clone();
    // Free the memory of the accounts, because the rest of the function only needs the store.
    drop(accounts);
    let commit = |batch: Batch| runtime.block_on(store.commit(batch));
    for first in (0..size.resources).step_by(BATCH) {
        let mut batch = Batch::new();
        for number in first..size.resources.min(first + BATCH) {
            put_resource(&mut batch, number);
        }
        commit(batch)?;
    }
    let (mut sample, mut unsorted_keys) = (Vec::new(), Vec::new());
    // User 1 is the administrator.
    let last = size.users as u64 + 1;
    let sample_step = (size.users / SAMPLE).max(1) as u64;
    for first in (2..=last).step_by(BATCH) {
        let mut batch = Batch::new();
        for uid in first..=last.min(first + BATCH as u64 - 1) {
            let text = KeyText::generate("kw", &entropy);
            let secret = text.text.expose();
            let key = CompactKey {
                id: text.id,
                user: uid,
                digest: pepper.digest(secret),
                last_four: text.last_four().as_bytes().try_into()?,
            };
            if uid % sample_step == 0 && sample.len() < SAMPLE {
                sample.push(STANDARD.encode(format!("{}:{secret}", name(uid))));
            }
            put_user(&mut batch, uid, key.id);
            if size.users < MIN_USERS_FOR_SORTED_KEYS {
                key.put(&mut batch)?;
            } else {
                unsorted_keys.push(key);
            }
        }
        commit(batch)?;
    }
    unsorted_keys.sort_unstable_by_key(|key| key.id);
    for keys in unsorted_keys.chunks(BATCH) {
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
    batch.put(Table::Users, table::user(uid), encode(&user));
    batch.put(Table::Names, name(uid), encode(&uid));
    batch.put(Table::Owners, table::owner(uid, key), encode(&()));
}

/// The fields in which keys differ. This type is small, because up to ten million keys are in
/// memory while they are sorted.
struct CompactKey {
    id: KeyId,
    user: u64,
    digest: Digest,
    last_four: [u8; 4],
}

impl CompactKey {
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
        batch.put(Table::Keys, table::key(self.id), encode(&key));
        Ok(())
    }
}

fn folder_size(folder: &Path) -> Outcome<u64> {
    let mut total = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        total += if metadata.is_dir() { folder_size(&entry.path())? } else { metadata.len() };
    }
    Ok(total)
}
