//! Parses the command line, hands over, and exits with what came of it.

fn main() {}
