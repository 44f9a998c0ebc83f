//! The process under test: this test executable, started once more with the preloaded library. It
//! opens a store, runs steps of the workload, and compares its reads with the model.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    ops::Range,
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::{
    check::{Difference, compare, compare_exports},
    engine,
    model::{self, Model, runtime},
    preload::{self, Fault, Files},
};

/// The environment variable with the path of the job.
const JOB: &str = "KEYWARD_TEST_JOB";
/// The time after which the process counts as hanging. It is shorter than the time after which a
/// store gives up a write.
const TIMEOUT: Duration = Duration::from_secs(50);
/// The time for all changes after a call has failed. sled can wait forever after a failed sync.
const TIMEOUT_AFTER_FAULT: Duration = Duration::from_secs(10);

/// The work of the process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    pub engine: String,
    pub store: PathBuf,
    pub seed: u64,
    /// The sessions of the workload before this process.
    pub before: Vec<Range<usize>>,
    /// The steps of this process.
    pub steps: Range<usize>,
    /// Compact the store, and do nothing else.
    pub is_compaction: bool,
}

/// The result of the process.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Why the start was refused.
    pub refused: Option<String>,
    /// The first step or read that failed.
    pub failed: Option<String>,
    /// A change never ended after a call had failed. The process was killed.
    pub has_hung: bool,
    /// A difference from the model that no error has reported.
    pub wrong: Option<String>,
    /// The number of acknowledged steps, those of earlier sessions included.
    pub acknowledged: usize,
}

impl Job {
    /// The model of all sessions, that of this process included.
    pub fn model(&self) -> Model {
        let mut sessions = self.before.clone();
        sessions.push(self.steps.clone());
        Model::new(self.seed, &sessions)
    }

    /// Runs the job in a new process.
    ///
    /// # Errors
    /// The process hangs, panics or is killed.
    pub fn run(
        &self,
        files: &Files,
        fault: Option<Fault>,
        is_armed_later: bool,
    ) -> Result<Report, String> {
        for old in [files.arm(), files.fired(), files.trace(), files.acks(), report_file(files)] {
            let _ = fs::remove_file(old);
        }
        let job = files.folder().join("job");
        fs::write(&job, serde_json::to_vec(self).unwrap()).unwrap();
        let log = files.folder().join("log");
        let out = fs::File::create(&log).unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--ignored", "--nocapture", "child::child"])
            .env(JOB, &job)
            .envs(preload::variables(&self.store, files, fault, is_armed_later))
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn()
            .unwrap();
        let started = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            let has_failed = fault.is_some() && files.arm().exists() && files.fired().exists();
            let limit = if has_failed { TIMEOUT_AFTER_FAULT } else { TIMEOUT };
            if started.elapsed() > limit {
                child.kill().unwrap();
                child.wait().unwrap();
                if !has_failed {
                    return Err("the process hangs".into());
                }
                let acks = fs::read_to_string(files.acks()).unwrap_or_default();
                let last = acks.lines().last().map(|line| line.parse().unwrap());
                let acknowledged = last.unwrap_or(self.steps.start);
                return Ok(Report { acknowledged, has_hung: true, ..Report::default() });
            }
            thread::sleep(Duration::from_millis(2));
        };
        match fs::read(report_file(files)) {
            Ok(report) if status.success() => Ok(serde_json::from_slice(&report).unwrap()),
            _ => Err(format!("{status}: {}", fs::read_to_string(log).unwrap_or_default())),
        }
    }

    fn work(&self, files: &Files) -> Report {
        let mut report = Report { acknowledged: self.steps.start, ..Report::default() };
        if self.is_compaction {
            report.refused =
                engine::compact(&self.engine, &self.store).err().map(|e| e.to_string());
            return report;
        }
        let opened = engine::open(&self.engine, &self.store).and_then(|store| {
            let accounts = model::accounts(store.clone(), self.seed, self.steps.start)?;
            Ok((store, accounts))
        });
        let (store, accounts) = match opened {
            Ok(opened) => opened,
            Err(problem) => return Report { refused: Some(problem.to_string()), ..report },
        };
        let model = self.model();
        let allowed = model.allowed(self.steps.start);
        let at_start = match compare(&store, &accounts, &model, allowed) {
            Ok(sequence) => sequence,
            Err(difference) => return report.with(difference),
        };
        fs::write(files.arm(), "").unwrap();
        let mut acks = OpenOptions::new().create(true).append(true).open(files.acks()).unwrap();
        for number in self.steps.clone() {
            if let Err(problem) = runtime().block_on(model::step(&accounts, self.seed, number)) {
                report.failed = Some(problem.to_string());
                break;
            }
            report.acknowledged = number + 1;
            acks.write_all(format!("{}\n", number + 1).as_bytes()).unwrap();
        }
        // After a kill, the first unacknowledged change can be there.
        let first = model.after(report.acknowledged).max(at_start);
        // A step of several commits can fail at each of them, so at least the last one is missing.
        let last = match &report.failed {
            None => first,
            Some(_) => first.max(model.after(report.acknowledged + 1).saturating_sub(1)),
        };
        let compared = compare(&store, &accounts, &model, first..=last)
            .and_then(|sequence| compare_exports(&accounts, &model, sequence, files.folder()));
        match compared {
            Ok(()) => report,
            Err(difference) => report.with(difference),
        }
    }
}

impl Report {
    fn with(mut self, difference: Difference) -> Self {
        match difference {
            Difference::Error(problem) => self.failed = Some(problem),
            Difference::Silent(problem) => self.wrong = Some(problem),
        }
        self
    }
}

fn report_file(files: &Files) -> PathBuf {
    files.folder().join("report")
}

#[test]
#[ignore = "started by the other tests"]
fn child() {
    let Some(job) = std::env::var_os(JOB).map(PathBuf::from) else { return };
    let files = Files::new(job.parent().unwrap());
    let job: Job = serde_json::from_slice(&fs::read(job).unwrap()).unwrap();
    let report = job.work(&files);
    fs::write(report_file(&files), serde_json::to_vec(&report).unwrap()).unwrap();
}
