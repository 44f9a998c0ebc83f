//! Functions for webhooks, and for tests of events.

use rhai::{Array, Map, Module, NativeCallContext, exported_module};

use super::Checked;
use crate::scripting::runtime::context::{CallContext, runtime_error};

pub(super) fn module() -> Module {
    exported_module!(functions)
}

#[allow(clippy::unwrap_used, unused_qualifications, reason = "what the macro writes")]
#[rhai::export_module]
mod functions {
    use super::*;

    /// Sends a webhook to `[webhooks.NAME]` of the configuration. The webhook is sent only after
    /// the change that caused the event has been written. `data` is a map of plain data with at
    /// most 4,096 bytes of JSON. A call can send at most 8 webhooks. This function is available
    /// only in the functions of `events.rhai`.
    ///
    /// Example: `webhook("ops", #{ type: "key.created", key: event.id, user: event.user });`
    #[rhai_fn(volatile, return_raw)]
    pub fn webhook(context: NativeCallContext, name: &str, data: Map) -> Checked<()> {
        let call = CallContext::current(&context)?;
        if let Some(sandbox) = &call.host.sandbox {
            return sandbox.webhooks().add(name, &data).map_err(runtime_error);
        }
        let Some(outbox) = &call.outbox else {
            return Err(runtime_error("webhook() can be called only in functions of events.rhai"));
        };
        if !call.host.webhooks.iter().any(|known| known == name) {
            return Err(runtime_error(
                "the configuration has no section [webhooks.…] with this name",
            ));
        }
        outbox.add(name, &data).map_err(runtime_error)
    }

    /// The webhooks that this test has sent so far: an array of maps with `name` and `data` (the
    /// JSON as a text).
    ///
    /// Example: `on_key_created(#{ id: "x" }); assert_eq(test_webhooks().len(), 1);`
    #[rhai_fn(volatile, return_raw)]
    pub fn test_webhooks(context: NativeCallContext) -> Checked<Array> {
        let sandbox = CallContext::current(&context)?.host.sandbox.clone();
        let sandbox = sandbox.ok_or_else(|| {
            runtime_error(
                "test_webhooks() can be called only in test_… functions, and this is a real event",
            )
        })?;
        let shown = sandbox.webhooks().all().into_iter().map(|one| {
            Map::from([("name".into(), one.name.into()), ("data".into(), one.data.into())]).into()
        });
        Ok(shown.collect())
    }
}
