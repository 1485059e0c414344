//! The limit on SYNs in the kernel, with the kernel's clock.

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use volley_steer::abi::{Counter, RuleEntry};
use volley_steer::{Action, Unbound};

use crate::fixtures::{all, rules};
use crate::program::steering;

#[test]
fn a_burst_of_syns_passes_and_the_rest_is_dropped_and_counted() {
    // Buckets are per CPU: all runs on one.
    let mut cpu = CpuSet::new();
    cpu.set(0).expect("there is a CPU 0");
    sched_setaffinity(Pid::from_raw(0), &cpu).expect("this thread may run on CPU 0");
    let fixtures = all();
    let mut table = rules();
    let list = usize::from(table.tcp[7788]);
    table.lists[list].rules[0] =
        RuleEntry::any(Action::Redirect { unbound: Unbound::Pass }).syn_limit(1, 5, 9);
    for (name, mut program) in steering() {
        program.set_rules(0, &table);
        let mut count = |frame: &str, what: Counter, runs: usize| {
            let bytes = fixtures.iter().find(|f| f.name == frame).expect("it is there").frame.clone();
            (0..runs).filter(|_| program.run(true, &bytes).1 == what).count()
        };
        let admitted = count("tcp_syn_limited", Counter::Redirected, 40);
        // One more for each second that this has taken.
        assert!((5..=15).contains(&admitted), "{name}: {admitted} of 40");
        assert!(count("tcp_syn_limited", Counter::SynLimited, 5) > 0, "{name}");
        assert_eq!(count("tcp_data_not_limited", Counter::Redirected, 20), 20, "{name}");
    }
}
