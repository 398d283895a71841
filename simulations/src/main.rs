//! x
use mangrove_simulations::*;
fn main() {
    let file = std::env::args().nth(1).unwrap();
    let n: u64 = std::env::args().nth(2).unwrap().parse().unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    let s = scenario::Scenario::parse("x", &text).unwrap_or_else(|e| panic!("{e}"));
    let outs = run::many(&s, 0..n, 2, |_| {});
    for o in outs { println!("{:?}", o); }
}
