//! Kernels that are set up otherwise: without options, with ECN, with tiny buffers, over links of other sizes.

use crate::rig::{Rig, V4, V6, assert_echoed, patient, pattern};
use std::net::{SocketAddr, TcpStream};
use volley::app::tcp::TcpEcho;
use volley_testlab::{Impairment, Lab, LabOptions, cannot_run, require_root};

const BAD: Impairment = Impairment { loss: 0.02, duplicate: 0.02, reorder: 0.02 };

fn sysctl(rig: &Rig, settings: &[&str]) {
    for setting in settings {
        rig.lab.peer().exec(["sysctl", "-q", "-w", setting]);
    }
}

#[test]
fn kernels_without_options_are_understood_over_a_bad_link() {
    if !require_root() {
        return;
    }
    const SETTINGS: [(&str, &[&str]); 8] = [
        ("plain", &[]),
        ("no SACK", &["net.ipv4.tcp_sack=0"]),
        ("no timestamps", &["net.ipv4.tcp_sack=1", "net.ipv4.tcp_timestamps=0"]),
        ("no scaling", &["net.ipv4.tcp_timestamps=1", "net.ipv4.tcp_window_scaling=0"]),
        ("no option at all", &["net.ipv4.tcp_sack=0", "net.ipv4.tcp_timestamps=0"]),
        (
            "ECN",
            &[
                "net.ipv4.tcp_sack=1",
                "net.ipv4.tcp_timestamps=1",
                "net.ipv4.tcp_window_scaling=1",
                "net.ipv4.tcp_ecn=1",
            ],
        ),
        (
            "no D-SACK, no RACK, no F-RTO",
            &["net.ipv4.tcp_dsack=0", "net.ipv4.tcp_recovery=0", "net.ipv4.tcp_frto=0"],
        ),
        ("a tiny window", &["net.ipv4.tcp_rmem=4096 4096 4096"]),
    ];
    let rig = Rig::start(TcpEcho::default);
    let mut impair = rig.lab.impair();
    for (n, (what, settings)) in SETTINGS.into_iter().enumerate() {
        sysctl(&rig, settings);
        for (address, impairment) in [(V4, Impairment::default()), (V6, BAD)] {
            impair.set_both(impairment);
            let began = std::time::Instant::now();
            let stream = rig.connect(address);
            assert_echoed(&stream, &pattern(n as u64, 200_000));
            eprintln!("{what}, {address}: {:?}", began.elapsed());
        }
    }
    impair.set_both(Impairment::default());
    let report = rig.stop();
    assert_eq!(report.total.streams.reset + report.total.streams.timed_out, 0, "{report}");
}

#[test]
fn a_multipath_client_falls_back_to_plain_tcp() {
    if !require_root() {
        return;
    }
    let multipath = |address| {
        let protocol = socket2::Protocol::from(libc::IPPROTO_MPTCP);
        socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, Some(protocol))
    };
    if let Err(error) = multipath(V4) {
        cannot_run(&format!("this kernel has no multipath TCP: {error}"));
        return;
    }
    let rig = Rig::start(TcpEcho::default);
    for address in [V4, V6] {
        let stream = rig.lab.peer().run(|| {
            let socket = multipath(address).unwrap();
            socket.connect(&address.into()).unwrap();
            TcpStream::from(socket)
        });
        patient(&stream);
        assert_echoed(&stream, &pattern(9, 1 << 20));
    }
    rig.stop();
}

fn over_mtu(mtu: u32, address: SocketAddr) {
    let lab = Lab::with(LabOptions { mtu: mtu.max(1280), ..LabOptions::default() });
    if mtu < 1280 {
        // No IPv6 goes over such a link (RFC 8200, section 5), so the lab does not offer one.
        lab.engine().exec(["ip", "link", "set", lab.engine_if(), "mtu", &mtu.to_string()]);
        lab.peer().exec(["ip", "link", "set", lab.peer_if(), "mtu", &mtu.to_string()]);
    }
    let rig = Rig::on(lab, |_| {}, TcpEcho::default);
    let mut impair = rig.lab.impair();
    impair.set_both(BAD);
    let stream = rig.connect(address);
    assert_echoed(&stream, &pattern(u64::from(mtu), 400_000));
    drop(stream);
    impair.set_both(Impairment::default());
    let report = rig.stop();
    if mtu == 9000 {
        // Segments of 1,460 bytes would be 274 and more; of 8,948 they are 45, with what was lost and acknowledgments.
        assert!(report.total.streams.segments_sent < 250, "{report}");
    }
}

#[test]
fn small_and_large_links_carry_the_same_bytes() {
    if !require_root() {
        return;
    }
    over_mtu(576, V4);
    over_mtu(1280, V6);
    over_mtu(9000, V4);
    over_mtu(9000, V6);
}

#[test]
fn a_client_whose_link_is_smaller_than_ours_is_sent_smaller_segments() {
    if !require_root() {
        return;
    }
    let rig = Rig::start(TcpEcho::default);
    rig.lab.peer().exec(["ip", "link", "set", rig.lab.peer_if(), "mtu", "600"]);
    let stream = rig.connect(V4);
    assert_echoed(&stream, &pattern(6, 400_000));
    drop(stream);
    let report = rig.stop();
    // 560 bytes less options: no more than that fits each segment we sent.
    assert!(report.total.streams.segments_sent > 400_000 / 560, "{report}");
}
