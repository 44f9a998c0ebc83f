//! What only a person can say: a password, and "yes, delete it". Neither is ever an argument, which every process of the machine can read.

use std::io::{self, BufRead, IsTerminal as _, Read as _};

use clap::Args;

use super::screen;
use crate::{
    cli::{Exit, CliError},
    model::{KeyId, KeyShape, KeyText, Secret},
};

/// The longest line that is read as a password.
const LONGEST: u64 = 65_536;

/// Where a new password comes from.
#[derive(Debug, Clone, Copy, Args)]
#[group(multiple = false)]
pub struct NewPassword {
    /// Read the password from standard input: its first line
    #[arg(long)]
    password_stdin: bool,
    /// Ask for the password at the terminal, twice
    #[arg(long)]
    password_prompt: bool,
}

impl NewPassword {
    /// The password, if one is to be set.
    pub fn read(self) -> Result<Option<Secret>, CliError> {
        if self.password_stdin {
            return first_line(&mut io::stdin().lock(), "password").map(Some);
        }
        if self.password_prompt {
            return prompt().map(Some);
        }
        Ok(None)
    }
}

/// The id of the key whose text is on standard input: what was pasted there is checked against its own checksum, and let go.
pub fn pasted_key() -> Result<KeyId, CliError> {
    key_in(&mut io::stdin().lock())
}

fn key_in(input: &mut impl BufRead) -> Result<KeyId, CliError> {
    let line = first_line(input, "key")?;
    let text = match KeyText::shape(line.expose().trim()) {
        KeyShape::Ours(id) => return Ok(id),
        KeyShape::Damaged => {
            "the key on standard input is not whole: its checksum is wrong. Was it cut or mistyped?"
        }
        KeyShape::Foreign => "what is on standard input is not one of Keyward's keys",
    };
    Err(CliError::new(Exit::Usage, text))
}

/// The first line of standard input. `what` names it when it is not there.
fn first_line(input: &mut impl BufRead, what: &str) -> Result<Secret, CliError> {
    let usage = |text: &str| CliError::new(Exit::Usage, text);
    let mut line = zeroize::Zeroizing::new(String::new());
    input.take(LONGEST).read_line(&mut line).map_err(|_| {
        usage(&format!("standard input has no line of UTF-8 text to read the {what} from"))
    })?;
    let line = line.strip_suffix('\n').unwrap_or(&line);
    match line.strip_suffix('\r').unwrap_or(line) {
        "" => Err(usage(&format!("standard input has no {what}: its first line is empty"))),
        line => Ok(Secret::new(line)),
    }
}

fn prompt() -> Result<Secret, CliError> {
    let read = |text: &str| {
        rpassword::prompt_password(text).map(Secret::new).map_err(|problem| {
            let text = format!(
                "there is no terminal to ask for the password ({problem}): use --password-stdin"
            );
            CliError::new(Exit::Usage, text)
        })
    };
    let password = read("New password: ")?;
    if password.expose().is_empty() {
        return Err(CliError::new(Exit::Usage, "the password is empty"));
    }
    if read("The same again: ")?.expose() != password.expose() {
        return Err(CliError::new(Exit::Usage, "the two passwords are not the same"));
    }
    Ok(password)
}

/// Confirmation to what cannot be undone.
#[derive(Debug, Clone, Copy, Args)]
pub struct Confirmation {
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

impl Confirmation {
    /// Asks, unless the answer was given along.
    ///
    /// # Errors
    /// The answer is not yes, or nobody is there to give one.
    pub fn ask(self, question: &str) -> Result<(), CliError> {
        if self.yes {
            return Ok(());
        }
        if !io::stdin().is_terminal() {
            let text = "nobody is there to ask: add --yes if it is to be done";
            return Err(CliError::new(Exit::Usage, text));
        }
        screen::note(&format!("{question} [y/N] "));
        let mut line = String::new();
        let read = io::stdin().lock().take(LONGEST).read_line(&mut line);
        match (read, line.trim().to_lowercase().as_str()) {
            (Ok(_), "y" | "yes") => Ok(()),
            _ => Err(CliError::new(Exit::Failed, "nothing was done")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_the_first_line_as_it_stands() {
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
    fn a_pasted_key_is_known_by_its_id_and_never_repeated() {
        let key = KeyText::generate("kw", &crate::model::Entropy::seeded(1));
        let text = key.text.expose();
        for pasted in [format!("{text}\n"), format!("  {text} \r\n"), text.to_owned()] {
            assert_eq!(key_in(&mut pasted.as_bytes()).unwrap(), key.id);
        }
        for pasted in [&text[1..], &text[..47], &text.replace('_', "-"), "hunter2", ""] {
            let refused = key_in(&mut pasted.as_bytes()).unwrap_err();
            assert_eq!(refused.exit, Exit::Usage);
            assert!(pasted.is_empty() || !refused.to_string().contains(pasted), "{refused}");
        }
    }

    #[test]
    fn without_a_terminal_nothing_is_done_unless_it_was_said() {
        // The test's own standard input may be a terminal.
        if !io::stdin().is_terminal() {
            assert_eq!(Confirmation { yes: false }.ask("?").unwrap_err().exit, Exit::Usage);
        }
        assert!(Confirmation { yes: true }.ask("?").is_ok());
    }
}
