//! Reads `config.toml` and the environment, once at the start.
//!
//! [`File`] is the raw configuration, [`Settings`] the validated one. The step between them reports
//! all problems at once, each with its file and line or its variable, and the fix.

mod background;
mod draft;
mod env;
mod error;
pub mod file;
mod settings;
mod show;
#[cfg(test)]
mod tests;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use draft::Draft;
pub use env::environment;
pub use error::{ConfigError, Place, Problem};
pub use file::File;
pub use settings::{
    AdminListen, Engine, LogSettings, ProxyProtocol, Runtime, ScriptSettings, ServerSettings,
    Settings,
};
pub use show::{print, schema};

/// The default places of the file.
const USUAL: [&str; 2] = ["config.toml", "/etc/keyward/config.toml"];

/// A valid configuration.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The validated configuration.
    pub settings: Settings,
    /// The file that was read. `None` means the defaults.
    pub source: Option<PathBuf>,
    /// The names of the applied variables, sorted.
    pub overrides: Vec<String>,
    /// The file with the overrides applied.
    pub file: File,
}

/// Reads the file and the environment.
///
/// The file is `explicit` (from `--config`), else the one in `KEYWARD_CONFIG`, else `./config.toml`
/// or `/etc/keyward/config.toml` if it exists, else none. `env` contains the variables of
/// [`environment`]; others are ignored.
///
/// # Errors A file that cannot be read or is not TOML; or else everything that is wrong in it and
/// in the environment together.
pub fn load(
    explicit: Option<&Path>,
    env: impl Iterator<Item = (String, String)>,
) -> Result<Loaded, ConfigError> {
    load_among(explicit, env, &USUAL.map(Path::new))
}

fn load_among(
    explicit: Option<&Path>,
    env: impl Iterator<Item = (String, String)>,
    usual: &[&Path],
) -> Result<Loaded, ConfigError> {
    let variables: Vec<(String, String)> = env.collect();
    let source = find(explicit, &variables, usual);
    let mut draft = Draft::new();
    if let Some(path) = source {
        draft.read(path, &text_of(path)?)?;
    }
    let overrides = env::apply(&mut draft, &variables);
    let file = draft.file();
    let settings = settings::resolve(&file, |keys, message, fix| {
        let (place, key) = draft.blame(keys);
        // One problem per value is enough.
        if !draft.found.iter().any(|one| one.place == place && one.key == key) {
            draft.found.push(Problem { place, key, message, fix });
        }
    });
    draft.found.sort();
    if draft.found.is_empty() {
        Ok(Loaded { settings, source: source.map(Path::to_owned), overrides, file })
    } else {
        Err(ConfigError::Invalid(draft.found))
    }
}

fn find<'a>(
    explicit: Option<&'a Path>,
    variables: &'a [(String, String)],
    usual: &[&'a Path],
) -> Option<&'a Path> {
    // A dangling link counts as existing: ignoring it would start the program with another
    // configuration.
    let is_there = |path: &&Path| match fs::symlink_metadata(path) {
        Err(problem) => problem.kind() != io::ErrorKind::NotFound,
        Ok(_) => true,
    };
    explicit
        .or_else(|| env::config_file(variables).map(Path::new))
        .or_else(|| usual.iter().copied().find(is_there))
}

fn text_of(path: &Path) -> Result<String, ConfigError> {
    let bytes = fs::read(path)
        .map_err(|problem| ConfigError::Unreadable { path: path.to_owned(), problem })?;
    String::from_utf8(bytes).map_err(|problem| {
        let line = error::line_of(problem.as_bytes(), problem.utf8_error().valid_up_to());
        ConfigError::NotText { path: path.to_owned(), line }
    })
}
