//! The functions of scripts, as typed calls. What a script returns is checked here; what it must not return is a failure, never a pass.

use bytes::Bytes;
use http::StatusCode;
use rhai::{Array, Dynamic, Map};

use super::{
    Fault, Function, Script,
    values::{
        records::{Person, ResourceView, UserView},
        request::{ScriptRequest, is_plain},
        response::{HandlerResponse, ScriptDenial, ScriptResponse},
    },
};
use crate::model::Secret;

/// What `decode` returned: what the credential says. It goes to `lookup` and `verify` as the script made it.
#[derive(Clone)]
pub struct Claim {
    value: Dynamic,
}

/// Whom `lookup` found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// There is no such user.
    Nobody,
    /// The user of this number. The pipeline looks the record up itself, and checks that the user is active.
    User(u64),
}

/// What `verify` said.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// The credential is theirs.
    Theirs(Terms),
    /// It is not.
    Wrong,
}

/// On what terms somebody is let in.
#[derive(Debug, Clone, Default)]
pub struct Terms {
    /// The permissions that the credential is bound to; none: all of the user's.
    pub scopes: Option<Vec<String>>,
    /// The credential that shall become one of the user's own keys, so that the old system can be switched off one day.
    pub adopt: Option<Secret>,
}

/// What `on_permit` said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consent {
    /// `true`. Needed where the resource says that a script decides.
    Given,
    /// Nothing: no objection.
    Silent,
    /// `false`: refused.
    Withheld,
}

impl Claim {
    /// The claim of a script that defines no `decode`: `credential` is then the presented text, under `presented`.
    pub fn of_text(presented: &str) -> Self {
        let mut map = Map::new();
        map.insert("presented".into(), presented.into());
        Self { value: map.into() }
    }

    /// The claim of a user's name and a secret that the built-in room read: `credential.user` and `credential.secret`.
    pub fn of_pair(user: &str, secret: &str) -> Self {
        let mut map = Map::new();
        map.insert("user".into(), user.into());
        map.insert("secret".into(), secret.into());
        Self { value: map.into() }
    }

    /// A field that is a text: `user` (the user's name) and `key` (a key's text) are what the built-in rooms read.
    pub fn text(&self, field: &str) -> Option<String> {
        self.value.as_map_ref().ok()?.get(field)?.clone().into_string().ok()
    }

    /// The field `uid`: the user's number.
    pub fn uid(&self) -> Option<u64> {
        let uid = self.value.as_map_ref().ok()?.get("uid")?.as_int().ok()?;
        u64::try_from(uid).ok()
    }

    /// The texts in it: any of them may be the secret.
    fn hidden(&self) -> Vec<Secret> {
        let Ok(map) = self.value.as_map_ref() else { return Vec::new() };
        let names = ["user", "uid"];
        map.iter()
            .filter(|(field, _)| !names.contains(&field.as_str()))
            .filter_map(|(_, value)| value.clone().into_string().ok())
            .map(Secret::new)
            .collect()
    }
}

impl std::fmt::Debug for Claim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Claim(…)")
    }
}

impl Script {
    /// `header(req)`: the credential as a text, or `()` where the request has none.
    ///
    /// # Errors
    /// The script refused, or failed.
    pub async fn header(&self, req: &ScriptRequest) -> Result<Option<Secret>, Fault> {
        let value = self.call(Function::Header, [arg(req)], Vec::new()).await?;
        if value.is_unit() {
            return Ok(None);
        }
        match value.into_string() {
            // An empty credential matches nothing, and is not the same as none.
            Ok(text) => Ok(Some(Secret::new(text))),
            Err(kind) => Err(self.returned(Function::Header, kind, "a text or ()")),
        }
    }

    /// `decode(req, presented)`: what the credential says, as a map.
    ///
    /// # Errors
    /// The script refused, or failed.
    pub async fn decode(&self, req: &ScriptRequest, presented: &str) -> Result<Claim, Fault> {
        let arguments = [arg(req), presented.into()];
        let value = self.call(Function::Decode, arguments, vec![Secret::new(presented)]).await?;
        if !value.is_map() || !is_plain(&value, 0) {
            return Err(self.returned(Function::Decode, value.type_name(), "a map of plain data"));
        }
        Ok(Claim { value })
    }

    /// `lookup(req, credential)`: a user, a user's number, or `()`.
    ///
    /// # Errors
    /// The script refused, or failed.
    pub async fn lookup(&self, req: &ScriptRequest, claim: &Claim) -> Result<Found, Fault> {
        let arguments = [arg(req), claim.value.clone()];
        let value = self.call(Function::Lookup, arguments, claim.hidden()).await?;
        if value.is_unit() {
            return Ok(Found::Nobody);
        }
        if let Some(user) = value.read_lock::<UserView>() {
            return Ok(Found::User(user.parts().uid));
        }
        match value.as_int().ok().and_then(|uid| u64::try_from(uid).ok()) {
            Some(uid) => Ok(Found::User(uid)),
            None => {
                let kind = value.type_name();
                Err(self.returned(Function::Lookup, kind, "a user, a user's number, or ()"))
            }
        }
    }

    /// `verify(req, user, credential)`: `true`, `false`, or the terms: `#{ scopes: […], adopt: "…" }`.
    ///
    /// # Errors
    /// The script refused, or failed.
    pub async fn verify(
        &self,
        req: &ScriptRequest,
        user: &UserView,
        claim: &Claim,
    ) -> Result<Verdict, Fault> {
        let arguments = [arg(req), arg(user), claim.value.clone()];
        let value = self.call(Function::Verify, arguments, claim.hidden()).await?;
        if let Ok(is_theirs) = value.as_bool() {
            return Ok(match is_theirs {
                true => Verdict::Theirs(Terms::default()),
                false => Verdict::Wrong,
            });
        }
        let kind = value.type_name();
        let terms = value.try_cast::<Map>().and_then(Terms::read);
        terms.map(Verdict::Theirs).ok_or_else(|| {
            self.returned(
                Function::Verify,
                kind,
                "true, false, or #{ scopes: [texts], adopt: text }",
            )
        })
    }

    /// `on_request(req)`. To refuse, it throws.
    ///
    /// # Errors
    /// The script refused, or failed.
    pub async fn on_request(&self, req: &ScriptRequest) -> Result<(), Fault> {
        let value = self.call(Function::OnRequest, [arg(req)], Vec::new()).await?;
        self.nothing(Function::OnRequest, &value)
    }

    /// `on_authenticated(req, identity)`. To refuse, it throws.
    ///
    /// # Errors
    /// The script refused, or failed.
    pub async fn on_authenticated(&self, req: &ScriptRequest, who: &Person) -> Result<(), Fault> {
        let arguments = [arg(req), arg(who)];
        let value = self.call(Function::OnAuthenticated, arguments, Vec::new()).await?;
        self.nothing(Function::OnAuthenticated, &value)
    }

    /// `on_permit(req, identity, resource)`.
    ///
    /// # Errors
    /// The script refused, or failed.
    pub async fn on_permit(
        &self,
        req: &ScriptRequest,
        who: &Person,
        resource: &ResourceView,
    ) -> Result<Consent, Fault> {
        let arguments = [arg(req), arg(who), arg(resource)];
        let value = self.call(Function::OnPermit, arguments, Vec::new()).await?;
        match value.as_bool() {
            _ if value.is_unit() => Ok(Consent::Silent),
            Ok(true) => Ok(Consent::Given),
            Ok(false) => Ok(Consent::Withheld),
            Err(kind) => Err(self.returned(Function::OnPermit, kind, "true, false or ()")),
        }
    }

    /// `on_denied(req, denial)`. The changes are in `denial`; after an error, take the denial as it was before the call.
    ///
    /// # Errors
    /// The script refused with something else, or failed.
    pub async fn on_denied(&self, req: &ScriptRequest, denial: &ScriptDenial) -> Result<(), Fault> {
        let value = self.call(Function::OnDenied, [arg(req), arg(denial)], Vec::new()).await?;
        self.nothing(Function::OnDenied, &value)
    }

    /// `on_response(req, identity, response)`. The changes are in `response`; after an error, nothing of it may be sent.
    ///
    /// # Errors
    /// The script refused, or failed.
    pub async fn on_response(
        &self,
        req: &ScriptRequest,
        who: &Person,
        response: &ScriptResponse,
    ) -> Result<(), Fault> {
        let arguments = [arg(req), arg(who), arg(response)];
        let value = self.call(Function::OnResponse, arguments, Vec::new()).await?;
        self.nothing(Function::OnResponse, &value)
    }

    /// `handle(req, identity)`: what `respond()` returns, or a text, a map or an array, sent with 200.
    ///
    /// # Errors
    /// The script refused, or failed.
    pub async fn handle(
        &self,
        req: &ScriptRequest,
        who: &Person,
    ) -> Result<HandlerResponse, Fault> {
        let value = self.call(Function::ContextHandle, [arg(req), arg(who)], Vec::new()).await?;
        if let Some(reply) = value.read_lock::<HandlerResponse>() {
            return Ok(reply.clone());
        }
        let (body, content_type): (Bytes, _) = if value.is_map() || value.is_array() {
            let text = is_plain(&value, 0).then(|| serde_json::to_vec(&value).ok()).flatten();
            let text = text.ok_or_else(|| self.broken("handle returned what cannot be JSON"))?;
            (text.into(), "application/json")
        } else {
            let text = value.into_string().map_err(|kind| {
                self.returned(
                    Function::ContextHandle,
                    kind,
                    "respond(…), a text, a map or an array",
                )
            })?;
            (text.into(), "text/plain; charset=utf-8")
        };
        HandlerResponse::new(StatusCode::OK.as_u16().into(), body, content_type)
            .map_err(|problem| self.broken(&problem))
    }

    /// Hooks say no by throwing. One that returns `false` means no, and would be passed over; so it is a failure.
    pub(super) fn nothing(&self, function: Function, value: &Dynamic) -> Result<(), Fault> {
        match value.is_unit() || value.as_bool() == Ok(true) {
            true => Ok(()),
            false => {
                Err(self.returned(function, value.type_name(), "() or true; to refuse, use deny()"))
            }
        }
    }

    fn returned(&self, function: Function, kind: &str, wanted: &str) -> Fault {
        self.broken(&format!("{} returned {kind}; it returns {wanted}", function.name()))
    }
}

impl Terms {
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
        // An empty map is more likely a mistake than a yes.
        (terms.scopes.is_some() || terms.adopt.is_some()).then_some(terms)
    }
}

fn arg<T: Clone + Send + Sync + 'static>(value: &T) -> Dynamic {
    Dynamic::from(value.clone())
}
