//! Random batches, on every engine and on a map: the same answers and the same records.

use proptest::{collection::vec, option, prelude::*};

use super::{
    Batch, Bench, CommitError, Dump, HEAD, MAX_VALUE, Sequence, State, StoreError, Table, dump,
};

/// What a batch came to.
#[derive(Debug, PartialEq)]
enum Answer {
    Done(Sequence),
    Conflict(Table, Vec<u8>, State),
    TooLarge,
}

#[derive(Debug, Clone)]
struct Step {
    expects: Vec<(Table, Vec<u8>, Wanted)>,
    writes: Vec<(Table, Vec<u8>, Option<Vec<u8>>)>,
    /// The batch is sent before the one before it is answered.
    joins: bool,
    reopens: bool,
}

#[derive(Debug, Clone, Copy)]
enum Wanted {
    Missing,
    Present,
    /// The revision that it has, or another.
    Revision {
        is_right: bool,
    },
    /// The newest below its key is the one that it is, or another.
    Newest {
        is_right: bool,
    },
}

/// The naive store.
#[derive(Default)]
struct Model {
    sequence: Sequence,
    records: Dump,
}

impl Model {
    /// The expectation in words that the engines know.
    fn state(&self, table: Table, key: &[u8], wanted: Wanted) -> State {
        let revision = self.records.get(&(table, key.to_vec())).map_or(1, |held| held.0);
        match wanted {
            Wanted::Missing => State::Missing,
            Wanted::Present => State::Present,
            Wanted::Revision { is_right } => State::Revision(revision + u64::from(!is_right)),
            Wanted::Newest { is_right } => {
                State::Newest(self.newest(table, key) + u64::from(!is_right))
            }
        }
    }

    fn newest(&self, table: Table, prefix: &[u8]) -> Sequence {
        let below =
            self.records.iter().filter(|((of, key), _)| *of == table && key.starts_with(prefix));
        below.map(|(_, (revision, _))| *revision).max().unwrap_or(0)
    }

    fn commit(&mut self, batch: &Batch) -> Answer {
        for expect in &batch.expects {
            let held = self.records.get(&(expect.table, expect.key.clone()));
            let holds = match expect.state {
                State::Missing => held.is_none(),
                State::Present => held.is_some(),
                State::Revision(wanted) => held.is_some_and(|(revision, _)| *revision == wanted),
                State::Newest(wanted) => self.newest(expect.table, &expect.key) == wanted,
            };
            if !holds {
                return Answer::Conflict(expect.table, expect.key.clone(), expect.state);
            }
        }
        let too_large = |json: &Vec<u8>| json.len() > MAX_VALUE - HEAD;
        if batch.writes.iter().filter_map(|write| write.json.as_ref()).any(too_large) {
            return Answer::TooLarge;
        }
        self.sequence += 1;
        for write in &batch.writes {
            let place = (write.table, write.key.clone());
            match &write.json {
                Some(json) => self.records.insert(place, (self.sequence, json.clone())),
                None => self.records.remove(&place),
            };
        }
        Answer::Done(self.sequence)
    }
}

/// Sends batches at once.
async fn commit(on: &Bench, batches: &[Batch]) -> Vec<Answer> {
    let store = on.store();
    let sent: Vec<_> = batches.iter().map(|batch| store.commit(batch.clone())).collect();
    let mut answers = Vec::new();
    for answer in sent {
        answers.push(match answer.await {
            Ok(sequence) => Answer::Done(sequence),
            Err(CommitError::Conflict(on)) => Answer::Conflict(on.table, on.key, on.state),
            Err(CommitError::Store(StoreError::TooLarge { .. })) => Answer::TooLarge,
            Err(other) => panic!("{other}"),
        });
    }
    answers
}

fn place() -> impl Strategy<Value = (Table, Vec<u8>)> {
    let table = prop::sample::select(vec![Table::Meta, Table::Keys, Table::Users]);
    let key = prop::sample::select(vec![vec![], vec![0], vec![b'a'], vec![b'a', 0xff], vec![0xff]]);
    (table, key)
}

fn step() -> impl Strategy<Value = Step> {
    let wanted = prop_oneof![
        Just(Wanted::Missing),
        Just(Wanted::Present),
        any::<bool>().prop_map(|is_right| Wanted::Revision { is_right }),
        any::<bool>().prop_map(|is_right| Wanted::Newest { is_right }),
    ];
    let size = prop_oneof![20 => 0..200_usize, 1 => MAX_VALUE - 20..MAX_VALUE];
    let json = (size, any::<u8>()).prop_map(|(size, byte)| vec![byte; size]);
    (
        vec((place(), wanted), 0..3),
        vec((place(), option::weighted(0.7, json)), 0..6),
        prop::bool::weighted(0.7),
        prop::bool::weighted(0.1),
    )
        .prop_map(|(expects, writes, joins, reopens)| Step {
            expects: expects.into_iter().map(|((table, key), one)| (table, key, one)).collect(),
            writes: writes.into_iter().map(|((table, key), json)| (table, key, json)).collect(),
            joins,
            reopens,
        })
}

/// What is sent at once, and then whether the store is opened anew.
fn runs(steps: Vec<Step>) -> Vec<(Vec<Step>, bool)> {
    let mut runs: Vec<(Vec<Step>, bool)> = Vec::new();
    for step in steps {
        let reopens = step.reopens;
        match runs.last_mut() {
            Some((run, false)) if step.joins => run.push(step),
            _ => runs.push((vec![step], false)),
        }
        runs.last_mut().expect("one was pushed").1 = reopens;
    }
    runs
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn engines_agree_with_a_map(steps in vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut model = Model::default();
        let mut engines = [Bench::memory(), Bench::sled()];
        for (run, reopens) in runs(steps) {
            let mut batches = Vec::new();
            let mut wanted = Vec::new();
            for step in run {
                let mut batch = Batch::new();
                for (table, key, wanted) in step.expects {
                    let state = model.state(table, &key, wanted);
                    batch.expect(table, key, state);
                }
                for (table, key, json) in step.writes {
                    match json {
                        Some(json) => batch.put(table, key, json),
                        None => batch.delete(table, key),
                    };
                }
                wanted.push(model.commit(&batch));
                batches.push(batch);
            }
            for on in &mut engines {
                prop_assert_eq!(&runtime.block_on(commit(on, &batches)), &wanted);
                if reopens {
                    on.reopen();
                }
                prop_assert_eq!(&dump(&**on.store()), &model.records);
            }
        }
        for mut on in engines {
            on.reopen();
            prop_assert_eq!(&dump(&**on.store()), &model.records);
            prop_assert_eq!(on.store().snapshot().unwrap().sequence(), model.sequence);
        }
    }
}
