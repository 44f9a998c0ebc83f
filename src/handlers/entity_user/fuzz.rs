//! Checks of the body of a user entity with any input, for the fuzz targets.

use super::{fields, value::FieldValue};

/// Checks a body.
///
/// # Panics
/// The reader panics, or reads a time that no response can show.
pub fn user_entity(data: &[u8]) {
    let Ok(read) = fields::read(data, &[]) else { return };
    for (field, value) in &read {
        let is_time = |time: i64| (-62_167_219_200..=253_402_207_199).contains(&time);
        match value {
            FieldValue::Time(time) => assert!(is_time(time.0), "{field:?} {time:?}"),
            FieldValue::Roles(ids) => {
                let mut names: Vec<&String> = ids.iter().map(|(_, id)| id).collect();
                let count = names.len();
                names.sort();
                names.dedup();
                assert_eq!(names.len(), count, "a role came twice");
            }
            FieldValue::Password { .. } => {
                assert!(!format!("{value:?}").contains("s3cret-of"), "a password is shown");
            }
            _ => {}
        }
    }
}
