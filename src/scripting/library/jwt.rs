//! JSON Web Tokens (RFC 7519). The `jsonwebtoken` crate checks signatures; claims are checked here,
//! strictly and with Keyward's clock.

use jsonwebtoken::{Algorithm, DecodingKey, Validation, errors::ErrorKind};
use rhai::{Dynamic, EvalAltResult, Map, Module, NativeCallContext, exported_module};
use serde_json::Value;

use super::{Checked, digests, responses::refusal};
use crate::scripting::runtime::context::{CallContext, runtime_error};

pub(super) fn module() -> Module {
    exported_module!(functions)
}

/// The maximum length of a token, in bytes.
const MOST_BYTES: usize = 16 * 1024;
const LEEWAY: i64 = 60;
const MOST_LEEWAY: i64 = 600;

#[allow(clippy::unwrap_used, unused_qualifications, reason = "what the macro writes")]
#[rhai::export_module]
mod functions {
    use super::*;

    /// Checks a token and returns its claims, as a map.
    ///
    /// Options: `alg`: `"HS256"`, `"RS256"`, `"ES256"` or `"EdDSA"`; `secret` (HS256: a secret, a
    /// text or a blob) or `key` (others: a public key in PEM, as a text or secret); `aud` and
    /// `iss`: a text, or an array of which one must match; `leeway`: seconds, 0 to 600, by default
    /// 60.
    ///
    /// `exp` is required. `exp` and `nbf` are checked. `aud` is checked, and the option is required
    /// if the token has one. `iss` is checked if the option is given.
    ///
    /// Denies the request with 401 `INVALID_TOKEN` if the token is invalid. Error: the options are
    /// invalid.
    ///
    /// Example: `let claims = jwt_verify(presented, #{ alg: "RS256", key: ISSUER_KEY, aud: "api",
    /// iss: "https://id.example.com" });`
    #[rhai_fn(volatile, return_raw)]
    pub fn jwt_verify(context: NativeCallContext, token: &str, options: Map) -> Checked<Dynamic> {
        let call = CallContext::current(&context)?;
        verified(&call, token, &options)
    }
}

/// The script's requirements of a token.
struct Wanted {
    algorithm: Algorithm,
    key: DecodingKey,
    audience: Option<Vec<String>>,
    issuer: Option<Vec<String>>,
    leeway: i64,
}

fn verified(call: &CallContext, token: &str, options: &Map) -> Checked<Dynamic> {
    let wanted = Wanted::read(options)?;
    if token.len() > MOST_BYTES {
        return Err(invalid("The token is too long."));
    }
    let claims = signed(token, &wanted).map_err(invalid)?;
    let now = call.host.clock.now().0;
    check(&claims, &wanted, now).map_err(invalid)?;
    rhai::serde::to_dynamic(Value::Object(claims))
}

fn invalid(description: &'static str) -> Box<EvalAltResult> {
    refusal(401, "INVALID_TOKEN", description)
}

type Claims = serde_json::Map<String, Value>;

/// The claims of a token whose signature is valid for the script's algorithm.
fn signed(token: &str, wanted: &Wanted) -> Result<Claims, &'static str> {
    let header = jsonwebtoken::decode_header(token)
        .map_err(|_| "The token cannot be read, or says an algorithm that nobody may use.")?;
    if header.alg != wanted.algorithm {
        return Err("The token is signed with another algorithm.");
    }
    // RFC 7515, section 4.1.11: a token with unknown critical header parameters must be rejected.
    if header.crit.is_some() {
        return Err("The token asks for an extension that is not supported.");
    }
    // The claims are checked below, with the clock that is passed in.
    let mut validation = Validation::new(wanted.algorithm);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    jsonwebtoken::decode::<Claims>(token, &wanted.key, &validation)
        .map(|token| token.claims)
        .map_err(|error| match error.kind() {
            ErrorKind::InvalidSignature => "The token's signature is wrong.",
            _ => "The token, or a claim in it, cannot be read.",
        })
}

fn check(claims: &Claims, wanted: &Wanted, now: i64) -> Result<(), &'static str> {
    let expires = date(claims, "exp")?.ok_or("The token has no end (exp).")?;
    if now as f64 >= expires + wanted.leeway as f64 {
        return Err("The token has expired.");
    }
    if let Some(begins) = date(claims, "nbf")?
        && (now as f64) < begins - wanted.leeway as f64
    {
        return Err("The token is not valid yet.");
    }
    match (claims.get("aud"), &wanted.audience) {
        (None, None) => {}
        (Some(given), Some(ours)) if names(given).iter().any(|one| ours.contains(one)) => {}
        _ => return Err("The token is for another audience."),
    }
    match (claims.get("iss"), &wanted.issuer) {
        (_, None) => Ok(()),
        (Some(Value::String(given)), Some(ours)) if ours.contains(given) => Ok(()),
        _ => Err("The token is by another issuer."),
    }
}

/// A NumericDate (RFC 7519, section 2). A text is never one.
fn date(claims: &Claims, name: &str) -> Result<Option<f64>, &'static str> {
    match claims.get(name) {
        None => Ok(None),
        Some(value) => match value.as_f64() {
            Some(seconds) if seconds.is_finite() => Ok(Some(seconds)),
            _ => Err("A date in the token is no number."),
        },
    }
}

fn names(value: &Value) -> Vec<String> {
    match value {
        Value::String(one) => vec![one.clone()],
        Value::Array(many) => many.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

impl Wanted {
    fn read(options: &Map) -> Checked<Self> {
        const KNOWN: [&str; 6] = ["alg", "key", "secret", "aud", "iss", "leeway"];
        if let Some(unknown) = options.keys().find(|key| !KNOWN.contains(&key.as_str())) {
            return Err(runtime_error(format!("jwt_verify has no option {unknown:?}")));
        }
        let option = |name: &str| options.get(name).filter(|value| !value.is_unit());
        let name = option("alg").and_then(|name| name.clone().into_string().ok());
        let (algorithm, field) = match name.as_deref() {
            Some("HS256") => (Algorithm::HS256, "secret"),
            Some("RS256") => (Algorithm::RS256, "key"),
            Some("ES256") => (Algorithm::ES256, "key"),
            Some("EdDSA") => (Algorithm::EdDSA, "key"),
            _ => return Err(runtime_error("jwt_verify needs alg: HS256, RS256, ES256 or EdDSA")),
        };
        let other = if field == "key" { "secret" } else { "key" };
        let given = option(field).filter(|_| option(other).is_none()).ok_or_else(|| {
            runtime_error(format!("jwt_verify needs {field} for this algorithm, and not {other}"))
        })?;
        let leeway = match option("leeway") {
            None => LEEWAY,
            Some(value) => match value.as_int() {
                Ok(seconds @ 0..=MOST_LEEWAY) => seconds,
                _ => {
                    return Err(runtime_error(format!(
                        "jwt_verify: leeway is 0 to {MOST_LEEWAY} seconds"
                    )));
                }
            },
        };
        Ok(Self {
            algorithm,
            key: decoding_key(algorithm, &digests::key(given)?)?,
            audience: option("aud").map(|value| texts("aud", value)).transpose()?,
            issuer: option("iss").map(|value| texts("iss", value)).transpose()?,
            leeway,
        })
    }
}

fn decoding_key(algorithm: Algorithm, bytes: &[u8]) -> Checked<DecodingKey> {
    let key = match algorithm {
        Algorithm::HS256 => {
            // Otherwise anybody with the public key could sign tokens with it.
            if bytes.trim_ascii_start().starts_with(b"-----BEGIN") {
                return Err(runtime_error(
                    "jwt_verify: a public key in PEM is no secret for HS256",
                ));
            }
            if bytes.len() < 32 {
                return Err(runtime_error("jwt_verify: a secret for HS256 has 32 bytes or more"));
            }
            return Ok(DecodingKey::from_secret(bytes));
        }
        Algorithm::RS256 => DecodingKey::from_rsa_pem(bytes),
        Algorithm::ES256 => DecodingKey::from_ec_pem(bytes),
        _ => DecodingKey::from_ed_pem(bytes),
    };
    key.map_err(|_| runtime_error("jwt_verify: the key is no public key in PEM for this algorithm"))
}

fn texts(name: &str, value: &Dynamic) -> Checked<Vec<String>> {
    let wrong = || runtime_error(format!("jwt_verify: {name} is a text, or an array of texts"));
    if let Ok(one) = value.clone().into_string() {
        return Ok(vec![one]);
    }
    let many = value.as_array_ref().map_err(|_| wrong())?;
    many.iter().map(|one| one.clone().into_string().map_err(|_| wrong())).collect()
}
