//! Random batches on every engine and on a map: results and records must be equal.

use proptest::{collection::vec, option, prelude::*};

use super::{
    Batch, CommitError, Dump, EngineKind, Expected, HEADER_SIZE, MAX_VALUE_SIZE, Sequence,
    StoreError, Table, TestEngine, dump,
};

/// The result of a batch.
#[derive(Debug, PartialEq)]
enum BatchResult {
    Committed(Sequence),
    Conflict(Table, Vec<u8>, Expected),
    TooLarge,
}

#[derive(Debug, Clone)]
struct RandomBatch {
    expects: Vec<(Table, Vec<u8>, RandomExpectation)>,
    writes: Vec<(Table, Vec<u8>, Option<Vec<u8>>)>,
    /// The batch is sent before the previous one has completed.
    is_concurrent: bool,
    /// The store is reopened after the batch.
    reopens: bool,
}

#[derive(Debug, Clone, Copy)]
enum RandomExpectation {
    Missing,
    Present,
    /// The record's revision, or another one.
    Revision {
        is_correct: bool,
    },
    /// The newest revision with the key as prefix, or another one.
    Newest {
        is_correct: bool,
    },
}

/// The simplest possible store.
#[derive(Default)]
struct Model {
    sequence: Sequence,
    records: Dump,
}

impl Model {
    /// The expectation with the revision of a record.
    fn expected(&self, table: Table, key: &[u8], random: RandomExpectation) -> Expected {
        let revision = self.records.get(&(table, key.to_vec())).map_or(1, |record| record.0);
        match random {
            RandomExpectation::Missing => Expected::Missing,
            RandomExpectation::Present => Expected::Present,
            RandomExpectation::Revision { is_correct } => {
                Expected::Revision(revision + u64::from(!is_correct))
            }
            RandomExpectation::Newest { is_correct } => {
                Expected::Newest(self.newest(table, key) + u64::from(!is_correct))
            }
        }
    }

    fn newest(&self, table: Table, prefix: &[u8]) -> Sequence {
        let matching =
            self.records.iter().filter(|((of, key), _)| *of == table && key.starts_with(prefix));
        matching.map(|(_, (revision, _))| *revision).max().unwrap_or(0)
    }

    fn commit(&mut self, batch: &Batch) -> BatchResult {
        for expect in &batch.expects {
            let record = self.records.get(&(expect.table, expect.key.clone()));
            let is_met = match expect.state {
                Expected::Missing => record.is_none(),
                Expected::Present => record.is_some(),
                Expected::Revision(expected) => {
                    record.is_some_and(|(revision, _)| *revision == expected)
                }
                Expected::Newest(expected) => self.newest(expect.table, &expect.key) == expected,
            };
            if !is_met {
                return BatchResult::Conflict(expect.table, expect.key.clone(), expect.state);
            }
        }
        let too_large = |json: &Vec<u8>| json.len() > MAX_VALUE_SIZE - HEADER_SIZE;
        if batch.writes.iter().filter_map(|write| write.json.as_ref()).any(too_large) {
            return BatchResult::TooLarge;
        }
        self.sequence += 1;
        for write in &batch.writes {
            let key = (write.table, write.key.clone());
            match &write.json {
                Some(json) => self.records.insert(key, (self.sequence, json.clone())),
                None => self.records.remove(&key),
            };
        }
        BatchResult::Committed(self.sequence)
    }
}

/// Sends several batches before the first one has completed.
async fn commit(engine: &TestEngine, batches: &[Batch]) -> Vec<BatchResult> {
    let store = engine.store();
    let futures: Vec<_> = batches.iter().map(|batch| store.commit(batch.clone())).collect();
    let mut results = Vec::new();
    for future in futures {
        results.push(match future.await {
            Ok(sequence) => BatchResult::Committed(sequence),
            Err(CommitError::Conflict(unmet)) => {
                BatchResult::Conflict(unmet.table, unmet.key, unmet.state)
            }
            Err(CommitError::Store(StoreError::TooLarge { .. })) => BatchResult::TooLarge,
            Err(other) => panic!("{other}"),
        });
    }
    results
}

fn record_key() -> impl Strategy<Value = (Table, Vec<u8>)> {
    let table = prop::sample::select(vec![Table::Meta, Table::Keys, Table::Users]);
    let key = prop::sample::select(vec![vec![], vec![0], vec![b'a'], vec![b'a', 0xff], vec![0xff]]);
    (table, key)
}

fn random_batch() -> impl Strategy<Value = RandomBatch> {
    let expectation = prop_oneof![
        Just(RandomExpectation::Missing),
        Just(RandomExpectation::Present),
        any::<bool>().prop_map(|is_correct| RandomExpectation::Revision { is_correct }),
        any::<bool>().prop_map(|is_correct| RandomExpectation::Newest { is_correct }),
    ];
    let size = prop_oneof![20 => 0..200_usize, 1 => MAX_VALUE_SIZE - 20..MAX_VALUE_SIZE];
    let json = (size, any::<u8>()).prop_map(|(size, byte)| vec![byte; size]);
    (
        vec((record_key(), expectation), 0..3),
        vec((record_key(), option::weighted(0.7, json)), 0..6),
        prop::bool::weighted(0.7),
        prop::bool::weighted(0.1),
    )
        .prop_map(|(expects, writes, is_concurrent, reopens)| RandomBatch {
            expects: expects
                .into_iter()
                .map(|((table, key), expectation)| (table, key, expectation))
                .collect(),
            writes: writes.into_iter().map(|((table, key), json)| (table, key, json)).collect(),
            is_concurrent,
            reopens,
        })
}

/// Groups the batches that are sent together. `true` means that the store is reopened afterwards.
fn runs(steps: Vec<RandomBatch>) -> Vec<(Vec<RandomBatch>, bool)> {
    let mut runs: Vec<(Vec<RandomBatch>, bool)> = Vec::new();
    for step in steps {
        let reopens = step.reopens;
        match runs.last_mut() {
            Some((run, false)) if step.is_concurrent => run.push(step),
            _ => runs.push((vec![step], false)),
        }
        runs.last_mut().expect("a run was pushed").1 = reopens;
    }
    runs
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn engines_agree_with_a_map(steps in vec(random_batch(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut model = Model::default();
        let mut engines = [
            TestEngine::memory(),
            TestEngine::on_disk(EngineKind::Sled),
            TestEngine::on_disk(EngineKind::Redb),
        ];
        for (run, reopens) in runs(steps) {
            let mut batches = Vec::new();
            let mut expected = Vec::new();
            for step in run {
                let mut batch = Batch::new();
                for (table, key, random) in step.expects {
                    let state = model.expected(table, &key, random);
                    batch.expect(table, key, state);
                }
                for (table, key, json) in step.writes {
                    match json {
                        Some(json) => batch.put(table, key, json),
                        None => batch.delete(table, key),
                    };
                }
                expected.push(model.commit(&batch));
                batches.push(batch);
            }
            for engine in &mut engines {
                prop_assert_eq!(&runtime.block_on(commit(engine, &batches)), &expected);
                if reopens {
                    engine.reopen();
                }
                prop_assert_eq!(&dump(&**engine.store()), &model.records);
            }
        }
        for mut engine in engines {
            engine.reopen();
            prop_assert_eq!(&dump(&**engine.store()), &model.records);
            prop_assert_eq!(engine.store().snapshot().unwrap().sequence(), model.sequence);
        }
    }
}
