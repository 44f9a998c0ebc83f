//! Checks whether a plan opens paths that resources of the store guard.

use std::collections::HashMap;

use super::plan::Plan;
use crate::{
    accounts::Guards,
    directory::find_opened_guards,
    model::{Resource, Violation},
    store::StoreError,
};

impl Plan {
    /// Adds a violation for each guard that the plan opens.
    ///
    /// # Errors
    /// The work was cancelled.
    pub fn check_guards(&mut self, guards: Guards) -> Result<(), StoreError> {
        if guards == Guards::Open || !self.resources.iter().any(|change| change.has_effect()) {
            return Ok(());
        }
        let before = self.resources.iter().filter_map(|change| change.current());
        let before: Vec<Resource> = before.cloned().collect();
        let after = self.resources.iter().filter_map(|change| change.after.as_ref());
        let after: Vec<Resource> = after.cloned().collect();
        let opened = find_opened_guards(&before, &after, &|| self.cancel.is_cancelled());
        let opened = opened.ok_or(StoreError::Cancelled)?;
        let listed = self.resources.iter().filter_map(|change| Some((change.any()?, change.at?)));
        let places: HashMap<&str, usize> =
            listed.map(|(resource, index)| (resource.id.as_str(), index)).collect();
        for opened in opened {
            // The location is the opener or, if the file does not list it, the guard.
            let index =
                places.get(opened.opener.as_str()).or_else(|| places.get(opened.guard.as_str()));
            let location =
                index.map_or_else(|| "resources".into(), |index| format!("resources.{index}.path"));
            let fix = "To open the path knowingly, use opens_guarded=true (on the command line: \
                       --opens-guarded).";
            self.violations.push(Violation::new(location, opened.to_string(), fix));
        }
        Ok(())
    }
}
