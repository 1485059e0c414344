//! What a device can do for XDP and AF_XDP, from the kernel's `netdev` generic-netlink family.
//!
//! The kernel's own word, so nobody guesses from a driver's name or tries a zero-copy bind to see (which can reset the
//! NIC). Source: Documentation/netlink/specs/netdev.yaml; the family is there since Linux 6.3.

use netlink_packet_core::{
    DecodeError, Emitable, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload, NlasIterator,
    ParseableParametrized,
};
use netlink_packet_generic::ctrl::nlas::GenlCtrlAttrs;
use netlink_packet_generic::ctrl::{GenlCtrl, GenlCtrlCmd};
use netlink_packet_generic::{GenlFamily, GenlHeader, GenlMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_GENERIC};
use std::io;

/// Bits of [`Features::xdp`] (`enum netdev_xdp_act`).
pub mod xdp {
    /// XDP_ABORTED, DROP, PASS, TX in the driver.
    pub const BASIC: u64 = 1;
    /// XDP_REDIRECT.
    pub const REDIRECT: u64 = 2;
    /// Takes redirected packets for transmit.
    pub const NDO_XMIT: u64 = 4;
    /// AF_XDP zero-copy.
    pub const XSK_ZEROCOPY: u64 = 8;
    /// Programs run on the NIC.
    pub const HW_OFFLOAD: u64 = 16;
    /// Multi-buffer receive.
    pub const RX_SG: u64 = 32;
    /// Multi-buffer transmit of redirected packets.
    pub const NDO_XMIT_SG: u64 = 64;
}

/// Bits of [`Features::rx_metadata`] (`enum netdev_xdp_rx_metadata`).
pub mod rx_metadata {
    /// Hardware receive time stamp.
    pub const TIMESTAMP: u64 = 1;
    /// Receive hash.
    pub const HASH: u64 = 2;
    /// VLAN tag the NIC stripped.
    pub const VLAN_TAG: u64 = 4;
}

/// Bits of [`Features::xsk`] (`enum netdev_xsk_flags`).
pub mod xsk {
    /// Transmit time stamps.
    pub const TX_TIMESTAMP: u64 = 1;
    /// The device finishes checksums.
    pub const TX_CHECKSUM: u64 = 2;
    /// Launch time.
    pub const TX_LAUNCH_TIME: u64 = 4;
}

/// What a device offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// See [`xdp`].
    pub xdp: u64,
    /// Frames a zero-copy packet may be spread over; 0 or 1 when it may not.
    pub zero_copy_max_segments: u32,
    /// See [`rx_metadata`].
    pub rx_metadata: u64,
    /// See [`xsk`].
    pub xsk: u64,
}

impl Features {
    /// Asks the kernel about interface `index`.
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] when the kernel has no netdev family (before Linux 6.3).
    pub fn of(index: u32) -> io::Result<Features> {
        let mut socket = Socket::new(NETLINK_GENERIC)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        let family = family_id::<DevGet>(&socket)?;
        let mut ask = GenlMessage::from_payload(DevGet::Ask { index });
        ask.set_resolved_family_id(family);
        match exchange(&socket, ask)?.payload {
            DevGet::Answer(features) => Ok(features),
            DevGet::Ask { .. } => Err(io::Error::other("the netdev family did not answer dev-get")),
        }
    }

    /// True when every bit of `bits` is in [`Features::xdp`].
    pub fn has(&self, bits: u64) -> bool {
        self.xdp & bits == bits
    }
}

impl std::fmt::Display for Features {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = [
            (xdp::BASIC, "basic"),
            (xdp::REDIRECT, "redirect"),
            (xdp::NDO_XMIT, "ndo-xmit"),
            (xdp::XSK_ZEROCOPY, "xsk-zerocopy"),
            (xdp::HW_OFFLOAD, "hw-offload"),
            (xdp::RX_SG, "rx-sg"),
            (xdp::NDO_XMIT_SG, "ndo-xmit-sg"),
        ];
        let on = names.iter().filter(|(bit, _)| self.has(*bit)).map(|(_, name)| *name);
        let on: Vec<_> = on.collect();
        write!(f, "{}", if on.is_empty() { "none".to_string() } else { on.join(" ") })
    }
}

/// The number the kernel gave the family of `F`.
pub(super) fn family_id<F: GenlFamily>(socket: &Socket) -> io::Result<u16> {
    let ask = GenlMessage::from_payload(GenlCtrl {
        cmd: GenlCtrlCmd::GetFamily,
        nlas: vec![GenlCtrlAttrs::FamilyName(F::family_name().to_string())],
    });
    let answer = exchange(socket, ask).map_err(|error| match error.raw_os_error() {
        Some(libc::ENOENT) => io::Error::new(
            io::ErrorKind::Unsupported,
            format!(
                "this kernel has no {} netlink family: a later one says what devices can do",
                F::family_name()
            ),
        ),
        _ => error,
    })?;
    let id = answer.payload.nlas.iter().find_map(|attribute| match attribute {
        GenlCtrlAttrs::FamilyId(id) => Some(*id),
        _ => None,
    });
    id.ok_or_else(|| io::Error::other(format!("the kernel gave the {} family no number", F::family_name())))
}

/// One question, one answer.
pub(super) fn exchange<F>(socket: &Socket, ask: GenlMessage<F>) -> io::Result<GenlMessage<F>>
where
    F: GenlFamily + Emitable + ParseableParametrized<[u8], GenlHeader> + Clone + std::fmt::Debug,
{
    let mut message = NetlinkMessage::from(ask);
    message.header.flags = NLM_F_REQUEST;
    message.finalize();
    let mut buffer = vec![0u8; message.buffer_len()];
    message.serialize(&mut buffer);
    socket.send(&buffer, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let answer = NetlinkMessage::<GenlMessage<F>>::deserialize(&answer).map_err(io::Error::other)?;
    match answer.payload {
        NetlinkPayload::InnerMessage(message) => Ok(message),
        NetlinkPayload::Error(error) => Err(error.to_io()),
        _ => Err(io::Error::other("unexpected answer to a generic netlink request")),
    }
}

/// `NETDEV_CMD_DEV_GET`.
const CMD_DEV_GET: u8 = 1;
/// `NETDEV_A_DEV_*`.
mod attribute {
    pub const IFINDEX: u16 = 1;
    pub const XDP_FEATURES: u16 = 3;
    pub const XDP_ZC_MAX_SEGS: u16 = 4;
    pub const XDP_RX_METADATA_FEATURES: u16 = 5;
    pub const XSK_FEATURES: u16 = 6;
}

#[derive(Clone, Debug)]
enum DevGet {
    Ask { index: u32 },
    Answer(Features),
}

impl GenlFamily for DevGet {
    fn family_name() -> &'static str {
        "netdev"
    }
    fn command(&self) -> u8 {
        CMD_DEV_GET
    }
    fn version(&self) -> u8 {
        1
    }
}

impl Emitable for DevGet {
    fn buffer_len(&self) -> usize {
        8
    }

    fn emit(&self, buffer: &mut [u8]) {
        let index = match self {
            DevGet::Ask { index } => *index,
            DevGet::Answer(_) => 0,
        };
        // One attribute: length (header included), type, value, in host order.
        buffer[..2].copy_from_slice(&8u16.to_ne_bytes());
        buffer[2..4].copy_from_slice(&attribute::IFINDEX.to_ne_bytes());
        buffer[4..8].copy_from_slice(&index.to_ne_bytes());
    }
}

impl ParseableParametrized<[u8], GenlHeader> for DevGet {
    fn parse_with_param(buffer: &[u8], _header: GenlHeader) -> Result<DevGet, DecodeError> {
        let mut features = Features::default();
        for attribute in NlasIterator::new(buffer) {
            let attribute = attribute?;
            // The kernel writes each as 32 or 64 bits; either is read.
            let value = attribute.value();
            let number = match value.len() {
                4 => u64::from(u32::from_ne_bytes(value.try_into().unwrap_or_default())),
                8 => u64::from_ne_bytes(value.try_into().unwrap_or_default()),
                _ => continue,
            };
            match attribute.kind() {
                attribute::XDP_FEATURES => features.xdp = number,
                attribute::XDP_ZC_MAX_SEGS => features.zero_copy_max_segments = number as u32,
                attribute::XDP_RX_METADATA_FEATURES => features.rx_metadata = number,
                attribute::XSK_FEATURES => features.xsk = number,
                _ => {}
            }
        }
        Ok(DevGet::Answer(features))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_attribute_by_attribute() {
        let mut bytes = Vec::new();
        let mut put = |kind: u16, value: &[u8]| {
            bytes.extend((4 + value.len() as u16).to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(value);
        };
        put(attribute::IFINDEX, &7u32.to_ne_bytes());
        put(attribute::XDP_FEATURES, &0x2bu64.to_ne_bytes());
        put(attribute::XDP_ZC_MAX_SEGS, &8u32.to_ne_bytes());
        put(attribute::XSK_FEATURES, &xsk::TX_CHECKSUM.to_ne_bytes());
        put(99, b"what a later kernel adds");
        let header = GenlHeader { cmd: CMD_DEV_GET, version: 1 };
        let DevGet::Answer(features) = DevGet::parse_with_param(&bytes, header).unwrap() else { panic!() };
        let expected = Features { xdp: 0x2b, zero_copy_max_segments: 8, rx_metadata: 0, xsk: 2 };
        assert_eq!(features, expected);
        assert_eq!(features.to_string(), "basic redirect xsk-zerocopy rx-sg");
    }

    #[test]
    fn the_kernel_answers_about_loopback_or_says_that_it_cannot() {
        match Features::of(1) {
            Ok(features) => assert!(!features.has(xdp::XSK_ZEROCOPY), "loopback has no rings: {features}"),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::Unsupported, "{error}"),
        }
    }

    #[test]
    fn an_unknown_device_is_an_error() {
        match Features::of(u32::MAX >> 1) {
            Ok(features) => panic!("a device that does not exist offers {features}"),
            Err(error) => assert!(
                error.raw_os_error() == Some(libc::ENODEV) || error.kind() == io::ErrorKind::Unsupported
            ),
        }
    }
}
