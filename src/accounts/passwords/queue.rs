//! A fair queue for slow checks. Clients take turns, and so do the users of one client, so that a
//! client with many wrong passwords delays others by at most one check.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::Busy;

/// The maximum number of waiting checks for each check that may run.
const WAITING: usize = 64;

/// The client and the user that a check is for. `None` means a check for Keyward itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Party {
    pub client: Option<u128>,
    /// A hash of the user's name. The user need not exist.
    pub user: Option<u64>,
}

/// The queue. At most `at_once` checks run.
#[derive(Debug)]
pub(super) struct FairQueue {
    at_once: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    running: Vec<Party>,
    waiting: usize,
    /// The clients with waiting checks. The client that waits longest for its turn is first.
    clients: VecDeque<(Option<u128>, VecDeque<UserQueue>)>,
    waiting_of_client: HashMap<Option<u128>, usize>,
}

/// The waiting checks of one user from one client.
#[derive(Debug)]
struct UserQueue {
    user: Option<u64>,
    checks: VecDeque<oneshot::Sender<Slot>>,
}

/// The right to run one check. On drop, the next check starts.
#[derive(Debug)]
pub(super) struct Slot {
    queue: Arc<FairQueue>,
    party: Party,
}

impl FairQueue {
    pub fn new(at_once: usize) -> Arc<Self> {
        Arc::new(Self { at_once: at_once.max(1), state: Mutex::default() })
    }

    /// Waits until this party may run a check.
    ///
    /// # Errors
    /// Too many checks are waiting, of all clients or of this client.
    pub async fn slot(self: &Arc<Self>, party: Party) -> Result<Slot, Busy> {
        let turn = {
            let mut state = self.state.lock();
            if state.clients.is_empty() && self.may_run(&state, party) {
                state.running.push(party);
                return Ok(Slot { queue: self.clone(), party });
            }
            let max = self.at_once * WAITING;
            let of_client = state.waiting_of_client.get(&party.client).copied().unwrap_or_default();
            // One client gets half of the queue, and one user half of the client's part, so that
            // others find a place.
            if state.waiting >= max || of_client >= max / 2 || state.of_user(party) >= max / 4 {
                return Err(Busy);
            }
            let (wake, turn) = oneshot::channel();
            state.push(party, wake);
            turn
        };
        // A party that may run at once does not wait for another client that may not.
        self.start_waiting();
        turn.await.map_err(|_| Busy)
    }

    /// Whether a check of this party may run now. One slot is kept free of each client, and of each
    /// user there is one check at a time, if more than one check may run.
    fn may_run(&self, state: &State, party: Party) -> bool {
        if state.running.len() >= self.at_once {
            return false;
        }
        if self.at_once == 1 || party.client.is_none() {
            return true;
        }
        let of_client = state.running.iter().filter(|other| other.client == party.client).count();
        let is_users_turn = party
            .user
            .is_none_or(|user| state.running.iter().all(|other| other.user != Some(user)));
        of_client < self.at_once - 1 && is_users_turn
    }

    /// Starts waiting checks while slots are free.
    fn start_waiting(self: &Arc<Self>) {
        loop {
            let mut state = self.state.lock();
            let Some((party, wake)) = state.take_next(|state, party| self.may_run(state, party))
            else {
                return;
            };
            state.running.push(party);
            drop(state);
            // A request that was cancelled gives its slot back: the slot is dropped here.
            let _ = wake.send(Slot { queue: self.clone(), party });
        }
    }
}

impl State {
    /// The number of waiting checks of this user from this client.
    fn of_user(&self, party: Party) -> usize {
        let users = self.clients.iter().find(|(client, _)| *client == party.client);
        let queue =
            users.and_then(|(_, users)| users.iter().find(|queue| queue.user == party.user));
        queue.map_or(0, |queue| queue.checks.len())
    }

    fn push(&mut self, party: Party, wake: oneshot::Sender<Slot>) {
        self.waiting += 1;
        *self.waiting_of_client.entry(party.client).or_default() += 1;
        let index = self.clients.iter().position(|(client, _)| *client == party.client);
        let users = match index {
            Some(index) => &mut self.clients[index].1,
            None => {
                self.clients.push_back((party.client, VecDeque::new()));
                &mut self.clients.back_mut().expect("it was just added").1
            }
        };
        match users.iter_mut().find(|queue| queue.user == party.user) {
            Some(queue) => queue.checks.push_back(wake),
            None => users.push_back(UserQueue { user: party.user, checks: [wake].into() }),
        }
    }

    /// Takes out the next check that may run. Its client and its user go to the end of their rows.
    fn take_next(
        &mut self,
        may_run: impl Fn(&Self, Party) -> bool,
    ) -> Option<(Party, oneshot::Sender<Slot>)> {
        let (at, user_at, party) =
            self.clients.iter().enumerate().find_map(|(at, (client, users))| {
                let party = |queue: &UserQueue| Party { client: *client, user: queue.user };
                let user_at = users.iter().position(|queue| may_run(self, party(queue)))?;
                Some((at, user_at, party(&users[user_at])))
            })?;
        let (client, mut users) = self.clients.remove(at)?;
        let mut queue = users.remove(user_at)?;
        let wake = queue.checks.pop_front()?;
        if !queue.checks.is_empty() {
            users.push_back(queue);
        }
        if !users.is_empty() {
            self.clients.push_back((client, users));
        }
        self.waiting -= 1;
        if let Some(count) = self.waiting_of_client.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                self.waiting_of_client.remove(&client);
            }
        }
        Some((party, wake))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.queue.state.lock();
        if let Some(at) = state.running.iter().position(|party| *party == self.party) {
            state.running.swap_remove(at);
        }
        drop(state);
        self.queue.start_waiting();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn party(client: u128, user: u64) -> Party {
        Party { client: Some(client), user: Some(user) }
    }

    /// Queues a check whose slot is put into a channel.
    fn queue_check(
        queue: &Arc<FairQueue>,
        party: Party,
        started: &tokio::sync::mpsc::UnboundedSender<Slot>,
    ) {
        let (queue, started) = (queue.clone(), started.clone());
        tokio::spawn(async move {
            if let Ok(slot) = queue.slot(party).await {
                let _ = started.send(slot);
            }
        });
    }

    async fn settle() {
        for _ in 0..500 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_client_with_many_checks_delays_another_by_one_check() {
        for at_once in [1, 2, 4] {
            let queue = FairQueue::new(at_once);
            let (started, mut slots) = tokio::sync::mpsc::unbounded_channel();
            for user in 0..8 {
                queue_check(&queue, party(1, user), &started);
            }
            settle().await;
            queue_check(&queue, party(2, 100), &started);
            settle().await;
            let mut order = Vec::new();
            let mut running = VecDeque::new();
            while !order.contains(&party(2, 100)) {
                while let Ok(slot) = slots.try_recv() {
                    order.push(slot.party);
                    running.push_back(slot);
                }
                running.pop_front();
                settle().await;
            }
            let position = order.iter().position(|party| party.client == Some(2)).unwrap();
            assert!(position <= at_once.max(2), "{at_once}: {order:?}");
        }
    }

    #[tokio::test]
    async fn checks_of_one_user_run_one_after_the_other_and_leave_a_slot() {
        let queue = FairQueue::new(3);
        let (started, mut slots) = tokio::sync::mpsc::unbounded_channel();
        for client in 0..6 {
            queue_check(&queue, party(client, 7), &started);
        }
        settle().await;
        let first = slots.try_recv().unwrap();
        assert!(slots.try_recv().is_err(), "two checks of one user run");
        // Another user of one of these clients is not held up.
        queue_check(&queue, party(1, 8), &started);
        settle().await;
        assert_eq!(slots.try_recv().unwrap().party, party(1, 8));
        drop(first);
        settle().await;
        assert_eq!(slots.try_recv().unwrap().party.user, Some(7));
    }

    #[tokio::test]
    async fn users_of_one_client_take_turns() {
        let queue = FairQueue::new(1);
        let (started, mut slots) = tokio::sync::mpsc::unbounded_channel();
        let first = queue.slot(party(1, 0)).await.unwrap();
        for user in [1, 1, 1, 2] {
            queue_check(&queue, party(1, user), &started);
            settle().await;
        }
        drop(first);
        let mut order = Vec::new();
        for _ in 0..4 {
            settle().await;
            order.push(slots.try_recv().unwrap().party.user.unwrap());
        }
        assert_eq!(order, [1, 2, 1, 1]);
    }

    #[tokio::test]
    async fn the_queue_and_the_part_of_a_client_are_bounded() {
        let queue = FairQueue::new(1);
        let _running = queue.slot(party(0, 0)).await.unwrap();
        let (started, _slots) = tokio::sync::mpsc::unbounded_channel();
        for _ in 0..WAITING {
            queue_check(&queue, party(1, 0), &started);
        }
        settle().await;
        assert_eq!(queue.state.lock().waiting, WAITING / 4);
        for user in 1..WAITING as u64 {
            queue_check(&queue, party(1, user), &started);
        }
        settle().await;
        assert_eq!(queue.state.lock().waiting, WAITING / 2);
        assert!(queue.slot(party(1, 99)).await.is_err());
        for client in 2..200 {
            queue_check(&queue, party(client, 0), &started);
        }
        settle().await;
        assert_eq!(queue.state.lock().waiting, WAITING);
        assert!(queue.slot(party(300, 0)).await.is_err());
    }

    #[tokio::test]
    async fn cancelled_check_gives_its_place_and_its_slot_back() {
        let queue = FairQueue::new(1);
        let running = queue.slot(party(1, 1)).await.unwrap();
        let mut waiting = Box::pin(queue.slot(party(2, 2)));
        tokio::select! {
            biased;
            _ = &mut waiting => panic!("two checks run"),
            () = tokio::task::yield_now() => {}
        }
        drop(waiting);
        drop(running);
        queue.slot(party(3, 3)).await.unwrap();
        let state = queue.state.lock();
        assert!(
            state.running.is_empty() && state.waiting == 0 && state.waiting_of_client.is_empty()
        );
    }
}
