//! Cuts the power at each moment of a start, of changes and of a compaction.

use std::{
    collections::BTreeMap,
    fs,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    check::{Outcome, check, copy_folder},
    child::Job,
    engine::ENGINES,
    model::{self, Model, Random},
    preload::Files,
    rounds, scratch,
    trace::{self, Disk, Event, Survival},
};

const SEED: u64 = 3;
const BEFORE: usize = 60;

/// A process during which the power is cut.
struct Process {
    engine: &'static str,
    name: &'static str,
    /// The store before. It does not exist before a first start.
    store: PathBuf,
    before: Vec<Range<usize>>,
    steps: Range<usize>,
    is_compaction: bool,
}

/// The counts of states, by what survives of the changes that are not durable.
#[derive(Default)]
struct Counts {
    durable: usize,
    everything: usize,
    some: usize,
}

#[test]
fn power_cut_during_a_first_start_leaves_a_store_or_no_obstacle() {
    for engine in ENGINES {
        let folder = scratch();
        let store = folder.path().join("store");
        let process = Process {
            engine,
            name: "first start",
            store,
            before: Vec::new(),
            steps: 0..12,
            is_compaction: false,
        };
        process.cut_power(folder.path(), rounds() / 4);
    }
}

#[test]
fn power_cut_loses_nothing_acknowledged() {
    for engine in ENGINES {
        let folder = scratch();
        let store = folder.path().join("store");
        model::create(engine, &store, SEED, &[0..BEFORE], |_| {});
        serving(engine, "start of a closed store, and changes", store)
            .cut_power(folder.path(), rounds() / 4);
    }
}

#[test]
fn power_cut_after_a_kill_loses_nothing_acknowledged() {
    for engine in ENGINES {
        let folder = scratch();
        let (store, killed) = (folder.path().join("store"), folder.path().join("killed"));
        model::create(engine, &store, SEED, &[0..BEFORE], |steps| {
            if steps == BEFORE {
                copy_folder(&store, &killed);
            }
        });
        serving(engine, "start after a kill, and changes", killed)
            .cut_power(folder.path(), rounds() / 4);
    }
}

#[test]
fn power_cut_during_a_compaction_loses_nothing() {
    for engine in ENGINES {
        let folder = scratch();
        let store = folder.path().join("store");
        model::create(engine, &store, SEED, &[0..BEFORE], |_| {});
        let process = Process {
            is_compaction: true,
            steps: BEFORE..BEFORE,
            ..serving(engine, "compaction", store)
        };
        process.cut_power(folder.path(), rounds() / 4);
    }
}

/// The power is cut once while the store is used, and once more during the next start.
#[test]
fn power_cut_during_the_start_after_a_power_cut_loses_nothing() {
    for engine in ENGINES {
        let folder = scratch();
        let store = folder.path().join("store");
        model::create(engine, &store, SEED, &[0..BEFORE], |_| {});
        let first = serving(engine, "changes", store);
        let (disk, events, _) = first.record(folder.path());
        let mut random = Random::new(SEED);
        let cuts = (rounds() / 25).max(2);
        for number in 0..cuts {
            let mut cut = disk.clone();
            let end = events.len() * (number + 1) / (cuts + 1);
            events[..end].iter().for_each(|event| cut.apply(event));
            let store = folder.path().join(format!("cut-{number}"));
            cut.write(Survival::Some, &mut random, &store);
            let second = Process {
                steps: cut.acknowledged..cut.acknowledged,
                before: vec![0..BEFORE, BEFORE..first.steps.end],
                ..serving(engine, "start after a power cut", store)
            };
            second.cut_power(folder.path(), 10 + rounds() / 100);
        }
    }
}

fn serving(engine: &'static str, name: &'static str, store: PathBuf) -> Process {
    let steps = BEFORE..BEFORE + 20;
    Process { engine, name, store, before: vec![0..BEFORE], steps, is_compaction: false }
}

impl Process {
    /// Runs the process. Returns the files before, the changes of files, and the model.
    fn record(&self, folder: &Path) -> (Disk, Vec<Event>, Arc<Model>) {
        let files = Files::new(&folder.join("files"));
        let disk = Disk::new(&self.store, self.steps.start);
        let job = Job {
            engine: self.engine.into(),
            store: self.store.clone(),
            seed: SEED,
            before: self.before.clone(),
            steps: self.steps.clone(),
            is_compaction: self.is_compaction,
        };
        let report = job.run(&files, None, false).unwrap();
        assert_eq!((report.refused, report.failed, report.wrong), (None, None, None));
        let model = Arc::new(job.model());
        (disk, trace::read(&files.trace()), model)
    }

    fn cut_power(&self, folder: &Path, states: usize) {
        let (mut disk, events, model) = self.record(folder);
        let mut random = Random::new(SEED);
        let mut counts = Counts::default();
        let mut problems = Vec::new();
        // The replay of all changes must give the files that the process has left.
        let mut all = disk.clone();
        events.iter().for_each(|event| all.apply(event));
        let replayed = folder.join("replayed");
        all.write(Survival::Everything, &mut random, &replayed);
        let (found, expected) = (relative_tree(&replayed), relative_tree(&self.store));
        let differs = |path: &&PathBuf| found.get(*path) != expected.get(*path);
        let differences: Vec<_> = found.keys().chain(expected.keys()).filter(differs).collect();
        assert!(differences.is_empty(), "{}: {differences:?}", self.name);
        fs::remove_dir_all(replayed).unwrap();
        let target = folder.join("state");
        let chance = (states as f64 / events.len() as f64 * f64::from(1 << 16)) as u64;
        for (number, event) in events.iter().enumerate() {
            disk.apply(event);
            let is_sync = matches!(event, Event::Sync { .. } | Event::SyncFolder(_));
            // Twice as many states at the syncs as between them.
            let turns = if is_sync { 2 } else { 1 };
            for turn in 0..turns {
                if random.below(1 << 16) > chance {
                    continue;
                }
                let survival = match random.below(4) {
                    0 => Survival::Nothing,
                    1 => Survival::Everything,
                    _ => Survival::Some,
                };
                match survival {
                    Survival::Nothing => counts.durable += 1,
                    Survival::Everything => counts.everything += 1,
                    Survival::Some => counts.some += 1,
                }
                let before_state = random.clone();
                disk.write(survival, &mut random, &target);
                let allowed = model.allowed(disk.acknowledged);
                let outcome = check(self.engine, &target, &model, allowed, turn == 0);
                if !matches!(outcome, Outcome::Equal(_)) {
                    let place = format!("after change {number} of {}", events.len());
                    let kept = keep_state(&disk, survival, &before_state, self.name, number);
                    problems.push(format!("{survival:?} {place}, {event:?} ({kept}): {outcome:?}"));
                }
                fs::remove_dir_all(&target).unwrap();
            }
        }
        let Counts { durable, everything, some } = counts;
        println!(
            "power cuts during a {} with {}: {} changes of files; states with the durable changes \
             only {durable}, with all changes {everything}, with some {some}; not equal {}",
            self.name,
            self.engine,
            events.len(),
            problems.len()
        );
        assert!(problems.is_empty(), "{}:\n{}", self.name, problems.join("\n"));
        assert!(durable + everything + some > 0, "{} had no power cut", self.name);
    }
}

/// Keeps a state that does not open, to be looked at. Returns where it is.
fn keep_state(
    disk: &Disk,
    survival: Survival,
    random: &Random,
    name: &str,
    number: usize,
) -> String {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("faults-kept");
    let folder = folder.join(format!("{}-{number}", name.replace([' ', ','], "-")));
    let _ = fs::remove_dir_all(&folder);
    disk.write(survival, &mut random.clone(), &folder);
    format!("kept in {}", folder.display())
}

/// The files and folders below a folder, with their contents.
fn relative_tree(folder: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let found = crate::check::tree(folder).into_iter();
    found.map(|(path, bytes)| (path.strip_prefix(folder).unwrap().to_owned(), bytes)).collect()
}
