//! IPv6 extension headers: from the fixed header to what the packet carries (RFC 8200, 4).
//!
//! The one walk for datagrams ([`super::parse`]) and for everything else ([`super::ip`]). It never goes on behind a fragment header:
//! what follows is a piece of something.

use volley_wire::DropReason;
use volley_wire::ipv4::protocol;
use volley_wire::ipv6::{self, ExtensionHeader};
use zerocopy::FromBytes;

/// What is behind a header of an IPv6 packet.
#[derive(Clone, Copy)]
pub(super) struct Upper<'a> {
    /// Which header begins there.
    pub protocol: u8,
    /// The packet from there on, as far as it is in the first frame.
    pub bytes: &'a [u8],
    /// Bytes from there to the end of the IP packet.
    pub left: usize,
}

/// Goes past the extension headers that an endpoint may skip. On its own, so that packets without any do not carry it along.
///
/// # Errors
/// More or longer headers than there may be, a source route, or a fragment.
#[inline(never)]
pub(super) fn skip(mut upper: Upper<'_>) -> Result<Upper<'_>, DropReason> {
    let mut depth = 0;
    while ipv6::is_skippable(upper.protocol) {
        if depth == ipv6::MAX_EXTENSION_HEADERS {
            return Err(DropReason::Ipv6ExtensionLimit);
        }
        let truncated = DropReason::Ipv6ExtensionTruncated;
        let (extension, _) = ExtensionHeader::ref_from_prefix(upper.bytes).map_err(|_| truncated)?;
        let len = extension.header_len();
        if len > upper.left || len > upper.bytes.len() {
            return Err(truncated);
        }
        // Byte 3 of a routing header counts the hops still to visit (RFC 8200, 4.4): with any left, we are not the
        // destination, and the checksum is over another address.
        if upper.protocol == protocol::ROUTING && upper.bytes[3] != 0 {
            return Err(DropReason::SourceRoute);
        }
        upper =
            Upper { protocol: extension.next_header, bytes: &upper.bytes[len..], left: upper.left - len };
        depth += 1;
    }
    match upper.protocol {
        protocol::FRAGMENT => Err(DropReason::Fragment),
        _ => Ok(upper),
    }
}
