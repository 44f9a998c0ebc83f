//! Makes each system call of a start and of changes fail, one at a time.

use std::{collections::BTreeMap, fs, ops::Range, path::Path, sync::Arc};

use crate::{
    check::{Outcome, check, copy_folder},
    child::Job,
    engine::ENGINES,
    model,
    preload::{EIO, ENOSPC, EROFS, Fault, Files},
    rounds, scratch,
};

const SEED: u64 = 2;
const CALLS: [&str; 10] =
    ["open", "read", "pread", "write", "fsync", "rename", "truncate", "copy", "unlink", "mkdir"];
const ERRORS: [(i32, bool); 6] =
    [(EIO, false), (ENOSPC, true), (EIO, true), (EROFS, true), (ENOSPC, false), (EROFS, false)];

/// The number of runs in which the first call of a kind must be reached at least once.
const ATTEMPTS: usize = 10;

/// A process whose calls fail.
struct Scenario {
    name: &'static str,
    /// The sessions before. Empty means that there is no store yet.
    before: &'static [Range<usize>],
    steps: Range<usize>,
    /// The store was killed.
    is_killed: bool,
    /// The calls of the start succeed.
    is_serving: bool,
}

const CLOSED: Scenario = Scenario {
    name: "start",
    before: &[0..60],
    steps: 60..63,
    is_killed: false,
    is_serving: false,
};

#[test]
fn failed_call_of_a_start_loses_nothing() {
    sweep(&CLOSED);
}

#[test]
fn failed_call_of_a_start_after_a_kill_loses_nothing() {
    sweep(&Scenario { name: "start after a kill", is_killed: true, ..CLOSED });
}

#[test]
fn failed_call_of_a_first_start_leaves_no_obstacle() {
    sweep(&Scenario { name: "first start", before: &[], steps: 0..4, ..CLOSED });
}

#[test]
fn failed_call_while_serving_loses_nothing_acknowledged() {
    sweep(&Scenario { name: "serving", steps: 60..90, is_serving: true, ..CLOSED });
}

fn sweep(scenario: &Scenario) {
    for engine in ENGINES {
        let folder = scratch();
        let original = folder.path().join("original");
        let store = folder.path().join("store");
        create(engine, &original, scenario);
        let job = Job {
            engine: (*engine).into(),
            store: store.clone(),
            seed: SEED,
            before: scenario.before.to_vec(),
            steps: scenario.steps.clone(),
            is_compaction: false,
        };
        let model = Arc::new(job.model());
        let files = Files::new(&folder.path().join("files"));
        let reset = || {
            let _ = fs::remove_dir_all(&store);
            if original.exists() {
                copy_folder(&original, &store);
            }
        };
        reset();
        let healthy = job.run(&files, None, scenario.is_serving).unwrap();
        assert_eq!((&healthy.refused, &healthy.failed, &healthy.wrong), (&None, &None, &None));
        let counts = files.read_counts();
        let mut table: BTreeMap<&str, [usize; 5]> = BTreeMap::new();
        let mut wrong = Vec::new();
        for (index, call) in CALLS.into_iter().enumerate() {
            let total = counts[call];
            for at in chosen_calls(total) {
                for (errno, is_sticky) in chosen_errors(index + at) {
                    let fault = Fault { call, at, errno, is_sticky };
                    let run = || {
                        reset();
                        let report = job.run(&files, Some(fault), scenario.is_serving);
                        files.fired().exists().then_some(report)
                    };
                    // sled truncates its file in a thread of its own, not in each run.
                    let attempts = if at == 1 && total > 0 { ATTEMPTS } else { 1 };
                    let Some(report) = (0..attempts).find_map(|_| run()) else {
                        assert!(at > 1 || total == 0, "{fault:?} was never reached");
                        continue;
                    };
                    let column = match judge(engine, &store, &model, &job, report) {
                        Ok(column) => column,
                        Err(problem) => {
                            wrong.push(format!("{fault:?} of {total}: {problem}"));
                            4
                        }
                    };
                    table.entry(call).or_default()[column] += 1;
                }
            }
        }
        print_table(engine, scenario.name, &table);
        assert!(wrong.is_empty(), "{}: {}\n{}", scenario.name, wrong.len(), wrong.join("\n"));
        // A store that serves writes and syncs. A start does most kinds of calls, but redb neither
        // copies nor renames files.
        let kinds = if scenario.is_serving { 2 } else { 5 };
        assert!(table.len() >= kinds, "only these calls were reached: {table:?}");
    }
}

fn create(engine: &str, original: &Path, scenario: &Scenario) {
    if scenario.before.is_empty() {
        return;
    }
    let last = scenario.before[scenario.before.len() - 1].end;
    if !scenario.is_killed {
        return model::create(engine, original, SEED, scenario.before, |_| {});
    }
    let in_use = original.with_extension("in-use");
    model::create(engine, &in_use, SEED, scenario.before, |steps| {
        if steps == last {
            copy_folder(&in_use, original);
        }
    });
}

/// The numbers of the calls that fail: all of them, and some more, in a long run.
fn chosen_calls(total: usize) -> Vec<usize> {
    let count = (rounds() / 20).clamp(2, total.max(2) + 2);
    let last = total + usize::from(rounds() >= 1000) * 2;
    if last == 0 {
        return Vec::new();
    }
    let mut chosen: Vec<_> = (0..count).map(|index| 1 + index * last / count).collect();
    chosen.dedup();
    chosen
}

fn chosen_errors(index: usize) -> Vec<(i32, bool)> {
    let count = if rounds() >= 1000 { ERRORS.len() } else { 1 };
    (0..count).map(|offset| ERRORS[(index + offset) % ERRORS.len()]).collect()
}

/// Starts the store without faults. Returns a column of the table.
fn judge(
    engine: &'static str,
    store: &Path,
    model: &Arc<model::Model>,
    job: &Job,
    report: Result<crate::child::Report, String>,
) -> Result<usize, String> {
    let report = report?;
    if let Some(wrong) = report.wrong {
        return Err(format!("read with a fault: {wrong}"));
    }
    let allowed = match &report.refused {
        // The first commit is made by the first step, so a refused start has made none.
        Some(_) => model.after(job.steps.start)..=model.after(job.steps.start),
        None => model.allowed(report.acknowledged),
    };
    let column = match (&report.refused, &report.failed) {
        _ if report.has_hung => 3,
        (Some(_), _) => 0,
        (None, Some(_)) => 1,
        (None, None) => 2,
    };
    match check(engine, store, model, allowed, true) {
        Outcome::Equal(_) => Ok(column),
        Outcome::Refused(problem) => Err(format!(
            "after {:?} {:?} a healthy disk is refused: {problem}",
            report.refused, report.failed
        )),
        Outcome::Wrong(problem) => Err(problem),
    }
}

fn print_table(engine: &str, scenario: &str, table: &BTreeMap<&str, [usize; 5]>) {
    println!("failed calls of a {scenario} with {engine}; the next start is healthy:");
    println!(
        "{:<10}{:>9}{:>9}{:>11}{:>7}{:>7}",
        "call", "refused", "stopped", "tolerated", "hung", "lost"
    );
    let mut total = [0; 5];
    for (call, counts) in table {
        let [refused, stopped, tolerated, hung, lost] = counts;
        println!("{call:<10}{refused:>9}{stopped:>9}{tolerated:>11}{hung:>7}{lost:>7}");
        for (sum, count) in total.iter_mut().zip(counts) {
            *sum += count;
        }
    }
    let [refused, stopped, tolerated, hung, lost] = total;
    println!("{:<10}{refused:>9}{stopped:>9}{tolerated:>11}{hung:>7}{lost:>7}", "all");
}
