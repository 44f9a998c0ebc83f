//! Tests of the admin API over HTTP.

mod filters;
mod guards;
mod lists;
mod problems;
mod records;
mod routes;
