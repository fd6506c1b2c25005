//! argon2 off the async threads: a few at a time, client addresses in turn.
//!
//! ```text
//! run(address, work) ── waits in its address's queue ──► permit ──► blocking thread: work, then the permit
//! ```
//! * **The permit belongs to the work**, not to the JOIN that waits for its result: a cancelled JOIN ends no argon2, so
//!   its permit comes back only when the argon2 has ended.
//! * **Round robin** over neighbourhoods (an IPv4 /24, an IPv6 /48), and within each over its addresses: an address
//!   that asks a hundred times delays only itself, and so does a network with a hundred addresses.
//! * **Bounded**: [`PER_ADDRESS`] requests of one address may wait, `MAX_PIN_QUEUE` of all. When the queue is full, the
//!   neighbourhood with the most waiting requests loses one to a neighbourhood with fewer.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

use super::delivery::Refusal;
use crate::domain::{counted_as, neighbourhood_of};

/// Concurrent runs: a flood of PINs must not take every core.
const AT_A_TIME: usize = 2;
/// Waiting requests of one address.
const PER_ADDRESS: usize = 8;
/// `retryAfterMs` for an address whose queue is full.
const A_WHILE: Duration = Duration::from_secs(1);

pub(super) struct PinHasher {
    queue: Arc<Mutex<HashQueue>>,
    places: usize,
}

#[derive(Debug, Default)]
struct HashQueue {
    running: usize,
    waiting: usize,
    /// Neighbourhoods with waiting requests, the next first; each once.
    turns: VecDeque<IpAddr>,
    neighbourhoods: HashMap<IpAddr, Neighbourhood>,
}

#[derive(Debug, Default)]
struct Neighbourhood {
    waiting: usize,
    /// Addresses with waiting requests, the next first; each once.
    turns: VecDeque<IpAddr>,
    by_address: HashMap<IpAddr, VecDeque<oneshot::Sender<HashPermit>>>,
}

/// The right to run. Dropped, it passes to the next waiting request.
#[derive(Debug)]
struct HashPermit(Option<Arc<Mutex<HashQueue>>>);

impl PinHasher {
    /// `places`: how many requests may wait.
    pub(super) fn new(places: u64) -> Self {
        Self { queue: Arc::default(), places: usize::try_from(places).unwrap_or(usize::MAX) }
    }

    /// Runs the work when it is the address's turn.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        tracker: &TaskTracker,
        address: IpAddr,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        // Dropped from a full queue in favour of another neighbourhood: the sender is gone.
        let permit = self.turn(counted_as(address))?.await.map_err(|_| Refusal::Overloaded)?;
        let done = tracker.spawn_blocking(move || {
            let _permit = permit;
            work()
        });
        done.await.map_err(|_| Refusal::Internal)
    }

    fn turn(&self, address: IpAddr) -> Result<oneshot::Receiver<HashPermit>, Refusal> {
        let (sender, receiver) = oneshot::channel();
        let mut queue = self.queue.lock();
        if queue.running < AT_A_TIME {
            queue.running += 1;
            // The receiver exists.
            let _ = sender.send(HashPermit(Some(Arc::clone(&self.queue))));
            return Ok(receiver);
        }
        let near = neighbourhood_of(address);
        if queue.of(near, address) >= PER_ADDRESS {
            queue.forget_abandoned();
        }
        if queue.of(near, address) >= PER_ADDRESS {
            return Err(Refusal::OverBudget { retry_after: A_WHILE });
        }
        if queue.waiting >= self.places {
            queue.forget_abandoned();
        }
        if queue.waiting >= self.places && !queue.take_from_fullest(near) {
            return Err(Refusal::Overloaded);
        }
        queue.push(near, address, sender);
        Ok(receiver)
    }
}

impl HashQueue {
    /// Waiting requests of one address.
    fn of(&self, near: IpAddr, address: IpAddr) -> usize {
        let waiting = self.neighbourhoods.get(&near).and_then(|near| near.by_address.get(&address));
        waiting.map_or(0, VecDeque::len)
    }

    fn push(&mut self, near: IpAddr, address: IpAddr, sender: oneshot::Sender<HashPermit>) {
        let Self { turns, neighbourhoods, .. } = self;
        let neighbourhood = neighbourhoods.entry(near).or_insert_with(|| {
            turns.push_back(near);
            Neighbourhood::default()
        });
        let Neighbourhood { turns, by_address, .. } = neighbourhood;
        let waiting = by_address.entry(address).or_insert_with(|| {
            turns.push_back(address);
            VecDeque::new()
        });
        waiting.push_back(sender);
        neighbourhood.waiting += 1;
        self.waiting += 1;
    }

    fn next(&mut self) -> Option<oneshot::Sender<HashPermit>> {
        let near = self.turns.pop_front()?;
        let neighbourhood = self.neighbourhoods.get_mut(&near)?;
        let next = neighbourhood.next();
        if neighbourhood.waiting == 0 {
            self.neighbourhoods.remove(&near);
        } else {
            self.turns.push_back(near);
        }
        self.waiting -= usize::from(next.is_some());
        next
    }

    /// Removes requests that were cancelled.
    fn forget_abandoned(&mut self) {
        for neighbourhood in self.neighbourhoods.values_mut() {
            neighbourhood.by_address.values_mut().for_each(|waiting| waiting.retain(|sender| !sender.is_closed()));
            neighbourhood.recount();
        }
        self.recount();
    }

    /// Drops a request of the neighbourhood with the most, if it has more than this one would have.
    fn take_from_fullest(&mut self, near: IpAddr) -> bool {
        let mine = self.neighbourhoods.get(&near).map_or(0, |near| near.waiting);
        let fullest = self.neighbourhoods.values_mut().max_by_key(|neighbourhood| neighbourhood.waiting);
        let Some(fullest) = fullest.filter(|fullest| fullest.waiting > mine + 1) else { return false };
        let taken = fullest.by_address.values_mut().max_by_key(|waiting| waiting.len()).and_then(VecDeque::pop_back);
        fullest.recount();
        self.recount();
        taken.is_some()
    }

    fn recount(&mut self) {
        self.neighbourhoods.retain(|_, neighbourhood| neighbourhood.waiting > 0);
        let neighbourhoods = &self.neighbourhoods;
        self.turns.retain(|near| neighbourhoods.contains_key(near));
        self.waiting = neighbourhoods.values().map(|neighbourhood| neighbourhood.waiting).sum();
    }
}

impl Neighbourhood {
    fn next(&mut self) -> Option<oneshot::Sender<HashPermit>> {
        let address = self.turns.pop_front()?;
        let waiting = self.by_address.get_mut(&address)?;
        let next = waiting.pop_front();
        if waiting.is_empty() {
            self.by_address.remove(&address);
        } else {
            self.turns.push_back(address);
        }
        self.waiting -= usize::from(next.is_some());
        next
    }

    fn recount(&mut self) {
        self.by_address.retain(|_, waiting| !waiting.is_empty());
        let by_address = &self.by_address;
        self.turns.retain(|address| by_address.contains_key(address));
        self.waiting = by_address.values().map(VecDeque::len).sum();
    }
}

impl Drop for HashPermit {
    fn drop(&mut self) {
        let Some(shared) = self.0.take() else { return };
        let mut queue = shared.lock();
        while let Some(next) = queue.next() {
            match next.send(HashPermit(Some(Arc::clone(&shared)))) {
                Ok(()) => return,
                // This request was cancelled. Its permit must not pass itself on when dropped: the lock is held.
                Err(mut unused) => unused.0 = None,
            }
        }
        queue.running -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    fn address(n: u8) -> IpAddr {
        IpAddr::V4([192, 0, n, 1].into())
    }

    /// An address of the neighbourhood of `address(1)`.
    fn neighbour(n: u8) -> IpAddr {
        IpAddr::V4([192, 0, 1, n].into())
    }

    struct Bench {
        hasher: Arc<PinHasher>,
        tracker: TaskTracker,
    }

    impl Bench {
        fn new(places: u64) -> Self {
            Self { hasher: Arc::new(PinHasher::new(places)), tracker: TaskTracker::new() }
        }

        /// Work that lasts until `end` is dropped.
        fn hold(&self, from: IpAddr) -> (tokio::task::JoinHandle<Result<(), Refusal>>, mpsc::Sender<()>) {
            let (end, ended) = mpsc::channel::<()>();
            (
                self.start(from, move || {
                    let _ = ended.recv();
                }),
                end,
            )
        }

        fn start<T: Send + 'static>(
            &self,
            from: IpAddr,
            work: impl FnOnce() -> T + Send + 'static,
        ) -> tokio::task::JoinHandle<Result<T, Refusal>> {
            let (hasher, tracker) = (Arc::clone(&self.hasher), self.tracker.clone());
            self.tracker.spawn(async move { hasher.run(&tracker, from, work).await })
        }

        fn waiting(&self) -> usize {
            self.hasher.queue.lock().waiting
        }

        async fn until_waiting(&self, count: usize) {
            while self.waiting() != count {
                tokio::task::yield_now().await;
            }
        }
    }

    #[tokio::test]
    async fn a_client_that_goes_away_does_not_let_the_next_one_in_before_its_work_is_done() {
        let bench = Bench::new(256);
        let running = Arc::new(AtomicUsize::new(0));
        let most = Arc::new(AtomicUsize::new(0));
        for n in 0..100 {
            let (running, most) = (Arc::clone(&running), Arc::clone(&most));
            let joining = bench.start(address(n), move || {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                std::thread::yield_now();
                running.fetch_sub(1, Ordering::SeqCst);
            });
            tokio::task::yield_now().await;
            joining.abort();
        }
        bench.tracker.close();
        bench.tracker.wait().await;
        assert!(most.load(Ordering::SeqCst) <= AT_A_TIME, "{most:?} at once");
        // No permit was lost.
        for n in 0..4 {
            bench.start(address(n), || ()).await.unwrap().unwrap();
        }
        assert_eq!(bench.hasher.queue.lock().running, 0);
    }

    #[tokio::test]
    async fn an_address_with_many_waits_for_itself_and_is_told_when_it_has_too_many() {
        let bench = Bench::new(256);
        let (_a, end_a) = bench.hold(address(1));
        let (_b, end_b) = bench.hold(address(1));
        while bench.hasher.queue.lock().running < AT_A_TIME {
            tokio::task::yield_now().await;
        }
        let order = Arc::new(Mutex::new(Vec::new()));
        let note = |who: &'static str| {
            let order = Arc::clone(&order);
            move || order.lock().push(who)
        };
        let mut all: Vec<_> = (0..PER_ADDRESS).map(|_| bench.start(address(1), note("flood"))).collect();
        bench.until_waiting(PER_ADDRESS).await;
        let refused = bench.start(address(1), note("flood")).await.unwrap();
        assert!(matches!(refused, Err(Refusal::OverBudget { .. })));
        all.push(bench.start(address(2), note("right")));
        bench.until_waiting(PER_ADDRESS + 1).await;
        drop((end_a, end_b));
        for one in all {
            one.await.unwrap().unwrap();
        }
        let at = order.lock().iter().position(|who| *who == "right").unwrap();
        assert!(at <= 3, "after {at} of the flood");
    }

    #[tokio::test]
    async fn a_full_queue_has_a_place_for_a_neighbourhood_with_fewer() {
        let bench = Bench::new(8);
        let (_a, end_a) = bench.hold(address(1));
        let (_b, end_b) = bench.hold(address(1));
        while bench.hasher.queue.lock().running < AT_A_TIME {
            tokio::task::yield_now().await;
        }
        // Each from another address of one network.
        let flood: Vec<_> = (10..18).map(|n| bench.start(neighbour(n), || ())).collect();
        bench.until_waiting(8).await;
        let one_more = bench.start(neighbour(99), || ()).await.unwrap();
        assert!(matches!(one_more, Err(Refusal::Overloaded)));
        let order = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&order);
        let right = bench.start(address(2), move || noted.lock().push("right"));
        while bench.hasher.queue.lock().neighbourhoods.len() < 2 {
            tokio::task::yield_now().await;
        }
        assert_eq!(bench.waiting(), 8);
        drop((end_a, end_b));
        right.await.unwrap().unwrap();
        let mut overtaken = 0;
        for one in flood {
            overtaken += usize::from(matches!(one.await.unwrap(), Err(Refusal::Overloaded)));
        }
        assert_eq!(overtaken, 1);
        let queue = bench.hasher.queue.lock();
        assert!(queue.neighbourhoods.is_empty() && queue.turns.is_empty() && queue.waiting == 0);
    }
}
