use super::super::check::Answer;
use super::super::ethtool::{Target, UdpRule};
use super::super::tree::recorded;
use super::*;

fn offloads(on: &[&str]) -> BTreeMap<String, bool> {
    let all = [
        "rx-lro",
        "rx-gro",
        "rx-gro-hw",
        "tx-checksum-ip-generic",
        "tx-tcp-segmentation",
        "tx-generic-segmentation",
    ];
    all.iter().map(|name| ((*name).to_owned(), on.contains(name))).collect()
}

/// A NIC on which everything is as it should be.
fn good() -> Device {
    Device {
        link: Link {
            name: "eth1".to_owned(),
            index: 3,
            mtu: 1500,
            mac: [2, 0, 0, 0, 0, 1],
            queues: Some(4),
            up: true,
        },
        driver: Driver { name: "ice".to_owned(), bus: "0000:00:03.0".to_owned() },
        offloads: offloads(&["tx-checksum-ip-generic"]),
        features: Ok(Features {
            xdp: xdp::BASIC | xdp::REDIRECT | xdp::XSK_ZEROCOPY | xdp::RX_SG,
            zero_copy_max_segments: 8,
            ..Features::default()
        }),
        spread: Spread { queues: Some(4), rss: Ok(vec![0, 1, 2, 3]), rules: Vec::new() },
        program: Program::None,
        peer: Peer::None,
    }
}

const TREE: [(&str, &str); 8] = [
    ("sys/devices/system/cpu/online", "0-7"),
    ("sys/devices/system/cpu/isolated", "2-3"),
    ("sys/bus/pci/devices/0000:00:03.0/numa_node", "1\n"),
    ("sys/bus/pci/devices/0000:00:03.0/msi_irqs/40", "msix"),
    ("sys/bus/pci/devices/0000:00:03.0/msi_irqs/41", "msix"),
    ("sys/devices/system/node/node1/cpulist", "4-7\n"),
    ("proc/irq/40/effective_affinity_list", "0\n"),
    ("proc/irq/41/smp_affinity_list", "1\n"),
];
const INTERRUPTS: (&str, &str) = (
    "proc/interrupts",
    "      CPU0  CPU1\n 40:  5  0  PCI-MSIX-0000:00:03.0  0-edge  ice-eth1-TxRx-0\n 41:  0  7  PCI-MSIX 1-edge  ice-eth1-TxRx-1\n",
);

fn check(device: &Device, name: &str) -> Check {
    check_on(device, name, &[])
}

fn check_on(device: &Device, name: &str, more: &[(&str, &str)]) -> Check {
    check_for(device, name, more, &Service::default())
}

fn check_for(device: &Device, name: &str, more: &[(&str, &str)], service: &Service) -> Check {
    let files: Vec<_> = TREE.into_iter().chain([INTERRUPTS]).chain(more.iter().copied()).collect();
    let (_dir, tree) = recorded(&files);
    let checks = device.checks(&tree, service);
    checks.into_iter().find(|check| check.name == name).unwrap_or_else(|| panic!("no check of {name}"))
}

#[test]
fn a_good_nic_is_open_throughout() {
    let files: Vec<_> = TREE.into_iter().chain([INTERRUPTS]).collect();
    let (_dir, tree) = recorded(&files);
    let service = Service { cores: vec![4, 5], ..Service::default() };
    for check in good().checks(&tree, &service) {
        assert_eq!((check.answer, &check.remedy), (Answer::Open, &None), "{check:?}");
    }
    assert_eq!(check(&good(), "numa node").found, "1: its cores are 4-7");
    assert_eq!(check(&good(), "interrupts").found, "40 ice-eth1-TxRx-0 → 0, 41 ice-eth1-TxRx-1 → 1");
    assert_eq!(check(&good(), "zero-copy").found, "yes, packets of up to 8 frames");
}

#[test]
fn each_fault_is_closed_with_its_remedy() {
    type Fault = fn(&mut Device);
    let faults: [(&str, bool, &str, Fault); 10] = [
        ("interface", true, "ip link set dev eth1 up", |device| device.link.up = false),
        ("xdp", false, "a NIC whose driver has it", |device| device.features = Ok(Features::default())),
        ("zero-copy", false, "a NIC whose driver has it", |device| {
            device.features = Ok(Features { xdp: xdp::BASIC | xdp::REDIRECT, ..Features::default() });
        }),
        ("queues", false, "ethtool -L eth1 combined 8", |device| device.link.queues = Some(64)),
        ("mtu", false, "ip link set dev eth1 mtu 1770", |device| {
            device.link.mtu = 9000;
            device.features = Ok(Features { xdp: xdp::BASIC | xdp::REDIRECT, ..Features::default() });
        }),
        ("offloads", false, "ethtool -K eth1 lro off rx-gro-hw off", |device| {
            device.offloads = offloads(&["rx-lro", "rx-gro-hw"]);
        }),
        ("gro", false, "ethtool -K eth1 gro off", |device| device.offloads = offloads(&["rx-gro"])),
        ("steering", false, "ethtool -N eth1 delete 1", |device| {
            let stray = UdpRule {
                location: 1,
                ipv4: true,
                port: 7777,
                port_mask: 0xffff,
                any_peer: true,
                to: Target::Dropped,
            };
            device.spread.rules = vec![stray];
        }),
        ("veth peer", false, "ethtool -K eth9 tx off tso off gso off", |device| {
            device.peer = Peer::Here("eth9".to_owned(), offloads(&["tx-checksum-ip-generic"]));
        }),
        ("xdp program", true, "volley run eth1 --replace", |device| {
            device.program = Program::Foreign("XDP program 42".to_owned());
        }),
    ];
    for (name, needed, remedy, fault) in faults {
        let mut device = good();
        fault(&mut device);
        let check = check(&device, name);
        assert_eq!((check.answer, check.is_fatal()), (Answer::Closed, needed), "{check:?}");
        assert!(check.remedy.as_ref().unwrap().contains(remedy), "{check:?}");
    }
}

#[test]
fn what_is_not_a_fault_is_open_and_what_cannot_be_told_unknown() {
    let mut device = good();
    device.link.mtu = 9000;
    assert_eq!(check(&device, "mtu").answer, Answer::Open, "the driver takes chains");
    device.program = Program::Ours("XDP program 42 of Volley".to_owned());
    assert_eq!(check(&device, "xdp program").answer, Answer::Open);
    device.peer = Peer::Here("eth9".to_owned(), offloads(&[]));
    assert_eq!(check(&device, "veth peer").answer, Answer::Open);
    device.peer = Peer::Elsewhere;
    device.features = Err(io::ErrorKind::Unsupported.into());
    device.offloads.clear();
    device.program = Program::Unknown("no netlink".to_owned());
    for name in ["xdp program", "veth peer", "xdp", "zero-copy", "mtu", "offloads", "gro"] {
        let check = check(&device, name);
        assert!(check.answer == Answer::Unknown && check.remedy.is_some(), "{check:?}");
    }
}

#[test]
fn interrupts_in_a_workers_way_are_found() {
    let moved = check_on(&good(), "interrupts", &[("proc/irq/41/effective_affinity_list", "3")]);
    assert!(moved.answer == Answer::Closed && moved.remedy.unwrap().contains("/proc/irq/41/"));
    let balanced = check_on(&good(), "interrupts", &[("proc/99/comm", "irqbalance\n")]);
    assert!(balanced.answer == Answer::Closed && balanced.remedy.unwrap().contains("irqbalance"));
    // Not isolated, but a worker's.
    let service = Service { cores: vec![1], ..Service::default() };
    let shared = check_for(&good(), "interrupts", &[], &service);
    assert!(shared.found.ends_with("irq 41 runs on core 1, a worker's"), "{shared:?}");
    assert!(shared.remedy.unwrap().starts_with("echo 0 > /proc/irq/41/"), "a core without a worker");
    let mut device = good();
    device.driver.bus.clear();
    assert_eq!(check(&device, "interrupts").found, "none of its own");
}

#[test]
fn a_worker_on_another_node_than_the_nic_is_found() {
    let on = |cores: &[u32]| {
        check_for(&good(), "numa node", &[], &Service { cores: cores.to_vec(), ..Service::default() })
    };
    assert_eq!(on(&[4, 7]).answer, Answer::Open);
    let far = on(&[3, 4]);
    assert!(far.answer == Answer::Closed && far.found.contains("workers on core 3 reach"), "{far:?}");
    assert!(far.remedy.unwrap().contains("4-7"));
}

#[test]
fn frames_of_the_size_asked_for_are_what_the_mtu_must_fit() {
    let mut device = good();
    device.link.mtu = 3000;
    device.features = Ok(Features { xdp: xdp::BASIC | xdp::REDIRECT, ..Features::default() });
    assert_eq!(check(&device, "mtu").answer, Answer::Closed);
    let large = Service { chunk: 4096, ..Service::default() };
    assert_eq!(check_for(&device, "mtu", &[], &large).answer, Answer::Open);
}

#[test]
fn a_veth_needs_gro() {
    let mut device = good();
    device.offloads = offloads(&["rx-gro"]);
    device.driver = Driver { name: "veth".to_owned(), bus: String::new() };
    assert_eq!(check(&device, "gro").answer, Answer::Open);
}

#[test]
fn a_wrong_name_lists_the_right_ones() {
    let check = &checks(&Tree::root(), "no-such-if", &Service::default())[0];
    assert!(check.is_fatal() && check.found.starts_with("no-such-if: "));
    assert!(check.remedy.as_ref().unwrap().contains("lo"));
}
