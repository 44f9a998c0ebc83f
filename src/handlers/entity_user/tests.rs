//! What cannot be reached over HTTP.
