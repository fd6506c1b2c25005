//! Everything asked over HTTP, with a fake hub and repository behind it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod edge;
#[path = "support/trace_dispatcher.rs"]
mod trace_dispatcher;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::ConnectInfo;
use bytes::Bytes;
use edge::{NOW, OLD_SHORT, Parts, SHORT, TOKEN, film, site, within};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tandem::domain::{HostPattern, UrlPolicy};
use tandem::http::ice::{IceServers, Turn};
use tandem::http::{BasePath, NodeUrl};
use tandem::transport::Public;
use tandem::transport::proxies::TrustedProxies;
use tower::ServiceExt;
use tracing::instrument::WithSubscriber;
use tracing_subscriber::layer::SubscriberExt;

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {:?}", self.body))
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// Asks the router itself. `request` is `METHOD path` or only a path; `headers` one `name: value` each.
async fn ask(parts: &Parts, request: &str, headers: &[&str]) -> Answer {
    send(parts, request, headers, false).await
}

async fn ask_in_public(parts: &Parts, request: &str, headers: &[&str]) -> Answer {
    send(parts, request, headers, true).await
}

async fn send(parts: &Parts, request: &str, headers: &[&str], public: bool) -> Answer {
    let (method, path) = request.split_once(' ').unwrap_or(("GET", request));
    let mut builder = Request::builder().method(method).uri(path);
    for header in headers {
        let (name, value) = header.split_once(": ").unwrap();
        builder = builder.header(name, value);
    }
    let mut request = builder.body(Body::empty()).unwrap();
    request.extensions_mut().insert(ConnectInfo(SocketAddr::from(([10, 0, 0, 1], 5000))));
    if public {
        request.extensions_mut().insert(Public);
    }
    let response = within(parts.router().oneshot(request)).await.unwrap();
    let (head, body) = response.into_parts();
    Answer { status: head.status, headers: head.headers, body: body.collect().await.unwrap().to_bytes() }
}

#[tokio::test]
async fn health_says_that_the_process_lives_and_ready_what_is_missing() {
    let parts = Parts::default();
    let health = ask(&parts, "/health", &[]).await;
    assert_eq!((health.status, health.json()), (StatusCode::OK, json!({"status": "ok", "nodeId": "node-1"})));
    let ready = ask(&parts, "/ready", &[]).await;
    let all_well = json!({"ready": true, "checks": {"log": "ok", "database": "ok"}});
    assert_eq!((ready.status, ready.json()), (StatusCode::OK, all_well));

    *parts.backend.database.lock() = Some("no answer".into());
    let ready = ask(&parts, "/ready", &[]).await;
    assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(ready.json(), json!({"ready": false, "checks": {"log": "ok", "database": "no answer"}}));
    assert_eq!(ask(&parts, "/health", &[]).await.status, StatusCode::OK);
}

#[tokio::test]
async fn transports_tells_the_addresses_by_which_the_client_came() {
    let mut parts = Parts::default();
    let plain = ask(&parts, "/api/transports", &["host: 127.0.0.1:4001"]).await.json();
    let expected = json!({
        "webtransport": {"url": "https://127.0.0.1:4433/wt", "port": 4433},
        "websocket": {"url": "ws://127.0.0.1:4001/ws", "path": "../ws"},
        "protocol": 3,
    });
    assert_eq!(plain, expected);

    parts.hashes = vec![[0; 32], [255; 32]];
    let public = ask_in_public(&parts, "/api/transports", &["host: watch.example:4433"]).await.json();
    assert_eq!(public["websocket"]["url"], "wss://watch.example:4433/ws");
    assert_eq!(public["webtransport"]["url"], "https://watch.example:4433/wt");
    let hashes = &public["webtransport"]["serverCertificateHashes"];
    assert_eq!(hashes[0], json!({"algorithm": "sha-256", "value": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}));
    assert_eq!(hashes[1]["value"], "//////////////////////////////////////////8=");

    let v6 = ask(&parts, "/api/transports", &["host: [2001:db8::1]:4001"]).await.json();
    assert_eq!(v6["webtransport"]["url"], "https://[2001:db8::1]:4433/wt");
    assert_eq!(ask(&parts, "/api/transports", &[]).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(ask(&parts, "/api/transports", &["host: user@a.example"]).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn the_machine_itself_is_told_how_others_reach_it_and_nobody_else() {
    let mut parts = Parts::default();
    let ask = async |parts: &Parts, host: &str, peer: [u8; 4]| {
        let mut request = Request::get("/api/addresses").header("host", host).body(Body::empty()).unwrap();
        request.extensions_mut().insert(ConnectInfo(SocketAddr::from((peer, 5000))));
        let response = within(parts.router().oneshot(request)).await.unwrap();
        let (status, body) = (response.status(), response.into_body().collect().await.unwrap().to_bytes());
        (status, serde_json::from_slice::<Value>(&body).unwrap())
    };
    let told = (StatusCode::OK, json!({"origins": ["https://192.168.1.5:4433"]}));
    let nothing = (StatusCode::NOT_FOUND, json!({"error": "Not found"}));
    assert_eq!(ask(&parts, "localhost:4001", [127, 0, 0, 1]).await, told);
    assert_eq!(ask(&parts, "localhost:4001", [192, 168, 1, 9]).await, nothing);
    assert_eq!(ask(&parts, "rebound.example:4001", [127, 0, 0, 1]).await, nothing);
    parts.proxies = TrustedProxies::parse("1").unwrap();
    assert_eq!(ask(&parts, "localhost:4001", [127, 0, 0, 1]).await, nothing);
}

#[tokio::test]
async fn a_page_of_a_refused_origin_is_told_so_where_it_asks_first() {
    let parts = Parts { origins: "https://a.example", ..Parts::default() };
    let refused = ask(&parts, "/api/transports", &["host: tandem.example", "origin: https://b.example"]).await;
    assert_eq!((refused.status, &refused.json()["code"]), (StatusCode::FORBIDDEN, &json!("ORIGIN_REFUSED")));
    assert_eq!(refused.header("access-control-allow-origin"), "*", "or the page could not read it");
    for origin in ["https://a.example", "https://tandem.example"] {
        let answer = ask(&parts, "/api/transports", &["host: tandem.example", &format!("origin: {origin}")]).await;
        assert_eq!(answer.status, StatusCode::OK, "{origin}");
    }
}

#[tokio::test]
async fn localhost_is_handed_out_as_the_address_that_quic_listens_on() {
    let mut parts = Parts::default();
    let quic = async |parts: &mut Parts, bound: &str| {
        parts.public.bound = bound.parse().unwrap();
        let answer = ask(parts, "/api/transports", &["host: localhost:4001"]).await.json();
        answer["webtransport"]["url"].as_str().unwrap().to_owned()
    };
    assert_eq!(quic(&mut parts, "127.0.0.1").await, "https://127.0.0.1:4433/wt");
    assert_eq!(quic(&mut parts, "::").await, "https://localhost:4433/wt");
}

#[tokio::test]
async fn the_public_host_stands_in_for_the_requests_own_and_quic_may_be_off() {
    let mut parts = Parts::default();
    parts.public.host = Some("watch.example".into());
    let answer = ask(&parts, "/api/transports", &["host: 10.0.0.5:4001"]).await.json();
    assert_eq!(answer["webtransport"]["url"], "https://watch.example:4433/wt");
    parts.public.host = Some("2001:db8::1".into());
    let answer = ask(&parts, "/api/transports", &["host: 10.0.0.5:4001"]).await.json();
    assert_eq!(answer["webtransport"]["url"], "https://[2001:db8::1]:4433/wt");
    parts.public.quic_port = None;
    let answer = ask(&parts, "/api/transports", &["host: 10.0.0.5:4001"]).await.json();
    assert_eq!((&answer["webtransport"], &answer["websocket"]["url"]), (&Value::Null, &json!("ws://10.0.0.5:4001/ws")));
}

#[tokio::test]
async fn only_a_trusted_proxy_is_believed_about_the_scheme_and_the_host() {
    let forwarded = ["host: inside:4001", "x-forwarded-proto: https", "x-forwarded-host: watch.example"];
    let url = async |parts: &Parts, public| {
        let answer = send(parts, "/api/transports", &forwarded, public).await.json();
        answer["websocket"]["url"].as_str().unwrap().to_owned()
    };
    let mut parts = Parts::default();
    assert_eq!(url(&parts, false).await, "ws://inside:4001/ws");
    parts.proxies = TrustedProxies::parse("10.0.0.0/8").unwrap();
    assert_eq!(url(&parts, false).await, "wss://watch.example/ws");
    assert_eq!(url(&parts, true).await, "wss://inside:4001/ws", "nobody stands in front of the public port");
    parts.proxies = TrustedProxies::parse("172.16.0.0/12").unwrap();
    assert_eq!(url(&parts, false).await, "ws://inside:4001/ws");
}

/// The host is the client's own affair where no `PUBLIC_HOST` says otherwise: behind a proxy the request names another.
#[tokio::test]
async fn addresses_are_relative_to_where_the_client_asked_unless_the_public_host_is_given() {
    let mut parts = Parts::default();
    let relative = ask(&parts, "/api/transports", &["host: 127.0.0.1:4001"]).await.json();
    assert_eq!((&relative["webtransport"]["port"], &relative["websocket"]["path"]), (&json!(4433), &json!("../ws")));
    parts.public.host = Some("tandem.example".to_owned());
    let named = ask(&parts, "/api/transports", &["host: 127.0.0.1:4001"]).await.json();
    assert_eq!((&named["webtransport"]["port"], &named["websocket"]["path"]), (&Value::Null, &json!("../ws")));
}

#[tokio::test]
async fn a_base_path_is_answered_as_the_root_is_and_stands_in_what_is_handed_out() {
    let mut parts = Parts::default();
    parts.public.base_path = BasePath::parse("/films/watch").unwrap();
    for path in ["/health", "/films/watch/health", "/", "/films/watch/"] {
        assert_eq!(ask(&parts, path, &[]).await.status, StatusCode::OK, "{path}");
    }
    let bare = ask(&parts, "/films/watch", &[]).await;
    assert_eq!((bare.status, bare.header("location")), (StatusCode::PERMANENT_REDIRECT, "watch/"));
    let host = "host: a.example";
    let transports = ask(&parts, "/films/watch/api/transports", &[host]).await.json();
    assert_eq!(transports["websocket"]["url"], "ws://a.example/films/watch/ws");
    let minted = ask(&parts, "/films/watch/api/short-id/friday", &[host]).await.json();
    assert_eq!(minted["shortUrl"], format!("http://a.example/films/watch/room/{SHORT}"));
    for path in ["/films/watchtower", "/films", "/films/watch/films/watch/health"] {
        assert_eq!(ask(&parts, path, &[]).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    assert_eq!(ask(&parts, "/films/watch/api/nowhere", &[]).await.json(), json!({"error": "Not found"}));
    assert_eq!(ask_in_public(&parts, "/films/watch/status", &[]).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_trusted_proxy_says_which_path_it_took_off_and_nobody_else_does() {
    let mut parts = Parts::default();
    let ask_for = ["host: a.example", "x-forwarded-prefix: /watch"];
    let doubted = ask(&parts, "/api/short-id/friday", &ask_for).await.json();
    assert_eq!(doubted["shortUrl"], format!("http://a.example/room/{SHORT}"));
    parts.proxies = TrustedProxies::parse("1").unwrap();
    let believed = ask(&parts, "/api/short-id/friday", &ask_for).await.json();
    assert_eq!(believed["shortUrl"], format!("http://a.example/watch/room/{SHORT}"));
    let nonsense = ["host: a.example", "x-forwarded-prefix: //evil.example/"];
    let cleaned = ask(&parts, "/api/short-id/friday", &nonsense).await.json();
    assert!(cleaned["shortUrl"].as_str().unwrap().starts_with("http://a.example/"), "{cleaned}");
}

#[tokio::test]
async fn other_nodes_are_named_where_they_have_addresses_of_their_own() {
    let parts = Parts::default();
    let alone = ask(&parts, "/api/transports", &["host: a"]).await.json();
    assert_eq!(alone["nodes"], Value::Null);
    let other = NodeUrl::parse("https://b.example:4433").unwrap().endpoints(Some(([0, 0, 0, 0], 4433).into()), &[]);
    parts.backend.nodes.lock().push(other);
    let two = ask(&parts, "/api/transports", &["host: a"]).await.json();
    let expected = json!([{
        "webTransport": {"url": "https://b.example:4433/wt"},
        "webSocket": {"url": "wss://b.example:4433/ws"},
    }]);
    assert_eq!(two["nodes"], expected);
}

#[tokio::test]
async fn a_live_room_has_a_short_link_and_another_one_has_none() {
    let parts = Parts::default();
    let minted = ask(&parts, "/api/short-id/friday", &["host: a.example:4001"]).await;
    let expected =
        json!({"shortId": SHORT, "roomId": "friday", "shortUrl": format!("http://a.example:4001/room/{SHORT}")});
    assert_eq!((minted.status, minted.json()), (StatusCode::OK, expected));
    for gone in ["/api/short-id/monday", "/api/short-id/not%20an%20id", "/api/room/zzzzzzz", "/api/room/short"] {
        let answer = ask(&parts, gone, &[]).await;
        assert_eq!(
            (answer.status, answer.json()),
            (StatusCode::NOT_FOUND, json!({"error": "Room not found"})),
            "{gone}"
        );
    }
    let resolved = ask(&parts, "/api/room/ABC1234", &[]).await;
    assert_eq!(resolved.json(), json!({"roomId": "fri:day", "shortId": SHORT}), "case does not matter");
}

#[tokio::test]
async fn a_short_link_leads_where_the_template_says_with_the_room_encoded() {
    let mut parts = Parts::default();
    let link = ask(&parts, "/room/abc1234", &[]).await;
    assert_eq!((link.status, link.header("location")), (StatusCode::FOUND, "../#room=fri%3Aday"));
    assert_eq!(link.header("cache-control"), "no-store");
    parts.share_url = "https://www.netflix.com/?tandemRoom={room}";
    let link = ask(&parts, "/room/abc1234", &[]).await;
    assert_eq!(link.header("location"), "https://www.netflix.com/?tandemRoom=fri%3Aday");
    let gone = ask(&parts, "/room/zzzzzzz", &[]).await;
    assert_eq!((gone.status, gone.header("location")), (StatusCode::NOT_FOUND, ""));
}

#[tokio::test]
async fn a_short_link_whose_room_is_over_leads_to_the_page_with_the_way_on() {
    let mut parts = Parts::default();
    for (path, page) in [
        (format!("/room/{OLD_SHORT}"), "../#room=last%3Aweek&over=1"),
        (format!("/room/{}/4711", OLD_SHORT.to_uppercase()), "../../#room=last%3Aweek&over=1"),
    ] {
        let link = ask(&parts, &path, &[]).await;
        assert_eq!((link.status, link.header("location")), (StatusCode::FOUND, page), "{path}");
    }
    let resolved = ask(&parts, &format!("/api/room/{OLD_SHORT}"), &[]).await;
    assert_eq!((resolved.status, resolved.json()), (StatusCode::NOT_FOUND, json!({"error": "Room not found"})));
    parts.share_url = "https://www.netflix.com/?tandemRoom={room}";
    let link = ask(&parts, &format!("/room/{OLD_SHORT}"), &[]).await;
    assert_eq!(link.header("location"), "https://www.netflix.com/?tandemRoom=last%3Aweek");
}

#[tokio::test]
async fn what_is_not_there_is_a_page_for_people_and_json_below_api() {
    let parts = Parts::default();
    let browser = "accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    for path in ["/room/zzzzzzz", "/room/zzzzzzz/4711", "/room/short", "/nowhere", "/.git/config"] {
        let page = ask(&parts, path, &[browser]).await;
        assert_eq!(
            (page.status, page.header("content-type")),
            (StatusCode::NOT_FOUND, "text/html; charset=utf-8"),
            "{path}"
        );
        let up = match path.matches('/').count() {
            1 => "./".to_owned(),
            slashes => "../".repeat(slashes - 1),
        };
        assert_eq!(page.body, format!("<a href=\"{up}\">nothing here"), "{path}: links stay under a proxy's path");
        assert!(page.header("content-security-policy").contains("default-src 'self'"));
        let program = ask(&parts, path, &["accept: */*"]).await;
        assert_eq!((program.status, program.body), (StatusCode::NOT_FOUND, Bytes::from("not found\n")), "{path}");
    }
    let api = ask(&parts, "/api/nowhere", &[browser]).await;
    assert_eq!((api.status, api.json()), (StatusCode::NOT_FOUND, json!({"error": "Not found"})));
    let diagnostics = ask_in_public(&parts, "/status", &[browser]).await;
    assert_eq!(diagnostics.body, Bytes::from("<a href=\"./\">nothing here"), "as if it weren't there");
}

#[tokio::test]
async fn the_pin_in_an_old_link_never_reaches_a_redirect() {
    let parts = Parts::default();
    for path in ["/room/abc1234/4711", "/room/abc1234/4711?pin=4711"] {
        let link = ask(&parts, path, &[]).await;
        assert_eq!((link.status, link.header("location")), (StatusCode::FOUND, "../../#room=fri%3Aday"));
        assert!(!format!("{:?} {:?}", link.headers, link.body).contains("4711"));
    }
    assert_eq!(ask(&parts, "/room/zzzzzzz/4711", &[]).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn history_is_for_members_who_show_their_token() {
    let parts = Parts::default();
    let path = "/api/rooms/friday/events?userId=ann";
    let anonymous = ask(&parts, path, &[]).await;
    assert_eq!((anonymous.status, anonymous.header("www-authenticate")), (StatusCode::UNAUTHORIZED, "Bearer"));
    assert_eq!(ask(&parts, path, &["authorization: Basic abc"]).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(ask(&parts, path, &["authorization: Bearer wrong"]).await.status, StatusCode::FORBIDDEN);
    let bearer = format!("authorization: Bearer {TOKEN}");
    for other in ["/api/rooms/friday/events?userId=bob", "/api/rooms/monday/events?userId=ann"] {
        assert_eq!(ask(&parts, other, &[&bearer]).await.status, StatusCode::FORBIDDEN, "{other}");
    }
    for wrong in ["?", "?userId=a%20b", "?userId=ann&after=x", "?userId=ann&after=7"] {
        let answer = ask(&parts, &format!("/api/rooms/friday/events{wrong}"), &[&bearer]).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{wrong}");
    }
}

#[tokio::test]
async fn history_is_read_page_by_page() {
    let parts = Parts::default();
    let bearer = format!("authorization: Bearer {TOKEN}");
    let page = async |query: &str| {
        let path = format!("/api/rooms/friday/events?userId=ann&{query}");
        ask(&parts, &path, &[&bearer]).await.json()
    };
    let seqs = |page: &Value| {
        page["events"].as_array().unwrap().iter().map(|e| e["seq"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    let first = page("limit=3").await;
    assert_eq!((seqs(&first), &first["next"]), (vec![1, 2, 3], &json!("7.3")));
    let event = json!({"epoch": 7, "seq": 1, "kind": "SEEK_PAUSE", "userId": "ann", "at": NOW.as_millis(), "data": {"currentTime": 1.5}});
    assert_eq!(first["events"][0], event);
    let second = page("limit=3&after=7.3").await;
    assert_eq!((seqs(&second), second.get("next")), (vec![4, 5], None));
    assert_eq!(seqs(&page("limit=0").await).len(), 1, "the smallest page has one event");
}

#[tokio::test]
async fn turn_credentials_expire_and_are_each_callers_own() {
    let turn =
        Turn { urls: vec!["turn:t.example".into()], secret: "north".to_owned().into(), ttl: Duration::from_secs(600) };
    let ice = IceServers { open: vec!["stun:s.example".into()], turn: Some(turn) };
    let parts = Parts { ice, ..Parts::default() };
    let answers =
        [ask(&parts, "/api/ice-servers", &[]).await.json(), ask(&parts, "/api/ice-servers", &[]).await.json()];
    let [one, other] = answers.each_ref().map(|answer| answer["iceServers"][1]["username"].as_str().unwrap());
    assert!(one.starts_with("1795000600:") && other.starts_with("1795000600:") && one != other, "{one} {other}");
    assert_eq!(answers[0]["ttlSecs"], 600);
    assert_eq!(answers[0]["iceServers"][0], json!({"urls": ["stun:s.example"]}));
    assert_ne!(answers[0]["iceServers"][1]["credential"], answers[1]["iceServers"][1]["credential"]);
}

#[tokio::test]
async fn status_and_metrics_speak_v2s_fields_and_ours() {
    let parts = Parts::default();
    for (path, accept) in [("/status", "*/*"), ("/metrics", "application/json")] {
        let body = ask(&parts, path, &[&format!("accept: {accept}")]).await.json();
        assert_eq!(body["nodeId"], "node-1");
        assert_eq!(body["localConnections"], 5);
        assert_eq!(body["sessions"], json!({"websocket": 2, "webtransport": 3}));
        assert!(body["uptime"].as_f64().is_some() && body["rooms"] == 1 && body["members"] == 5, "{body}");
    }
    let text = ask(&parts, "/metrics", &["accept: text/plain"]).await;
    assert!(text.header("content-type").starts_with("text/plain; version=0.0.4"));
    assert!(std::str::from_utf8(&text.body).unwrap().contains("\ntandem_http_requests_total{status=\"2xx\"} "));
    let series = ask(&parts, "/metrics", &["accept: application/json"]).await.json()["metrics"].clone();
    assert!(series["tandem_http_requests_total{status=\"2xx\"}"].as_f64().unwrap() >= 1.0, "{series}");
}

#[tokio::test]
async fn diagnostics_do_not_exist_on_the_public_port() {
    let parts = Parts::default();
    let nowhere = ask_in_public(&parts, "/nowhere", &[]).await;
    for path in ["/status", "/metrics"] {
        let answer = ask_in_public(&parts, path, &[]).await;
        assert_eq!((answer.status, &answer.body), (StatusCode::NOT_FOUND, &nowhere.body), "{path}");
    }
    let site = site(Parts::default()).await;
    let client = site.client();
    for path in ["/status", "/metrics"] {
        assert_eq!(within(client.get(site.https(path)).send()).await.unwrap().status(), 404, "{path}");
        assert_eq!(within(client.get(site.http(path)).send()).await.unwrap().status(), 200, "{path}");
    }
    assert_eq!(within(client.get(site.https("/health")).send()).await.unwrap().status(), 200);
}

#[tokio::test]
async fn any_page_may_read_the_api_the_client_and_the_film_and_nothing_else() {
    let parts = Parts::default();
    let preflight = ask(&parts, "OPTIONS /api/rooms/friday/events", &["origin: https://a.example"]).await;
    assert_eq!((preflight.status, preflight.header("access-control-allow-origin")), (StatusCode::NO_CONTENT, "*"));
    assert_eq!(preflight.header("access-control-allow-methods"), "GET, HEAD");
    assert!(preflight.header("access-control-allow-headers").contains("authorization"));
    assert!(preflight.header("access-control-allow-headers").contains("x-request-id"));
    let read = ask(&parts, "/api/transports", &["host: a", "origin: https://a.example"]).await;
    assert_eq!(read.header("access-control-allow-origin"), "*");
    assert_eq!(read.header("access-control-expose-headers"), "x-request-id");
    assert!(!read.headers.contains_key("access-control-allow-credentials"));
    let embedded = Parts { assets: tandem::http::demo::embedded(), ..Parts::default() };
    for shared in ["/client/index.js", "/media/film.webm"] {
        assert_eq!(ask(&embedded, shared, &[]).await.header("access-control-allow-origin"), "*", "{shared}");
    }
    for other in ["/", "/health", "/status"] {
        assert_eq!(ask(&parts, other, &["origin: https://a.example"]).await.header("access-control-allow-origin"), "");
    }
    assert_eq!(ask(&parts, "POST /api/transports", &["host: a"]).await.status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn the_demo_page_is_served_with_its_tag_and_may_do_no_more_than_it_needs() {
    let parts = Parts::default();
    let page = ask(&parts, "/", &[]).await;
    assert_eq!((page.status, page.header("content-type")), (StatusCode::OK, "text/html; charset=utf-8"));
    assert_eq!((page.header("etag"), page.header("cache-control")), ("\"page\"", "no-cache"));
    let policy = page.header("content-security-policy");
    for part in
        ["default-src 'self';", "connect-src 'self' ws: wss: https:;", "media-src 'self' https:", "object-src 'none'"]
    {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe"));
    assert_eq!((page.header("x-content-type-options"), page.header("referrer-policy")), ("nosniff", "no-referrer"));
    assert_eq!(page.header("permissions-policy"), "camera=(self), microphone=(self)");

    for same in ["\"page\"", "W/\"page\"", "\"other\", \"page\"", "*"] {
        let answer = ask(&parts, "/", &[&format!("if-none-match: {same}")]).await;
        assert_eq!((answer.status, answer.body.len()), (StatusCode::NOT_MODIFIED, 0), "{same}");
    }
    assert_eq!(ask(&parts, "/", &["if-none-match: \"old\""]).await.status, StatusCode::OK);
    let head = ask(&parts, "HEAD /", &[]).await;
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (StatusCode::OK, "15", 0));
    assert_eq!(ask(&parts, "POST /", &[]).await.status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn the_page_may_play_only_what_the_server_would_relay() {
    let mut parts = Parts::default();
    let mut sources = async |list: &str, loopback| {
        let hosts = list.split_whitespace().map(|host| HostPattern::parse(host).unwrap()).collect();
        parts.media = UrlPolicy::new(hosts, loopback);
        let answer = ask(&parts, "/", &[]).await;
        let policy = answer.header("content-security-policy").to_owned();
        let media = policy.split("; ").find_map(|part| part.strip_prefix("media-src ")).unwrap();
        media.to_owned()
    };
    assert_eq!(sources("", false).await, "'self' https: blob: data:");
    assert_eq!(sources("", true).await, "'self' https: http://localhost:* http://127.0.0.1:* blob: data:");
    assert_eq!(sources("* nas.local", false).await, "'self' https: blob: data:");
    let listed = "'self' https://films.example:* https://*.cdn.example:* blob: data:";
    assert_eq!(sources("films.example *.cdn.example", true).await, listed);
    assert_eq!(sources("films.example [2001:db8::1]", false).await, "'self' https: blob: data:");
}

#[tokio::test]
async fn what_is_not_there_is_short_and_plain() {
    let parts = Parts { assets: tandem::http::demo::embedded(), ..Parts::default() };
    for path in
        ["/nowhere", "/../Cargo.toml", "/app/../../Cargo.toml", "/%2e%2e/Cargo.toml", "/.git/config", "//etc/passwd"]
    {
        let answer = ask(&parts, path, &[]).await;
        assert_eq!((answer.status, answer.body), (StatusCode::NOT_FOUND, Bytes::from("not found\n")), "{path}");
        assert!(answer.headers["content-type"].to_str().unwrap().starts_with("text/plain"));
    }
    assert_eq!(ask(&parts, "/test-app/qr.test.js", &[]).await.status, StatusCode::NOT_FOUND);
    let script = ask(&parts, "/app/qr.js", &[]).await;
    assert_eq!((script.status, script.header("content-type")), (StatusCode::OK, "text/javascript; charset=utf-8"));
    assert!(script.header("etag").len() > 10);
}

#[tokio::test]
async fn the_film_is_served_in_ranges() {
    let parts = Parts::default();
    let whole = ask(&parts, "/film.webm", &[]).await;
    assert_eq!((whole.status, whole.header("accept-ranges"), &whole.body), (StatusCode::OK, "bytes", &film()));
    for (range, bounds) in
        [("bytes=0-99", 0..=99), ("bytes=900-", 900..=999), ("bytes=-10", 990..=999), ("bytes=990-5000", 990..=999)]
    {
        let part = ask(&parts, "/film.webm", &[&format!("range: {range}")]).await;
        assert_eq!(part.status, StatusCode::PARTIAL_CONTENT, "{range}");
        assert_eq!(part.header("content-range"), format!("bytes {}-{}/1000", bounds.start(), bounds.end()));
        assert_eq!(part.header("content-type"), "video/webm");
        assert_eq!(part.body, film().slice(bounds));
    }
    let outside = ask(&parts, "/film.webm", &["range: bytes=1000-"]).await;
    assert_eq!((outside.status, outside.header("content-range")), (StatusCode::RANGE_NOT_SATISFIABLE, "bytes */1000"));
    assert_eq!(outside.body.len(), 0);
    for whole in ["range: bytes=0-1,5-6", "range: lines=1-2"] {
        assert_eq!(ask(&parts, "/film.webm", &[whole]).await.status, StatusCode::OK, "{whole}");
    }
    let part = "range: bytes=0-99";
    assert_eq!(ask(&parts, "/film.webm", &[part, "if-range: \"film\""]).await.status, StatusCode::PARTIAL_CONTENT);
    assert_eq!(ask(&parts, "/film.webm", &[part, "if-range: \"older\""]).await.body.len(), 1000);
    let head = ask(&parts, "HEAD /film.webm", &[part]).await;
    assert_eq!((head.status, head.header("content-length")), (StatusCode::OK, "1000"));
}

#[tokio::test]
async fn a_backend_that_does_not_answer_is_a_503_that_says_nothing_of_it() {
    let parts = Parts::default();
    *parts.backend.down.lock() = true;
    let bearer = format!("authorization: Bearer {TOKEN}");
    for path in ["/api/short-id/friday", "/api/room/abc1234", "/room/abc1234", "/api/rooms/friday/events?userId=ann"] {
        let answer = ask(&parts, path, &[&bearer]).await;
        assert_eq!((answer.status, answer.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, "1"), "{path}");
        assert!(!String::from_utf8_lossy(&answer.body).contains("database"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_hangs_is_given_up() {
    let parts = Parts::default();
    *parts.backend.hangs.lock() = true;
    let answer = ask(&parts, "/room/abc1234", &[]).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn every_answer_names_its_request_as_the_client_did_or_anew() {
    let parts = Parts::default();
    for path in ["/health", "/ready", "/api/transports", "/room/none000", "/nothing", "OPTIONS /api/transports", "/ws"]
    {
        let named = ask(&parts, path, &["x-request-id: Root=1-67891233"]).await;
        assert_eq!(named.header("x-request-id"), "Root=1-67891233", "{path}");
        let made = ask(&parts, path, &["x-request-id: two words"]).await;
        assert!(made.header("x-request-id").starts_with("node-1-"), "{path}: {}", made.header("x-request-id"));
    }
    let again = ask(&parts, "/health", &[]).await;
    assert_ne!(again.header("x-request-id"), ask(&parts, "/health", &[]).await.header("x-request-id"));
}

/// Remembers the spans that are made.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<(&'static str, tracing::Level)>>>);

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Spans {
    fn on_new_span(
        &self,
        attributes: &tracing::span::Attributes<'_>,
        _: &tracing::span::Id,
        _: tracing_subscriber::layer::Context<'_, S>,
    ) {
        let metadata = attributes.metadata();
        self.0.lock().push((metadata.name(), *metadata.level()));
    }
}

#[tokio::test]
async fn a_probe_has_a_span_at_debug_only_and_any_other_request_at_info() {
    let parts = Parts::default();
    for (level, expected) in [
        (tracing::Level::INFO, &[("http", tracing::Level::INFO)][..]),
        (tracing::Level::DEBUG, &[("probe", tracing::Level::DEBUG), ("http", tracing::Level::INFO)]),
        (tracing::Level::WARN, &[]),
    ] {
        let spans = Spans::default();
        let filter = tracing::level_filters::LevelFilter::from_level(level);
        let subscriber = tracing_subscriber::registry().with(filter).with(spans.clone());
        let asked = async {
            ask(&parts, "/health", &[]).await;
            ask(&parts, "/api/transports", &["host: a"]).await;
        };
        asked.with_subscriber(trace_dispatcher::of_this_test(subscriber)).await;
        assert_eq!(*spans.0.lock(), expected, "{level}");
    }
}

/// Asks one router several times, so that what it remembers counts.
async fn ask_router(router: &axum::Router, path: &str, host: Option<&str>, peer: [u8; 4], public: bool) -> Answer {
    let mut builder = Request::builder().uri(path);
    if let Some(host) = host {
        builder = builder.header("host", host);
    }
    let mut request = builder.body(Body::empty()).unwrap();
    request.extensions_mut().insert(ConnectInfo(SocketAddr::from((peer, 5000))));
    if public {
        request.extensions_mut().insert(Public);
    }
    let response = within(router.clone().oneshot(request)).await.unwrap();
    let (head, body) = response.into_parts();
    Answer { status: head.status, headers: head.headers, body: body.collect().await.unwrap().to_bytes() }
}

#[tokio::test(start_paused = true)]
async fn requests_that_cost_the_stores_something_are_rated_by_address_and_others_are_not() {
    let parts = Parts { lookups_per_minute: Some(40), ..Parts::default() };
    let router = parts.router();
    let paths = ["/api/room/abc1234", "/api/short-id/friday", "/room/abc1234", "/api/rooms/friday/events?userId=ann"];
    let mut refused = None;
    for number in 0..100 {
        let answer = ask_router(&router, paths[number % paths.len()], None, [10, 0, 0, 1], false).await;
        if answer.status == StatusCode::TOO_MANY_REQUESTS {
            refused = Some((number, answer));
            break;
        }
    }
    let (number, answer) = refused.expect("a hundred at once");
    assert_eq!(number, 11, "a quarter of a minute's, and one");
    assert_eq!(answer.header("retry-after"), "2");
    for free in ["/health", "/api/transports", "/api/ice-servers", "/"] {
        let answer = ask_router(&router, free, Some("a.example"), [10, 0, 0, 1], false).await;
        assert_eq!(answer.status, StatusCode::OK, "{free}");
    }
    let another = ask_router(&router, paths[0], None, [10, 0, 0, 2], false).await;
    assert_eq!(another.status, StatusCode::OK);
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(ask_router(&router, paths[0], None, [10, 0, 0, 1], false).await.status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn readiness_is_asked_once_a_second_however_many_ask_and_the_public_port_is_told_no_reasons() {
    let parts = Parts::default();
    *parts.backend.database.lock() = Some("10.0.0.7 refused the password of tandem".into());
    let router = parts.router();
    for _ in 0..50 {
        let answer = ask_router(&router, "/ready", None, [10, 0, 0, 1], true).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.json(), json!({"ready": false, "checks": {"log": "ok", "database": "failed"}}));
    }
    assert_eq!(parts.backend.asked.load(std::sync::atomic::Ordering::SeqCst), 1);
    *parts.backend.database.lock() = None;
    tokio::time::advance(Duration::from_secs(1)).await;
    let ready = ask_router(&router, "/ready", None, [10, 0, 0, 1], false).await;
    assert_eq!(ready.status, StatusCode::OK);
    assert_eq!(parts.backend.asked.load(std::sync::atomic::Ordering::SeqCst), 2);
}

#[tokio::test]
async fn diagnostics_are_read_by_this_servers_own_names_only() {
    let mut parts = Parts::default();
    parts.public.host = Some("watch.example".into());
    let router = parts.router();
    for path in ["/status", "/metrics"] {
        for host in ["127.0.0.1:4001", "[::1]:4001", "localhost:4001", "tandem-a:4001", "watch.example"] {
            let answer = ask_router(&router, path, Some(host), [127, 0, 0, 1], false).await;
            assert_eq!(answer.status, StatusCode::OK, "{path} {host}");
        }
        for host in ["evil.example:4001", "127.0.0.1.evil.example"] {
            let answer = ask_router(&router, path, Some(host), [127, 0, 0, 1], false).await;
            assert_eq!(answer.status, StatusCode::MISDIRECTED_REQUEST, "{path} {host}");
        }
    }
    let page = ask_router(&router, "/", Some("behind-a-proxy.example"), [127, 0, 0, 1], false).await;
    assert_eq!(page.status, StatusCode::OK, "the page may have any name");
}

#[tokio::test]
async fn a_request_with_two_hosts_or_with_a_user_in_its_host_is_refused() {
    let parts = Parts::default();
    for hosts in [&["host: a.example", "host: b.example"][..], &["host: user@a.example"], &["host: a b"], &["host: "]] {
        for path in ["/", "/health", "/api/short-id/friday"] {
            let answer = ask(&parts, path, hosts).await;
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{hosts:?} {path}");
        }
    }
    let target = "http://user@a.example/api/short-id/friday";
    assert_eq!(ask(&parts, target, &["host: a.example"]).await.status, StatusCode::BAD_REQUEST);
    let absolute = ask(&parts, "http://a.example/api/short-id/friday", &["host: b.example"]).await;
    assert_eq!(absolute.json()["shortUrl"], "http://a.example/room/abc1234", "of HTTP/1.1 the target counts");
}
