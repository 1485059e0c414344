//! Every fixture through `steer` on the host.

use crate::fixtures::{Host, all, rules};
use volley_steer::Counter;

#[test]
fn each_gets_the_verdict_beside_it() {
    let rules = rules();
    for fixture in all() {
        for socket in [true, false] {
            let outcome = Host::run(&rules, socket, &fixture.frame);
            assert_eq!(outcome, fixture.expected(socket), "{}, socket: {socket}", fixture.name);
        }
    }
}

#[test]
fn each_counter_has_one() {
    let fixtures = all();
    for counter in Counter::ALL {
        assert!(
            fixtures.iter().any(|fixture| fixture.bound.1 == *counter || fixture.unbound.1 == *counter),
            "no fixture is counted as {counter}"
        );
    }
}
