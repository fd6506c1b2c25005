//! Faults against a whole cluster: three nodes of the real binary, a real Redis and PostgreSQL, members on all nodes
//! over both transports that send commands all the time, and an auditor that compares their requests and views with
//! what the database holds in the end: missing 0, duplicated 0, reordered 0.
//!
//! Every run of the tests plays a short form. `./test chaos` plays the long one and writes the table of
//! docs/RELIABILITY.md.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../support/postgres.rs"]
mod postgres_server;
#[path = "../support/proxy.rs"]
mod proxy;
#[path = "../support/redis.rs"]
mod redis_server;
#[path = "../support/whole_server.rs"]
mod support;

mod audit;
mod member;
mod member_record;
mod network;
mod nodes;
mod population;
#[path = "../support/sim/rng.rs"]
mod rng;
mod scenario;
mod shipper;
mod stores;
mod table;

use population::Size;

/// Each scenario in its short form.
macro_rules! scenarios {
    ($($name:ident: $scenario:path;)*) => { $(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            $scenario(Size::short()).await;
        }
    )* };
}

scenarios! {
    members_of_all_nodes_see_one_order_whatever_the_schedule: nodes::random_schedule;
    nodes_that_start_at_the_same_instant_on_an_empty_database_serve_the_same_rooms: nodes::started_together;
    a_node_that_is_killed_under_load_loses_nothing_and_its_members_resume_elsewhere: nodes::killed;
    a_rolling_restart_under_load_is_seen_by_nobody_in_the_rooms: nodes::rolling_restart;
    when_redis_comes_back_with_its_file_nothing_is_lost_and_nobody_was_disconnected: stores::redis_restarted;
    when_redis_comes_back_empty_nothing_is_lost_and_nobody_was_disconnected: stores::redis_restarted_empty;
    when_redis_stands_still_members_are_told_and_rooms_go_on_after_it: stores::redis_frozen;
    when_redis_is_emptied_under_load_nothing_is_lost: stores::redis_emptied;
    members_do_not_notice_that_the_database_is_away_and_the_audit_is_whole_afterwards: stores::postgres_restarted;
    a_failover_by_sentinel_loses_nothing_and_disconnects_nobody: stores::sentinel_failover;
    a_failover_of_redis_cluster_loses_nothing_and_disconnects_nobody: stores::cluster_failover;
    a_node_with_a_bad_network_to_redis_loses_nothing_and_disconnects_nobody: network::node_and_redis;
    a_bad_network_to_the_database_delays_the_audit_and_nothing_else: network::nodes_and_postgres;
    others_read_every_event_with_a_consumer_group_of_their_own: shipper::others_read_every_event;
    members_with_a_bad_network_resume_and_miss_nothing: network::members_and_nodes;
}
