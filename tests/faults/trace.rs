//! Replays the recorded changes of files, and builds the states that a power cut can leave.
//!
//! A write or truncation is durable after a sync of its file, the creation, move or removal of a
//! name after a sync of its folder. All others can be lost: writes and parts of writes in any
//! order, changes of names in the order of their journal. If a change of a name is lost, later
//! writes that were not synced are lost too. Journaling file systems keep this order in practice,
//! and sled needs it between the name of a new snapshot and the segments that the snapshot frees.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    rc::Rc,
};

use crate::model::Random;

/// A recorded change.
#[derive(Debug, Clone)]
pub enum Event {
    Write {
        inode: u64,
        offset: usize,
        data: Bytes,
    },
    Truncate {
        inode: u64,
        length: usize,
    },
    Sync {
        inode: u64,
    },
    Name(NameChange),
    SyncFolder(PathBuf),
    /// So many steps of the workload are acknowledged.
    Ack(usize),
}

/// The bytes of a write.
#[derive(Clone)]
pub struct Bytes(Rc<[u8]>);

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let zeros = self.0.iter().filter(|byte| **byte == 0).count();
        write!(f, "{} bytes, {zeros} of them zero", self.0.len())
    }
}

/// A change of a folder.
#[derive(Debug, Clone)]
pub enum NameChange {
    Create(PathBuf, u64),
    Folder(PathBuf),
    Rename(PathBuf, PathBuf),
    Unlink(PathBuf),
}

/// How much of the changes that are not durable survives a power cut.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Survival {
    Nothing,
    Everything,
    Some,
}

/// Reads a trace that `inject.c` has written.
pub fn read(file: &Path) -> Vec<Event> {
    let bytes = fs::read(file).unwrap();
    let mut rest = bytes.as_slice();
    let mut events = Vec::new();
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let line = std::str::from_utf8(&rest[..end]).unwrap();
        rest = &rest[end + 1..];
        let (kind, arguments) = line.split_once(' ').unwrap();
        let words: Vec<_> = arguments.split(' ').collect();
        let number = |index: usize| words[index].parse::<u64>().unwrap();
        events.push(match kind {
            "write" => {
                let (data, after) = rest.split_at(number(2) as usize);
                rest = after;
                let offset = number(1) as usize;
                Event::Write { inode: number(0), offset, data: Bytes(data.into()) }
            }
            "truncate" => Event::Truncate { inode: number(0), length: number(1) as usize },
            "sync" => Event::Sync { inode: number(0) },
            "ack" => Event::Ack(number(0) as usize),
            "sync-folder" => Event::SyncFolder(arguments.into()),
            "mkdir" => Event::Name(NameChange::Folder(arguments.into())),
            "unlink" => Event::Name(NameChange::Unlink(arguments.into())),
            "create" => {
                let (inode, path) = arguments.split_once(' ').unwrap();
                Event::Name(NameChange::Create(path.into(), inode.parse().unwrap()))
            }
            "rename" => {
                let (from, to) = arguments.split_once('\t').unwrap();
                Event::Name(NameChange::Rename(from.into(), to.into()))
            }
            other => panic!("{other}"),
        });
    }
    events
}

#[derive(Debug, Clone)]
enum Change {
    Write(usize, Bytes),
    Truncate(usize),
}

/// A file, whose last changes are not durable.
#[derive(Debug, Clone, Default)]
struct File {
    durable: Vec<u8>,
    /// The changes with the number of name changes before them.
    pending: Vec<(usize, Change)>,
}

/// `None` means a folder.
type Names = BTreeMap<PathBuf, Option<usize>>;

/// The files below a folder, as a disk and its cache have them.
#[derive(Clone)]
pub struct Disk {
    root: PathBuf,
    files: Vec<Rc<File>>,
    /// The file of each inode. The system gives an inode to a new file after its file was removed.
    inodes: HashMap<u64, usize>,
    durable: Names,
    /// The changes of names that are not durable, numbered from 0.
    pending: Vec<(usize, NameChange)>,
    name_changes: usize,
    /// The number of acknowledged steps.
    pub acknowledged: usize,
}

impl Disk {
    /// The files that are below a folder now, all of them durable.
    pub fn new(root: &Path, acknowledged: usize) -> Self {
        let parent = root.parent().unwrap().canonicalize().unwrap();
        let root = parent.join(root.file_name().unwrap());
        let mut disk = Self {
            root: root.clone(),
            files: Vec::new(),
            inodes: HashMap::new(),
            durable: Names::new(),
            pending: Vec::new(),
            name_changes: 0,
            acknowledged,
        };
        for (path, bytes) in crate::check::tree(&root) {
            let file = bytes.map(|bytes| {
                let inode = fs::metadata(&path).unwrap().ino();
                disk.add_file(inode, bytes)
            });
            disk.durable.insert(path, file);
        }
        disk
    }

    fn add_file(&mut self, inode: u64, durable: Vec<u8>) -> usize {
        self.files.push(Rc::new(File { durable, pending: Vec::new() }));
        self.inodes.insert(inode, self.files.len() - 1);
        self.files.len() - 1
    }

    fn file(&mut self, inode: u64) -> &mut File {
        Rc::make_mut(&mut self.files[self.inodes[&inode]])
    }

    pub fn apply(&mut self, event: &Event) {
        match event {
            Event::Write { inode, offset, data } => {
                self.change_file(*inode, Change::Write(*offset, data.clone()));
            }
            Event::Truncate { inode, length } => {
                self.change_file(*inode, Change::Truncate(*length));
            }
            Event::Sync { inode } => {
                let file = self.file(*inode);
                for (_, change) in std::mem::take(&mut file.pending) {
                    change.apply(&mut file.durable);
                }
            }
            Event::Name(NameChange::Create(path, inode)) => {
                let file = self.add_file(*inode, Vec::new());
                self.change_name(NameChange::Create(path.clone(), file as u64));
            }
            // The folder itself is always there.
            Event::Name(NameChange::Folder(path)) if *path == self.root => {}
            Event::Name(change) => self.change_name(change.clone()),
            Event::SyncFolder(folder) => self.sync_folder(folder),
            Event::Ack(steps) => self.acknowledged = *steps,
        }
    }

    fn change_file(&mut self, inode: u64, change: Change) {
        let number = self.name_changes;
        self.file(inode).pending.push((number, change));
    }

    fn change_name(&mut self, change: NameChange) {
        self.pending.push((self.name_changes, change));
        self.name_changes += 1;
    }

    fn sync_folder(&mut self, folder: &Path) {
        let mut later = Vec::new();
        for (number, change) in std::mem::take(&mut self.pending) {
            if !change.folders().contains(&folder) {
                later.push((number, change));
                continue;
            }
            if let NameChange::Rename(from, to) = &change {
                later.iter_mut().for_each(|(_, other)| other.follow(from, to));
            }
            change.apply(&mut self.durable);
        }
        self.pending = later;
    }

    /// Writes a state that a power cut can leave into a new folder.
    pub fn write(&self, survival: Survival, random: &mut Random, target: &Path) {
        let keep = |count: usize, random: &mut Random| match survival {
            Survival::Nothing => 0,
            Survival::Everything => count,
            Survival::Some => random.below(count as u64 + 1) as usize,
        };
        let mut names = self.durable.clone();
        let kept = keep(self.pending.len(), random);
        for (_, change) in &self.pending[..kept] {
            change.apply(&mut names);
        }
        let lost = self.pending.get(kept).map_or(usize::MAX, |(number, _)| *number);
        fs::create_dir_all(target).unwrap();
        // A folder can be lost although it was synced itself: its name is in the folder above.
        let has_name = |path: &Path| *path == self.root || names.get(path) == Some(&None);
        let is_reachable = |path: &Path| {
            path.ancestors().skip(1).take_while(|above| above.starts_with(&self.root)).all(has_name)
        };
        for (path, file) in names.iter().filter(|(path, _)| is_reachable(path)) {
            let path = target.join(path.strip_prefix(&self.root).unwrap());
            let Some(file) = *file else {
                fs::create_dir_all(path).unwrap();
                continue;
            };
            let file = &self.files[file];
            let mut bytes = file.durable.clone();
            let part = *random.pick(&[512, 4096, usize::MAX]).unwrap();
            for (name_changes, change) in &file.pending {
                match survival {
                    Survival::Nothing => {}
                    Survival::Everything => change.apply(&mut bytes),
                    Survival::Some if *name_changes > lost => {}
                    Survival::Some => change.apply_parts(part, random, &mut bytes),
                }
            }
            fs::write(path, bytes).unwrap();
        }
    }
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Truncate(length) => bytes.resize(*length, 0),
            Self::Write(offset, data) => {
                let end = offset + data.0.len();
                bytes.resize(bytes.len().max(end), 0);
                bytes[*offset..end].copy_from_slice(&data.0);
            }
        }
    }

    /// Applies a random half of the change, in parts of this size.
    fn apply_parts(&self, part: usize, random: &mut Random, bytes: &mut Vec<u8>) {
        let Self::Write(offset, data) = self else {
            if random.below(2) == 0 {
                self.apply(bytes);
            }
            return;
        };
        let mut start = 0;
        while start < data.0.len() {
            // The parts are those of the file.
            let size = if part == usize::MAX { part } else { part - (offset + start) % part };
            let end = start.saturating_add(size).min(data.0.len());
            if random.below(2) == 0 {
                let data = Bytes(data.0[start..end].into());
                Self::Write(offset + start, data).apply(bytes);
            }
            start = end;
        }
    }
}

impl NameChange {
    /// The folders whose sync makes the change durable.
    fn folders(&self) -> Vec<&Path> {
        match self {
            Self::Create(path, _) | Self::Folder(path) | Self::Unlink(path) => {
                path.parent().into_iter().collect()
            }
            Self::Rename(from, to) => from.parent().into_iter().chain(to.parent()).collect(),
        }
    }

    fn apply(&self, names: &mut Names) {
        match self {
            Self::Create(path, file) => drop(names.insert(path.clone(), Some(*file as usize))),
            Self::Folder(path) => drop(names.insert(path.clone(), None)),
            Self::Unlink(path) => drop(names.remove(path)),
            Self::Rename(from, to) => {
                for name in names.keys().cloned().collect::<Vec<_>>() {
                    if let Ok(rest) = name.strip_prefix(from) {
                        let entry = names.remove(&name).unwrap();
                        let is_same = rest.as_os_str().is_empty();
                        names.insert(if is_same { to.clone() } else { to.join(rest) }, entry);
                    }
                }
            }
        }
    }

    /// A folder above the change was renamed.
    fn follow(&mut self, from: &Path, to: &Path) {
        let moved = |path: &mut PathBuf| {
            if let Ok(rest) = path.strip_prefix(from)
                && !rest.as_os_str().is_empty()
            {
                *path = to.join(rest);
            }
        };
        match self {
            Self::Create(path, _) | Self::Folder(path) | Self::Unlink(path) => moved(path),
            Self::Rename(old, new) => {
                moved(old);
                moved(new);
            }
        }
    }
}
