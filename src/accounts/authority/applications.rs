//! Applications: how the credentials of all clients are read is decided by administrators.

use super::{Authority, forbidden};
use crate::{
    accounts::AccountError,
    model::{Application, AuthType, KeySource},
};

impl Authority {
    /// Checks a new, changed or deleted application. `before` is `None` for a new application,
    /// `after` is `None` for a deletion.
    pub fn check_application(
        &self,
        before: Option<&Application>,
        after: Option<&Application>,
    ) -> Result<(), AccountError> {
        self.admin_only_if(changes_universal_setting(before, after))?;
        if self.is_admin() {
            return Ok(());
        }
        let is_default = |record: Option<&Application>| record.is_some_and(|one| one.is_default);
        if is_default(before) != is_default(after) {
            return Err(forbidden(
                "Only an administrator can make an application the default, or replace the \
                 default: the default decides how requests without AUTH-METHOD authenticate.",
            ));
        }
        if is_default(before) && before.map(|one| one.enabled) != after.map(|one| one.enabled) {
            return Err(forbidden(
                "Only an administrator can enable or disable the default application.",
            ));
        }
        let Some(after) = after else {
            // A new application with the same id could read credentials elsewhere.
            return Err(forbidden("Only an administrator can delete an application."));
        };
        let reading = |one: &Application| (one.auth_type.clone(), one.header.to_ascii_lowercase());
        if let Some(before) = before
            && reading(before) != reading(after)
        {
            return Err(forbidden(
                "Only an administrator can change the type or the header of an application: they \
                 decide where the clients' credentials are read.",
            ));
        }
        if before.is_none() && matches!(after.auth_type, AuthType::Script(_)) {
            return Err(forbidden(
                "Only an administrator can create an application whose type is a script: the \
                 script decides who is authenticated.",
            ));
        }
        Ok(())
    }
}

/// Whether a change creates or deletes a universal application, or makes an application universal,
/// or its universal key an administrator. A universal key acts as any user.
fn changes_universal_setting(before: Option<&Application>, after: Option<&Application>) -> bool {
    let settings =
        |application: &Application| (application.key_source, application.universal_administrators);
    let is_universal = |application: Option<&Application>| {
        application.is_some_and(|record| record.key_source == KeySource::Universal)
    };
    before.map(settings) != after.map(settings) && (is_universal(before) || is_universal(after))
}
