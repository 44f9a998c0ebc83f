//! Verifying the whole trail, in steps that can be interleaved with other work.

use super::{
    chain::ChainState,
    read::{
        FORGED_END, LookUps, Span, TrailError, TrailProblem, bounds, check_first_row, has_grown,
        has_moved,
    },
};
use crate::{
    model::AuditKey,
    store::{Cancel, Store, StoreError},
};

/// The entries of one step of an uninterrupted verification.
const STEP: usize = 1024;

/// The result of a verification of the trail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditVerdict {
    /// All entries are as they were written.
    Intact {
        /// The number of the first remaining entry.
        first: u64,
        /// The end of the trail.
        end: ChainState,
    },
    /// The trail was changed.
    Tampered {
        /// The number of the first entry that was changed, or of the entry after which the trail
        /// was truncated.
        number: u64,
        /// The finding, as a sentence.
        problem: &'static str,
    },
}

impl From<TrailProblem> for AuditVerdict {
    fn from(TrailProblem { number, problem }: TrailProblem) -> Self {
        Self::Tampered { number, problem }
    }
}

/// Verifies the whole trail. Appends at the same time do not disturb the verification.
pub fn verify(
    store: &dyn Store,
    key: &AuditKey,
    cancel: &Cancel,
) -> Result<AuditVerdict, StoreError> {
    let mut verification = Verification::default();
    loop {
        cancel.check()?;
        if let Some(verdict) = verification.step(store, key, STEP)? {
            return Ok(verdict);
        }
    }
}

/// A verification in progress. It takes no snapshot, so writers never wait for it.
#[derive(Debug, Default)]
pub struct Verification(Option<Progress>);

#[derive(Debug)]
struct Progress {
    /// The number of the first remaining entry.
    first: u64,
    /// The state after the last verified entry.
    state: ChainState,
    /// The end of the trail when it was last read.
    end: ChainState,
}

impl Verification {
    /// Verifies at most `limit` more entries. `None` means that the verification goes on.
    ///
    /// # Errors
    /// The store could not be read. The step can be repeated.
    pub fn step(
        &mut self,
        store: &dyn Store,
        key: &AuditKey,
        limit: usize,
    ) -> Result<Option<AuditVerdict>, StoreError> {
        match self.try_step(store, key, limit) {
            Ok(verdict) => Ok(verdict),
            Err(TrailError::Broken(problem)) => Ok(Some(problem.into())),
            Err(TrailError::Store(problem)) => Err(problem),
        }
    }

    fn try_step(
        &mut self,
        store: &dyn Store,
        key: &AuditKey,
        limit: usize,
    ) -> Result<Option<AuditVerdict>, TrailError> {
        match &mut self.0 {
            None => {
                self.0 = Some(Progress::start(store, key)?);
                Ok(None)
            }
            Some(progress) if progress.state.number < progress.end.number => {
                progress.walk(store, key, limit)?;
                Ok(None)
            }
            Some(progress) => progress.finish(store, key),
        }
    }
}

impl Progress {
    fn start(store: &dyn Store, key: &AuditKey) -> Result<Self, TrailError> {
        let (begin, end) = bounds(store, key)?;
        check_first_row(store, &begin)?;
        Ok(Self { first: begin.number + 1, state: begin, end })
    }

    fn walk(&mut self, store: &dyn Store, key: &AuditKey, limit: usize) -> Result<(), TrailError> {
        let after = self.state.number;
        let until = after.saturating_add(limit.max(1) as u64).min(self.end.number);
        let span = Span { begin: &self.state, end: &self.end, after, until };
        for found in span.read(store, key, None, LookUps::Compare)? {
            match found {
                Ok(entry) => self.state = self.state.advance(key, &entry),
                // The entry may have been removed in the meantime because the trail is full.
                Err(problem) if has_moved(store, key, problem.number - 1)? => {
                    let (begin, end) = bounds(store, key)?;
                    *self = Self { first: begin.number + 1, state: begin, end };
                    return Ok(());
                }
                Err(problem) => return Err(problem.into()),
            }
        }
        Ok(())
    }

    fn finish(
        &mut self,
        store: &dyn Store,
        key: &AuditKey,
    ) -> Result<Option<AuditVerdict>, TrailError> {
        if self.state != self.end {
            return Err(TrailProblem { number: self.end.number, problem: FORGED_END }.into());
        }
        if has_grown(store, key, &self.end)? {
            self.end = bounds(store, key)?.1;
            return Ok(None);
        }
        Ok(Some(AuditVerdict::Intact { first: self.first, end: self.end }))
    }
}
