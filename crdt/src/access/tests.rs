//! What the rules come to, alone and when two sides of a split meet.

use proptest::prelude::*;

use super::*;
use crate::{
    id::{Incarnation, NodeId},
    path::Path,
};

fn origin(node: u8) -> Origin {
    Origin { node: NodeId([node; 32]), incarnation: Incarnation { boot: 1, nonce: 0 } }
}

fn access(script: &str) -> Access {
    let mut access = Access::new();
    access.run_script(origin(1), script).unwrap_or_else(|error| panic!("{script}: {error}"));
    access
}

/// Two sides that begin with the same, say something apart, and meet.
fn split(before: &str, one: &str, other: &str) -> Access {
    let mut here = access(before);
    let mut there = Access::new();
    there.merge(&here.save()).unwrap();
    here.run_script(origin(1), one).unwrap();
    there.run_script(origin(2), other).unwrap();
    here.merge(&there.save()).unwrap();
    there.merge(&here.save()).unwrap();
    assert_eq!(here.heads(), there.heads());
    assert_eq!(here.rules(), there.rules(), "the same on both sides");
    here
}

fn roles(names: &str) -> Roles {
    names.split_whitespace().map(str::to_owned).collect()
}

/// What somebody with these roles may do at a path, as people write it.
fn at(access: &Access, names: &str, path: &str) -> String {
    let rules = access.rules();
    let permitted = rules.at(&rules.rights(Whom::Named, &[roles(names)]), path);
    fact::Listed(permitted, false).to_string()
}

const HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$aGFzaGhhc2g";

#[test]
fn it_begins_the_same_everywhere_and_for_ever() {
    let heads = Access::new().heads();
    let text: String = heads[0].iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!((heads.len(), text.as_str()), (1, "f2c8f73ae361c99a610b285505cdc0bd2701d75290bf35c331ce185b1ab94734"));
    assert!(Access::new().is_untouched() && !access("anonymous deny").is_untouched());
}

#[test]
fn the_nearest_assignment_decides_and_roles_add_up_there() {
    let access = access(
        "role reader default select read\n\
         role reader at a/secret none\n\
         role reader at a/secret/open read\n\
         role writer at a select update\n\
         role writer at a/secret/open/box modify\n\
         path lonely/isle isolate\n\
         role reader at lonely/isle/beach read\n\
         role reader global view-session\n",
    );
    for (roles, path, expected) in [
        ("reader", "", "select read"),
        ("reader", "b", "select read"),
        ("reader", "a/public", "select read"),
        ("reader", "a/secret", "none"),
        ("reader", "a/secret/deeper/still", "none"),
        ("reader", "a/secretive", "select read"),
        ("reader", "a/secret/open/box", "read"),
        ("writer", "a/secret", "select update"),
        ("reader writer", "a", "select update"),
        ("reader writer", "a/secret", "none"),
        ("reader writer", "a/secret/open", "read"),
        ("reader writer", "a/secret/open/box/lid", "modify"),
        ("reader", "lonely", "select read"),
        ("reader", "lonely/isle", "none"),
        ("reader", "lonely/isle/beach", "read"),
        ("writer", "b", "none"),
        ("stranger", "b", "none"),
    ] {
        assert_eq!(at(&access, roles, path), expected, "{roles} at {path:?}");
    }
    let rules = access.rules();
    let reader = rules.rights(Whom::Named, &[roles("reader")]);
    assert!(rules.globally(&reader).has(Permission::ViewSession) && !rules.globally(&reader).has(Permission::ModifySession));
    assert!(
        rules.globally(&Rights::everything()).has(Permission::ModifySecurity)
            && rules.at(&Rights::everything(), "a/secret").has(Permission::Modify)
    );
    assert_eq!(rules.globally(&Rights::default()), Permissions::NONE, "nobody may nothing");
    let why = rules.why(&reader, "lonely/isle/beach");
    let step = Step::Assigned {
        role: "reader".into(),
        at: "lonely/isle/beach".into(),
        permissions: [Permission::Read].into_iter().collect(),
        certain: true,
    };
    assert_eq!(why, [step]);
    assert_eq!(rules.why(&reader, "lonely/isle"), [Step::Isolated { at: "lonely/isle".into() }]);
}

#[test]
fn roles_include_roles_and_every_session_has_some() {
    let access = access(
        "role boss includes clerk spy\nrole clerk includes reader\nrole reader includes boss\n\
         role reader default read\nrole spy at a read-history\n\
         roles named greeter\nrole greeter default select\nroles anonymous ghost\nrole ghost default update",
    );
    assert_eq!(at(&access, "clerk", "b"), "select read", "round and round");
    assert_eq!(at(&access, "boss", "a"), "read-history");
    assert_eq!(at(&access, "", "a"), "select");
    let rules = access.rules();
    assert_eq!(rules.rights(Whom::Anonymous, &[Roles::new()]).roles(), roles("ghost"));
    assert_eq!(rules.roles(), roles("boss clerk ghost greeter reader spy"));
}

#[test]
fn a_script_does_all_or_nothing_and_says_where_it_is_wrong() {
    let mut access = access("role a default read\nprincipal bob roles a");
    let before = access.heads();
    for (script, refusal) in [
        ("role b default read\nrole b defaults read", "line 2: expected: role ROLE global"),
        ("role b default reed", "line 1: there is no permission \"reed\" at a path: there are select, read, update"),
        ("role b global read", "line 1: there is no permission \"read\" on the whole mesh"),
        ("role b default", "line 1: which permissions?"),
        ("\n\n# x\nrole b at a//b read", "line 4: a path has no empty segment"),
        ("role \"b c\" default read", "line 1: the name of a role"),
        ("role $b default read", "line 1: the name of a role"),
        ("role b includes a/c", "line 1: the name of a role"),
        ("role b remove", "line 1: there is no role b"),
        ("principal ann remove", "line 1: there is no principal ann"),
        ("principal ann password secret", "line 1: a password's hash is $argon2id$"),
        ("principal ann password $argon2id$v=19$m=4000000,t=2,p=1$c2FsdA$aGFzaA", "line 1: a password's hash is"),
        ("trust $Roles any", "line 1: \"$Roles\" is no key"),
        ("trust desk matches (", "line 1: \"(\" is no regular expression"),
        ("trust desk in", "line 1: expected: trust KEY"),
        ("grant all", "line 1: expected: a statement begins with"),
        ("role b at \"a", "line 1: a text begins with \" and does not end"),
    ] {
        let error = access.run_script(origin(1), script).expect_err(script).to_string();
        assert!(error.starts_with(refusal), "{script}: {error}");
    }
    let many: String = (0..=CHANGES_MAX).map(|number| format!("role r{number} default read\n")).collect();
    assert_eq!(access.run_script(origin(1), &many), Err(AccessError::TooManyChanges(CHANGES_MAX + 1)));
    assert_eq!(access.heads(), before);
    assert_eq!(access.run_script(origin(1), "role a default read"), Ok((None, vec![])), "nothing new");
    assert_eq!(access.heads(), before);
}

#[test]
fn what_is_said_can_be_said_again() {
    let script = format!(
        "role a default all\nrole a global view-node\nrole a includes b\nrole a at \"x y/#1\" none\nrole a at \"x\\\"\\\\y\" read\npath p isolate\n\
         principal ann password {HASH}\nprincipal ann roles a b\nroles named b\nanonymous allow\ntrust desk in \"1 2\" 3\ntrust floor matches [0-9]+\ntrust any any"
    );
    let access = access(&script);
    let said: Vec<String> = access.facts().iter().map(ToString::to_string).collect();
    let mut again = Access::new();
    again.run_script(origin(2), &said.join("\n")).unwrap();
    assert_eq!((again.rules(), again.facts()), (access.rules(), access.facts()));
    let rules = access.rules();
    assert!(rules.trusts("desk", "1 2") && !rules.trusts("desk", "1") && rules.trusts("floor", "12") && !rules.trusts("floor", "1a"));
    assert!(rules.trusts("any", "") && !rules.trusts("other", ""));
    assert_eq!(rules.find_principal("ann").and_then(|ann| ann.password.as_deref()), Some(HASH));
    again.run_script(origin(2), "role a remove\nprincipal ann remove\npath p inherit").unwrap();
    assert_eq!(again.rules().find_principal("ann"), None);
    assert_eq!(again.facts().len(), access.facts().len() - 8);
    assert_eq!(Access::load(&again.save()).unwrap().rules(), again.rules());
}

#[test]
fn edits_of_different_things_on_both_sides_of_a_split_both_stand() {
    let access = split("role a default read", "role a at x update\nprincipal ann roles a", "role a at y none\nrole b includes a");
    assert_eq!((at(&access, "b", "x"), at(&access, "b", "y"), at(&access, "b", "z")), ("update".into(), "none".into(), "read".into()));
    assert!(access.rules().conflicts().is_empty());
}

#[test]
fn of_edits_of_the_same_thing_the_more_restrictive_stands_until_it_is_said_anew() {
    let before = format!("role a default read update\nrole a at x read update\nprincipal ann password {HASH}\nprincipal ann roles a");
    let access = split(&before, "role a default read select", "role a default read modify");
    assert_eq!(at(&access, "a", "y"), "read");
    assert_eq!(access.rules().conflicts().len(), 1);
    // An assignment taken away: the way up counts as well, and so does what stands there.
    let access = split(&before, "role a at x inherit\nrole a default update", "role a at x update modify");
    assert_eq!(at(&access, "a", "x"), "update");
    // Beside another role that has something there, it is as if it were not there.
    let access = split(&format!("{before}\nrole b at x read"), "role a at x inherit", "role a at x update");
    assert_eq!(at(&access, "a b", "x"), "read");
    // Isolated if either says so; let in if both say so.
    let access = split(&before, "path x/y isolate", "path x/y isolate\npath x/y inherit");
    assert_eq!(at(&access, "a", "x/y"), "none");
    let access = split("anonymous abstain", "anonymous allow", "anonymous deny");
    assert_eq!(access.rules().anonymous(), Anonymous::Deny);
    // Who is removed on one side stays out.
    let new = HASH.replace("aGFzaGhhc2g", "bmV3");
    let mut access = split(&before, "principal ann remove", &format!("principal ann password {new}\nprincipal ann roles a b"));
    assert_eq!(access.rules().find_principal("ann"), None);
    assert_eq!(access.rules().conflicts().len(), 2);
    // Until somebody says it anew, were it in the same words.
    access.run_script(origin(3), &format!("principal ann password {new}\nprincipal ann roles a b")).unwrap();
    assert!(access.rules().conflicts().is_empty());
    assert_eq!(access.rules().find_principal("ann").map(|ann| ann.roles.clone()), Some(vec![roles("a b")]));
}

#[test]
fn where_roles_are_in_conflict_only_what_each_possibility_permits_is_permitted() {
    // Fewer roles are not less: `jailed` takes away.
    let before = "role a default read update\nrole jailed at x none\nrole more at x read modify\nrole a at x read";
    let access = split(before, "role a includes jailed", "role a includes more");
    assert_eq!(at(&access, "a", "x"), "read");
    assert_eq!(at(&access, "a", "y"), "read update");
    // So many conflicts that nobody could judge them all: nothing.
    let script = |to: &str| (0..8).map(|role| format!("role r{role} includes {to}{role}\n")).collect::<String>();
    let all: String = (0..8).map(|role| format!("r{role} ")).collect();
    let access = split(&format!("{before}\nroles named a"), &script("x"), &script("y"));
    assert_eq!(at(&access, &all, "y"), "none");
}

#[test]
fn entries_that_nobody_writes_are_as_if_they_were_not_there() {
    let mut access = access("role a default read");
    let before = access.rules();
    let odd = |open: &mut crate::document::Edit<'_>| {
        open.put(0, "a/odd", vec![1]);
        open.put(0, "a/default/more", vec![1]);
        open.put(0, "a b/default", vec![0]);
        open.put(0, "b/at//", vec![1]);
        open.put(2, "ann/password", minicbor::to_vec("plain").unwrap());
        open.put(3, "roles/others", vec![0x80]);
        open.put(3, "anonymous", vec![7]);
    };
    assert!(access.document.commit(origin(2), 0, odd).is_some());
    assert_eq!(access.rules(), before);
}

fn names() -> impl Strategy<Value = String> {
    prop::collection::btree_set(prop::sample::select(vec!["a", "b", "c"]), 0..3).prop_map(|names| match names.is_empty() {
        true => "none".to_owned(),
        false => names.into_iter().collect::<Vec<_>>().join(" "),
    })
}

fn permitted() -> impl Strategy<Value = String> {
    let all = ["select", "read", "update", "modify"].as_slice();
    prop::sample::subsequence(all, 0..=4).prop_map(|names| if names.is_empty() { "none".to_owned() } else { names.join(" ") })
}

fn statement() -> impl Strategy<Value = String> {
    let role = || prop::sample::select(vec!["a", "b", "c"]);
    let place = || prop::sample::select(vec!["x", "x/y", "x/y/z", "w"]);
    prop_oneof![
        (role(), permitted()).prop_map(|(role, list)| format!("role {role} default {list}")),
        (role(), place(), permitted()).prop_map(|(role, at, list)| format!("role {role} at {at} {list}")),
        (role(), place()).prop_map(|(role, at)| format!("role {role} at {at} inherit")),
        (role(), names()).prop_map(|(role, list)| format!("role {role} includes {list}")),
        place().prop_map(|at| format!("path {at} isolate")),
        place().prop_map(|at| format!("path {at} inherit")),
        names().prop_map(|list| format!("roles named {list}")),
        names().prop_map(|list| format!("principal ann roles {list}")),
    ]
}

fn script() -> impl Strategy<Value = String> {
    prop::collection::vec(statement(), 0..8).prop_map(|statements| statements.join("\n"))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whichever side is said to be right of each conflict, nothing is permitted before that is not permitted then.
    #[test]
    fn a_conflict_never_permits_what_some_outcome_of_it_would_not(before in script(), one in script(), other in script(), choice in any::<u64>()) {
        let merged = split(&before, &one, &other);
        let rules = merged.rules();
        let mut settled = merged.clone();
        for (number, conflict) in rules.conflicts().iter().enumerate() {
            let chosen = &conflict.facts[(choice >> (number % 64)) as usize % conflict.facts.len()];
            let text = match chosen {
                Fact::Roles { roles: None, .. } => "principal ann roles none".to_owned(),
                fact => fact.to_string(),
            };
            settled.run_script(origin(3), &text).unwrap();
        }
        let after = settled.rules();
        prop_assert!(after.conflicts().is_empty());
        let ann = |rules: &Rules| match rules.find_principal("ann") {
            Some(ann) => rules.rights(Whom::Named, &ann.roles),
            None => Rights::default(),
        };
        for path in ["", "x", "x/y", "x/y/z", "w", "v"] {
            let (during, then) = (rules.at(&ann(&rules), path), after.at(&ann(&after), path));
            prop_assert_eq!(during.and(then), during, "at {:?}", path);
        }
    }

    #[test]
    fn nothing_that_is_typed_makes_it_panic(text in "(role|path|principal|trust|at|[ \"#\\\\a$/\n]|.){0,30}") {
        let _ = Access::new().run_script(origin(1), &text);
    }

    #[test]
    fn a_fact_is_what_it_says(path in "[a-c \"\\\\#/]{1,12}", list in permitted(), value in ".{1,20}") {
        if let Ok(path) = Path::parse(&path) {
            let quoted = path.as_str().replace('\\', "\\\\").replace('"', "\\\"");
            let said = access(&format!("role a at \"{quoted}\" {list}"));
            prop_assert_eq!(access(&said.facts()[0].to_string()).facts(), said.facts());
        }
        let trust = Fact::Trust { key: "k".into(), trust: Some(Trust::In([value].into())) };
        if trust.check().is_ok() {
            prop_assert_eq!(access(&trust.to_string()).facts(), vec![trust]);
        }
    }
}
