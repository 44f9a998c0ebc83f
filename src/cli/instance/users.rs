//! Names of this machine's users, for messages.

use std::fs;

/// Formats a user for a message: `www-data (id 33)`, or `id 33` if the user has no name.
pub fn shown(id: u32) -> String {
    match name(id) {
        Some(name) => format!("{name} (id {id})"),
        None => format!("id {id}"),
    }
}

/// Returns the name of a user. `None` means that `/etc/passwd` does not have the id.
pub fn name(id: u32) -> Option<String> {
    name_in(&fs::read_to_string("/etc/passwd").ok()?, id)
}

fn name_in(passwd: &str, id: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(id)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_has_its_name_from_the_third_field() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\n\nodd:33\nwww-data:x:33:7::/:/bin/false\n";
        assert_eq!(name_in(passwd, 33).as_deref(), Some("www-data"));
        assert_eq!(name_in(passwd, 0).as_deref(), Some("root"));
        assert_eq!(name_in(passwd, 7), None);
    }
}
