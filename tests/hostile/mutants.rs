//! Makes mutants, which are new combinations of parts of hostile scripts. A mutant depends only on
//! its number and the scripts.

/// Texts that a mutation inserts.
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

/// The mutant with this number, made of parts of the scripts `seeds`.
pub fn mutant(seeds: &[String], number: u64) -> String {
    let mut random = Random(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut text: Vec<char> = random.pick(seeds).chars().collect();
    for _ in 0..=random.below(2) {
        let start = random.below(text.len() + 1);
        let end = (start + random.below(24)).min(text.len());
        match random.below(6) {
            0 => drop(text.drain(start..end)),
            1 => {
                let piece: Vec<char> = text[start..end].to_vec();
                text.splice(start..start, piece);
            }
            2 => {
                let other: Vec<char> = random.pick(seeds).chars().collect();
                let from = random.below(other.len() + 1);
                let to = (from + random.below(80)).min(other.len());
                text.splice(start..end, other[from..to].iter().copied());
            }
            3 => drop(text.splice(start..end, random.pick(WORDS).chars())),
            4 => drop(text.splice(start..start, random.pick(WORDS).chars())),
            // Append the functions of another script.
            _ => {
                text.push('\n');
                text.extend(random.pick(seeds).chars());
            }
        }
    }
    text.into_iter().collect()
}

/// Pseudo-random numbers: xorshift64.
struct Random(u64);

impl Random {
    /// A number from 0 to `limit` - 1.
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }

    fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}
