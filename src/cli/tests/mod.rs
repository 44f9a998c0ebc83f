//! The command line against an API that is not there: what is sent, what is shown, and how it ends.

mod arguments;
mod connecting;
mod fake;
mod health;
mod nouns;
mod transports;
