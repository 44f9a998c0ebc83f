//! Tests of the challenge, and of resources that list several applications.
