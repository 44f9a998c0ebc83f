//! Webhooks, and the events of tests.

use rhai::{Array, Map, Module, NativeCallContext, exported_module};

use super::Checked;
use crate::scripting::runtime::context::{Call, stop};

pub(super) fn module() -> Module {
    exported_module!(functions)
}

#[allow(clippy::unwrap_used, unused_qualifications, reason = "what the macro writes")]
#[rhai::export_module]
mod functions {
    use super::*;

    /// Has a webhook sent to `[webhooks.NAME]` of the configuration, after what the event tells of was written, and never if it was not. `data` is
    /// a map of plain data, 4,096 bytes of JSON at most; a call has 8 at most. Only in functions of `events.rhai`.
    ///
    /// Example: `webhook("ops", #{ type: "key.created", key: event.id, user: event.user });`
    #[rhai_fn(volatile, return_raw)]
    pub fn webhook(context: NativeCallContext, name: &str, data: Map) -> Checked<()> {
        let call = Call::of(&context)?;
        if let Some(world) = &call.ambient.world {
            return world.webhooks().add(name, &data).map_err(stop);
        }
        let Some(outbox) = &call.outbox else {
            return Err(stop("webhook() is for the functions of events.rhai"));
        };
        if !call.ambient.webhooks.iter().any(|known| known == name) {
            return Err(stop("the configuration has no [webhooks.…] of this name"));
        }
        outbox.add(name, &data).map_err(stop)
    }

    /// The webhooks of this test so far: an array of maps with `name` and `data`, the JSON as a text.
    ///
    /// Example: `on_key_created(#{ id: "x" }); assert_eq(test_webhooks().len(), 1);`
    #[rhai_fn(volatile, return_raw)]
    pub fn test_webhooks(context: NativeCallContext) -> Checked<Array> {
        let world = Call::of(&context)?.ambient.world.clone();
        let world = world.ok_or_else(|| {
            stop("test_webhooks() is for test_… functions, and this is a real event")
        })?;
        let shown = world.webhooks().all().into_iter().map(|one| {
            Map::from([("name".into(), one.name.into()), ("data".into(), one.data.into())]).into()
        });
        Ok(shown.collect())
    }
}
