//! Between the flags of frames and those of mbufs: checksums, and the VLAN tag a device takes off and puts on.

use crate::frame::{Frame, flag};
use volley_dpdk::mbuf::{rx, tx, tx_lengths};
use volley_dpdk::{Mbuf, Offloads};
use volley_wire::ethernet::{self, EthernetHeader, VlanTag, ethertype};
use volley_wire::ipv4::Ipv4Header;
use zerocopy::FromBytes;

/// What the device found of the packet's checksums, as frame flags.
#[inline(always)]
pub(super) fn received(mbuf: &Mbuf, flags: u64) -> u8 {
    let l4 = flags & rx::L4_MASK;
    if l4 == rx::L4_GOOD && (flags & rx::IP_MASK == rx::IP_GOOD || mbuf.is_ipv6()) {
        flag::CHECKSUM_VERIFIED
    } else if l4 == rx::L4_NONE {
        // From memory that never was a wire: the field holds the pseudo-header's sum.
        flag::CHECKSUM_PARTIAL
    } else {
        0
    }
}

/// Asks the device to finish the transport checksum of a frame that [`Frame::set_partial_checksum`] or the net layer has marked:
/// flags for the mbuf, whose header lengths are set here. `None` when the packet is not one the device would understand.
pub(super) fn checksum(frame: &mut Frame, mbuf: &mut Mbuf, offloads: Offloads) -> Option<u64> {
    let noted = frame.partial_checksum();
    let bytes = frame.bytes_mut();
    let (header, mut rest) = EthernetHeader::ref_from_prefix(bytes).ok()?;
    let (mut kind, mut l2) = (header.ethertype.get(), EthernetHeader::LEN);
    while ethernet::is_vlan(kind) {
        let (tag, after) = VlanTag::ref_from_prefix(rest).ok()?;
        (kind, rest, l2) = (tag.ethertype.get(), after, l2 + VlanTag::LEN);
    }
    let (l3, mut flags) = match kind {
        ethertype::IPV4 => (Ipv4Header::ref_from_prefix(rest).ok()?.0.header_len(), tx::IPV4),
        // Extension headers lie between; what counts is where the transport begins.
        ethertype::IPV6 => (volley_wire::ipv6::Ipv6Header::LEN, tx::IPV6),
        _ => return None,
    };
    let (l3, tcp) = match noted {
        Some((start, field)) => ((usize::from(start)).checked_sub(l2)?, field == 16),
        None => (l3, false),
    };
    flags |= if tcp { tx::TCP } else { tx::UDP };
    if kind == ethertype::IPV4 && offloads.has(Offloads::TX_IPV4_CHECKSUM) {
        let (header, _) = Ipv4Header::mut_from_prefix(&mut bytes[l2..]).ok()?;
        header.checksum.set(0);
        flags |= tx::IP;
    }
    mbuf.set_lengths(tx_lengths(l2 as u64, l3 as u64));
    Some(flags)
}

/// Bytes of the two MAC addresses, behind which the tag stands.
const MACS: usize = 12;

/// Bits of a tag that name the VLAN.
const VID: u16 = 0x0fff;

/// Takes the tag of VLAN `vlan` off a received packet, unless the device has. `None`: the packet is in another VLAN, or in none.
#[inline]
pub(super) fn untag(mbuf: &mut Mbuf, flags: u64, vlan: u16) -> Option<()> {
    if flags & rx::VLAN_STRIPPED != 0 {
        return (mbuf.vlan_tci() & VID == vlan).then_some(());
    }
    let bytes = mbuf.bytes_mut();
    let (header, rest) = EthernetHeader::ref_from_prefix(bytes).ok()?;
    let (tag, _) = VlanTag::ref_from_prefix(rest).ok()?;
    if header.ethertype.get() != ethertype::VLAN || tag.tci.get() & VID != vlan {
        return None;
    }
    bytes.copy_within(..MACS, VlanTag::LEN);
    let (offset, len, packet) = (mbuf.data_off(), mbuf.data_len(), mbuf.packet_len());
    mbuf.set_data_off(offset + VlanTag::LEN as u16);
    mbuf.set_data_len(len - VlanTag::LEN as u16);
    mbuf.set_packet_len(packet - VlanTag::LEN as u32);
    Some(())
}

/// Puts the tag of VLAN `vlan` before what the Ethernet header of a packet to send announces. False when there is no
/// headroom for it.
#[inline]
#[must_use]
pub(super) fn tag(mbuf: &mut Mbuf, vlan: u16) -> bool {
    let (offset, len, packet) = (mbuf.data_off(), mbuf.data_len(), mbuf.packet_len());
    if usize::from(offset) < VlanTag::LEN || usize::from(len) < EthernetHeader::LEN {
        return false;
    }
    mbuf.set_data_off(offset - VlanTag::LEN as u16);
    mbuf.set_data_len(len + VlanTag::LEN as u16);
    mbuf.set_packet_len(packet + VlanTag::LEN as u32);
    let bytes = mbuf.bytes_mut();
    bytes.copy_within(VlanTag::LEN..VlanTag::LEN + MACS, 0);
    bytes[MACS..MACS + 2].copy_from_slice(&ethertype::VLAN.to_be_bytes());
    bytes[MACS + 2..MACS + 4].copy_from_slice(&vlan.to_be_bytes());
    true
}

/// Undoes [`tag`] in the packet's bytes, for a packet that was not taken. Its place and length are the frame's to say.
#[cold]
pub(super) fn untag_again(mbuf: &mut Mbuf) {
    mbuf.bytes_mut().copy_within(..MACS, VlanTag::LEN);
}
