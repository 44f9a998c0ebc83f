//! Circuit breaker: keeps a script that exceeds its budget of steps or time from slowing down other
//! requests. Strikes belong to the clients that cause them, so that one client cannot switch a
//! script off for others.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::{
    model::client_network,
    scripting::{entry_points::Function, limits::ScriptLimits},
};

/// The maximum number of clients that are shut out of one script at the same time.
const MAX_SHUT_OUT: usize = 4096;

/// Counts how often one script exceeds its budget ("strikes").
///
/// - A client that causes `strikes` strikes is shut out of this script until the cool-down ends.
/// - `strikes × strike_clients` strikes, of which one client causes at most `strikes`, switch the
///   script off.
/// - After the cool-down, one call of the function that was too expensive decides whether the
///   script is switched on again. The clients that caused the strikes cannot make this call.
pub(in crate::scripting) struct Breaker {
    strikes_of_client: usize,
    strikes_of_all: usize,
    window: Duration,
    cool_down: Duration,
    /// Whether any call may be rejected, so that calls of a well-behaved script take no lock.
    is_alert: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    switch: Switch,
    /// The strikes within the window. `None` means a call for no known client.
    strikes: VecDeque<(Instant, Option<Client>)>,
    /// The clients that are shut out, each with the end.
    shut_out: HashMap<Client, Instant>,
}

/// The network of a client's address.
type Client = u128;

#[derive(Debug, Clone, Copy, Default)]
enum Switch {
    #[default]
    On,
    /// Calls are rejected. `function` has caused the last strike.
    Off { until: Instant, function: Function },
    /// The next call of `function` decides; `is_running` means that it has begun.
    Probing { function: Function, is_running: bool },
}

/// Whether a call may run.
pub(in crate::scripting) enum Admission<'a> {
    Run,
    /// The call may run, and decides whether the script is switched on again.
    Probe(Probe<'a>),
    /// This client's calls are rejected for so many seconds.
    ShutOut {
        seconds: u64,
    },
    /// The script is switched off.
    Off,
}

/// The consequence of a strike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::scripting) enum Consequence {
    Counted,
    /// The strike's client is shut out from now on.
    ClientShutOut,
    /// The script is switched off.
    SwitchedOff,
}

/// The call that decides whether the script is switched on again. If the call ends without a
/// decision, another call decides.
pub(in crate::scripting) struct Probe<'a>(&'a Breaker);

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        if let Switch::Probing { is_running, .. } = &mut self.0.state.lock().switch {
            *is_running = false;
        }
    }
}

impl Probe<'_> {
    /// The call was within its budget, so the script is switched on again.
    pub fn succeed(self) {
        self.0.state.lock().switch = Switch::On;
    }
}

impl Breaker {
    pub fn new(limits: &ScriptLimits) -> Self {
        let strikes_of_client = limits.strikes.max(1);
        Self {
            strikes_of_client,
            strikes_of_all: strikes_of_client.saturating_mul(limits.strike_clients.max(1)),
            window: limits.strike_window,
            cool_down: limits.cool_down,
            is_alert: AtomicBool::new(false),
            state: Mutex::default(),
        }
    }

    /// [`Breaker::admit`] at this moment. Reads the clock only after strikes.
    pub fn admit_now(&self, function: Function, client: Option<IpAddr>) -> Admission<'_> {
        if !self.is_alert.load(Ordering::Relaxed) {
            return Admission::Run;
        }
        self.admit(function, client, Instant::now())
    }

    /// Whether a call for this client may run.
    pub fn admit(&self, function: Function, client: Option<IpAddr>, now: Instant) -> Admission<'_> {
        let mut state = self.state.lock();
        if matches!(state.switch, Switch::Off { until, .. } if now < until) {
            return Admission::Off;
        }
        if let Some(until) = known(client).and_then(|client| state.shut_out.get(&client)) {
            let left = until.saturating_duration_since(now);
            if !left.is_zero() {
                return Admission::ShutOut { seconds: left.as_secs() + 1 };
            }
        }
        if let Switch::Off { function, .. } = state.switch {
            state.switch = Switch::Probing { function, is_running: false };
        }
        match &mut state.switch {
            Switch::Off { .. } => {}
            Switch::Probing { function: probed, is_running } if *probed == function => {
                if *is_running {
                    return Admission::Off;
                }
                *is_running = true;
                return Admission::Probe(Probe(self));
            }
            // The other functions of the script have not caused the last strike.
            Switch::Probing { .. } => {}
            Switch::On => {
                state.shut_out.retain(|_, until| *until > now);
                self.is_alert.store(!state.shut_out.is_empty(), Ordering::Relaxed);
            }
        }
        Admission::Run
    }

    /// Whether the script is switched off, or not yet switched on again.
    pub fn is_off(&self) -> bool {
        self.is_alert.load(Ordering::Relaxed) && !matches!(self.state.lock().switch, Switch::On)
    }

    /// Records that a call for this client exceeded its budget.
    pub fn strike(&self, function: Function, client: Option<IpAddr>, now: Instant) -> Consequence {
        let client = known(client);
        let mut state = self.state.lock();
        let state = &mut *state;
        let window_start = now.checked_sub(self.window);
        state.strikes.retain(|(at, _)| window_start.is_none_or(|start| *at > start));
        let before = state.strikes.iter().filter(|(_, other)| *other == client).count();
        // Calls that begin together can cause more strikes than a client may cause.
        if client.is_none() || before < self.strikes_of_client {
            state.strikes.push_back((now, client));
        }
        let is_probe = matches!(state.switch, Switch::Probing { function: f, .. } if f == function);
        let consequence = match state.switch {
            Switch::Off { .. } => Consequence::Counted,
            _ if is_probe || state.strikes.len() >= self.strikes_of_all => {
                state.switch = Switch::Off { until: now + self.cool_down, function };
                // These clients must not make the call that decides after the cool-down.
                for client in state.strikes.drain(..).filter_map(|(_, client)| client) {
                    shut_out(&mut state.shut_out, client, now, now + 2 * self.cool_down);
                }
                Consequence::SwitchedOff
            }
            _ => match client {
                Some(client) if before + 1 >= self.strikes_of_client => {
                    shut_out(&mut state.shut_out, client, now, now + self.cool_down);
                    Consequence::ClientShutOut
                }
                _ => Consequence::Counted,
            },
        };
        if consequence != Consequence::Counted {
            self.is_alert.store(true, Ordering::Relaxed);
        }
        consequence
    }
}

/// Shuts a client out. If too many clients are shut out, the client that would be readmitted first
/// is readmitted.
fn shut_out(table: &mut HashMap<Client, Instant>, client: Client, now: Instant, until: Instant) {
    if table.len() >= MAX_SHUT_OUT && !table.contains_key(&client) {
        table.retain(|_, until| *until > now);
        let first = table.iter().min_by_key(|(_, until)| **until).map(|(client, _)| *client);
        if table.len() >= MAX_SHUT_OUT
            && let Some(first) = first
        {
            table.remove(&first);
        }
    }
    table.insert(client, until);
}

/// The network of a client. An unspecified address means that the program around Keyward does not
/// know the addresses of its clients, so they cannot be told apart.
fn known(client: Option<IpAddr>) -> Option<Client> {
    client.filter(|client| !client.is_unspecified()).map(client_network)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const SECOND: Duration = Duration::from_secs(1);
    const VERIFY: Function = Function::Verify;

    /// A breaker with 3 strikes for each of 2 clients, within a minute.
    fn breaker() -> Breaker {
        Breaker::new(&ScriptLimits { strikes: 3, strike_clients: 2, ..ScriptLimits::default() })
    }

    fn client(number: u8) -> Option<IpAddr> {
        Some([192, 0, 2, number].into())
    }

    fn runs(breaker: &Breaker, number: u8, now: Instant) -> bool {
        matches!(breaker.admit(VERIFY, client(number), now), Admission::Run)
    }

    fn switch_off(breaker: &Breaker, now: Instant) {
        let strikes = [1, 1, 1, 2, 2, 2].map(|n| breaker.strike(VERIFY, client(n), now));
        assert_eq!(strikes[2], Consequence::ClientShutOut);
        assert_eq!(strikes[5], Consequence::SwitchedOff);
    }

    #[test]
    fn one_client_is_shut_out_and_the_others_are_not() {
        let (breaker, start) = (breaker(), Instant::now());
        for _ in 0..100 {
            breaker.strike(VERIFY, client(1), start);
        }
        assert!(!breaker.is_off() && runs(&breaker, 2, start));
        let admission = breaker.admit(VERIFY, client(1), start + SECOND);
        assert!(matches!(admission, Admission::ShutOut { seconds: 60 }));
        assert!(runs(&breaker, 1, start + MINUTE));
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one_client() {
        let (breaker, start) = (breaker(), Instant::now());
        for host in 1..100 {
            let address = IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, host]);
            breaker.strike(VERIFY, Some(address), start);
        }
        assert!(!breaker.is_off());
    }

    #[test]
    fn several_clients_switch_the_script_off_until_a_probe_succeeds() {
        let (breaker, start) = (breaker(), Instant::now());
        switch_off(&breaker, start);
        assert!(breaker.is_off());
        assert!(matches!(breaker.admit(VERIFY, client(3), start + SECOND), Admission::Off));
        let later = start + MINUTE;
        // The clients that caused the strikes do not decide.
        assert!(matches!(breaker.admit(VERIFY, client(1), later), Admission::ShutOut { .. }));
        let Admission::Probe(probe) = breaker.admit(VERIFY, client(3), later) else { panic!() };
        assert!(matches!(breaker.admit(VERIFY, client(4), later), Admission::Off));
        probe.succeed();
        assert!(!breaker.is_off() && runs(&breaker, 4, later));
        // One strike is not enough to switch the script off again.
        assert_eq!(breaker.strike(VERIFY, client(5), later), Consequence::Counted);
        assert!(runs(&breaker, 5, later));
    }

    #[test]
    fn failed_probe_switches_the_script_off_for_another_period() {
        let (breaker, start) = (breaker(), Instant::now());
        switch_off(&breaker, start);
        let later = start + MINUTE;
        let Admission::Probe(probe) = breaker.admit(VERIFY, client(3), later) else { panic!() };
        assert_eq!(breaker.strike(VERIFY, client(3), later), Consequence::SwitchedOff);
        drop(probe);
        let soon = later + MINUTE / 2;
        assert!(matches!(breaker.admit(VERIFY, client(4), soon), Admission::Off));
        let last = later + MINUTE;
        assert!(matches!(breaker.admit(VERIFY, client(3), last), Admission::ShutOut { .. }));
        assert!(matches!(breaker.admit(VERIFY, client(4), last), Admission::Probe(_)));
    }

    #[test]
    fn probe_that_ends_without_a_decision_is_repeated() {
        let (breaker, start) = (breaker(), Instant::now());
        switch_off(&breaker, start);
        for _ in 0..3 {
            let admission = breaker.admit(VERIFY, client(3), start + MINUTE);
            assert!(matches!(admission, Admission::Probe(_)));
        }
        // Other functions of the script run, because they did not exceed the budget.
        let other = breaker.admit(Function::Header, client(3), start + MINUTE);
        assert!(matches!(other, Admission::Run));
        assert!(breaker.is_off());
    }

    #[test]
    fn strikes_outside_the_window_have_no_consequence() {
        let (breaker, start) = (breaker(), Instant::now());
        for minute in 0..10 {
            let now = start + 2 * minute * MINUTE;
            assert_eq!(breaker.strike(VERIFY, client(1), now), Consequence::Counted);
        }
    }

    #[test]
    fn strikes_without_a_known_client_count_together() {
        for unknown in [None, Some(IpAddr::from([0, 0, 0, 0]))] {
            let (breaker, start) = (breaker(), Instant::now());
            let strikes = [(); 6].map(|()| breaker.strike(VERIFY, unknown, start));
            assert_eq!(strikes[4..], [Consequence::Counted, Consequence::SwitchedOff]);
        }
    }

    #[test]
    fn table_of_clients_is_bounded() {
        let mut table = HashMap::new();
        let start = Instant::now();
        for number in 0..10_000_u32 {
            let until = start + MINUTE + Duration::from_secs(number.into());
            shut_out(&mut table, number.into(), start, until);
        }
        assert_eq!(table.len(), MAX_SHUT_OUT);
        assert!(table.contains_key(&9_999) && !table.contains_key(&0));
    }
}
