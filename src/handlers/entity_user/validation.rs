//! What is wrong with a request's fields, and how the client is told.

use std::fmt::Write as _;

use ::http::StatusCode;

use super::field::Field;
use crate::{
    model::Violation,
    pipeline::{Denial, Phase},
};

/// A broken rule of a field.
#[derive(Debug, Clone)]
pub(super) struct Fault {
    field: Field,
    /// Below the field: `0.value`; none: the field as a whole.
    below: Option<String>,
    message: String,
}

impl Fault {
    /// The field as a whole breaks a rule.
    pub(super) fn of(field: Field, message: impl Into<String>) -> Self {
        Self { field, below: None, message: message.into() }
    }

    /// A part of the field breaks a rule.
    pub(super) fn at(field: Field, below: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field, below: Some(below.into()), message: message.into() }
    }

    /// The field that breaks the rule.
    pub(super) fn field(&self) -> Field {
        self.field
    }

    /// The current password was not given, or is another one.
    pub(super) fn unproven(field: Field) -> Self {
        Self::of(
            field,
            format!(
                "Your current password is missing or incorrect; it's required to change the {}.",
                field.label()
            ),
        )
    }

    /// A rule about records, in the terms of the entity. `places` tells where in the request each role stands.
    ///
    /// A rule about what the entity does not have is returned as it is.
    pub(super) fn translate(violation: &Violation, places: &[usize]) -> Option<Self> {
        let (name, rest) = match violation.location.split_once('.') {
            Some((name, rest)) => (name, Some(rest)),
            None => (violation.location.as_str(), None),
        };
        let said = violation.message.as_str();
        let field = if name == "password" { Field::Pass } else { Field::parse(name)? };
        Some(match (field, rest) {
            (Field::Roles, Some(at)) => {
                let at: usize = at.parse().ok()?;
                let place = places.get(at).copied().unwrap_or(at);
                Self::at(field, format!("{place}.target_id"), said)
            }
            // A name is judged as a whole, and what somebody else has too.
            (Field::Name, _) => Self::of(field, said),
            (Field::Mail, _) if said.ends_with("is already taken.") => Self::of(field, said),
            _ => Self::at(field, "0.value", said),
        })
    }
}

/// The refusal that lists all faults, in the order of the fields; those of a field as a whole go first.
pub(super) fn invalid(mut faults: Vec<Fault>) -> Denial {
    faults.sort_by_key(|fault| (fault.field, fault.below.is_some()));
    let mut message = "Unprocessable Entity: validation failed.\n".to_owned();
    for Fault { field, below, message: said } in &faults {
        let (dot, below) = below.as_deref().map_or(("", ""), |below| (".", below));
        // Writing to a String does not fail.
        let _ = writeln!(message, "{}{dot}{below}: {said}", field.name());
    }
    unprocessable(message)
}

/// A body that is JSON and cannot be the entity.
pub(super) fn unprocessable(message: impl Into<String>) -> Denial {
    Denial::message(
        Phase::Handler,
        StatusCode::UNPROCESSABLE_ENTITY,
        "UNPROCESSABLE_ENTITY",
        message.into(),
    )
}
