//! The digits of crypt(3), and the reasons why a digest is rejected, for all formats.

/// The 64 digits of crypt(3), in the order of their values. crypt(3) writes the least significant
/// digit of a number first.
pub(super) const CRYPT64: &[u8; 64] =
    b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

pub(super) const MALFORMED: &str = "This digest is incomplete or malformed.";
pub(super) const TOO_EXPENSIVE: &str = "Checking this digest would cost too much time or memory.";
