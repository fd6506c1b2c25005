//! The attacks. Each stops by itself at its time, and at its number before.

use std::net::IpAddr;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use serde_json::{Value, json};
use tandem::clock::Clock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};

use crate::Target;
use crate::attacker::{Attacker, tcp};
use crate::half_open::HalfOpen;
use crate::support::client::Carrier;
use crate::support::server::tls;

/// The attackers' loopback address.
const HOME: [u8; 4] = [127, 0, 0, 66];
/// An honest newcomer.
const NEIGHBOUR: [u8; 4] = [127, 0, 0, 67];
/// An honest newcomer waits this long for anything.
const PATIENCE: Duration = Duration::from_secs(5);

type Outcome = Result<String, String>;

/// One of many addresses.
fn address(n: usize) -> [u8; 4] {
    [127, 1 + (n >> 16 & 0x3f) as u8, (n >> 8) as u8, n as u8]
}

fn over(until: Instant) -> bool {
    Clock::instant() >= until
}

fn demand(holds: bool, goal: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(goal()) }
}

/// Joins as a newcomer until the members that it sees are as demanded.
async fn members_become(target: &Target, room: &str, fits: impl Fn(&[Value]) -> bool) -> Result<(), String> {
    let until = Clock::instant() + Duration::from_secs(10);
    let mut seen = Value::Null;
    while !over(until) {
        let mut checker = Attacker::connect(&target.place, NEIGHBOUR).await.ok_or("nobody is let in")?;
        checker.say_join(room, "checker", json!({})).await;
        if let Some(state) = checker.wait_for("ROOM_STATE").await {
            seen = state["users"].clone();
            if fits(seen.as_array().unwrap()) {
                checker.say(&json!({"type": "LEAVE"})).await;
                return Ok(());
            }
        }
        checker.say(&json!({"type": "LEAVE"})).await;
        sleep(Duration::from_millis(250)).await;
    }
    Err(format!("{:.300}", seen.to_string()))
}

pub(crate) fn ghosts(target: &Target, until: Instant) -> BoxFuture<'_, Outcome> {
    async move {
        // Fewer than a room has places for: the lost ones keep theirs for their grace time.
        let (room, mut tries) = (format!("haunted-{}", target.round), 0);
        while !over(until) && tries < 80 {
            let n = target.round * 1000 + tries;
            if let Some(mut ghost) = Attacker::connect(&target.place, address(n)).await {
                ghost.say_join(&room, &format!("a{n}"), json!({})).await;
                ghost.say_join(&room, &format!("b{n}"), json!({})).await;
                sleep(Duration::from_micros(500 * (tries as u64 % 9))).await;
                ghost.reset();
            }
            tries += 1;
        }
        // Lost ones may wait for their grace time, or longer while the room is kept; a live one has a session.
        let live = |users: &[Value]| users.iter().filter(|user| user["connected"] == true).count();
        members_become(target, &room, |users| live(users) == 1).await?;
        Ok(format!("{tries} resets, nobody left behind"))
    }
    .boxed()
}

pub(crate) fn films(target: &Target, until: Instant) -> BoxFuture<'_, Outcome> {
    async move {
        let began = Clock::instant();
        let floods = (0..20).map(|n| async move {
            let room = format!("films-{}-{n}", target.round);
            let host = Attacker::join(&target.place, HOME, &room, "mallory", json!({})).await;
            let Some(mut host) = host else { return (0, 0) };
            let mut said = 0;
            while !over(until) && said < 500 {
                let url = format!("https://example.com/{said}/{}", "x".repeat(2000));
                host.say(&json!({"type": "URL_CHANGE", "url": url, "currentTime": 0, "ref": said})).await;
                said += 1;
                host.read_up().await;
            }
            sleep(Duration::from_millis(500)).await;
            host.read_up().await;
            (said, host.taken)
        });
        let (said, taken) = join_all(floods).await.into_iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        let taken = taken as f64;
        // Five at once and one a second from each, and one that is owed.
        let most = 20.0 * (6.0 + began.elapsed().as_secs_f64() + 1.0);
        demand(taken <= most, || format!("{taken} of {said} changes were taken"))?;
        Ok(format!("{taken} of {said} changes of film were taken"))
    }
    .boxed()
}

fn offer(to: &str) -> Value {
    json!({"type": "OFFER", "to": to, "offer": {"type": "offer", "sdp": "v".repeat(30_000)}})
}

/// Reads 5 Mbit/s until it is told to stop; true: its session has not ended.
async fn read_slowly(victim: &mut Attacker, until: Instant) -> bool {
    let mut bytes = 0;
    while !over(until) {
        match victim.next(Duration::from_millis(50)).await {
            Some(message) => bytes += message.to_string().len(),
            None if bytes == 0 => {}
            None => {}
        }
        if bytes > 31_000 {
            bytes = 0;
            sleep(Duration::from_millis(50)).await;
        }
    }
    victim.say(&json!({"type": "PING", "timestamp": 7})).await && victim.wait_for("PONG").await.is_some()
}

pub(crate) fn offers(target: &Target, until: Instant) -> BoxFuture<'_, Outcome> {
    async move {
        let room = format!("offers-{}", target.round);
        let mut victim =
            Attacker::join(&target.place, NEIGHBOUR, &room, "victim", json!({})).await.ok_or("not let in")?;
        let bursts = (0..3).map(|n| {
            let room = room.clone();
            async move {
                let name = format!("guest-{n}");
                let guest = Attacker::join(&target.place, HOME, &room, &name, json!({})).await;
                let Some(mut guest) = guest else { return 0 };
                for _ in 0..200 {
                    guest.say(&offer("victim")).await;
                }
                guest.read_up().await;
                sleep(until.saturating_duration_since(Clock::instant())).await;
                guest.read_up().await;
                guest.refusals("RATE_LIMITED")
            }
        });
        let (refused, lives) = tokio::join!(join_all(bursts), read_slowly(&mut victim, until));
        let refused: usize = refused.into_iter().sum();
        demand(lives, || "the target's session ended".to_owned())?;
        demand(refused > 100, || format!("only {refused} of 600 were refused"))?;
        Ok(format!("{refused} of 600 refused, the target stays"))
    }
    .boxed()
}

pub(crate) fn customs(target: &Target, until: Instant) -> BoxFuture<'_, Outcome> {
    async move {
        let room = format!("customs-{}", target.round);
        let mut others = Vec::new();
        for n in 0..30 {
            let other = Attacker::join(&target.place, address(4000 + n), &room, &format!("other-{n}"), json!({})).await;
            others.push(other.ok_or("not let in")?);
        }
        let mut mallory = Attacker::join(&target.place, HOME, &room, "mallory", json!({})).await.ok_or("not let in")?;
        let custom = json!({"type": "CUSTOM", "namespace": "a.b", "payload": "x".repeat(16_000)});
        let burst = async {
            for _ in 0..200 {
                mallory.say(&custom).await;
            }
            sleep(until.saturating_duration_since(Clock::instant())).await;
            mallory.read_up().await;
            mallory.refusals("RATE_LIMITED")
        };
        let reading = join_all(others.iter_mut().map(|other| read_slowly(other, until)));
        let (refused, live) = tokio::join!(burst, reading);
        let live = live.into_iter().filter(|live| *live).count();
        demand(live == 30, || format!("{} of 30 sessions ended", 30 - live))?;
        demand(refused > 50, || format!("only {refused} of 200 were refused"))?;
        Ok(format!("{refused} of 200 refused, all 30 stay"))
    }
    .boxed()
}

pub(crate) fn thief(target: &Target, until: Instant) -> BoxFuture<'_, Outcome> {
    async move {
        let room = format!("thief-{}", target.round);
        let v2 = json!({"protocol": null});
        let mut host = Attacker::join(&target.place, NEIGHBOUR, &room, "host", v2.clone()).await.ok_or("not let in")?;
        let mut guest = Attacker::join(&target.place, HOME, &room, "guest", json!({})).await.ok_or("not let in")?;
        let attack = async {
            for _ in 0..200 {
                guest.say(&offer("host")).await;
            }
            let mut stolen = false;
            while !over(until) {
                let Some(mut thief) = Attacker::connect(&target.place, HOME).await else { continue };
                thief.say_join(&room, "host", v2.clone()).await;
                stolen |= thief.wait_for("ROOM_STATE").await.is_some();
            }
            stolen
        };
        let (stolen, lives) = tokio::join!(attack, read_slowly(&mut host, until));
        demand(!stolen && lives, || {
            format!("the room changed hands (taken: {stolen}, the host's session lives: {lives})")
        })?;
        Ok("the host stays".to_owned())
    }
    .boxed()
}

pub(crate) fn handshakes(target: &Target, until: Instant) -> BoxFuture<'_, Outcome> {
    async move {
        let mut config = tls(target.place.certificate());
        config.alpn_protocols = vec![b"h3".to_vec()];
        let server = target.place.secure;
        let flooding = tokio::task::spawn_blocking(move || {
            let mut flood = HalfOpen::from(IpAddr::from(HOME), server, config);
            let mut begun = 0;
            while !over(until) && begun < 3000 {
                flood.begin();
                begun += 1;
                if begun % 200 == 0 {
                    flood.prove_address();
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
            begun
        });
        sleep(Duration::from_millis(800)).await;
        let newcomer = timeout(PATIENCE, target.place.connect(Carrier::Quinn)).await;
        let begun = flooding.await.unwrap();
        demand(newcomer.is_ok(), || format!("nobody gets in after {begun} handshakes"))?;
        Ok(format!("{begun} begun, a newcomer gets in"))
    }
    .boxed()
}

pub(crate) fn addresses(target: &Target, until: Instant) -> BoxFuture<'_, Outcome> {
    async move {
        let mut joined = 0;
        while !over(until) && joined < 400 {
            let n = 10_000 + target.round * 1000 + joined;
            let user = format!("u{n}");
            if let Some(mut one) = Attacker::connect(&target.place, address(n)).await {
                one.say_join(&format!("crowd-{}", n % 7), &user, json!({})).await;
                one.wait_for("ROOM_STATE").await;
            }
            joined += 1;
        }
        let honest =
            Attacker::join(&target.place, NEIGHBOUR, &format!("quiet-{}", target.round), "honest", json!({})).await;
        demand(honest.is_some(), || format!("nobody gets in after {joined} addresses"))?;
        Ok(format!("{joined} addresses, a newcomer gets in (100,000: quota/throttle.rs)"))
    }
    .boxed()
}

/// KiB that the process holds.
fn memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|text| text.parse().ok()).unwrap_or_default()
}

pub(crate) fn pins(target: &Target, until: Instant) -> BoxFuture<'_, Outcome> {
    async move {
        let room = format!("pins-{}", target.round);
        let pin = json!({"pin": "2468"});
        let _host = Attacker::join(&target.place, NEIGHBOUR, &room, "host", pin.clone()).await.ok_or("not let in")?;
        let before = memory(target.pid);
        let cancel = async {
            let mut tries = 0;
            while !over(until) && tries < 300 {
                let n = 20_000 + target.round * 1000 + tries;
                if let Some(mut guess) = Attacker::connect(&target.place, address(n)).await {
                    guess.say_join(&room, &format!("g{n}"), json!({"pin": "1357"})).await;
                    guess.reset();
                }
                tries += 1;
            }
            tries
        };
        let set = async {
            let own = format!("own-{}", target.round);
            let Some(mut mallory) = Attacker::join(&target.place, HOME, &own, "mallory", json!({})).await else {
                return (0, 0);
            };
            let mut taken = 0;
            while !over(until) {
                mallory.say(&json!({"type": "SET_PIN", "pin": "1111", "ref": 1})).await;
                taken += usize::from(mallory.wait_for("ACK").await.is_some());
                sleep(Duration::from_millis(10)).await;
            }
            (taken, mallory.refusals("RATE_LIMITED"))
        };
        let right = async {
            sleep(Duration::from_millis(500)).await;
            let began = Clock::instant();
            let joined = timeout(PATIENCE, Attacker::join(&target.place, NEIGHBOUR, &room, "right", pin)).await;
            (matches!(joined, Ok(Some(_))), began.elapsed(), memory(target.pid))
        };
        let (tries, set, (answered, took, after)) = tokio::join!(cancel, set, right);
        let grown = after.saturating_sub(before) / 1024;
        demand(answered, || format!("a right PIN was not answered within {PATIENCE:?}"))?;
        demand(grown < 120, || format!("{grown} MiB more after {tries} cancelled JOINs"))?;
        let (set, limited) = set;
        demand(set < 20, || format!("{set} SET_PIN in a window"))?;
        let took = took.as_millis();
        Ok(format!("a right PIN after {took} ms; {grown} MiB more; {set} SET_PIN taken, {limited} refused"))
    }
    .boxed()
}

pub(crate) fn networks(target: &Target, _: Instant) -> BoxFuture<'_, Outcome> {
    async move {
        let room = format!("networks-{}", target.round);
        let mut passed = Vec::new();
        let urls = [
            "http://10.0.0.1/reboot",
            "https://192.168.1.1/",
            "https://169.254.169.254/latest/meta-data",
            "https://router/",
            "https://printer.local/",
            "https://0x0a000001/",
            "https://[::ffff:10.0.0.1]/",
            "http://example.com/film.mp4",
        ];
        for (n, url) in urls.into_iter().enumerate() {
            let host = Attacker::join(&target.place, HOME, &format!("{room}-{n}"), "mallory", json!({})).await;
            let mut host = host.ok_or("not let in")?;
            host.say(&json!({"type": "URL_CHANGE", "url": url, "currentTime": 0, "ref": 1})).await;
            if host.wait_for("ACK").await.is_some() {
                passed.push(url);
            }
            host.say(&json!({"type": "LEAVE"})).await;
        }
        demand(passed.is_empty(), || format!("taken: {passed:?}"))?;
        Ok("refused in every spelling".to_owned())
    }
    .boxed()
}

pub(crate) fn spoilers(target: &Target, until: Instant) -> BoxFuture<'_, Outcome> {
    async move {
        let room = format!("party-{}", target.round);
        let ready = json!({"type": "PLAYER", "state": "ready", "duration": 5400});
        let mut host = Attacker::join(&target.place, NEIGHBOUR, &room, "host", json!({})).await.ok_or("not let in")?;
        host.say(&ready).await;
        let mut tries = 0;
        while !over(until) && tries < 230 {
            if let Some(mut visitor) = Attacker::connect(&target.place, HOME).await {
                visitor.say_join(&room, &format!("v{tries}"), json!({})).await;
                visitor.next(Duration::from_millis(50)).await;
                visitor.reset();
            }
            tries += 1;
        }
        let friend = Attacker::join(&target.place, [127, 0, 0, 68], &room, "friend", json!({})).await;
        let mut friend = friend.ok_or_else(|| format!("the room is full after {tries} visitors"))?;
        friend.say(&ready).await;
        // Ten members that never reported a player.
        let mut silent = Vec::new();
        for n in 0..10 {
            silent.extend(Attacker::join(&target.place, address(30_000 + n), &room, &format!("s{n}"), json!({})).await);
        }
        host.read_up().await;
        friend.read_up().await;
        let began = Clock::instant();
        host.say(&json!({"type": "SEEK", "currentTime": 60, "isPlaying": true})).await;
        if let Some(sought) = friend.wait_for("SEEK_PAUSE").await {
            friend.say(&json!({"type": "READY", "gate": sought["gateId"], "targetTime": 60})).await;
        }
        host.say(&json!({"type": "READY", "targetTime": 60})).await;
        let plays = friend.wait_for("PLAY_PAUSE").await.is_some();
        let took = began.elapsed();
        demand(plays && took < Duration::from_secs(5), || format!("a seek took {took:?} (plays: {plays})"))?;
        host.read_up().await;
        let before = host.refused.len();
        host.say(&json!({"type": "BAN", "targetUserId": "nobody-ever", "ref": 9})).await;
        let banned = host.wait_for("ACK").await.is_some();
        demand(!banned && host.refused.len() > before, || "somebody who was never there is banned".to_owned())?;
        Ok(format!(
            "a friend gets in after {tries} visitors, a seek beside ten silent guests took {} ms",
            took.as_millis()
        ))
    }
    .boxed()
}

/// Status of a GET, by hand: two or no Host headers are possible too.
async fn status(target: &Target, from: [u8; 4], path: &str, host: &str) -> u16 {
    let ask = async {
        let mut stream = tcp(&target.place, from).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = vec![0; 64];
        let length = stream.read(&mut answer).await.ok()?;
        let text = String::from_utf8_lossy(&answer[..length]).into_owned();
        text.split(' ').nth(1)?.parse().ok()
    };
    timeout(PATIENCE, ask).await.ok().flatten().unwrap_or(0)
}

pub(crate) fn http(target: &Target, until: Instant) -> BoxFuture<'_, Outcome> {
    async move {
        let host = format!("localhost:{}", target.place.plain.port());
        let room = format!("fragments-{}", target.round);
        let fragments = async {
            // Empty continuation frames, masked: a message that never ends and has no bytes.
            let Some(mut one) = Attacker::join(&target.place, address(40_000), &room, "mallory", json!({})).await
            else {
                return (0, false);
            };
            one.raw(&[0x01, 0x80, 0, 0, 0, 0]).await;
            let empty = [0x00, 0x80, 0, 0, 0, 0].repeat(500);
            let mut sent = 0;
            while !over(until) && sent < 100_000 {
                if !one.raw(&empty).await {
                    return (sent, true);
                }
                sent += 500;
                sleep(Duration::from_millis(5)).await;
            }
            (sent, false)
        };
        let flood = async {
            let (mut asked, mut limited) = (0, 0);
            while !over(until) && asked < 1500 {
                let paths = ["/api/room/abcdefg", "/ready", "/api/short-id/friday", "/api/room/zzzzzzz"];
                let answers = join_all(paths.map(|path| status(target, HOME, path, &host))).await;
                asked += answers.len();
                limited += answers.iter().filter(|status| **status == 429).count();
            }
            (asked, limited)
        };
        let ((fragments, ended), (asked, limited)) = tokio::join!(fragments, flood);
        let rebound = status(target, NEIGHBOUR, "/status", "evil.example").await;
        let twice = status(target, NEIGHBOUR, "/health", &format!("{host}\r\nHost: evil.example")).await;
        demand(rebound != 200, || "/status answers a foreign Host".to_owned())?;
        demand(twice != 200, || "two Host headers are taken".to_owned())?;
        demand(limited > 0, || format!("none of {asked} GETs was limited"))?;
        demand(ended || fragments < 100_000, || format!("{fragments} empty fragments were taken"))?;
        Ok(format!("{limited} of {asked} GETs limited; after {fragments} empty fragments ended: {ended}"))
    }
    .boxed()
}
