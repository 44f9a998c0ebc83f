//! Reads passwords, keys and confirmations from standard input or the terminal. Secrets are never
//! command-line arguments, because every process on the machine can read arguments.

use std::io::{self, BufRead, IsTerminal as _, Read as _};

use clap::Args;

use super::screen;
use crate::{
    cli::{CliError, Exit},
    model::{KeyShape, KeyText, Secret},
};

/// The maximum length of a line that is read, in bytes.
const MAX_LINE_BYTES: u64 = 65_536;

/// The source of a new password.
#[derive(Debug, Clone, Copy, Args)]
#[group(multiple = false)]
pub struct NewPassword {
    /// Read the password from the first line of standard input
    #[arg(long)]
    password_stdin: bool,
    /// Ask for the password at the terminal, twice
    #[arg(long)]
    password_prompt: bool,
}

impl NewPassword {
    /// Whether a source was chosen.
    pub fn is_given(self) -> bool {
        self.password_stdin || self.password_prompt
    }

    /// Reads the password. `None` means that no source was chosen.
    pub fn read(self) -> Result<Option<Secret>, CliError> {
        if self.password_stdin {
            return first_line(&mut io::stdin().lock(), "password").map(Some);
        }
        if self.password_prompt {
            return prompt_password().map(Some);
        }
        Ok(None)
    }
}

/// Reads a text with a credential from standard input, such as a key or a command line of curl.
pub fn read_credential() -> Result<Secret, CliError> {
    credential_from(&mut io::stdin().lock())
}

fn credential_from(input: &mut impl BufRead) -> Result<Secret, CliError> {
    let usage_error = |text: &str| CliError::new(Exit::Usage, text);
    let mut text = zeroize::Zeroizing::new(String::new());
    let read = input.take(MAX_LINE_BYTES + 1).read_to_string(&mut text);
    read.map_err(|_| usage_error("standard input is not UTF-8 text to read a key from"))?;
    if text.len() as u64 > MAX_LINE_BYTES {
        return Err(usage_error(
            "standard input has more than 64 KiB: keyward key scan finds keys in long texts",
        ));
    }
    let text = text.trim();
    if text.is_empty() {
        return Err(usage_error("standard input has no key: it is empty"));
    }
    Ok(Secret::new(text))
}

/// The error for a text in which the server knows no key. It does not show the text.
pub fn not_a_key(text: &Secret) -> CliError {
    let text = match KeyText::shape(text.expose()) {
        KeyShape::Damaged => {
            "the key on standard input has a wrong checksum. Is the key truncated or mistyped?"
        }
        _ => {
            "the text on standard input is not a Keyward key, and contains none: neither a key of \
             this store, nor an imported one"
        }
    };
    CliError::new(Exit::Usage, text)
}

/// Reads the first line of `input`, which must not be empty. In the error, `name` says which value
/// is missing.
fn first_line(input: &mut impl BufRead, name: &str) -> Result<Secret, CliError> {
    let usage_error = |text: &str| CliError::new(Exit::Usage, text);
    let mut line = zeroize::Zeroizing::new(String::new());
    input.take(MAX_LINE_BYTES).read_line(&mut line).map_err(|_| {
        usage_error(&format!("standard input has no line of UTF-8 text to read the {name} from"))
    })?;
    let line = line.strip_suffix('\n').unwrap_or(&line);
    match line.strip_suffix('\r').unwrap_or(line) {
        "" => Err(usage_error(&format!("standard input has no {name}: its first line is empty"))),
        line => Ok(Secret::new(line)),
    }
}

fn prompt_password() -> Result<Secret, CliError> {
    let read = |text: &str| {
        rpassword::prompt_password(text).map(Secret::new).map_err(|problem| {
            let text = format!(
                "cannot ask for the password without a terminal ({problem}): use --password-stdin"
            );
            CliError::new(Exit::Usage, text)
        })
    };
    let password = read("New password: ")?;
    if password.expose().is_empty() {
        return Err(CliError::new(Exit::Usage, "the password is empty"));
    }
    if read("Repeat the password: ")?.expose() != password.expose() {
        return Err(CliError::new(Exit::Usage, "the two passwords differ"));
    }
    Ok(password)
}

/// The confirmation of an operation that cannot be undone.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Confirmation {
    /// Do not ask for confirmation
    #[arg(long, short)]
    yes: bool,
}

impl Confirmation {
    /// Asks the question at the terminal, unless `--yes` was given.
    ///
    /// # Errors
    /// The user did not confirm, or standard input is not a terminal.
    pub fn ask(self, question: &str) -> Result<(), CliError> {
        if self.yes {
            return Ok(());
        }
        if !io::stdin().is_terminal() {
            let text = "cannot ask for confirmation without a terminal: add --yes to confirm";
            return Err(CliError::new(Exit::Usage, text));
        }
        screen::note(&format!("{question} [y/N] "));
        let mut line = String::new();
        let read = io::stdin().lock().take(MAX_LINE_BYTES).read_line(&mut line);
        match (read, line.trim().to_lowercase().as_str()) {
            (Ok(_), "y" | "yes") => Ok(()),
            _ => Err(CliError::new(Exit::Failed, "not confirmed: nothing was changed")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn password_is_the_unchanged_first_line() {
        for (input, password) in [
            ("secret\n", "secret"),
            ("secret", "secret"),
            ("secret\r\nmore\n", "secret"),
            (" with spaces \n", " with spaces "),
        ] {
            assert_eq!(first_line(&mut input.as_bytes(), "password").unwrap().expose(), password);
        }
        for input in [&b""[..], b"\n", b"\r\nsecret\n", b"\xff\n"] {
            assert_eq!(first_line(&mut &*input, "password").unwrap_err().exit, Exit::Usage);
        }
    }

    #[test]
    fn pasted_text_is_read_whole_and_errors_do_not_show_it() {
        let key = KeyText::generate("kw", &crate::model::Entropy::seeded(1));
        let text = key.text.expose();
        for pasted in [format!("{text}\n"), format!("  {text} \r\n"), text.to_owned()] {
            assert_eq!(credential_from(&mut pasted.as_bytes()).unwrap().expose(), text);
        }
        let long = "x".repeat(70_000);
        for pasted in ["", " \n", &long] {
            assert_eq!(credential_from(&mut pasted.as_bytes()).unwrap_err().exit, Exit::Usage);
        }
        for pasted in [&text[..47], "hunter2"] {
            let refused = not_a_key(&Secret::new(pasted));
            assert_eq!(refused.exit, Exit::Usage);
            assert!(!refused.to_string().contains(pasted), "{refused}");
        }
    }

    #[test]
    fn without_a_terminal_only_the_yes_flag_confirms() {
        // The standard input of the test process may be a terminal.
        if !io::stdin().is_terminal() {
            assert_eq!(Confirmation { yes: false }.ask("?").unwrap_err().exit, Exit::Usage);
        }
        assert!(Confirmation { yes: true }.ask("?").is_ok());
    }
}
