//! A request that meets several guards of Keyward: the first one decides, and each further one
//! narrows this decision. No credential is checked twice, and no limit counts a request twice.

use http::StatusCode;

use super::{Grant, authorize_action, authorize_entry, method_not_allowed, run_program_hooks};
use crate::{
    directory::Rule,
    pipeline::{
        Action, Denial, Gate, Identity, Phase, Quota, Request, RequestContext, decode,
        denial_audit::DenialAudit, deny, header, limits, lookup, scripts::script_views, verify,
        verify::KeptIdentity,
    },
    scripting::Function,
};

/// The decision of an earlier guard about a request. It holds only with the [`RequestContext`] with
/// which it was made.
pub(crate) struct EarlierDecision {
    identity: KeptIdentity,
    /// The addresses of the rules that have allowed the request. The context keeps the rules.
    rules: Vec<usize>,
}

impl EarlierDecision {
    /// The decision that has led to a grant. `earlier` is the decision that it narrows.
    pub fn new(grant: &Grant<'_>, earlier: Option<&Self>) -> Self {
        let mut rules = earlier.map(|earlier| earlier.rules.clone()).unwrap_or_default();
        rules.extend(grant.rule.map(address));
        Self { identity: KeptIdentity::of(&grant.identity), rules }
    }

    fn has_asked(&self, rule: &Rule) -> bool {
        self.rules.contains(&address(rule))
    }
}

fn address(rule: &Rule) -> usize {
    std::ptr::from_ref(rule).addr()
}

impl Gate {
    /// Decides whether a request may also perform this action, after an earlier guard has decided
    /// about the request with the same context. Also returns the limits from which only this
    /// decision has consumed. `None` means that the earlier guard has asked about the action, too.
    ///
    /// # Errors
    /// The denial of the first check that refuses the request.
    pub(crate) async fn narrow<'a>(
        &self,
        context: &'a RequestContext,
        request: &Request<'a>,
        action: &Action<'a>,
        earlier: &EarlierDecision,
    ) -> Result<(Grant<'a>, Option<Quota>), Denial> {
        let mut audit = DenialAudit::default();
        match self.narrow_phases(context, request, action, earlier, &mut audit).await {
            Ok(granted) => Ok(granted),
            Err(denial) => Err(Box::pin(deny(context, request, action, audit, denial)).await),
        }
    }

    async fn narrow_phases<'a>(
        &self,
        context: &'a RequestContext,
        request: &Request<'a>,
        action: &Action<'a>,
        earlier: &EarlierDecision,
        audit: &mut DenialAudit<'a>,
    ) -> Result<(Grant<'a>, Option<Quota>), Denial> {
        let identity = earlier.identity.restore(&context.policy).ok_or_else(other_policy)?;
        audit.note_identity(&identity);
        if let Action::Use(rule) = action
            && earlier.has_asked(rule)
        {
            let grant = Grant { identity, rule: Some(rule), quota: Quota::default() };
            return Ok((grant, None));
        }
        let rule = action.rule();
        if let Some(hooks) = context.resource_hooks(Function::OnRequest, request, rule) {
            Box::pin(hooks.on_request()).await?;
        }
        if identity.is_anonymous() {
            // The earlier guard let the request pass without a credential, so none was checked yet.
            return self.authenticate_late(context, request, action, audit).await;
        }
        if let Some(hooks) = context.resource_hooks(Function::OnAuthenticated, request, rule) {
            let view = script_views::identity(&identity);
            Box::pin(hooks.on_authenticated(&view)).await?;
        }
        check_listed(rule, &identity)?;
        let grant = match action {
            // `on_permit` was asked by the earlier guard.
            Action::Enter(rules) => {
                authorize_entry(rules, &identity)?;
                Grant { identity, rule: None, quota: Quota::default() }
            }
            _ => authorize_action(context, request, identity, action).await?,
        };
        let quota = limits::consume_of_resource(context, request, grant.rule)?;
        Ok((grant, Some(quota)))
    }

    /// Runs all phases, without the `on_request` hooks.
    async fn authenticate_late<'a>(
        &self,
        context: &'a RequestContext,
        request: &Request<'a>,
        action: &Action<'a>,
        audit: &mut DenialAudit<'a>,
    ) -> Result<(Grant<'a>, Option<Quota>), Denial> {
        let presented = header::read_credential(self, context, request, action).await?;
        audit.note_presented(&presented);
        let credential = decode::parse(context, request, presented).await?;
        let candidate = lookup::find(self, context, request, credential).await?;
        audit.note_candidate(&candidate);
        let identity = verify::check(self, context, request, action, candidate).await?;
        audit.note_identity(&identity);
        let grant = match action {
            // `on_permit` was asked about the anonymous request.
            Action::Enter(rules) if identity.is_anonymous() => {
                authorize_entry(rules, &identity)?;
                Grant { identity, rule: None, quota: Quota::default() }
            }
            Action::Enter(rules) => {
                authorize_entry(rules, &identity)?;
                run_program_hooks(context, request, &identity).await?;
                Grant { identity, rule: None, quota: Quota::default() }
            }
            _ => authorize_action(context, request, identity, action).await?,
        };
        let quota = limits::consume(context, request, &grant.identity, grant.rule)?;
        Ok((grant, Some(quota)))
    }
}

/// Refuses the credential of an application that the resource does not list. Without an earlier
/// guard, the header phase would have chosen among the listed applications.
fn check_listed(rule: Option<&Rule>, identity: &Identity<'_>) -> Result<(), Denial> {
    let Some(rule) = rule.filter(|rule| !rule.resource.applications.is_empty()) else {
        return Ok(());
    };
    let application = identity.application();
    if application.is_some_and(|one| rule.resource.lists_application(&one.record.id)) {
        return Ok(());
    }
    Err(method_not_allowed("the resource does not list the application that an outer guard used"))
}

/// The denial if the decision was made with other records. It cannot happen, because a decision is
/// kept together with its context.
fn other_policy() -> Denial {
    let message = "The request could not be decided.";
    Denial::new(Phase::Permit, StatusCode::SERVICE_UNAVAILABLE, "SCRIPT_ERROR", message)
        .with_internal_message("the request was decided with other records")
}
