//! The list of applications of a resource, among which a request chooses by the credential that it
//! carries.

use super::{METHODS, Resource, Violation, check_id};

/// The maximum number of applications in the list.
const MAX_APPLICATIONS: usize = 16;

impl Resource {
    /// Whether the resource refers to this application, in a rule or in its list.
    pub fn names_application(&self, id: &str) -> bool {
        let mut rules = METHODS.iter().filter_map(|method| self.rules.of(method));
        rules.any(|rules| rules.authentication.contains(id)) || self.lists_application(id)
    }

    /// Whether the resource lists this application.
    pub fn lists_application(&self, id: &str) -> bool {
        self.applications.iter().any(|listed| listed == id)
    }

    pub(super) fn check_applications(&self, found: &mut Vec<Violation>) {
        if self.applications.len() > MAX_APPLICATIONS {
            found.push(Violation::new(
                "applications",
                format!("There are more than {MAX_APPLICATIONS} applications."),
                "List the applications that clients of this resource use without AUTH-METHOD.",
            ));
        }
        for (index, id) in self.applications.iter().enumerate() {
            let location = format!("applications.{index}");
            if let Err(violation) = check_id(&location, id) {
                found.push(violation);
            } else if self.applications[..index].contains(id) {
                let message = format!("{id:?} is listed twice.");
                found.push(Violation::new(location, message, "List each application once."));
            } else if let Some(method) = self.method_without(id) {
                found.push(Violation::new(
                    location,
                    format!("The authentication of {method} does not accept {id:?}."),
                    "Add the application to authentication, or remove it from applications.",
                ));
            }
        }
    }

    /// A method of the resource that does not accept this application.
    fn method_without(&self, id: &str) -> Option<&'static str> {
        METHODS.iter().copied().find(|method| {
            let rules = self.rules.of(method);
            rules.is_some_and(|rules| {
                !rules.authentication.contains("*") && !rules.authentication.contains(id)
            })
        })
    }
}
