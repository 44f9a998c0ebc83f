//! The name of the running command, for the audit trail. It never contains an argument, because an
//! argument can be a secret.

/// The commands that change records, with their verbs. A command without verbs has an empty list.
pub const COMMANDS: &[(&str, &[&str])] = &[
    ("user", &["add", "edit", "block", "unblock", "delete", "import"]),
    ("key", &["generate", "edit", "rotate", "revoke", "import"]),
    ("role", &["add", "edit", "delete"]),
    ("app", &["add", "edit", "enable", "disable", "delete"]),
    ("resource", &["add", "edit", "enable", "disable", "delete"]),
    ("script", &["reload"]),
    ("backup", &[]),
    ("restore", &[]),
    ("apply", &[]),
    ("init", &[]),
];

/// The name of the command in these arguments, such as `user block`. `None` means that the command
/// changes no records.
pub fn of(args: impl IntoIterator<Item = String>) -> Option<String> {
    let mut args = args.into_iter();
    let (name, verbs) =
        args.find_map(|arg| COMMANDS.iter().find(|(name, _)| *name == arg)).copied()?;
    if verbs.is_empty() {
        return Some(name.to_owned());
    }
    let verb = args.find_map(|arg| verbs.iter().find(|verb| **verb == arg))?;
    Some(format!("{name} {verb}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_contains_no_argument() {
        for (args, name) in [
            ("keyward user block ann", Some("user block")),
            ("keyward --config x.toml key revoke 0000aZ19", Some("key revoke")),
            ("keyward key --output json rotate -", Some("key rotate")),
            ("keyward apply secret.toml", Some("apply")),
            ("keyward key list", None),
            ("keyward", None),
        ] {
            let args = args.split(' ').map(str::to_owned);
            assert_eq!(of(args).as_deref(), name);
        }
    }
}
