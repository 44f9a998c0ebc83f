//! Tests of one connection: how its bytes are read, how it ends, and what each stream may use.

mod closings;
mod early;
mod empty;
mod first_request;
mod forward;
mod half_close;
mod length;
mod stream;
mod upload;
mod window;

use super::*;
