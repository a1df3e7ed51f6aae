//! The Server API over a real core node, asked without a network.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{Request as HttpRequest, Response, StatusCode};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tempfile::TempDir;
use throng_core::{BackEnds, CoreConfig, CoreNode, InitialShards, Storage, Timings, TlsFiles};
use throng_protocol::cluster::{self, Answer, AppKey, PeerId, REQUEST_LANE, Reply, Request, TokenAlgorithm};
use throng_protocol::ids::{AppId, NodeId, UserId};
use throng_server_api::{Cluster, Key, router};
use throng_transport::dev_ca::DevCa;
use throng_transport::{ClusterEndpoint, ClusterPool, ClusterTls};
use tower::ServiceExt as _;

const CLUSTER: &str = "test";
const ME: NodeId = NodeId(1);
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

#[derive(Debug)]
struct OfNode(BackEnds);

impl Cluster for OfNode {
    fn ask(&self, request: Request) -> BoxFuture<'_, Answer> {
        async move { self.0.ask(&request).await }.boxed()
    }
}

/// A cluster of one node with two apps, and the key of a back end of each.
struct World {
    router: Router,
    node: CoreNode,
    admin: ClusterPool,
    address: SocketAddr,
    keys: [Key; 2],
    _folder: TempDir,
}

fn free_address() -> SocketAddr {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

impl World {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ca = DevCa::open(&folder.path().join("ca")).unwrap();
        let files = ca.node(PeerId::Core(ME), CLUSTER).unwrap();
        let node = CoreNode::start(CoreConfig {
            id: ME,
            cluster: CLUSTER.to_owned(),
            listen: free_address(),
            advertise: None,
            data: folder.path().join("data"),
            observe: None,
            tls: TlsFiles {
                ca: files.ca,
                cert: files.cert,
                key: files.key,
            },
            peers: Vec::new(),
            shards: InitialShards {
                management: 2,
                message: 2,
                replicas: 1,
            },
            timings: Timings::default(),
            storage: Storage::default(),
        });
        let node = node.await.unwrap();
        node.ready().await;
        let files = ca.node(PeerId::Admin, CLUSTER).unwrap();
        let tls = ClusterTls::load(&files.ca, &files.cert, &files.key, CLUSTER).unwrap();
        let endpoint = ClusterEndpoint::bind("127.0.0.1:0".parse().unwrap(), &tls).unwrap();
        let keys = ["first", "second"].map(|app| Key::random(AppId::new(app).unwrap(), "test"));
        let world = Self {
            router: router(Arc::new(OfNode(node.back_ends()))),
            address: node.address(),
            node,
            admin: ClusterPool::new(Arc::new(endpoint)),
            keys: keys.clone(),
            _folder: folder,
        };
        for key in keys {
            let app = key.app().clone();
            let token_key = AppKey {
                kid: "1".to_owned(),
                algorithm: TokenAlgorithm::Hs256,
                material: b"a secret of thirty-two bytes, no less"[..].into(),
            };
            let put = Request::PutApp {
                app: app.clone(),
                keys: vec![token_key],
            };
            assert_eq!(world.as_admin(put).await, Ok(Reply::Done));
            world.add_key(&key).await;
        }
        world
    }

    async fn as_admin(&self, request: Request) -> Answer {
        let rpc = self
            .admin
            .rpc(PeerId::Core(ME), self.address, REQUEST_LANE)
            .await
            .unwrap();
        let answer = rpc.call(cluster::encode(&request), PATIENCE).await.unwrap();
        cluster::decode(&answer).unwrap()
    }

    async fn add_key(&self, key: &Key) {
        let (app, key) = (key.app().clone(), key.kept());
        let added = self.as_admin(Request::AddApiKey { app, key }).await;
        assert_eq!(added, Ok(Reply::Done));
    }

    async fn remove_key(&self, key: &Key) {
        let (app, kid) = (key.app().clone(), key.kept().kid);
        let removed = self.as_admin(Request::RemoveApiKey { app, kid }).await;
        assert_eq!(removed, Ok(Reply::Done));
    }

    /// Waits until a key is taken, or is not.
    async fn until_taken(&self, key: &Key, taken: bool) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let (status, answer) = self.with_key(key, "GET", "/v1/groups/town", Value::Null).await;
            if (status == StatusCode::OK) == taken {
                assert!(
                    taken || (status, &answer["error"]["code"]) == (StatusCode::UNAUTHORIZED, &json!(200))
                );
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "{status}");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    async fn raw(&self, request: HttpRequest<Body>) -> (StatusCode, Value) {
        let response: Response<Body> = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), usize::MAX)
            .await
            .unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    }

    async fn with_key(&self, key: &Key, method: &str, path: &str, body: Value) -> (StatusCode, Value) {
        let request = HttpRequest::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {}", key.reveal()));
        let body = if body.is_null() {
            Body::empty()
        } else {
            Body::from(body.to_string())
        };
        self.raw(request.body(body).unwrap()).await
    }

    /// As a back end of the first app.
    async fn ask(&self, method: &str, path: &str, body: Value) -> (StatusCode, Value) {
        self.with_key(&self.keys[0], method, path, body).await
    }

    /// What must be granted.
    async fn done(&self, method: &str, path: &str, body: Value) -> Value {
        let (status, answer) = self.ask(method, path, body).await;
        assert_eq!(status, StatusCode::OK, "{method} {path}: {answer}");
        answer
    }

    /// What must be refused, with its status and code.
    async fn refused(&self, method: &str, path: &str, body: Value) -> (u16, u64) {
        let (status, answer) = self.ask(method, path, body.clone()).await;
        assert!(!status.is_success(), "{method} {path} {body}: {answer}");
        assert!(answer["error"]["text"].is_string(), "{answer}");
        (status.as_u16(), answer["error"]["code"].as_u64().unwrap())
    }

    async fn send(&self, sender: &str, text: &str, key: &str) -> (StatusCode, Value) {
        let request = HttpRequest::post("/v1/groups/town/channels/hall/messages")
            .header("authorization", format!("Bearer {}", self.keys[0].reveal()))
            .header("idempotency-key", key)
            .body(Body::from(json!({"sender": sender, "text": text}).to_string()));
        self.raw(request.unwrap()).await
    }

    /// A group `town` of ann, bob and eve with the channel `hall`; how many of them were let in.
    async fn town(&self) -> u64 {
        self.done("PUT", "/v1/groups/town", json!({"creator": "ann"}))
            .await;
        self.done("PUT", "/v1/groups/town/channels/hall", Value::Null)
            .await;
        let users = json!({"users": ["ann", "bob", "eve", "bob"]});
        let joined = self.done("POST", "/v1/groups/town/members", users).await;
        joined["joined"].as_u64().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_back_end_makes_a_group_fills_it_and_shows_it() {
    let world = World::start().await;
    // Done again it changes nothing.
    assert_eq!((world.town().await, world.town().await), (2, 0));
    let group = world.done("GET", "/v1/groups/town", Value::Null).await;
    assert_eq!(
        (&group["creator"], &group["members"], &group["channels"]),
        (&json!("ann"), &json!(3), &json!(1))
    );

    world
        .done("PUT", "/v1/groups/town/channels/annex", Value::Null)
        .await;
    let first = world
        .done("GET", "/v1/groups/town/channels?limit=1", Value::Null)
        .await;
    assert_eq!(
        (&first["channels"][0]["channel"], &first["next"]),
        (&json!("annex"), &json!("annex"))
    );
    let second = world
        .done("GET", "/v1/groups/town/channels?limit=1&after=annex", Value::Null)
        .await;
    assert_eq!(second["channels"][0]["channel"], "hall");
    let end = world
        .done("GET", "/v1/groups/town/channels?after=hall", Value::Null)
        .await;
    assert_eq!(end, json!({"channels": [], "next": null}));

    let mut names = Vec::new();
    let mut next = json!("0");
    while let Some(after) = next.as_str() {
        let path = format!("/v1/groups/town/members?limit=2&after={after}");
        let page = world.done("GET", &path, Value::Null).await;
        for member in page["members"].as_array().unwrap() {
            names.push(member["user"].as_str().unwrap().to_owned());
        }
        next = page["next"].clone();
    }
    names.sort();
    assert_eq!(names, ["ann", "bob", "eve"]);
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_sent_once_and_read_in_pages() {
    let world = World::start().await;
    world.town().await;
    for number in 1..=5 {
        let (status, sent) = world
            .send("ann", &format!("message {number}"), &format!("key {number}"))
            .await;
        assert_eq!(
            (status, &sent["seq"], &sent["repeat"]),
            (StatusCode::OK, &json!(number), &json!(false))
        );
    }
    let (_, again) = world.send("ann", "message 2", "key 2").await;
    assert_eq!((&again["seq"], &again["repeat"]), (&json!(2), &json!(true)));
    let (status, other) = world.send("ann", "not message 2", "key 2").await;
    assert_eq!(
        (status, &other["error"]["code"]),
        (StatusCode::CONFLICT, &json!(401))
    );
    let base64 = json!({"sender": "bob", "body": "AP8="});
    world
        .done("POST", "/v1/groups/town/channels/hall/messages", base64)
        .await;

    let path = "/v1/groups/town/channels/hall/messages";
    let seqs = |page: &Value| -> Vec<u64> {
        let messages = page["messages"].as_array().unwrap().iter();
        messages.map(|message| message["seq"].as_u64().unwrap()).collect()
    };
    let newest = world.done("GET", &format!("{path}?limit=2"), Value::Null).await;
    assert_eq!((seqs(&newest), &newest["head"]), (vec![5, 6], &json!(6)));
    assert_eq!(newest["messages"][1]["text"], Value::Null, "no text");
    assert_eq!(newest["messages"][1]["body"], "AP8=");
    let before = world
        .done("GET", &format!("{path}?before=5&limit=2"), Value::Null)
        .await;
    assert_eq!(seqs(&before), [3, 4]);
    let after = world.done("GET", &format!("{path}?after=0"), Value::Null).await;
    assert_eq!(seqs(&after), [1, 2, 3, 4, 5, 6]);
    assert_eq!(
        (&after["messages"][1]["text"], &after["messages"][1]["sender"]),
        (&json!("message 2"), &json!("ann"))
    );
    // The largest body there may be, each byte of which JSON writes with two.
    let quotes = json!({"sender": "eve", "text": "\"".repeat(128 * 1024)});
    world.done("POST", path, quotes).await;
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_muted_or_removed_sends_nothing() {
    let world = World::start().await;
    world.town().await;
    let muted = world
        .done(
            "PUT",
            "/v1/groups/town/members/bob/mute",
            json!({"seconds": 3600}),
        )
        .await;
    assert_eq!((&muted["done"], &muted["pending"]), (&json!(true), &json!([])));
    let (status, refused) = world.send("bob", "psst", "1").await;
    assert_eq!(
        (status, &refused["error"]["name"]),
        (StatusCode::FORBIDDEN, &json!("muted"))
    );
    let page = world.done("GET", "/v1/groups/town/members", Value::Null).await;
    let members = page["members"].as_array().unwrap();
    let until =
        |name: &str| members.iter().find(|member| member["user"] == name).unwrap()["muted_until_ms"].clone();
    assert!(until("bob").as_u64().unwrap() > 0 && until("eve").is_null());
    world
        .done("DELETE", "/v1/groups/town/members/bob/mute", Value::Null)
        .await;
    assert_eq!(world.send("bob", "hello", "2").await.0, StatusCode::OK);

    let removed = world
        .done("DELETE", "/v1/groups/town/members/bob", Value::Null)
        .await;
    assert_eq!(removed["done"], true);
    let again = world
        .done("DELETE", "/v1/groups/town/members/bob", Value::Null)
        .await;
    assert_eq!(
        again["version"], removed["version"],
        "it answers for the same removal"
    );
    let bob = members.iter().find(|member| member["user"] == "bob").unwrap();
    let by_since = format!("/v1/groups/town/members/bob?since={}", bob["since"]);
    let (status, refused) = world.send("bob", "still here", "3").await;
    assert_eq!(
        (status, &refused["error"]["name"]),
        (StatusCode::NOT_FOUND, &json!("not_member"))
    );
    let group = world.done("GET", "/v1/groups/town", Value::Null).await;
    assert_eq!(group["members"], 2);

    // Who comes back is not removed by the same request asked once more.
    world
        .done("POST", "/v1/groups/town/members", json!({"users": ["bob"]}))
        .await;
    let late = world.done("DELETE", &by_since, Value::Null).await;
    assert_eq!(late["version"], removed["version"]);
    assert_eq!(world.send("bob", "back again", "4").await.0, StatusCode::OK);
    let never = world
        .refused("DELETE", "/v1/groups/town/members/eve?since=999", Value::Null)
        .await;
    assert_eq!(never, (404, 302));
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_of_one_app_and_ends_when_it_is_removed() {
    let world = World::start().await;
    world.town().await;
    let [first, second] = world.keys.clone();
    // Another app has no such group, and makes one of its own under the same name.
    let (status, answer) = world
        .with_key(&second, "GET", "/v1/groups/town", Value::Null)
        .await;
    assert_eq!(
        (status, &answer["error"]["name"]),
        (StatusCode::NOT_FOUND, &json!("group_unknown"))
    );

    let token = world
        .done("POST", "/v1/users/ann/token", json!({"seconds": 60}))
        .await;
    assert_eq!(token["token"].as_str().unwrap().split('.').count(), 3);

    let rotated = Key::random(first.app().clone(), "next");
    world.add_key(&rotated).await;
    for key in [&first, &rotated] {
        world.until_taken(key, true).await;
    }
    world.remove_key(&first).await;
    let forged = Key::random(first.app().clone(), "next");
    let stranger = Key::random(AppId::new("third").unwrap(), "next");
    for key in [&first, &forged, &stranger] {
        world.until_taken(key, false).await;
    }
    world.until_taken(&rotated, true).await;
    for header in [None, Some("Bearer"), Some("Bearer x"), Some("Basic dXNlcjpwYXNz")] {
        let mut request = HttpRequest::get("/v1/groups/town");
        if let Some(header) = header {
            request = request.header("authorization", header);
        }
        let (status, _) = world.raw(request.body(Body::empty()).unwrap()).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{header:?}");
    }
    world.node.stop().await;
}

/// A request that is refused, with the status and the code.
type Bad = (&'static str, String, Value, (u16, u64));

fn bad(method: &'static str, path: &str, body: Value, expected: (u16, u64)) -> Bad {
    (method, format!("/v1/groups/{path}"), body, expected)
}

fn bad_groups() -> Vec<Bad> {
    let ann = || json!({"creator": "ann"});
    let more = json!({"creator": "ann", "colour": "red"});
    vec![
        bad("GET", "nowhere", Value::Null, (404, 300)),
        bad("GET", "nowhere/members", Value::Null, (404, 300)),
        bad("GET", "nowhere/channels", Value::Null, (404, 300)),
        bad("PUT", "nowhere/channels/hall", Value::Null, (404, 300)),
        bad("PUT", "town", json!({"creator": "bob"}), (409, 304)),
        bad("PUT", "town", json!({"creator": ""}), (400, 105)),
        bad("PUT", "town", more, (400, 105)),
        bad("PUT", "town", Value::Null, (400, 105)),
        bad("PUT", "town", json!(["ann"]), (400, 105)),
        bad("GET", "town/channels?limit=0", Value::Null, (400, 105)),
        bad("GET", "town/channels?limit=501", Value::Null, (400, 105)),
        bad("PUT", &"x".repeat(65), ann(), (400, 105)),
        bad("PUT", "a%07b", ann(), (400, 105)),
        bad("PATCH", "town", Value::Null, (405, 105)),
        bad("GET", "town/cellar", Value::Null, (404, 105)),
    ]
}

fn bad_members() -> Vec<Bad> {
    let users: Vec<String> = (0..501).map(|number| format!("user-{number}")).collect();
    let long = json!({"seconds": u64::MAX});
    vec![
        bad("POST", "nowhere/members", json!({"users": ["ann"]}), (404, 300)),
        bad("DELETE", "nowhere/members/ann", Value::Null, (404, 300)),
        bad("POST", "town/members", json!({"users": users}), (400, 105)),
        bad("DELETE", "town/members/nobody", Value::Null, (404, 302)),
        bad("DELETE", "town/members/ann", Value::Null, (403, 303)),
        bad("DELETE", "town/members/bob?since=x", Value::Null, (400, 105)),
        bad(
            "PUT",
            "town/members/nobody/mute",
            json!({"seconds": 1}),
            (404, 302),
        ),
        bad("PUT", "town/members/bob/mute", json!({"seconds": 0}), (400, 105)),
        bad("PUT", "town/members/bob/mute", long, (400, 105)),
    ]
}

fn bad_messages() -> Vec<Bad> {
    let hall = "town/channels/hall/messages";
    let long = |bytes: usize| json!({"sender": "ann", "text": "x".repeat(bytes)});
    vec![
        bad("GET", "town/channels/attic/messages", Value::Null, (404, 301)),
        bad(
            "GET",
            &format!("{hall}?after=1&before=2"),
            Value::Null,
            (400, 105),
        ),
        bad("GET", &format!("{hall}?after=minus"), Value::Null, (400, 105)),
        bad("GET", &format!("{hall}?colour=red"), Value::Null, (400, 105)),
        bad(
            "POST",
            hall,
            json!({"sender": "nobody", "text": "hi"}),
            (404, 302),
        ),
        bad("POST", hall, json!({"sender": "ann"}), (400, 105)),
        bad("POST", hall, long(128 * 1024 + 1), (413, 400)),
        bad("POST", hall, long(2 * 1024 * 1024), (413, 400)),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_refused_with_its_code() {
    let world = World::start().await;
    world.town().await;
    for (method, path, body, expected) in [bad_groups(), bad_members(), bad_messages()].concat() {
        let refused = world.refused(method, &path, body).await;
        assert_eq!(refused, expected, "{method} {path}");
    }
    let long_token = json!({"seconds": 86_401});
    let refused = world.refused("POST", "/v1/users/ann/token", long_token).await;
    assert_eq!(refused, (400, 105));
    // None of it has made users, members or channels.
    let group = world.done("GET", "/v1/groups/town", Value::Null).await;
    assert_eq!((&group["members"], &group["channels"]), (&json!(3), &json!(1)));
    // A mistyped name has no number: asked for as a member it would have got one.
    let known = Request::KnownUser {
        app: world.keys[0].app().clone(),
        user: UserId::new("nobody").unwrap(),
    };
    assert_eq!(
        world.node.back_ends().ask(&known).await,
        Ok(Reply::KnownUser(None))
    );
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archived_channel_is_read_and_written_by_the_app_alone() {
    let world = World::start().await;
    world.town().await;
    let (hall, archive) = (
        "/v1/groups/town/channels/hall/messages",
        "/v1/groups/town/channels/hall/archive",
    );
    assert_eq!(world.send("ann", "before", "1").await.0, StatusCode::OK);
    for _ in 0..2 {
        assert_eq!(world.done("PUT", archive, Value::Null).await["done"], true);
    }
    let channels = world.done("GET", "/v1/groups/town/channels", Value::Null).await;
    assert_eq!(channels["channels"][0]["archived"], true);
    let late = json!({"sender": "ann", "text": "late"});
    assert_eq!(world.refused("POST", hall, late).await, (409, 309));
    let (status, again) = world.send("ann", "before", "1").await;
    assert_eq!((status, &again["repeat"]), (StatusCode::OK, &json!(true)));
    world
        .done("POST", hall, json!({"text": "closed by the app"}))
        .await;
    let page = world.done("GET", hall, Value::Null).await;
    assert_eq!(page["head"], 2);
    for _ in 0..2 {
        assert_eq!(world.done("DELETE", archive, Value::Null).await["done"], true);
    }
    assert_eq!(world.send("ann", "after", "2").await.0, StatusCode::OK);
    let nowhere = "/v1/groups/town/channels/nowhere/archive";
    assert_eq!(world.refused("PUT", nowhere, Value::Null).await, (404, 301));
    let nowhere = "/v1/groups/nowhere/channels/hall/archive";
    assert_eq!(world.refused("DELETE", nowhere, Value::Null).await, (404, 300));
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_app_itself_speaks_in_its_own_name() {
    let world = World::start().await;
    world.town().await;
    let hall = "/v1/groups/town/channels/hall/messages";
    world
        .done(
            "PUT",
            "/v1/groups/town/roles/everyone",
            json!({"permissions": []}),
        )
        .await;
    let system = world.done("POST", hall, json!({"text": "silence, please"})).await;
    let page = world.done("GET", hall, Value::Null).await;
    let message = &page["messages"][0];
    assert_eq!(
        (&message["place"], &message["sender"], &message["text"]),
        (&system["place"], &Value::Null, &json!("silence, please"))
    );
    let path = format!("{hall}/{}", system["place"].as_str().unwrap());
    let by_bob = json!({"by": "bob", "text": "noise"});
    assert_eq!(world.refused("PUT", &path, by_bob).await, (403, 303));
    world.done("PUT", &path, json!({"text": "quiet, please"})).await;
    let nowhere = "/v1/groups/nowhere/channels/hall/messages";
    assert_eq!(
        world.refused("POST", nowhere, json!({"text": "hello"})).await,
        (404, 300)
    );
    let of_none = json!({"sender": null, "text": "forgotten"});
    assert_eq!(world.refused("POST", hall, of_none).await, (400, 105));
    assert_eq!(
        world
            .refused("POST", &format!("{path}/recall"), json!({"by": null}))
            .await,
        (400, 105)
    );
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_do_what_their_roles_let_them() {
    let world = World::start().await;
    world.town().await;
    let (status, sent) = world.send("ann", "from ann", "1").await;
    assert_eq!(status, StatusCode::OK);
    let place = sent["place"].as_str().unwrap();
    let recall = format!("/v1/groups/town/channels/hall/messages/{place}/recall");
    assert_eq!(
        world.refused("POST", &recall, json!({"by": "bob"})).await,
        (403, 303)
    );
    let janitor = "/v1/groups/town/roles/janitor";
    let made = world
        .done("PUT", janitor, json!({"permissions": ["recall_others"]}))
        .await;
    assert_eq!(made["done"], true);
    let bobs = "/v1/groups/town/members/bob/roles";
    world.done("PUT", bobs, json!({"roles": ["janitor"]})).await;
    let recalled = world.done("POST", &recall, json!({"by": "bob"})).await;
    assert_eq!(recalled["place"], "1-2");

    let page = world.done("GET", "/v1/groups/town/members", Value::Null).await;
    let of = |name: &str| {
        let mut members = page["members"].as_array().unwrap().iter();
        members.find(|member| member["user"] == name).unwrap()["roles"].clone()
    };
    assert_eq!((of("bob"), of("eve")), (json!(["janitor"]), json!([])));
    let roles = world.done("GET", "/v1/groups/town/roles", Value::Null).await;
    let everyone = json!({"role": "everyone", "permissions": ["send", "expand", "create_channels"]});
    assert_eq!(
        roles["roles"],
        json!([everyone, {"role": "janitor", "permissions": ["recall_others"]}])
    );

    let everyone = "/v1/groups/town/roles/everyone";
    let silent = world.done("PUT", everyone, json!({"permissions": []})).await;
    assert_eq!((&silent["done"], &silent["pending"]), (&json!(true), &json!([])));
    let (status, refused) = world.send("eve", "psst", "2").await;
    assert_eq!(
        (status, &refused["error"]["name"]),
        (StatusCode::FORBIDDEN, &json!("forbidden"))
    );
    assert_eq!(world.send("ann", "the creator may", "3").await.0, StatusCode::OK);
    world.done("DELETE", everyone, Value::Null).await;
    assert_eq!(world.send("eve", "hello", "4").await.0, StatusCode::OK);

    let roles = |names: &[&str]| json!({"roles": names});
    assert_eq!(world.refused("PUT", bobs, roles(&["nobody"])).await, (404, 308));
    assert_eq!(world.refused("PUT", bobs, roles(&[""])).await, (400, 105));
    let many: Vec<String> = (0..33).map(|n| format!("role-{n}")).collect();
    assert_eq!(
        world.refused("PUT", bobs, json!({"roles": many})).await,
        (400, 105)
    );
    assert_eq!(
        world
            .refused("PUT", "/v1/groups/town/members/nobody/roles", roles(&[]))
            .await,
        (404, 302)
    );
    let unknown = json!({"permissions": ["fly"]});
    assert_eq!(world.refused("PUT", janitor, unknown).await, (400, 105));
    assert_eq!(
        world
            .refused("GET", "/v1/groups/nowhere/roles", Value::Null)
            .await,
        (404, 300)
    );
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_says_what_is_served() {
    let world = World::start().await;
    let request = HttpRequest::get("/openapi.json").body(Body::empty()).unwrap();
    let (status, document) = world.raw(request).await;
    assert_eq!(status, StatusCode::OK);
    let paths = document["paths"].as_object().unwrap();
    let mut operations = 0;
    for (path, item) in paths {
        for (method, operation) in item.as_object().unwrap() {
            operations += 1;
            assert!(operation["summary"].is_string(), "{method} {path}");
            assert!(
                operation["responses"]["200"]["content"].is_object(),
                "{method} {path}"
            );
            // What the document names is there: without a key it is refused for that alone.
            let asked = HttpRequest::builder()
                .method(method.to_uppercase().as_str())
                .uri(path.replace(['{', '}'], ""))
                .body(Body::empty())
                .unwrap();
            assert_eq!(
                world.raw(asked).await.0,
                StatusCode::UNAUTHORIZED,
                "{method} {path}"
            );
        }
    }
    assert_eq!(operations, 23);
    assert!(document["components"]["securitySchemes"]["key"].is_object());
    world.node.stop().await;
}
