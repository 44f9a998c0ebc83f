//! Tests of one connection: how its bytes are read, how it ends, and what each stream may use.

mod closings;
mod early;
mod empty;
mod forward;
mod half_close;
mod length;
mod stream;
mod upload;

use super::*;
