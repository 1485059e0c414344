//! Mangled packets: the program in the kernel and `steer` on the host never differ.

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};

use crate::fixtures::{Host, all, rules};
use crate::program::{LEAST_FRAME, steering};

/// A fixture's frame with bytes changed, cut, or lengthened. Most changes hit the first 64 bytes, where the
/// headers are.
fn mangled() -> impl Strategy<Value = Vec<u8>> {
    let fixtures = all();
    let at =
        prop_oneof![3 => (0usize..64).boxed(), 1 => any::<Index>().prop_map(|at| at.index(512)).boxed()];
    let changes = prop::collection::vec((at, any::<u8>()), 0..5);
    let cut = prop::option::weighted(0.3, any::<Index>());
    (any::<Index>(), changes, cut, prop::collection::vec(any::<u8>(), 0..16)).prop_map(
        move |(which, changes, cut, more)| {
            let mut frame = which.get(&fixtures).frame.clone();
            for (at, value) in changes {
                if let Some(byte) = frame.get_mut(at) {
                    *byte = value;
                }
            }
            if let Some(cut) = cut {
                frame.truncate(cut.index(frame.len() + 1));
            }
            frame.extend(more);
            frame.resize(frame.len().max(LEAST_FRAME), 0);
            frame
        },
    )
}

#[test]
fn kernel_and_host_agree() {
    let rules = rules();
    for (name, program) in steering() {
        let program = std::cell::RefCell::new(program);
        program.borrow_mut().set_rules(0, &rules);
        // One after the other: taking a socket away waits for every CPU.
        for socket in [true, false] {
            let mut runner =
                TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(2048) });
            let result = runner.run(&mangled(), |frame| {
                let kernel = program.borrow_mut().run(socket, &frame);
                prop_assert_eq!(kernel, Host::run(&rules, socket, &frame));
                Ok(())
            });
            if let Err(error) = result {
                panic!("{name}, socket: {socket}: {error}");
            }
        }
    }
}
