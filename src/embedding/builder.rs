//! Starting Keyward inside a program, in the one order that works: store, first records, scripts,
//! duties.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{Duties, Inner, Keyward};
use crate::{
    accounts::{AccountError, Accounts, Passwords, SetupError},
    layer::ClientSource,
    limits::FailureLimits,
    model::{Clock, Entropy, Pepper},
    pipeline::{Gate, TestGate},
    scripting::{ScriptError, ScriptLimits, Secrets},
    store::{MemoryStore, SledStore, Store, StoreError},
};

/// The page cache of the store, in MiB.
const CACHE_MEBIBYTES: u64 = 16;
/// The maximum size of the header field with the credential, in bytes.
const CREDENTIAL_BYTES: usize = 4096;
/// The maximum number of passwords that are checked at the same time.
const PASSWORD_CHECKS: usize = 2;

/// The state of a builder that does not know yet where the client's address comes from.
#[derive(Debug, Clone, Copy)]
pub struct ClientMissing;

/// The settings of a [`Keyward`]. `start` exists only after [`KeywardBuilder::client`].
///
/// ```compile_fail,E0599
/// # async fn example() {
/// // Failed attempts are counted by the client's address, so the program says where it is.
/// let keyward = keyward::Keyward::folder("/var/lib/service").start().await;
/// # }
/// ```
#[derive(Clone)]
pub struct KeywardBuilder<C> {
    place: Place,
    scripts: Option<PathBuf>,
    script_limits: ScriptLimits,
    secrets: Secrets,
    failures: FailureLimits,
    credential_bytes: usize,
    password_checks: usize,
    client: C,
}

/// The place of the records and the pepper.
#[derive(Clone)]
enum Place {
    Folder(PathBuf),
    Store { store: Arc<dyn Store>, pepper_file: PathBuf },
    Memory { clock: Clock, entropy: Entropy },
}

/// The reason why Keyward could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The store or its pepper could not be opened.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The first records could not be written.
    #[error(transparent)]
    Account(#[from] AccountError),
    /// The scripts have errors. No script is in force.
    #[error("the scripts are invalid:\n{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Scripts(Vec<ScriptError>),
    /// The folder could not be created.
    #[error("cannot create the folder {}: {problem}", .folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// The reason.
        problem: std::io::Error,
    },
}

impl From<StoreError> for StartError {
    fn from(problem: StoreError) -> Self {
        Self::Setup(problem.into())
    }
}

impl Keyward {
    /// Keeps the records in a store in this folder, and the pepper in the file `pepper` beside it.
    /// Both are created if they are missing.
    ///
    /// ```
    /// # async fn example() -> Result<(), keyward::StartError> {
    /// use keyward::{ClientSource, Keyward};
    /// let keyward = Keyward::folder("/var/lib/service")
    ///     .scripts("/etc/service/scripts")
    ///     .client(ClientSource::extension())
    ///     .start()
    ///     .await?;
    /// # drop(keyward); Ok(()) }
    /// ```
    pub fn folder(folder: impl AsRef<Path>) -> KeywardBuilder<ClientMissing> {
        KeywardBuilder::new(Place::Folder(folder.as_ref().to_owned()))
    }

    /// Keeps the records in a store of the program, and the pepper in a file. The file is created
    /// if it is missing.
    pub fn store(
        store: Arc<dyn Store>,
        pepper_file: impl AsRef<Path>,
    ) -> KeywardBuilder<ClientMissing> {
        let pepper_file = pepper_file.as_ref().to_owned();
        KeywardBuilder::new(Place::Store { store, pepper_file })
    }

    /// Keeps the records in memory, with a new pepper. They end with the process.
    ///
    /// ```
    /// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    /// # runtime.block_on(async {
    /// use keyward::{ClientSource, Keyward};
    /// let keyward = Keyward::memory().client(ClientSource::extension()).start().await?;
    /// assert_eq!(keyward.first_start().map(|first| first.username.as_str()), Some("admin"));
    /// # Ok::<_, keyward::StartError>(()) }).unwrap();
    /// ```
    pub fn memory() -> KeywardBuilder<ClientMissing> {
        Self::memory_with(Clock::system(), Entropy::system())
    }

    /// [`Keyward::memory`] with this clock and this source of random bytes, for tests.
    pub fn memory_with(clock: Clock, entropy: Entropy) -> KeywardBuilder<ClientMissing> {
        KeywardBuilder::new(Place::Memory { clock, entropy })
    }
}

impl KeywardBuilder<ClientMissing> {
    fn new(place: Place) -> Self {
        Self {
            place,
            scripts: None,
            script_limits: ScriptLimits::default(),
            secrets: Secrets::default(),
            failures: FailureLimits::usual(),
            credential_bytes: CREDENTIAL_BYTES,
            password_checks: PASSWORD_CHECKS,
            client: ClientMissing,
        }
    }

    /// Says where the client's address is, by which failed attempts are counted.
    pub fn client(self, client: ClientSource) -> KeywardBuilder<ClientSource> {
        let Self {
            place,
            scripts,
            script_limits,
            secrets,
            failures,
            credential_bytes,
            password_checks,
            client: ClientMissing,
        } = self;
        KeywardBuilder {
            place,
            scripts,
            script_limits,
            secrets,
            failures,
            credential_bytes,
            password_checks,
            client,
        }
    }
}

impl<C> KeywardBuilder<C> {
    /// Loads the scripts of this folder and, with the feature `watch`, loads them again after each
    /// change of a file. A missing folder contains no scripts.
    #[must_use]
    pub fn scripts(self, folder: impl AsRef<Path>) -> Self {
        Self { scripts: Some(folder.as_ref().to_owned()), ..self }
    }

    /// Sets the limits of scripts, and the secrets that they may use.
    #[must_use]
    pub fn script_options(self, limits: ScriptLimits, secrets: Secrets) -> Self {
        Self { script_limits: limits, secrets, ..self }
    }

    /// Sets the limits of failed attempts. The default is [`FailureLimits::usual`], the limits of
    /// the server.
    #[must_use]
    pub fn failures(self, failures: FailureLimits) -> Self {
        Self { failures, ..self }
    }

    /// Sets the maximum size of the header field with the credential. The default is 4096 bytes.
    #[must_use]
    pub fn credential_bytes(self, credential_bytes: usize) -> Self {
        Self { credential_bytes, ..self }
    }

    /// Sets how many passwords are checked at the same time. Each check needs 19 MiB of memory. The
    /// default is 2.
    #[must_use]
    pub fn password_checks(self, password_checks: usize) -> Self {
        Self { password_checks, ..self }
    }
}

impl KeywardBuilder<ClientSource> {
    /// Opens the store, writes the first records of a new store, loads the scripts, and starts the
    /// background duties on the runtime of the calling task: writing the uses of keys, spent
    /// credits and denials, verifying the audit trail and the store, watching the clock and the
    /// files of the scripts.
    ///
    /// # Errors
    /// The store, its pepper or a script cannot be used.
    pub async fn start(self) -> Result<Keyward, StartError> {
        let passwords = Passwords::new(self.password_checks);
        let accounts = match self.place {
            Place::Folder(folder) => {
                create_folder(&folder)?;
                let store = SledStore::open(&folder.join("store"), CACHE_MEBIBYTES)?;
                Accounts::open(Arc::new(store), &folder.join("pepper"), passwords)?
            }
            Place::Store { store, pepper_file } => Accounts::open(store, &pepper_file, passwords)?,
            Place::Memory { clock, entropy } => {
                let pepper = Pepper::from_bytes(entropy.bytes());
                Accounts::with(Arc::new(MemoryStore::new()), pepper, passwords, clock, entropy)?
            }
        };
        let accounts = accounts.with_failures(self.failures);
        let first_start = accounts.first_start().await?;
        if let Some(folder) = self.scripts {
            load_scripts(&accounts, folder, self.script_limits, self.secrets).await?;
        }
        let gate = Gate::new(&accounts, self.credential_bytes);
        let duties = Duties::start(&accounts);
        let client = self.client;
        Ok(Keyward(Arc::new(Inner { accounts, gate, client, first_start, duties })))
    }
}

fn create_folder(folder: &Path) -> Result<(), StartError> {
    std::fs::create_dir_all(folder)
        .map_err(|problem| StartError::Folder { folder: folder.to_owned(), problem })
}

/// Loads the scripts on a thread of its own, because their tests take time.
async fn load_scripts(
    accounts: &Accounts,
    folder: PathBuf,
    limits: ScriptLimits,
    secrets: Secrets,
) -> Result<(), StartError> {
    let accounts = accounts.clone();
    let load = move || accounts.load_scripts(&folder, limits, secrets, Some(Arc::new(TestGate)));
    let loaded = tokio::task::spawn_blocking(load).await;
    let interrupted = |_| Err(vec![ScriptError::of_folder("", "loading was interrupted")]);
    loaded.unwrap_or_else(interrupted).map_err(StartError::Scripts)
}
