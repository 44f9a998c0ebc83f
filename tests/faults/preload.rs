//! Compiles `inject.c`, and preloads it into a process under test.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// A system call that fails.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// The kind of call, as in `inject.c`.
    pub call: &'static str,
    /// The number of the call, from 1.
    pub at: usize,
    pub errno: i32,
    /// Whether all later calls of this kind fail too.
    pub is_sticky: bool,
}

/// Input/output error.
pub const EIO: i32 = 5;
/// No space left on device.
pub const ENOSPC: i32 = 28;
/// Read-only file system.
pub const EROFS: i32 = 30;

/// The files that the library and the tests use to talk to each other, in one folder.
#[derive(Debug, Clone)]
pub struct Files(PathBuf);

impl Files {
    pub fn new(folder: &Path) -> Self {
        fs::create_dir_all(folder).unwrap();
        Self(folder.canonicalize().unwrap())
    }

    /// Exists from the moment from which calls are counted.
    pub fn arm(&self) -> PathBuf {
        self.0.join("arm")
    }

    /// Exists if a call has failed.
    pub fn fired(&self) -> PathBuf {
        self.0.join("fired")
    }

    pub fn trace(&self) -> PathBuf {
        self.0.join("trace")
    }

    /// The number of acknowledged steps, a line for each.
    pub fn acks(&self) -> PathBuf {
        self.0.join("acks")
    }

    pub fn folder(&self) -> &Path {
        &self.0
    }

    fn counts(&self) -> PathBuf {
        self.0.join("counts")
    }

    /// The number of calls of each kind in a process that has ended.
    pub fn read_counts(&self) -> BTreeMap<String, usize> {
        let text = fs::read_to_string(self.counts()).unwrap();
        let counts = text.lines().map(|line| line.split_once(' ').unwrap());
        counts.map(|(name, count)| (name.to_owned(), count.parse().unwrap())).collect()
    }
}

/// The environment variables that preload the library. `folder` is the folder whose files it
/// watches; its parent must exist.
pub fn variables(
    folder: &Path,
    files: &Files,
    fault: Option<Fault>,
    is_armed_later: bool,
) -> Vec<(&'static str, String)> {
    let text = |path: PathBuf| path.into_os_string().into_string().unwrap();
    let parent = folder.parent().unwrap().canonicalize().unwrap();
    let folder = parent.join(folder.file_name().unwrap());
    let mut variables = vec![
        ("LD_PRELOAD", text(library().to_owned())),
        ("KEYWARD_FAULT_DIR", text(folder)),
        ("KEYWARD_FAULT_FIRED", text(files.fired())),
        ("KEYWARD_FAULT_COUNTS", text(files.counts())),
        ("KEYWARD_FAULT_ACKS", text(files.acks())),
    ];
    if is_armed_later {
        variables.push(("KEYWARD_FAULT_ARM", text(files.arm())));
    }
    match fault {
        None => variables.push(("KEYWARD_FAULT_TRACE", text(files.trace()))),
        Some(fault) => {
            variables.push(("KEYWARD_FAULT_CALL", fault.call.into()));
            variables.push(("KEYWARD_FAULT_AT", fault.at.to_string()));
            variables.push(("KEYWARD_FAULT_ERRNO", fault.errno.to_string()));
            if fault.is_sticky {
                variables.push(("KEYWARD_FAULT_STICKY", "1".into()));
            }
        }
    }
    variables
}

/// The compiled library. Several test processes can compile it at the same time.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        fs::create_dir_all(folder).unwrap();
        let draft = folder.join(format!("faults-inject-{}.so", std::process::id()));
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/faults/inject.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-Wall", "-Werror", "-O1", "-shared", "-fPIC", "-o"]);
        let output = compiler.arg(&draft).arg(source).output();
        let output = output.expect("a C compiler, cc, is installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let library = folder.join("faults-inject.so");
        fs::rename(&draft, &library).unwrap();
        library
    })
}
