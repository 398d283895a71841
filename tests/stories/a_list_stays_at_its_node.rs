//! A paged topic is a list of lines at the node where it was made, and nowhere else: there is nothing at its path on other nodes, and its own says why.

use serde_json::{Value, json};

use crate::support::{World, block, equal, until};
use mangrove::protocol::Splice;

const PATH: &str = "plant/log";

fn lines(shown: &Value) -> Vec<&str> {
    shown["lines"].as_array().expect("lines").iter().map(|line| line.as_str().expect("a text")).collect()
}

#[test]
fn it_is_made_changed_and_read_there_and_others_have_nothing_at_its_path() {
    let world = World::new();
    let mut a = world.found("A");
    a.told(&["section", "add", "plant"]);
    let (b, c) = (world.join("B", &a), world.join("C", &a));
    a.told(&["topic", "add", PATH, "--type", "paged"]);
    a.set("plant/other", "1");
    assert_eq!(a.told(&["page", "append", PATH, "first", "second", "third"]), "3 lines in plant/log\n");
    a.told(&["page", "insert", PATH, "1", "before"]);
    a.told(&["page", "replace", PATH, "3", "2nd"]);
    a.told(&["page", "rm", PATH, "4"]);
    assert!(a.piped(&["page", "append", PATH, "-"], "from\na pipe\n").status.success());
    let expected = ["before", "first", "2nd", "from", "a pipe"];
    assert_eq!(a.told(&["page", "show", PATH]), "1\tbefore\n2\tfirst\n3\t2nd\n4\tfrom\n5\ta pipe\n");
    let page = a.json(&["page", "show", PATH, "--page", "2", "--size", "2"]);
    assert_eq!((lines(&page), &page["from"], &page["list"]["lines"]), (vec!["2nd", "from"], &json!(3), &json!(5)));

    // What is there, and why nowhere else.
    let listed = a.told(&["topic", "ls"]);
    assert!(listed.contains("plant/log\tpaged (local: paged topics are not replicated)\n"), "{listed}");
    assert_eq!(a.json(&["topic", "ls", PATH])[0]["remark"], "local: paged topics are not replicated");
    let detail = a.json(&["topic", "show", PATH]);
    assert_eq!((&detail["section"], &detail["list"]["lines"]), (&Value::Null, &json!(5)));
    let said = a.told(&["topic", "show", PATH]);
    assert!(said.contains("not replicated") && said.contains("none: local to this node"), "{said}");
    assert_eq!(a.get(PATH)["lines"], 5);
    until("the others have what is replicated", || [&b, &c].iter().all(|node| node.paths() == ["plant/other"]));
    equal(&[&a, &b, &c]);
    for node in [&b, &c] {
        assert_eq!(node.paths(), ["plant/other"]);
        node.refused(&["page", "show", PATH]).says(1, &["plant/log", "[no-such-topic]"]);
        node.refused(&["page", "append", PATH, "x"]).says(1, &["plant/log", "[no-such-topic]"]);
    }
    assert!(!a.told(&["export", "?plant//"]).contains(PATH));

    // What cannot be is refused, and says where it is wrong.
    let before = a.json(&["page", "show", PATH]);
    a.refused(&["page", "replace", PATH, "5", "x", "y"]).says(1, &["there is no line 6: the list has 5", "[no-such-line]"]);
    a.refused(&["page", "append", PATH, "x", "y\nz"]).says(1, &["line 2 of those given has a line break", "[invalid-value]"]);
    a.refused(&["page", "rm", PATH, "3", "2"]).says(2, &["the last line comes before the first"]);
    a.refused(&["page", "append", PATH, "x", "--if", "/revision is 1"]).says(1, &["[constraint-unmet]"]);
    a.refused(&["page", "show", "plant/other"]).says(1, &["plant/other", "has no lines"]);
    a.refused(&["set", PATH, "1"]).says(2, &["a paged topic takes lines"]);
    a.refused(&["topic", "add", PATH, "--type", "json"]).says(1, &["[exists-mismatch]"]);
    assert_eq!(a.json(&["page", "show", PATH]), before);

    // It survives its node's end, and the end of the section around it.
    a.kill();
    a.up();
    assert_eq!(a.json(&["page", "show", PATH]), before);
    a.told(&["section", "rm", "plant"]);
    assert_eq!(lines(&a.json(&["page", "show", PATH])), expected);
    assert!(a.json(&["page", "rm", PATH, "--all"])["list"]["lines"] == 0 && b.paths() == ["plant/other"]);
}

#[test]
fn a_topic_that_comes_from_elsewhere_hides_it_until_it_goes() {
    let world = World::new();
    let a = world.found("A");
    a.told(&["section", "add", "plant"]);
    let b = world.join("B", &a);
    a.told(&["topic", "add", PATH, "--type", "paged"]);
    a.told(&["page", "append", PATH, "mine"]);
    b.set(PATH, "\"ours\"");
    a.shows(PATH, "ours");
    assert_eq!(a.json(&["topic", "ls", PATH])[0]["remark"], "hides a paged topic of this node");
    let doctor = a.told(&["doctor"]);
    assert!(doctor.contains("hidden by replicated ones") && doctor.contains(PATH), "{doctor}");
    b.told(&["topic", "rm", PATH]);
    until("the list is seen again", || a.paths() == [PATH] && a.json(&["topic", "ls", PATH])[0]["type"] == "paged");
    assert_eq!(lines(&a.json(&["page", "show", PATH])), ["mine"]);
}

#[test]
fn a_long_list_takes_one_line_after_the_other_quickly() {
    let world = World::new();
    let a = world.found("A");
    a.told(&["topic", "add", "log", "--type", "paged"]);
    let line = "x".repeat(50);
    block(async {
        let client = a.connect().await;
        client.edit_lines("log", Splice::append(vec![line.clone(); 50_000])).await.expect("they are taken");
        let begun = std::time::Instant::now();
        for _ in 0..500 {
            client.edit_lines("log", Splice::append(vec![line.clone()])).await.expect("it is taken");
        }
        assert!(begun.elapsed().as_secs() < 30, "{:?} for 500 lines, each on the disk before the next", begun.elapsed());
        let (page, list) = client.lines("log", 50_499, 10).await.expect("the end of the list");
        assert_eq!((page.len(), list.lines), (2, 50_500));
    });
}
