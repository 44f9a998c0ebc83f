//! The user entity.

use super::{Call, Handlers, Reply};
use crate::pipeline::Denial;

pub(super) async fn answer(_handlers: &Handlers, _call: Call<'_>) -> Result<Reply, Denial> {
    todo!()
}
