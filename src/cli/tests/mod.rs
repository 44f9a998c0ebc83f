//! Tests of the command line against a fake API: requests, output and exit codes.

mod arguments;
mod connecting;
mod fake;
mod health;
mod lists;
mod nouns;
mod transports;
