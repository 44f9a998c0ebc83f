//! Refuses a path with an encoded slash or a semicolon, unless its resource keeps these characters.

use super::path::{Kept, NormalPath, PathProblem, other_readings};
use crate::{
    directory::{RouteMatch, Routes},
    model::Ambiguous,
    pipeline::Request,
};

/// Checks the ambiguous characters of a path against the resource that it matches.
///
/// A server behind this server may read the path in another way. So the rule of the resource must
/// be as strict as the rule of every other path that the server may read.
///
/// # Errors
/// The resource does not keep the characters, or another reading is guarded more strictly.
pub(super) fn check(
    routes: &Routes,
    request: &Request<'_>,
    path: &NormalPath<'_>,
    found: Option<&RouteMatch<'_, '_>>,
) -> Result<(), PathProblem> {
    if path.kept() == Kept::NONE {
        return Ok(());
    }
    let (host, method) = (request.host.unwrap_or_default(), request.method.as_str());
    let rule = found.and_then(|found| found.rule(method));
    let keeps = |treatment| treatment == Ambiguous::Keep;
    let allowed = rule.map_or(Kept::NONE, |rule| {
        let options = rule.resource.path_options;
        Kept { encoded_slash: keeps(options.encoded_slashes), semicolon: keeps(options.semicolons) }
    });
    path.kept().check(allowed)?;
    for reading in other_readings(path) {
        let other = routes.find(host, &reading);
        let other = other.and_then(|found| found.rule(method));
        if let (Some(rule), Some(other)) = (rule, other)
            && rule.difference_to(other).is_some()
        {
            return Err(PathProblem::OtherReading);
        }
    }
    Ok(())
}
