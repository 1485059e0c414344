//! Our parser against smoltcp's: on any bytes they agree on what is a segment, and on what it says.
#![no_main]

use libfuzzer_sys::fuzz_target;
use smoltcp::wire::{TcpOption, TcpPacket};
use volley_tcp::fuzzing::parse;
use volley_tcp::{Drop, SegmentIn};
use volley_tcp_fuzz::{address, is_right, mend_checksum};

fuzz_target!(|data: &[u8]| {
    let [choice, bytes @ ..] = data else { return };
    let (source, destination) = match choice & 1 {
        0 => (address("192.0.2.2:0").ip(), address("192.0.2.1:0").ip()),
        _ => (address("[2001:db8::2]:0").ip(), address("[2001:db8::1]:0").ip()),
    };
    let mut bytes = bytes.to_vec();
    if choice & 6 != 6 {
        mend_checksum(source, destination, &mut bytes);
    }
    let input =
        SegmentIn { source, destination, ecn: 0, checksum: Default::default(), path: 0, bytes: &bytes };
    let ours = parse(&input);
    let Ok(theirs) = TcpPacket::new_checked(&bytes[..]) else {
        assert!(matches!(ours, Err(Drop::Runt | Drop::HeaderLength)), "{ours:?}");
        return;
    };
    assert!(!matches!(ours, Err(Drop::Runt | Drop::HeaderLength)), "{ours:?}");
    // (Their verification says yes to everything when it is fuzzed.)
    let right = is_right(source, destination, &bytes);
    assert_eq!(right, ours != Err(Drop::Checksum));
    if !right {
        return;
    }
    if theirs.src_port() == 0 {
        assert_eq!(ours, Err(Drop::BadSource));
        return;
    }
    // The options, one by one. What they call an error is either a length that cannot be, which we refuse, too, or one that is
    // wrong for its kind, which we step over; then the rest is not comparable.
    let (mut mss, mut scale, mut permitted, mut stamps, mut sack) = (None, None, false, None, Vec::new());
    let mut rest = theirs.options();
    let mut whole = true;
    while !rest.is_empty() {
        let Ok((after, option)) = TcpOption::parse(rest) else {
            whole = false;
            break;
        };
        match option {
            TcpOption::EndOfList => break,
            TcpOption::NoOperation => {}
            TcpOption::MaxSegmentSize(value) => mss = Some(value),
            TcpOption::WindowScale(value) => scale = Some(value.min(14)),
            TcpOption::SackPermitted => permitted = true,
            TcpOption::SackRange(_) => {
                // Theirs keeps three blocks, ours the four that fit: read them here.
                let body = &rest[2..usize::from(rest[1])];
                if body.len() % 8 == 0 {
                    sack.extend(body.chunks_exact(8).map(|block| {
                        let word = |at: usize| u32::from_be_bytes(block[at..at + 4].try_into().unwrap());
                        (word(0), word(4))
                    }));
                }
            }
            TcpOption::TimeStamp { tsval, tsecr } => stamps = Some((tsval, tsecr)),
            TcpOption::Unknown { .. } => {}
        }
        rest = after;
    }
    let ours = match ours {
        Ok(ours) => ours,
        Err(reason) => {
            assert_eq!((reason, whole), (Drop::BadOption, false));
            return;
        }
    };
    let flags = [
        (theirs.fin(), 1u8),
        (theirs.syn(), 2),
        (theirs.rst(), 4),
        (theirs.psh(), 8),
        (theirs.ack(), 16),
        (theirs.urg(), 32),
        (theirs.ece(), 64),
        (theirs.cwr(), 128),
    ];
    assert_eq!(ours.flags, flags.iter().filter(|(set, _)| *set).map(|(_, bit)| bit).sum::<u8>());
    assert_eq!(ours.ports, (theirs.src_port(), theirs.dst_port()));
    assert_eq!((ours.seq, ours.ack), (theirs.seq_number().0 as u32, theirs.ack_number().0 as u32));
    assert_eq!(ours.window, theirs.window_len());
    assert_eq!(&bytes[ours.offset..ours.offset + ours.len], theirs.payload());
    if whole {
        assert_eq!((ours.mss, ours.window_scale), (mss, scale));
        assert_eq!((ours.sack_permitted, ours.timestamps), (permitted, stamps));
        assert_eq!(ours.sack, sack);
    }
});
