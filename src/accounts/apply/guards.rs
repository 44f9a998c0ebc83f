//! Checks whether a plan opens paths that resources of the store guard.

use super::plan::Plan;
use crate::{
    accounts::Guards,
    directory::opened_guards,
    model::{Resource, Violation},
};

impl Plan {
    /// Adds a violation for each guard that the plan opens.
    pub fn check_guards(&mut self, guards: Guards) {
        if guards == Guards::Open || !self.resources.iter().any(|change| change.has_effect()) {
            return;
        }
        let before = self.resources.iter().filter_map(|change| change.current());
        let before: Vec<Resource> = before.cloned().collect();
        let after = self.resources.iter().filter_map(|change| change.after.as_ref());
        let after: Vec<Resource> = after.cloned().collect();
        for opened in opened_guards(&before, &after) {
            // The location is the opener or, if the file does not list it, the guard.
            let place = |id: &str| {
                let change = self
                    .resources
                    .iter()
                    .find(|change| change.any().is_some_and(|resource| resource.id == id))?;
                change.at.map(|index| format!("resources.{index}.path"))
            };
            let location = place(&opened.opener).or_else(|| place(&opened.guard));
            let fix = "To open the path knowingly, use opens_guarded=true (on the command line: \
                       --opens-guarded).";
            let location = location.unwrap_or_else(|| "resources".into());
            self.violations.push(Violation::new(location, opened.to_string(), fix));
        }
    }
}
