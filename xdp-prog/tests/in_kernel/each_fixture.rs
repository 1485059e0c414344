//! Every fixture: the program, `steer` on the host, and the verdict written beside it agree.

use volley_steer::Verdict;
use volley_steer::abi::{Counter, RuleTable};
use volley_steer::zerocopy::FromZeros;

use crate::fixtures::{Host, all, rules};
use crate::program::{LEAST_FRAME, steering};

#[test]
fn each_gets_the_verdict_beside_it() {
    let rules = rules();
    for (name, mut program) in steering() {
        program.set_rules(0, &rules);
        let mut run = 0;
        for fixture in all().into_iter().filter(|fixture| fixture.frame.len() >= LEAST_FRAME) {
            for socket in [true, false] {
                let expected = fixture.expected(socket);
                let host = Host::run(&rules, socket, &fixture.frame);
                let kernel = program.run(socket, &fixture.frame);
                assert_eq!(kernel, expected, "{name}, {}, socket: {socket}", fixture.name);
                assert_eq!(host, expected, "on the host, {}, socket: {socket}", fixture.name);
                run += 1;
            }
        }
        assert!(run > 200, "only {run} runs");
    }
}

#[test]
fn without_rules_everything_is_passed() {
    for (name, mut program) in steering() {
        for fixture in all().into_iter().filter(|fixture| fixture.frame.len() >= LEAST_FRAME) {
            let (verdict, _) = program.run(true, &fixture.frame);
            assert_eq!(verdict, Verdict::Pass, "{name}, {}", fixture.name);
        }
    }
}

#[test]
fn the_generation_selects_the_half() {
    let fixtures = all();
    let common = &fixtures.iter().find(|fixture| fixture.name == "ipv4_udp").expect("it is there").frame;
    let none = RuleTable::new_box_zeroed().expect("memory for a rule table");
    for (name, mut program) in steering() {
        program.set_rules(0, &none);
        program.set_rules(1, &rules());
        for generation in [0, 1, 2, 3, u32::MAX - 1, u32::MAX] {
            program.set_generation(generation);
            let expected = if generation % 2 == 0 { Counter::NoRule } else { Counter::Redirected };
            let (_, counter) = program.run(true, common);
            assert_eq!(counter, expected, "{name}, generation {generation}");
        }
    }
}
