//! What is refused, with what is said, and which paths an override is of.

use mangrove_simulations::{dice::Amount, scenario::Loss};

use super::scenario;

/// What is said about a path like this.
fn refused(path: &str) -> String {
    scenario(&format!("[network.default]\n{path}")).expect_err(path)
}

#[test]
fn distributions_are_read_strictly() {
    let refused = |dist: &str| refused(&format!("latency = {{ {dist} }}"));
    assert!(refused("dist = \"parato\"").contains("did you mean pareto?"));
    assert!(refused("dist = \"uniform\", min = \"2ms\"").contains("network.default.latency.max: is missing"));
    assert!(refused("dist = \"uniform\", min = \"2ms\", max = \"1ms\"").contains("min: is above max"));
    assert!(refused("dist = \"uniform\", min = 1, max = 2").contains("latency.min: must be a duration with its unit"));
    assert!(refused("dist = \"exponential\", mean = \"1ms\", max = \"2ms\"").contains("there is no such key"));
    assert!(refused("dist = \"lognormal\", median = \"1ms\", sigma = 0").contains("sigma: must be above 0"));
}

#[test]
fn samples_say_in_which_line_of_which_file_something_is_wrong() {
    let with = |name: &str, text: &str, rest: &str| {
        std::fs::write(std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name), text).expect("a scratch directory");
        refused(&format!("latency = {{ dist = \"empirical\", file = \"{name}\", {rest} }}"))
    };
    let column = "column = \"ms\", unit = \"ms\"";
    assert!(with("1.csv", "at,ms\n0,1\n\n1,x\n", column).contains("latency.file: 1.csv:4: \"x\" is not a number"));
    assert!(with("2.csv", "at,ms\n0\n", column).contains("2.csv:2: has no column \"ms\""));
    assert!(with("3.csv", "at,mss\n0,1\n", column).contains("3.csv:1: there is no column \"ms\"; did you mean mss?"));
    assert!(with("4.csv", "at,ms\n", column).contains("4.csv:1: there are no samples below"));
    assert!(with("5.csv", "ms\n1\n", "column = \"ms\"").contains("latency.unit: is missing: one of us, ms, s"));
    assert!(with("6.csv", "ms\n1\n", "column = \"ms\", unit = \"KiB\"").contains("\"KiB\" is none of us, ms"));
    let text = "[network.default]\nlatency = { dist = \"empirical\", file = \"nowhere.csv\", column = \"ms\", unit = \"ms\" }";
    assert!(scenario(text).expect_err("no file").contains("nowhere.csv: No such file"));
}

#[test]
fn loss_and_queue_are_read_strictly() {
    let loss = |rest: &str| refused(&format!("loss = {{ model = \"gilbert-elliott\", p = 0.1, {rest} }}"));
    assert!(loss("r = 0.3, time_base = \"continous\"").contains("did you mean continuous?"));
    assert!(loss("r = 0.9, time_base = \"continuous\"").contains("loss.r: must be less than 1 together with p"));
    assert!(loss("r = 0.3, time_base = \"continuous\", step = \"1us\"").contains("step: must be at least 100us"));
    assert!(loss("r = 0.3, step = \"1ms\"").contains("loss.step: there is no such key"));
    assert!(refused("queue = { bytes = \"4KiB\", drop = \"tail\" }").contains("never fills without a bandwidth"));
    assert!(refused("corrupt = 2").contains("must be a share"));
    let topics = |choice: &str| scenario(&format!("[workload]\ntopics = {{ choice = {choice} }}")).expect_err(choice);
    assert!(topics("{ dist = \"zapf\", s = 1 }").contains("did you mean zipf?"));
    assert!(topics("{ dist = \"zipf\" }").contains("workload.topics.choice.s: must be above 0"));
}

#[test]
fn an_override_is_of_one_direction_or_of_both() {
    let text = |both: bool| {
        format!(
            "[network.default]\nlatency = \"1ms\"\n[[network.link]]\nfrom = \"a*\"\nto = \"b*\"\nboth = {both}\nlatency = \"9ms\"\nloss = 0.1"
        )
    };
    for both in [false, true] {
        let scenario = scenario(&text(both)).expect("a good scenario");
        let overrides: Vec<_> = scenario.paths.iter().map(|path| (path.from.clone(), path.to.clone())).collect();
        let forth = (vec![0, 1], vec![2]);
        let back = (vec![2], vec![0, 1]);
        assert_eq!(overrides, if both { vec![back, forth] } else { vec![forth] });
        assert!(scenario.paths.iter().all(|over| over.path.latency == Amount::Constant(9_000.0)));
        let mut network = mangrove_simulations::network::Network::new(1, &scenario);
        let delays = [(0, 2), (1, 2), (2, 0), (2, 1), (0, 1)].map(|(from, to)| network.delay(0, from, to));
        let back = if both { 9_000 } else { 1_000 };
        assert_eq!(delays, [9_000, 9_000, back, back, 1_000]);
    }
}

#[test]
fn states_that_never_change_lose_as_the_good_one() {
    assert_eq!(Loss::in_time(0.0, 0.0, 0.25, 1.0, 1_000.0), Some(Loss::Bernoulli(0.25)));
}
