//! Relative paths in the configuration count from the folder of the configuration file, so that
//! every command finds the store of a file, whatever folder the command starts in.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::File;

/// The places that the paths of the settings come from, for messages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// The configuration file, as an absolute path. `None` means that there is no file.
    pub file: Option<PathBuf>,
    /// The folder from which relative paths count.
    pub folder: PathBuf,
    /// The store's path if it counted from the working directory, as in earlier
    /// versions. `None` means that this makes no difference.
    pub store_from_working_dir: Option<PathBuf>,
}

impl Origin {
    /// The origin of the settings in a file. `None` means that there is no file: then relative
    /// paths count from the working directory.
    pub(super) fn new(source: Option<&Path>, file: &File) -> Self {
        // A pipe, such as `--config /dev/stdin`, is in no folder of its own.
        let source = source.filter(|path| fs::metadata(path).is_ok_and(|found| found.is_file()));
        let working_dir = std::env::current_dir().unwrap_or_default();
        let source = source.map(|path| std::path::absolute(path).unwrap_or_else(|_| path.into()));
        let parent = source.as_deref().and_then(Path::parent);
        let folder = parent.map_or_else(|| working_dir.clone(), Path::to_owned);
        let is_moved = folder != working_dir && Path::new(&file.store.path).is_relative();
        Self {
            store_from_working_dir: is_moved.then(|| working_dir.join(&file.store.path)),
            file: source,
            folder,
        }
    }

    /// The configuration with absolute paths. An empty path means a default, and stays empty.
    pub(super) fn anchor(&self, mut file: File) -> File {
        let tls = |certificate: &mut String, key: &mut String, ca: &mut String| {
            for path in [certificate, key, ca] {
                self.anchor_path(path);
            }
        };
        let server = &mut file.server;
        tls(&mut server.tls_certificate, &mut server.tls_key, &mut server.tls_client_ca);
        let verify = &mut file.verify;
        tls(&mut verify.tls_certificate, &mut verify.tls_key, &mut verify.tls_client_ca);
        let admin = &mut file.admin;
        tls(&mut admin.tls_certificate, &mut admin.tls_key, &mut admin.tls_client_ca);
        for listen in [&mut verify.listen, &mut admin.listen] {
            if let Some(path) = listen.strip_prefix("unix:") {
                let mut path = path.to_owned();
                self.anchor_path(&mut path);
                *listen = format!("unix:{path}");
            }
        }
        // A path such as "." names no folder of the store's own, and is refused as it is.
        if Path::new(&file.store.path).components().next_back().is_some_and(is_name) {
            self.anchor_path(&mut file.store.path);
        }
        let store = &mut file.store;
        for path in [&mut store.pepper_file, &mut store.hmac_key_file, &mut file.backup.dir] {
            self.anchor_path(path);
        }
        for path in [&mut file.scripts.dir, &mut file.scripts.secrets_dir] {
            self.anchor_path(path);
        }
        self.anchor_path(&mut file.metrics.token_file);
        if !["stdout", "stderr"].contains(&file.access_log.output.as_str()) {
            self.anchor_path(&mut file.access_log.output);
        }
        for webhook in file.webhooks.values_mut() {
            self.anchor_path(&mut webhook.ca);
        }
        file
    }

    fn anchor_path(&self, path: &mut String) {
        // A trailing slash stays, because the check of a socket's path looks at it.
        let end = if path.ends_with('/') { "/" } else { "" };
        if path.trim().is_empty() || Path::new(path.as_str()).is_absolute() {
            return;
        }
        let joined = self.folder.join(&*path);
        let joined = std::path::absolute(&joined).unwrap_or(joined);
        // A folder whose name is not UTF-8 cannot be written as text. Such a path stays relative.
        if let Some(text) = joined.to_str() {
            *path = format!("{}{end}", text.trim_end_matches('/'));
        }
    }
}

fn is_name(component: std::path::Component<'_>) -> bool {
    matches!(component, std::path::Component::Normal(_))
}
