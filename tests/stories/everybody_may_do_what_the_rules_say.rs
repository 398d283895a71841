//! Who may come in, and who may do what: from the first password on, over every node, at once, and after a split.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use mangrove::client::{Client, ClientError, ClientOptions, Credential, Heard, Proof, Subscription};
use mangrove::protocol::{Code, Event, Gone, Login, Request, Response, Secret, Verdict};
use serde_json::{Value, json};

use crate::claims::{QUICK, refused_as};
use crate::support::{Node, PATIENCE, World, beside, block, heal, is_on_disk, split, until};

fn password(principal: &str, password: &str) -> Login {
    Login::Password { principal: principal.into(), password: Secret::new(password) }
}

async fn come(node: &Node, login: Login) -> Result<Client, ClientError> {
    let known = Credential::read(&node.data.join("operator.toml")).expect("a credential");
    let credential = Credential { proof: Proof::Login(login), ..known };
    Client::connect(ClientOptions { connect_timeout: Duration::from_secs(20), ..ClientOptions::new(credential) }).await
}

/// Adds a principal with a password.
fn add(node: &Node, name: &str, roles: &str, password: &str) {
    let added = node.piped(&["principal", "add", name, "--roles", roles, "--stdin"], &format!("{password}\n"));
    assert!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
}

#[test]
fn a_mesh_begins_with_an_administrator_whose_password_is_told_once() {
    let world = World::new();
    let mut a = world.node("A", &[]);
    let made: Value = serde_json::from_str(&a.told(&["--json", "init", "--name", "A"])).expect("JSON");
    let secret = made["password"].as_str().expect("a password").to_owned();
    assert_eq!(made["administrator"], "admin");
    a.up();
    let mesh = a.status().mesh.to_string();
    a.set("plant/rpm", "1");

    // From a place that has nothing but the node's address and the mesh's id.
    let elsewhere = world.node("elsewhere", &[]);
    let kept = world.path("kept.toml");
    let (kept, address) = (kept.to_str().expect("text"), a.address().to_owned());
    let login = ["login", "admin", "--stdin", "--node", &address, "--mesh", &mesh, "--to", kept];
    let refused = elsewhere.piped(&login, "not the password\n");
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("[bad-credential]"), "{}", String::from_utf8_lossy(&refused.stderr));
    assert!(!world.path("kept.toml").exists(), "what does not work is not kept");
    let done = elsewhere.piped(&login, &format!("{secret}\n"));
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(elsewhere.json(&["--credential", kept, "get", "plant/rpm"])["value"], 1);
    assert!(elsewhere.told(&["--credential", kept, "principal", "ls"]).contains("administrator"));
    elsewhere.refused(&["--credential", kept, "login", "bob", "--token"]).says(2, &["PRINCIPAL"]);

    // It is said nowhere else.
    a.terminate();
    assert!(!is_on_disk(&a.data, &secret) && !world.logged().contains(&secret));
    // And neither a start nor the loss of the disk says it again.
    a.up();
    let changed = a.piped(&["principal", "password", "admin", "--stdin"], "another password\n");
    assert!(changed.status.success());
    a.terminate();
    std::fs::remove_dir_all(a.data.join("data")).expect("it is there");
    a.up();
    refused_as(block(come(&a, password("admin", &secret))), Code::BadCredential);
}

#[test]
fn by_password_token_or_not_at_all_and_each_with_its_own_rights() {
    let world = World::new();
    let key = world.path("key");
    std::fs::write(&key, "a secret that only the issuer knows").expect("a file");
    let keys = format!("token_keys={}", key.display());
    let a = world.found_with("A", &["--set", &keys, "--set", "token_audience=plant"]);
    let b = world.join_with("B", &a, "member", &["--set", &keys, "--set", "token_audience=plant"]);
    a.told(&["section", "add", "plant"]);
    a.set("plant/rpm", "1");
    a.set("plant/secret", "2");
    a.told(&["role", "set", "reader", "--default", "select,read"]);
    a.told(&["role", "permit", "reader", "plant/secret", "none"]);
    add(&a, "ann", "reader", "incorrect horse");
    b.shows("plant/secret", 2);
    until("B knows ann", || b.told(&["principal", "ls"]).contains("ann"));

    block(async {
        let ann = come(&b, password("ann", "annann")).await.err();
        assert!(
            matches!(ann, Some(ClientError::Refused(refusal)) if refusal.code == Code::BadCredential),
            "six characters are no password"
        );
    });
    let short = a.piped(&["principal", "add", "bob", "--stdin"], "short\n");
    assert!(String::from_utf8_lossy(&short.stderr).contains("at least 8 characters"));
    let changed = a.piped(&["principal", "password", "ann", "--stdin"], "correct horse\n");
    assert!(changed.status.success());

    block(async {
        let connect = async |login: Login| {
            let begun = Instant::now();
            loop {
                match come(&b, login.clone()).await {
                    Ok(client) => return client,
                    Err(error) if begun.elapsed() > PATIENCE => panic!("{error}"),
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        };
        let ann = connect(password("ann", "correct horse")).await;
        let (rows, _) = ann.values("?plant//", Default::default()).await.expect("a page");
        assert_eq!(rows.iter().map(|row| row.path.as_str()).collect::<Vec<_>>(), ["plant/rpm"]);
        refused_as(ann.values("plant/secret", Default::default()).await, Code::NotPermitted);
        refused_as(ann.set("plant/rpm", vec![1], None).await, Code::NotPermitted);
        refused_as(ann.status().await, Code::NotPermitted);
        refused_as(ann.run_access_script("principal ann roles administrator", false).await, Code::NotPermitted);
        refused_as(come(&b, Login::Anonymous).await.map(drop), Code::BadCredential);

        // A token, of whoever has the key.
        let expires = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time").as_secs() + 3_600;
        let signed = |claims: Value| {
            let key = jsonwebtoken::EncodingKey::from_secret(b"a secret that only the issuer knows");
            Login::Token(Secret::new(jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).expect("a token")))
        };
        let eve = connect(signed(json!({ "sub": "eve", "exp": expires, "aud": "plant", "roles": ["reader"] }))).await;
        assert_eq!(eve.values("?plant//", Default::default()).await.expect("a page").0.len(), 1);
        let others = signed(json!({ "sub": "eve", "exp": expires, "aud": "elsewhere", "roles": ["reader"] }));
        refused_as(come(&b, others).await.map(drop), Code::BadCredential);
    });
    let why = a.told(&["access", "why", "ann", "plant/secret"]);
    assert!(why.contains("role reader has at plant/secret: nothing"), "{why}");
    let dry = a.piped(&["access", "script", "-", "--dry-run"], "role reader at plant/secret read\nanonymous allow\n");
    assert!(String::from_utf8_lossy(&dry.stdout).contains("- role reader at plant/secret none\n+ role reader at plant/secret read"));
    let wrong = a.piped(&["access", "script", "-"], "anonymous allow\nrole reader may everything\n");
    assert_eq!(wrong.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("line 2"));
    assert!(!a.told(&["access", "ls"]).contains("anonymous"), "all or nothing");
    world.logged_no_error();
}

/// What a subscriber hears next, in words: `=` is a value, `!` what it may not see any more.
async fn next(topics: &mut Subscription) -> String {
    match tokio::time::timeout(PATIENCE, topics.next()).await.expect("in time").expect("it goes on") {
        Heard::Topic { path, event: Event::Value { .. } } => format!("={path}"),
        Heard::Topic { path, event: Event::Removed { reason: Gone::NotPermitted } } => format!("!{path}"),
        Heard::Topic { path, event: Event::Removed { .. } } => format!("-{path}"),
        Heard::Topic { path, event: Event::Added { .. } } => format!("+{path}"),
        other => format!("{other:?}"),
    }
}

#[test]
fn a_role_that_loses_a_branch_in_a_split_loses_it_everywhere_when_that_heals() {
    let world = World::new();
    let a = world.found_with("A", QUICK);
    let b = world.join_with("B", &a, "member", QUICK);
    a.told(&["section", "add", "plant"]);
    a.set("plant/open", "1");
    a.set("plant/closed/one", "1");
    a.told(&["role", "set", "reader", "--default", "select,read"]);
    add(&a, "ann", "reader", "correct horse");
    b.shows("plant/closed/one", 1);
    until("B knows the role", || b.told(&["principal", "ls"]).contains("reader"));

    let mut subscriptions = block(async {
        let mut all = Vec::new();
        for node in [&a, &a, &b, &b] {
            let client = come(node, password("ann", "correct horse")).await.expect("a session");
            let mut topics = client.subscribe("?plant//").await.expect("a subscription");
            while next(&mut topics).await != "Synced" {}
            all.push((client, topics));
        }
        all
    });
    split(&a, &b);
    a.told(&["role", "permit", "reader", "plant/closed", "none"]);
    b.told(&["role", "set", "reader", "--global", "view-node"]);
    b.set("plant/closed/one", "2");
    block(async {
        for (_, topics) in &mut subscriptions[..2] {
            assert_eq!(next(topics).await, "!plant/closed/one");
        }
        for (_, topics) in &mut subscriptions[2..] {
            assert_eq!(next(topics).await, "=plant/closed/one");
        }
    });
    heal(&a, &b);
    block(async {
        for (_, topics) in &mut subscriptions[2..] {
            assert_eq!(next(topics).await, "!plant/closed/one");
        }
    });
    // Nothing on that branch is delivered any more; the rest goes on.
    b.set("plant/closed/one", "3");
    b.set("plant/closed/two", "3");
    b.set("plant/open", "4");
    block(async {
        for (client, topics) in &mut subscriptions {
            assert_eq!(next(topics).await, "=plant/open");
            client.status().await.expect("what the other side gave it counts, too");
        }
    });
    // Whoever is removed is out.
    b.told(&["principal", "rm", "ann"]);
    block(async {
        for (client, _) in &subscriptions {
            let gone = async { while client.status().await.is_ok() {} };
            tokio::time::timeout(PATIENCE, gone).await.expect("it ends");
            refused_as(client.status().await, Code::SessionEnded);
        }
    });
    world.logged_no_error();
}

/// Whether somebody comes in; refused, it is for what was shown.
fn comes(node: &Node, login: Login) -> bool {
    match block(come(node, login)) {
        Ok(_) => true,
        Err(ClientError::Refused(refusal)) if refusal.code == Code::BadCredential => false,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn principals_of_both_sides_of_a_split_are_the_same_everywhere_when_it_heals() {
    let world = World::new();
    let a = world.found_with("A", QUICK);
    let b = world.join_with("B", &a, "member", QUICK);
    a.told(&["role", "set", "reader", "--global", "view-node"]);
    for name in ["ann", "bob", "eve"] {
        add(&a, name, "reader", "the old one of all");
    }
    until("B knows them", || ["ann", "bob", "eve"].iter().all(|name| b.told(&["principal", "ls"]).contains(name)));
    let old = |name: &str| password(name, "the old one of all");
    assert!(["ann", "bob", "eve"].iter().all(|name| comes(&b, old(name))), "whoever is added at one node comes in at another");
    let [bob, eve] = block(async { [come(&b, old("bob")).await, come(&a, old("eve")).await] }).map(|client| client.expect("a session"));

    split(&a, &b);
    let change = |node: &Node, name: &str, new: &str| {
        let changed = node.piped(&["principal", "password", name, "--stdin"], &format!("{new}\n"));
        assert!(changed.status.success(), "{}", String::from_utf8_lossy(&changed.stderr));
    };
    // A password is changed on both sides; who is removed on one side is changed on the other; each side adds somebody.
    change(&a, "ann", "new at A");
    change(&b, "ann", "new at B");
    a.told(&["principal", "rm", "bob"]);
    change(&b, "bob", "newer than all");
    b.told(&["principal", "rm", "eve"]);
    add(&a, "cay", "reader", "made at A");
    add(&b, "dan", "reader", "made at B");
    assert!(comes(&a, password("ann", "new at A")) && comes(&b, password("ann", "new at B")));
    block(async { (bob.nodes().await.expect("nobody at B knows"), eve.nodes().await.expect("nobody at A knows")) });
    heal(&a, &b);

    until("both know all", || {
        let listed = [&a, &b].map(|node| node.told(&["principal", "ls"]));
        listed[0] == listed[1] && listed.iter().all(|told| told.contains("cay") && told.contains("dan") && !told.contains("bob"))
    });
    for (client, name) in [(&bob, "bob"), (&eve, "eve")] {
        block(async {
            let gone = async { while client.nodes().await.is_ok() {} };
            tokio::time::timeout(PATIENCE, gone).await.unwrap_or_else(|_| panic!("{name} is not turned out"));
            refused_as(client.nodes().await, Code::SessionEnded);
        });
    }
    let right = |node: &Node| ["new at A", "new at B"].map(|new| comes(node, password("ann", new)));
    let (at_a, at_b) = (right(&a), right(&b));
    assert_eq!(at_a, at_b, "the same password is right everywhere");
    assert_eq!(at_a.iter().filter(|right| **right).count(), 1, "and only that one of the new: {at_a:?}");
    for node in [&a, &b] {
        assert!(comes(node, password("cay", "made at A")) && comes(node, password("dan", "made at B")));
        for gone in [old("ann"), old("bob"), password("bob", "newer than all"), old("eve")] {
            assert!(!comes(node, gone.clone()), "{gone:?}");
        }
    }
    world.logged_no_error();
}

#[test]
fn a_handler_elsewhere_judges_logins_and_holds_up_nobody_when_it_is_away() {
    let world = World::new();
    let flags = [QUICK, &["--set", "authentication=store,door", "--set", "handler_timeout_ms=1500"]].concat();
    let a = world.found_with("A", &flags);
    let mut b = world.join_with("B", &a, "member", &flags);
    a.told(&["role", "set", "guest", "--global", "view-node"]);

    // Nobody serves it yet.
    refused_as(block(come(&a, password("bob", "knock knock"))).map(drop), Code::BadCredential);
    let (client, mut door) = block(async {
        let client = b.connect().await;
        let door = client.serve_handler("door").await.expect("it may");
        (client, door)
    });
    let served = beside(async move {
        while let Ok(asked) = door.next().await {
            let verdict = match &asked.question().login {
                Login::Password { principal, password } if principal == "bob" && password.bytes() == b"knock knock" => {
                    Verdict::Allow { principal: None, roles: Some(vec!["guest".into()]), properties: Default::default(), expires_ms: None }
                }
                // Nobody ever hears of it.
                Login::Password { principal, .. } if principal == "silence" => continue,
                _ => Verdict::Deny,
            };
            if asked.answer(verdict).await.is_err() {
                break;
            }
        }
        drop(client);
    });
    until("A's logins are judged at B", || block(come(&a, password("bob", "knock knock"))).is_ok());
    block(async {
        let bob = come(&a, password("bob", "knock knock")).await.expect("he is let in");
        bob.nodes().await.expect("his role lets him see nodes");
        refused_as(bob.shutdown().await, Code::NotPermitted);
        refused_as(come(&a, password("bob", "knock")).await.map(drop), Code::BadCredential);
    });
    let waited = |login: Login| {
        let begun = Instant::now();
        refused_as(block(come(&a, login)).map(drop), Code::BadCredential);
        begun.elapsed()
    };
    let silent = waited(password("silence", "knock knock"));
    assert!((Duration::from_millis(1_400)..Duration::from_secs(10)).contains(&silent), "{silent:?}");
    // Its node is gone, in the middle of whatever it does.
    b.kill();
    let away = waited(password("bob", "knock knock"));
    assert!(away < Duration::from_secs(10), "{away:?}");
    served.abort();
}

#[test]
fn whoever_guesses_gets_nowhere_and_keeps_nobody_else_from_it() {
    let world = World::new();
    let a = world.found("A");
    a.set("kept", "1");
    a.told(&["role", "set", "reader", "--default", "select,read"]);
    add(&a, "ann", "reader", "correct horse");
    let open = |client: &Client| {
        let request = Request::SessionOpen { reconnect_timeout_ms: None, properties: Default::default() };
        match block(client.request(request)) {
            Ok(Response::Session(open)) => open,
            other => panic!("{other:?}"),
        }
    };
    let ann = block(come(&a, password("ann", "correct horse"))).expect("she comes in");
    let hers = open(&ann);
    let ended = open(&block(a.connect()));
    a.told(&["session", "close", &ended.id.to_string()]);

    // Ten thousand secrets that are another's, stale, cut short, or too long.
    let thief = block(a.connect());
    let guesses = beside(async move {
        let mut codes = BTreeMap::new();
        for guess in 0..10_000u64 {
            let right = hers.secret.bytes();
            let (id, secret) = match guess % 5 {
                0 => (hers.id, blake3::hash(&guess.to_le_bytes()).as_bytes().to_vec()),
                1 => (hers.id, ended.secret.bytes().to_vec()),
                2 => (hers.id, right[..right.len() - 1 - guess as usize % (right.len() - 1)].to_vec()),
                3 => (hers.id, right.iter().chain(&guess.to_le_bytes()).copied().collect()),
                _ => (ended.id, ended.secret.bytes().to_vec()),
            };
            match thief.request(Request::SessionResume { id, secret: Secret::new(secret), epoch: guess as u32 }).await {
                Ok(Response::Refused(refusal)) => *codes.entry(refusal.code.as_str()).or_insert(0) += 1,
                Err(ClientError::Refused(refusal)) => *codes.entry(refusal.code.as_str()).or_insert(0) += 1,
                other => panic!("{other:?}"),
            }
        }
        codes
    });
    let codes = block(guesses).expect("it ends");
    assert_eq!(codes.values().sum::<u32>(), 10_000);
    assert!(codes.keys().all(|code| ["unknown-session", "session-ended"].contains(code)), "{codes:?}");
    assert_eq!(block(ann.values("kept", Default::default())).expect("nothing happened to her").0.len(), 1);

    // Tokens that are none, and passwords: after a hundred nobody there is asked any more, though she be right.
    let throttled = |login: Login| match block(come(&a, login)) {
        Err(ClientError::Refused(refusal)) => refusal.code == Code::Throttled,
        other => panic!("{:?}", other.map(drop)),
    };
    let broken = |number: usize| match number % 4 {
        0 => Login::Token(Secret::new("")),
        1 => Login::Token(Secret::new("..".repeat(number))),
        2 => Login::Token(Secret::new([0xff, 0x00, number as u8])),
        _ => Login::Token(Secret::new("eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZG1pbiIsImV4cCI6OTk5OTk5OTk5OX0.")),
    };
    let begun = Instant::now();
    let looked_at = (0..1_000).take_while(|number| !throttled(broken(*number))).count();
    let most = 100 + begun.elapsed().as_secs() as usize;
    assert!((100..=most).contains(&looked_at), "{looked_at} were looked at, not 100 to {most}");
    assert!(throttled(password("ann", "a wrong password")));
    // Who is in stays in, who proves it by its operator's token comes in, and soon she does as well.
    assert_eq!(block(ann.values("kept", Default::default())).expect("she stays").0.len(), 1);
    refused_as(block(ann.reauthenticate(Login::Token(Secret::new("x")))), Code::Throttled);
    assert_eq!(a.get("kept"), 1);
    until("she may come in again", || block(come(&a, password("ann", "correct horse"))).is_ok());
    world.logged_no_error();
}

#[test]
fn filters_and_properties_without_measure_are_refused() {
    let world = World::new();
    let a = world.found("A");
    let client = block(a.connect());
    let deep = format!("{}has x{}", "(".repeat(10_000), ")".repeat(10_000));
    let nots = format!("{} has x", "not ".repeat(900));
    let regex = "desk matches \"((((a{99}){99}){99}){99})\"".to_owned();
    let many = format!("desk in [{}]", "\"x\",".repeat(2_000));
    for filter in [deep, nots, regex, many, "\"".into(), "$NodeName is".into(), "\u{0}".into(), "x".repeat(1 << 20)] {
        let heard = block(async {
            let mut listener = client.listen_to_sessions(&filter).await?;
            listener.next().await
        });
        refused_as(heard, Code::InvalidRequest);
    }
    let properties = |pairs: &[(&str, &str)]| pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let long = "x".repeat(1 << 20);
    let thousands = (0..10_000).map(|number| (format!("k{number}"), String::new())).collect();
    let odd =
        [properties(&[("$NodeName", "B")]), properties(&[("", "x")]), properties(&[("a b", "x")]), properties(&[("x", &long)]), thousands];
    for properties in odd {
        let open = Request::SessionOpen { reconnect_timeout_ms: None, properties };
        match block(client.request(open)) {
            Ok(Response::Refused(refusal)) | Err(ClientError::Refused(refusal)) => assert_eq!(refusal.code, Code::InvalidRequest),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(a.json(&["session", "ls"]), json!([]));
    assert!(block(client.status()).is_ok(), "its connection goes on");
    world.logged_no_error();
}
