//! Full and read-only disks: a small file system in memory, which only the superuser can mount.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use crate::{
    check::{Difference, Outcome, check, compare, compare_exports, copy_folder, tree},
    engine::{self, ENGINES},
    harness::Site,
    model::{self, Model, runtime},
    rounds, scratch,
};

const SEED: u64 = 4;
const BEFORE: usize = 60;
const STEPS: usize = 300;

/// A mounted file system of 24 MiB, until it is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts a file system on a new folder. `None` means that this process may not mount.
    fn mount(path: PathBuf) -> Option<Self> {
        fs::create_dir_all(&path).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=24m", "none"]).arg(&path);
        let problem = match mount.output() {
            Ok(output) if output.status.success() => return Some(Self(path)),
            Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            Err(problem) => problem.to_string(),
        };
        println!("left out, because no small disk can be mounted: {problem}");
        None
    }

    fn remount(&self, option: &str) {
        let mut mount = Command::new("mount");
        mount.args(["-o", &format!("remount,size=24m,{option}")]).arg(&self.0);
        assert!(mount.status().unwrap().success());
    }

    /// Fills the disk, except for so many bytes.
    fn fill(&self, free: u64) {
        let path = self.filler();
        let mut file = File::create(&path).unwrap();
        let (mut part, mut size) = (1 << 20, 0);
        while part > 0 {
            match file.write(&vec![1; part]) {
                Ok(written) if written > 0 => size += written as u64,
                _ => part /= 2,
            }
        }
        file.set_len(size.saturating_sub(free)).unwrap();
    }

    fn make_space(&self) {
        fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(&self.0).status();
        assert!(unmounted.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

fn model() -> Arc<Model> {
    Arc::new(Model::new(SEED, &[0..BEFORE, BEFORE..STEPS]))
}

#[test]
fn start_on_a_full_disk_loses_nothing() {
    for engine in ENGINES {
        let folder = scratch();
        let original = folder.path().join("original");
        model::create(engine, &original, SEED, &[0..BEFORE], |_| {});
        let Some(disk) = SmallDisk::mount(folder.path().join("disk")) else { return };
        let store = disk.0.join("store");
        let model = model();
        let (mut refused, mut opened) = (0, 0);
        for number in 0..(rounds() as u64 / 10).max(8) {
            copy_folder(&original, &store);
            // From no space at all up to enough for the copy of the files and more.
            let free = number * number * 16 * 1024 % (4 << 20);
            disk.fill(free);
            let allowed = || model.after(BEFORE)..=model.after(BEFORE);
            match check(engine, &store, &model, allowed(), false) {
                Outcome::Equal(_) => opened += 1,
                Outcome::Refused(_) => refused += 1,
                Outcome::Wrong(problem) => panic!("{free} bytes are free: {problem}"),
            }
            disk.make_space();
            let outcome = check(engine, &store, &model, allowed(), true);
            assert_eq!(outcome, Outcome::Equal(model.after(BEFORE)), "{free} bytes were free");
            fs::remove_dir_all(&store).unwrap();
        }
        println!("starts on a full disk with {engine}: {refused} refused, {opened} opened");
        // A start of redb writes into space that the file has already.
        assert!(refused > 0 || *engine == "redb", "no start noticed that the disk was full");
    }
}

#[test]
fn disk_that_becomes_full_while_serving_loses_nothing_acknowledged() {
    for engine in ENGINES {
        let folder = scratch();
        let Some(disk) = SmallDisk::mount(folder.path().join("disk")) else { return };
        let model = model();
        for free in [0, 50 * 1024, 300 * 1024] {
            let store = disk.0.join("store");
            model::create(engine, &store, SEED, &[0..BEFORE], |_| {});
            let (acknowledged, failed) =
                serve_until_full(engine, &disk, free, &model, folder.path());
            disk.make_space();
            // redb reserves space for many changes.
            assert!(failed.is_some() || *engine == "redb", "the disk is too large for this test");
            let failed = failed.unwrap_or_else(|| "no error".into());
            let allowed = model.allowed(acknowledged);
            let outcome = check(engine, &store, &model, allowed, true);
            assert!(matches!(outcome, Outcome::Equal(_)), "{free} bytes were free: {outcome:?}");
            println!("{engine}: {} steps on a full disk, then {failed}", acknowledged - BEFORE);
            fs::remove_dir_all(&store).unwrap();
        }
    }
}

/// Runs steps until one fails. Returns the number of acknowledged steps and the error, if any.
fn serve_until_full(
    engine: &str,
    disk: &SmallDisk,
    free: u64,
    model: &Model,
    folder: &Path,
) -> (usize, Option<String>) {
    let store = engine::open(engine, &disk.0.join("store")).unwrap();
    let accounts = model::accounts(store.clone(), SEED, BEFORE).unwrap();
    disk.fill(free);
    let failed = (BEFORE..STEPS).find_map(|number| {
        let result = runtime().block_on(model::step(&accounts, SEED, number));
        result.err().map(|problem| (number, problem.to_string()))
    });
    let Some((number, problem)) = failed else { return (STEPS, None) };
    assert!(accounts.fault().is_some(), "the store goes on after {problem}");
    let last = model.after(number + 1).saturating_sub(1).max(model.after(number));
    let compared = compare(&store, &accounts, model, model.after(number)..=last);
    let compared =
        compared.and_then(|sequence| compare_exports(&accounts, model, sequence, folder));
    match compared {
        // sled can refuse reads after a failed write.
        Ok(()) | Err(Difference::Error(_)) => (number, Some(problem)),
        Err(Difference::Silent(wrong)) => panic!("{wrong}"),
    }
}

#[test]
fn start_on_a_read_only_disk_is_refused_and_loses_nothing() {
    for engine in ENGINES {
        let folder = scratch();
        let Some(disk) = SmallDisk::mount(folder.path().join("disk")) else { return };
        let store = disk.0.join("store");
        model::create(engine, &store, SEED, &[0..BEFORE], |_| {});
        let model = model();
        let allowed = || model.after(BEFORE)..=model.after(BEFORE);
        disk.remount("ro");
        let outcome = check(engine, &store, &model, allowed(), false);
        assert!(matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
        disk.remount("rw");
        let outcome = check(engine, &store, &model, allowed(), true);
        assert_eq!(outcome, Outcome::Equal(model.after(BEFORE)));
    }
}

/// A partial temporary file of a start on a full disk was taken for authoritative, and the store
/// never opened again.
#[test]
fn f1_store_opens_again_after_a_start_on_a_full_disk() {
    let site = Site::new();
    let Some(disk) = SmallDisk::mount(site.path().join("data")) else { return };
    site.json(&["init"]);
    for name in ["anna", "bert"] {
        site.json(&["user", "add", name]);
    }
    let before = tree(&site.store());
    for _ in 0..3 {
        disk.fill(0);
        let full = site.run(&["user", "list"]);
        let errors = String::from_utf8_lossy(&full.stderr);
        assert_eq!(full.status.code(), Some(5), "{errors}");
        assert!(errors.contains("space"), "{errors}");
        assert!(tree(&site.store()) == before, "a refused start has changed the store");
        disk.make_space();
    }
    assert_eq!(site.json(&["user", "list"]).as_array().unwrap().len(), 3);
    site.json(&["user", "add", "carl"]);
    assert_eq!(site.json(&["audit", "verify"])["state"], "intact");
}
