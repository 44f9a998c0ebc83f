//! Tests of the admin API over HTTP.

mod guards;
mod lists;
mod problems;
mod records;
mod routes;
