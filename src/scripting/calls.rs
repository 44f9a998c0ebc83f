//! The functions of scripts as typed Rust calls. Each return value is checked here. A value of a
//! wrong type is a failure, and never lets a request pass.

use bytes::Bytes;
use http::StatusCode;
use rhai::{Array, Dynamic, Map};
use serde_json::Value;

use super::{
    entry_points::Function,
    fault::Fault,
    runtime::outbox::{RequestedWebhook, ScriptOutbox},
    script::{CallOptions, Caller, Script},
    values::{
        records::{IdentityView, ResourceView, UserView},
        request::{ScriptRequest, is_plain_data},
        response::{HandlerResponse, ScriptDenial, ScriptResponse},
    },
};
use crate::model::Secret;

/// The map that `decode` returned. `lookup` and `verify` get this map unchanged as `credential`.
#[derive(Clone)]
pub struct ScriptClaim {
    value: Dynamic,
}

/// The result of `lookup`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LookupResult {
    /// The credential's user does not exist.
    NoUser,
    /// The user's number. The pipeline loads the user's record and checks that the user is active.
    User(u64),
}

/// The result of `verify`.
#[derive(Debug, Clone)]
pub enum VerifyResult {
    /// The credential belongs to the user.
    Match(CredentialTerms),
    /// The credential does not belong to the user.
    NoMatch,
}

/// The terms on which `verify` accepts a credential.
#[derive(Debug, Clone, Default)]
pub struct CredentialTerms {
    /// The permissions that the credential is restricted to; `None` means all permissions of the
    /// user.
    pub scopes: Option<Vec<String>>,
    /// The credential's text, if Keyward must *adopt* the credential: store it as a key of the
    /// user. Adoption lets an operator move users from an old system to Keyward, and then switch
    /// the old system off.
    pub adopt: Option<Secret>,
}

/// The result of `on_permit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PermitResult {
    /// `true`: the script grants the permission. Required if the resource leaves the decision to
    /// scripts.
    Granted,
    /// `()`: the script has no objection.
    NoObjection,
    /// `false`: the script refuses the request.
    Refused,
}

impl ScriptClaim {
    /// The claim for a script without `decode`: `credential.presented` is the presented text.
    pub fn of_text(presented: &str) -> Self {
        let mut map = Map::new();
        map.insert("presented".into(), presented.into());
        Self { value: map.into() }
    }

    /// The claim of a user's name and a secret that the built-in phase has decoded:
    /// `credential.user` and `credential.secret`.
    pub fn of_pair(user: &str, secret: &str) -> Self {
        let mut map = Map::new();
        map.insert("user".into(), user.into());
        map.insert("secret".into(), secret.into());
        Self { value: map.into() }
    }

    /// The value of a field, if the value is a text. The built-in phases read `user` (the user's
    /// name) and `key` (a key's text).
    pub fn text(&self, field: &str) -> Option<String> {
        self.value.as_map_ref().ok()?.get(field)?.clone().into_string().ok()
    }

    /// The field `uid`: the user's number.
    pub fn uid(&self) -> Option<u64> {
        let uid = self.value.as_map_ref().ok()?.get("uid")?.as_int().ok()?;
        u64::try_from(uid).ok()
    }

    /// The texts in all fields except `user` and `uid`. Any of these texts may be a secret, so logs
    /// must not contain them.
    fn redactions(&self) -> Vec<Secret> {
        let Ok(map) = self.value.as_map_ref() else { return Vec::new() };
        map.iter()
            .filter(|(field, _)| !["user", "uid"].contains(&field.as_str()))
            .filter_map(|(_, value)| value.clone().into_string().ok())
            .map(Secret::new)
            .collect()
    }
}

impl std::fmt::Debug for ScriptClaim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ScriptClaim(…)")
    }
}

impl Script {
    /// `header(req)`: returns the credential as a text, or `()` if the request has no credential.
    ///
    /// # Errors
    /// The script refused or failed.
    pub async fn header(&self, req: &ScriptRequest) -> Result<Option<Secret>, Fault> {
        let _recording = req.record_reads(self.credential());
        let value = self.call(Function::Header, Caller::of(req), [arg(req)], Vec::new()).await?;
        if value.is_unit() {
            return Ok(None);
        }
        match value.into_string() {
            // An empty text is an invalid credential. Only `()` means that the credential is
            // missing.
            Ok(text) => Ok(Some(Secret::new(text))),
            Err(kind) => Err(self.wrong_type(Function::Header, kind, "a text or ()")),
        }
    }

    /// `decode(req, presented)`: returns the content of the credential as a map.
    ///
    /// # Errors
    /// The script refused or failed.
    pub async fn decode(&self, req: &ScriptRequest, presented: &str) -> Result<ScriptClaim, Fault> {
        let arguments = [arg(req), presented.into()];
        let _recording = req.record_reads(self.credential());
        let value = self
            .call(Function::Decode, Caller::of(req), arguments, vec![Secret::new(presented)])
            .await?;
        if !value.is_map() || !is_plain_data(&value, 0) {
            return Err(self.wrong_type(
                Function::Decode,
                value.type_name(),
                "a map of plain data",
            ));
        }
        Ok(ScriptClaim { value })
    }

    /// `lookup(req, credential)`: returns a user, a user's number, or `()`.
    ///
    /// # Errors
    /// The script refused or failed.
    pub async fn lookup(
        &self,
        req: &ScriptRequest,
        claim: &ScriptClaim,
    ) -> Result<LookupResult, Fault> {
        let arguments = [arg(req), claim.value.clone()];
        let value =
            self.call(Function::Lookup, Caller::of(req), arguments, claim.redactions()).await?;
        if value.is_unit() {
            return Ok(LookupResult::NoUser);
        }
        if let Some(user) = value.read_lock::<UserView>() {
            return Ok(LookupResult::User(user.parts().uid));
        }
        match value.as_int().ok().and_then(|uid| u64::try_from(uid).ok()) {
            Some(uid) => Ok(LookupResult::User(uid)),
            None => {
                let kind = value.type_name();
                Err(self.wrong_type(Function::Lookup, kind, "a user, a user's number, or ()"))
            }
        }
    }

    /// `verify(req, user, credential)`: returns `true`, `false`, or the terms `#{ scopes: […],
    /// adopt: "…" }`.
    ///
    /// # Errors
    /// The script refused or failed.
    pub async fn verify(
        &self,
        req: &ScriptRequest,
        user: &UserView,
        claim: &ScriptClaim,
    ) -> Result<VerifyResult, Fault> {
        let arguments = [arg(req), arg(user), claim.value.clone()];
        let value =
            self.call(Function::Verify, Caller::of(req), arguments, claim.redactions()).await?;
        if let Ok(is_match) = value.as_bool() {
            let unrestricted = CredentialTerms::default();
            return Ok(if is_match {
                VerifyResult::Match(unrestricted)
            } else {
                VerifyResult::NoMatch
            });
        }
        let kind = value.type_name();
        let terms = value.try_cast::<Map>().and_then(CredentialTerms::read);
        terms.map(VerifyResult::Match).ok_or_else(|| {
            self.wrong_type(
                Function::Verify,
                kind,
                "true, false, or #{ scopes: [texts], adopt: text }",
            )
        })
    }

    /// `on_request(req)`: refuses the request by throwing.
    ///
    /// # Errors
    /// The script refused or failed.
    pub async fn on_request(&self, req: &ScriptRequest) -> Result<(), Fault> {
        let value = self.call(Function::OnRequest, Caller::of(req), [arg(req)], Vec::new()).await?;
        self.expect_no_value(Function::OnRequest, &value)
    }

    /// `on_authenticated(req, identity)`: refuses the request by throwing.
    ///
    /// # Errors
    /// The script refused or failed.
    pub async fn on_authenticated(
        &self,
        req: &ScriptRequest,
        identity: &IdentityView,
    ) -> Result<(), Fault> {
        let arguments = [arg(req), arg(identity)];
        let value =
            self.call(Function::OnAuthenticated, Caller::of(req), arguments, Vec::new()).await?;
        self.expect_no_value(Function::OnAuthenticated, &value)
    }

    /// `on_permit(req, identity, resource)`: returns `true`, `false` or `()`.
    ///
    /// # Errors
    /// The script refused or failed.
    pub async fn on_permit(
        &self,
        req: &ScriptRequest,
        identity: &IdentityView,
        resource: &ResourceView,
    ) -> Result<PermitResult, Fault> {
        let arguments = [arg(req), arg(identity), arg(resource)];
        let value = self.call(Function::OnPermit, Caller::of(req), arguments, Vec::new()).await?;
        match value.as_bool() {
            _ if value.is_unit() => Ok(PermitResult::NoObjection),
            Ok(true) => Ok(PermitResult::Granted),
            Ok(false) => Ok(PermitResult::Refused),
            Err(kind) => Err(self.wrong_type(Function::OnPermit, kind, "true, false or ()")),
        }
    }

    /// `on_denied(req, denial)`: changes `denial`. After an error, the caller must discard the
    /// changed denial and use the denial from before the call.
    ///
    /// # Errors
    /// The script threw another refusal, or failed.
    pub async fn on_denied(&self, req: &ScriptRequest, denial: &ScriptDenial) -> Result<(), Fault> {
        let value = self
            .call(Function::OnDenied, Caller::of(req), [arg(req), arg(denial)], Vec::new())
            .await?;
        self.expect_no_value(Function::OnDenied, &value)
    }

    /// `on_response(req, identity, response)`: changes `response`. After an error, no part of the
    /// response may be sent.
    ///
    /// # Errors
    /// The script refused or failed.
    pub async fn on_response(
        &self,
        req: &ScriptRequest,
        identity: &IdentityView,
        response: &ScriptResponse,
    ) -> Result<(), Fault> {
        let caller = Caller { response: Some(response), ..Caller::of(req) };
        let arguments = [arg(req), arg(identity), arg(response)];
        let value = self.call(Function::OnResponse, caller, arguments, Vec::new()).await?;
        self.expect_no_value(Function::OnResponse, &value)
    }

    /// `handle(req, identity)`: returns a response from `respond()`, or a text, a map or an array
    /// that is sent with status 200.
    ///
    /// # Errors
    /// The script refused or failed.
    pub async fn handle(
        &self,
        req: &ScriptRequest,
        identity: &IdentityView,
    ) -> Result<HandlerResponse, Fault> {
        let value = self
            .call(Function::Handle, Caller::of(req), [arg(req), arg(identity)], Vec::new())
            .await?;
        if let Some(response) = value.read_lock::<HandlerResponse>() {
            return Ok(response.clone());
        }
        let (body, content_type): (Bytes, _) = if value.is_map() || value.is_array() {
            let text = is_plain_data(&value, 0).then(|| serde_json::to_vec(&value).ok()).flatten();
            let text = text.ok_or_else(|| {
                self.failed("handle returned a value that cannot be written as JSON")
            })?;
            (text.into(), "application/json")
        } else {
            let text = value.into_string().map_err(|kind| {
                self.wrong_type(Function::Handle, kind, "respond(…), a text, a map or an array")
            })?;
            (text.into(), "text/plain; charset=utf-8")
        };
        HandlerResponse::new(StatusCode::OK.as_u16().into(), body, content_type)
            .map_err(|problem| self.failed(&problem))
    }

    /// Calls a function of `events.rhai`, and returns the webhooks that the function requested.
    ///
    /// # Errors
    /// The script refused or failed.
    pub async fn event(
        &self,
        function: Function,
        event: &Value,
    ) -> Result<Vec<RequestedWebhook>, Fault> {
        let outbox = ScriptOutbox::default();
        let event = rhai::serde::to_dynamic(event)
            .map_err(|_| self.failed("the event cannot be converted into a map for the script"))?;
        let options = CallOptions { redactions: None, outbox: Some(outbox.clone()) };
        let value = self.call(function, Caller::default(), [event], options).await?;
        self.expect_no_value(function, &value)?;
        Ok(outbox.all())
    }

    /// Checks that a hook returned nothing or `true`. Hooks refuse by throwing. The author of a
    /// hook that returns `false` probably wants to refuse, so `false` is a failure and does not let
    /// the request pass.
    fn expect_no_value(&self, function: Function, value: &Dynamic) -> Result<(), Fault> {
        if value.is_unit() || value.as_bool() == Ok(true) {
            return Ok(());
        }
        Err(self.wrong_type(function, value.type_name(), "() or true; to refuse, use deny()"))
    }

    fn wrong_type(&self, function: Function, returned: &str, expected: &str) -> Fault {
        let name = function.name();
        self.failed(&format!("{name} returned {returned}; it must return {expected}"))
    }
}

impl CredentialTerms {
    fn read(map: Map) -> Option<Self> {
        let mut terms = Self::default();
        for (field, value) in map {
            match field.as_str() {
                "scopes" => {
                    let scopes = value.try_cast::<Array>()?;
                    let scopes = scopes.into_iter().map(|scope| scope.into_string().ok());
                    terms.scopes = Some(scopes.collect::<Option<_>>()?);
                }
                "adopt" => terms.adopt = Some(Secret::new(value.into_string().ok()?)),
                _ => return None,
            }
        }
        // An empty map is probably a mistake, so it does not accept the credential.
        (terms.scopes.is_some() || terms.adopt.is_some()).then_some(terms)
    }
}

fn arg<T: Clone + Send + Sync + 'static>(value: &T) -> Dynamic {
    Dynamic::from(value.clone())
}
