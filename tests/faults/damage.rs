//! Damages each file of a store in many ways. No damage may change a record silently.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    check::{Outcome, check, copy_folder},
    engine::ENGINES,
    model::{self, Model, Random},
    rounds, scratch,
};

const SEED: u64 = 1;
const FIRST_SESSION: usize = 80;
const STEPS: usize = 200;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Bit,
    Zeros512,
    Noise512,
    Zeros4096,
    Noise4096,
    /// The bytes of an older copy of the file.
    Stale,
    Truncated,
    Removed,
    Doubled,
}

const KINDS: [Kind; 9] = [
    Kind::Bit,
    Kind::Zeros512,
    Kind::Noise512,
    Kind::Zeros4096,
    Kind::Noise4096,
    Kind::Stale,
    Kind::Truncated,
    Kind::Removed,
    Kind::Doubled,
];

/// Where a file is damaged.
#[derive(Debug, Clone, Copy)]
enum Place {
    Head,
    Middle,
    Tail,
    Random,
}

/// A store to damage, with older copies of it.
struct Original {
    folder: PathBuf,
    older: Vec<PathBuf>,
}

#[test]
fn damage_is_found_or_harmless_and_a_refused_start_changes_no_file() {
    for engine in ENGINES {
        let folder = scratch();
        let sessions = [0..FIRST_SESSION, FIRST_SESSION..STEPS];
        let model = Arc::new(Model::new(SEED, &sessions));
        let originals = originals(engine, folder.path());
        let allowed = || model.after(STEPS)..=model.after(STEPS);
        for original in &originals {
            let copy = folder.path().join("undamaged");
            copy_folder(&original.folder, &copy);
            let outcome = check(engine, &copy, &model, allowed(), true);
            assert_eq!(outcome, Outcome::Equal(model.after(STEPS)));
            fs::remove_dir_all(copy).unwrap();
        }
        // The counts of equal, refused and wrong outcomes by kind and file.
        let mut table: BTreeMap<(Kind, String), [usize; 3]> = BTreeMap::new();
        let mut wrong = Vec::new();
        let mut random = Random::new(SEED);
        let mut number = 0;
        while number < rounds() {
            let kind = KINDS[number % KINDS.len()];
            let original = &originals[(number / KINDS.len()) % originals.len()];
            let copy = folder.path().join("damaged");
            copy_folder(&original.folder, &copy);
            number += 1;
            let Some((file, description)) = damage(original, &copy, kind, &mut random) else {
                fs::remove_dir_all(&copy).unwrap();
                continue;
            };
            let outcome = check(engine, &copy, &model, allowed(), number.is_multiple_of(8));
            let column = match &outcome {
                Outcome::Equal(_) => 0,
                Outcome::Refused(_) => 1,
                Outcome::Wrong(_) => 2,
            };
            let name = if file.starts_with("snap.") { "snap.*".into() } else { file };
            table.entry((kind, name)).or_default()[column] += 1;
            if let Outcome::Wrong(problem) = outcome {
                wrong.push(format!("{} {description}: {problem}", original.folder.display()));
            }
            fs::remove_dir_all(&copy).unwrap();
        }
        print_table(engine, &table);
        assert!(wrong.is_empty(), "{} of {number}:\n{}", wrong.len(), wrong.join("\n"));
        let refused: usize = table.values().map(|counts| counts[1]).sum();
        assert!(refused * 4 > number, "only {refused} of {number} damages were found");
    }
}

/// A store that was closed, and one that was killed. Both have older copies of their files.
fn originals(engine: &str, folder: &Path) -> Vec<Original> {
    let store = folder.join("store");
    let (killed, mut older) = (folder.join("killed"), Vec::new());
    model::create(engine, &store, SEED, &[0..FIRST_SESSION], |_| {});
    let copy = folder.join("older-0");
    copy_folder(&store, &copy);
    older.push(copy);
    model::create(engine, &store, SEED, &[FIRST_SESSION..STEPS], |steps| {
        if steps == STEPS {
            copy_folder(&store, &killed);
        } else if steps.is_multiple_of(20) {
            let copy = folder.join(format!("older-{steps}"));
            copy_folder(&store, &copy);
            older.push(copy);
        }
    });
    vec![Original { folder: store, older: older.clone() }, Original { folder: killed, older }]
}

/// Damages a file of a copy of the store. Returns the file's name and a description. `None` means
/// that this damage would have changed nothing.
fn damage(
    original: &Original,
    copy: &Path,
    kind: Kind,
    random: &mut Random,
) -> Option<(String, String)> {
    let mut names: Vec<String> = fs::read_dir(copy)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().is_file())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort_by_key(|name| fs::metadata(copy.join(name)).unwrap().len());
    // Half of the damages are in the largest file, which has the records.
    let name = match random.below(2) {
        0 => names.last(),
        _ => random.pick(&names),
    };
    let name = name?.clone();
    let path = copy.join(&name);
    let before = fs::read(&path).unwrap();
    let used = before.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let place = [Place::Head, Place::Middle, Place::Tail, Place::Random, Place::Random];
    let place = *random.pick(&place)?;
    let offset = match place {
        Place::Head => random.below(64.min(used as u64)) as usize,
        Place::Middle => used / 2 + random.below(used as u64 / 8) as usize,
        Place::Tail => used.saturating_sub(1 + random.below(8192.min(used as u64)) as usize),
        Place::Random => random.below(used as u64) as usize,
    };
    let mut after = before.clone();
    let length = match kind {
        Kind::Zeros512 | Kind::Noise512 => 512,
        _ => 4096,
    };
    // A disk loses whole sectors.
    let start = offset - offset % length;
    let end = (start + length).min(after.len());
    match kind {
        Kind::Bit => *after.get_mut(offset)? ^= 1 << random.below(8),
        Kind::Zeros512 | Kind::Zeros4096 => after[start..end].fill(0),
        Kind::Noise512 | Kind::Noise4096 => {
            after[start..end].fill_with(|| random.next() as u8);
        }
        Kind::Stale => {
            let older = fs::read(random.pick(&original.older)?.join(&name)).ok()?;
            let end = end.min(older.len());
            after[start.min(end)..end].copy_from_slice(&older[start.min(end)..end]);
        }
        Kind::Truncated => after.truncate(offset),
        Kind::Removed => {
            fs::remove_file(&path).unwrap();
            return Some((name.clone(), format!("{name} removed")));
        }
        Kind::Doubled => after.extend((0..before.len()).map(|_| random.next() as u8)),
    }
    if after == before {
        return None;
    }
    fs::write(&path, &after).unwrap();
    Some((name.clone(), format!("{name} {kind:?} at {offset} ({place:?}) of {}", before.len())))
}

fn print_table(engine: &str, table: &BTreeMap<(Kind, String), [usize; 3]>) {
    println!("damages of a store of {engine}:");
    println!("{:<12}{:<10}{:>8}{:>9}{:>8}", "kind", "file", "equal", "refused", "silent");
    let mut total = [0; 3];
    for ((kind, file), [equal, refused, silent]) in table {
        println!("{:<12}{file:<10}{equal:>8}{refused:>9}{silent:>8}", format!("{kind:?}"));
        for (sum, count) in total.iter_mut().zip([equal, refused, silent]) {
            *sum += count;
        }
    }
    let [equal, refused, silent] = total;
    println!("{:<12}{:<10}{equal:>8}{refused:>9}{silent:>8}", "all", "");
}
