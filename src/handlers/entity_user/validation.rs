//! Validation errors of the request's fields, and the response that lists them.

use std::fmt::Write as _;

use ::http::StatusCode;

use super::field::UserField;
use crate::{
    model::Violation,
    pipeline::{Denial, Phase},
};

/// A violated rule of a field.
#[derive(Debug, Clone)]
pub(super) struct FieldError {
    field: UserField,
    /// The path below the field, such as `0.value`; `None` means the field as a whole.
    path: Option<String>,
    message: String,
}

impl FieldError {
    /// An error of the field as a whole.
    pub(super) fn of(field: UserField, message: impl Into<String>) -> Self {
        Self { field, path: None, message: message.into() }
    }

    /// An error at a path below the field.
    pub(super) fn at(
        field: UserField,
        path: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self { field, path: Some(path.into()), message: message.into() }
    }

    /// The field that has the error.
    pub(super) fn field(&self) -> UserField {
        self.field
    }

    /// The error for a missing or wrong current password, which is needed to change `field`.
    pub(super) fn password_required(field: UserField) -> Self {
        Self::of(
            field,
            format!(
                "Your current password is missing or incorrect; it's required to change the {}.",
                field.label()
            ),
        )
    }

    /// Translates a violation of a user record into an error of the entity. `role_positions` has
    /// the position of each role in the request.
    ///
    /// `None` means that the entity has no such field.
    pub(super) fn translate(violation: &Violation, role_positions: &[usize]) -> Option<Self> {
        let (name, rest) = match violation.location.split_once('.') {
            Some((name, rest)) => (name, Some(rest)),
            None => (violation.location.as_str(), None),
        };
        let message = violation.message.as_str();
        let field = if name == "password" { UserField::Pass } else { UserField::parse(name)? };
        Some(match (field, rest) {
            (UserField::Roles, Some(index)) => {
                let index: usize = index.parse().ok()?;
                let position = role_positions.get(index).copied().unwrap_or(index);
                Self::at(field, format!("{position}.target_id"), message)
            }
            // Errors of names, and of values that another user has, belong to the field as a
            // whole.
            (UserField::Name, _) => Self::of(field, message),
            (UserField::Mail, _) if message.ends_with("is already taken.") => {
                Self::of(field, message)
            }
            _ => Self::at(field, "0.value", message),
        })
    }
}

/// The denial that lists all errors, in the order of the fields. Errors of a field as a whole come
/// before errors below that field.
pub(super) fn invalid(mut errors: Vec<FieldError>) -> Denial {
    errors.sort_by_key(|error| (error.field, error.path.is_some()));
    let mut text = "Unprocessable Entity: validation failed.\n".to_owned();
    for FieldError { field, path, message } in &errors {
        let (dot, path) = path.as_deref().map_or(("", ""), |path| (".", path));
        // Writing to a `String` cannot fail.
        let _ = writeln!(text, "{}{dot}{path}: {message}", field.name());
    }
    unprocessable(text)
}

/// The denial of a body that is JSON but not a valid entity.
pub(super) fn unprocessable(message: impl Into<String>) -> Denial {
    Denial::message(
        Phase::Handler,
        StatusCode::UNPROCESSABLE_ENTITY,
        "UNPROCESSABLE_ENTITY",
        message.into(),
    )
}
