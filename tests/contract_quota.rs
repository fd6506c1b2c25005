//! What all quotas promise ([`tandem::quota`]), on all there are.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/quota_backends.rs"]
mod quota_backends;
#[path = "support/redis.rs"]
mod redis_server;
#[path = "support/waiting.rs"]
mod waiting;

use std::net::IpAddr;
use std::time::Duration;

use futures_util::future::join_all;
use quota_backends::{Backend, plenty, room, visitor, wait};
use tandem::quota::{Allowances, Exceeded};
use waiting::until;

/// No test takes a tenth of it.
const DEADLINE: Duration = Duration::from_secs(120);
const WINDOW: Duration = Duration::from_secs(2);

/// One module a backend; a new backend is one more line at the end of the file.
macro_rules! suite {
    ($backend:ident: $($name:ident($allowances:expr))*) => {
        mod $backend {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    #[allow(unused_imports, reason = "not in each")]
                    use super::*;
                    let test = super::$name(super::quota_backends::$backend($allowances).await);
                    tokio::time::timeout(DEADLINE, test).await.expect("it hangs");
                }
            )*
        }
    };
}

macro_rules! on {
    ($backend:ident) => {
        suite! { $backend:
            the_joins_of_an_address_hold_over_all(Allowances { joins: 10, ..plenty() })
            wrong_pins_are_counted_by_room_and_address_and_right_ones_are_not(Allowances { pin_attempts: 3, ..plenty() })
            a_window_used_up_makes_the_next_twice_as_long(Allowances { joins: 1, window: WINDOW, ..plenty() })
            of_many_guesses_at_once_no_more_than_allowed_get_through(Allowances { pin_attempts: 5, ..plenty() })
            the_sessions_of_a_user_hold_over_all(Allowances { user_sessions: 3, ..plenty() })
            the_sessions_of_an_address_hold_over_all(Allowances { address_sessions: 3, ..plenty() })
            a_join_that_keeps_its_place_takes_no_second_one(Allowances { user_sessions: 1, joins: 3, ..plenty() })
            who_comes_back_with_its_token_is_counted_and_never_turned_away(Allowances { user_sessions: 1, ..plenty() })
            a_join_that_nobody_waits_for_any_more_leaves_no_place_taken(Allowances { user_sessions: 1, ..plenty() })
        }
    };
}

async fn the_joins_of_an_address_hold_over_all(backend: impl Backend) {
    let (a, b) = (backend.attach("a").await, backend.attach("b").await);
    let mut places = Vec::new();
    for n in 0..5 {
        for node in [&a, &b] {
            places.push(node.take_place(&visitor(&format!("user-{n}"), "192.0.2.1")).await.unwrap());
        }
    }
    for node in [&a, &b] {
        let wait = wait(node.take_place(&visitor("ann", "192.0.2.1")).await).unwrap();
        assert!(wait > plenty().window / 2 && wait <= plenty().window, "{wait:?}");
        assert!(node.count_join(address("192.0.2.1")).await.is_err(), "with a place or without");
        assert!(node.take_place(&visitor("ann", "192.0.2.2")).await.is_ok(), "another address has its own");
    }
    // That they have left is no new chance.
    drop(places);
    assert!(a.take_place(&visitor("ann", "::ffff:192.0.2.1")).await.is_err(), "the same in IPv6's clothes");
}

async fn wrong_pins_are_counted_by_room_and_address_and_right_ones_are_not(backend: impl Backend) {
    let (a, b) = (backend.attach("a").await, backend.attach("b").await);
    let (friday, home) = (room("friday"), address("2001:db8::1"));
    for _ in 0..5 {
        a.guess(&friday, home).await.unwrap();
        a.guessed_right(&friday, home).await;
    }
    a.guess(&friday, home).await.unwrap();
    b.guess(&friday, address("2001:db8::2")).await.unwrap();
    b.guess(&friday, home).await.unwrap();
    for node in [&a, &b] {
        assert!(wait(node.guess(&friday, home).await).is_some());
        node.guess(&room("sunday"), home).await.unwrap();
        node.guess(&friday, address("2001:db8:0:1::1")).await.unwrap();
    }
}

async fn a_window_used_up_makes_the_next_twice_as_long(backend: impl Backend) {
    let node = backend.attach("a").await;
    let home = address("192.0.2.1");
    node.count_join(home).await.unwrap();
    assert!(wait(node.count_join(home).await).unwrap() <= WINDOW);
    until(async || node.count_join(home).await.is_ok()).await;
    assert!(wait(node.count_join(home).await).unwrap() > WINDOW);
}

async fn of_many_guesses_at_once_no_more_than_allowed_get_through(backend: impl Backend) {
    let nodes = [backend.attach("a").await, backend.attach("b").await, backend.attach("c").await];
    let friday = room("friday");
    let guesses = (0..60).map(|n| nodes[n % 3].guess(&friday, address("192.0.2.1")));
    let through = join_all(guesses).await.into_iter().filter(Result::is_ok).count();
    assert_eq!(through, 5);
}

async fn the_sessions_of_a_user_hold_over_all(backend: impl Backend) {
    let (a, b) = (backend.attach("a").await, backend.attach("b").await);
    let ann = visitor("ann", "192.0.2.1");
    let first = a.take_place(&ann).await.unwrap();
    let _others = (b.take_place(&ann).await.unwrap(), b.take_place(&ann).await.unwrap());
    for node in [&a, &b] {
        assert_eq!(node.take_place(&ann).await.err(), Some(Exceeded::UserSessions));
        assert!(node.take_place(&visitor("bob", "192.0.2.1")).await.is_ok(), "somebody else of that house");
        assert!(node.take_place(&visitor("ann", "192.0.2.2")).await.is_ok(), "another Ann, elsewhere");
    }
    drop(first);
    let mut back = None;
    until(async || {
        back = b.take_place(&ann).await.ok();
        back.is_some()
    })
    .await;
    assert_eq!(a.take_place(&ann).await.err(), Some(Exceeded::UserSessions), "one came back, no more");
}

async fn the_sessions_of_an_address_hold_over_all(backend: impl Backend) {
    let (a, b) = (backend.attach("a").await, backend.attach("b").await);
    let from = |user: &str| visitor(user, "2001:db8::1");
    let first = a.take_place(&from("ann")).await.unwrap();
    let _others = (b.take_place(&from("bob")).await.unwrap(), b.take_place(&from("cat")).await.unwrap());
    for node in [&a, &b] {
        assert_eq!(node.take_place(&visitor("dan", "2001:db8::9")).await.err(), Some(Exceeded::AddressSessions));
        assert!(node.take_place(&visitor("dan", "2001:db8:0:1::1")).await.is_ok());
    }
    drop(first);
    until(async || b.take_place(&from("dan")).await.is_ok()).await;
}

async fn a_join_that_keeps_its_place_takes_no_second_one(backend: impl Backend) {
    let node = backend.attach("a").await;
    let ann = visitor("ann", "192.0.2.1");
    let _place = node.take_place(&ann).await.unwrap();
    node.count_join(ann.address()).await.unwrap();
    node.count_join(ann.address()).await.unwrap();
    assert!(node.count_join(ann.address()).await.is_err(), "but it is counted");
}

async fn who_comes_back_with_its_token_is_counted_and_never_turned_away(backend: impl Backend) {
    let (a, b) = (backend.attach("a").await, backend.attach("b").await);
    let ann = visitor("ann", "192.0.2.1");
    let before = a.take_place(&ann).await.unwrap();
    let back = b.readmit(&ann);
    drop(before);
    until(async || matches!(a.take_place(&ann).await, Err(Exceeded::UserSessions))).await;
    drop(back);
    until(async || a.take_place(&ann).await.is_ok()).await;
}

async fn a_join_that_nobody_waits_for_any_more_leaves_no_place_taken(backend: impl Backend) {
    let node = backend.attach("a").await;
    let ann = visitor("ann", "192.0.2.1");
    for _ in 0..20 {
        // Asked, and dropped at once.
        let _ = futures_util::poll!(node.take_place(&ann));
    }
    until(async || node.take_place(&ann).await.is_ok()).await;
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

on!(memory);
on!(redis);
on!(redis_cluster);
