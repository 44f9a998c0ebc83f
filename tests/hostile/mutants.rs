//! Mutants: pieces of hostile scripts put together in other ways. The same number makes the same mutant.

/// What a mutation puts in.
const WORDS: &[&str] = &[
    "true",
    "false",
    "()",
    "0",
    "-1",
    "9223372036854775807",
    "1e308",
    "\"\"",
    "[]",
    "#{}",
    "req",
    "identity",
    "loop {}",
    "throw ",
    "return ",
    "deny(403, \"A\", \"b\")",
    "respond(200, req.query)",
    "req.body",
    "{",
    "}",
    "(",
    ")",
    "|x| x",
    ".call()",
    "Fn(\"on_permit\")",
    "`${req}`",
    "secret(\"partner\")",
    "try { ",
    " } catch { }",
    "const A = ",
    "fn on_permit(req, identity, resource) { true }",
    "fn on_denied(req, denial) { denial.status = 200; }",
    "fn on_request(req) { req.set(\"a\", [1]); }",
    "user_by_id(1)",
    "denial.status",
    "response.body = ",
    "\"\\r\\n\"",
    "0..9223372036854775807",
    ".sort(|a, b| a)",
    "json_parse(req.body)",
    "matches(req.path, \"(a*)*b\")",
    "é",
    "\u{202e}",
];

/// The mutant of this number.
pub fn of(seeds: &[String], number: u64) -> String {
    let mut dice = Dice(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut text: Vec<char> = dice.one(seeds).chars().collect();
    for _ in 0..=dice.below(2) {
        let at = dice.below(text.len() + 1);
        let end = (at + dice.below(24)).min(text.len());
        match dice.below(6) {
            0 => drop(text.drain(at..end)),
            1 => {
                let piece: Vec<char> = text[at..end].to_vec();
                text.splice(at..at, piece);
            }
            2 => {
                let other: Vec<char> = dice.one(seeds).chars().collect();
                let from = dice.below(other.len() + 1);
                let to = (from + dice.below(80)).min(other.len());
                text.splice(at..end, other[from..to].iter().copied());
            }
            3 => drop(text.splice(at..end, dice.one(WORDS).chars())),
            4 => drop(text.splice(at..at, dice.one(WORDS).chars())),
            // Another file's functions beside those that are there.
            _ => {
                text.push('\n');
                text.extend(dice.one(seeds).chars());
            }
        }
    }
    text.into_iter().collect()
}

/// Numbers that look random: xorshift64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % most.max(1) as u64) as usize
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}
