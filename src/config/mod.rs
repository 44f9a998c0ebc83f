//! Reads `config.toml` and the environment when the program starts.
//!
//! [`File`] is the raw configuration, and [`Settings`] is the validated one. [`load`] reports all
//! problems together. Each problem names its place (file and line, or variable) and the fix.

mod background;
mod draft;
mod entity_user;
mod env;
mod error;
pub mod file;
mod identity;
mod log;
mod paths;
mod settings;
mod show;
mod telemetry;
#[cfg(test)]
mod tests;
mod upstreams;
mod verify;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use draft::Draft;
pub use env::environment;
pub use error::{ConfigError, Place, Problem};
pub use file::File;
pub use paths::Origin;
pub use settings::{
    Engine, ListenAddress, LogSettings, MetricsSettings, ProxyProtocol, Runtime, ScriptSettings,
    ServerSettings, Settings, VerifySettings,
};
pub use show::{print, schema};

/// The files that are tried in this order if no file is named.
const DEFAULT_PATHS: [&str; 2] = ["config.toml", "/etc/keyward/config.toml"];

/// A valid configuration.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The validated configuration.
    pub settings: Settings,
    /// The file that was read. `None` means that there was no file.
    pub source: Option<PathBuf>,
    /// The names of the environment variables that overrode a key, sorted.
    pub overrides: Vec<String>,
    /// The names of environment variables that begin with `KEYWARD_` and have no effect, sorted.
    pub unknown: Vec<String>,
    /// The raw configuration, with the overrides applied.
    pub file: File,
}

/// Reads the file and the environment.
///
/// The file is the first of these: `explicit` (from `--config`), the file that `KEYWARD_CONFIG`
/// names, `./config.toml`, `/etc/keyward/config.toml`. The last two need not exist. `env` contains
/// the variables of [`environment`]; other variables are ignored.
///
/// # Errors
/// The file cannot be read or is not TOML; or keys or values in the file or in the environment are
/// invalid, and the error lists all of them.
pub fn load(
    explicit: Option<&Path>,
    env: impl Iterator<Item = (String, String)>,
) -> Result<Loaded, ConfigError> {
    load_among(explicit, env, &DEFAULT_PATHS.map(Path::new))
}

fn load_among(
    explicit: Option<&Path>,
    env: impl Iterator<Item = (String, String)>,
    default_paths: &[&Path],
) -> Result<Loaded, ConfigError> {
    load_from(explicit, env, default_paths, Origin::new)
}

/// Loads like [`load`]. `origin_of` returns the origin of the paths in a file.
fn load_from(
    explicit: Option<&Path>,
    env: impl Iterator<Item = (String, String)>,
    default_paths: &[&Path],
    origin_of: impl FnOnce(Option<&Path>, &File) -> Origin,
) -> Result<Loaded, ConfigError> {
    let variables: Vec<(String, String)> = env.collect();
    let source = find(explicit, &variables, default_paths);
    let mut draft = Draft::new();
    if let Some(path) = source {
        draft.read(path, &text_of(path)?)?;
    }
    let overrides = env::apply(&mut draft, &variables);
    let unknown = env::unknown_names(&mut draft, &variables);
    let file = draft.file();
    let origin = origin_of(source, &file);
    let anchored = origin.anchor(file.clone());
    let settings = settings::resolve(&anchored, |keys, message, fix| {
        let (place, key) = draft.blame(keys);
        // Report only the first problem of each value.
        if !draft.found.iter().any(|known| known.place == place && known.key == key) {
            draft.found.push(Problem { place, key, message, fix });
        }
    });
    draft.found.sort();
    if draft.found.is_empty() {
        let settings = Settings { origin, ..settings };
        Ok(Loaded { settings, source: source.map(Path::to_owned), overrides, unknown, file })
    } else {
        Err(ConfigError::Invalid(draft.found))
    }
}

/// The warning about environment variables that have no effect. `None` means that there are none.
pub fn unknown_variables(loaded: &Loaded) -> Option<String> {
    let names = loaded.unknown.join(", ");
    (!names.is_empty()).then(|| {
        format!("environment variables without effect: {names}. Keys have names such as KEYWARD_LOG__LEVEL")
    })
}

fn find<'a>(
    explicit: Option<&'a Path>,
    variables: &'a [(String, String)],
    default_paths: &[&'a Path],
) -> Option<&'a Path> {
    // A dangling link counts as an existing file: if the link were ignored, the program would start
    // with another configuration.
    let exists = |path: &&Path| match fs::symlink_metadata(path) {
        Err(problem) => problem.kind() != io::ErrorKind::NotFound,
        Ok(_) => true,
    };
    explicit
        .or_else(|| env::config_file(variables).map(Path::new))
        .or_else(|| default_paths.iter().copied().find(exists))
}

fn text_of(path: &Path) -> Result<String, ConfigError> {
    let bytes = fs::read(path)
        .map_err(|problem| ConfigError::Unreadable { path: path.to_owned(), problem })?;
    String::from_utf8(bytes).map_err(|problem| {
        let line = error::line_of(problem.as_bytes(), problem.utf8_error().valid_up_to());
        ConfigError::NotText { path: path.to_owned(), line }
    })
}
