//! Metrics of routes (RTA_METRICS, rtnetlink(7)): nothing here needs them, and the library cannot read all of them: with the name of
//! a congestion control among them (RTAX_CC_ALGO, `ip route … congctl bbr`) it refuses the whole route.

/// `struct nlmsghdr` and `struct rtmsg`.
const HEADERS: usize = 16 + 12;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTA_UNSPEC: u16 = 0;
const RTA_METRICS: u16 = 8;
/// What is no flag in an attribute's type (NLA_TYPE_MASK).
const TYPE: u16 = 0x3fff;

/// Makes the metrics in a buffer of rtnetlink messages an attribute that nobody reads.
pub(crate) fn hide_metrics(mut messages: &mut [u8]) {
    while let Some(len) = u32_at(messages, 0) {
        let Some((message, rest)) = split(messages, len as usize) else { return };
        if matches!(u16_at(message, 4), Some(RTM_NEWROUTE | RTM_DELROUTE)) {
            hide_attribute(message.get_mut(HEADERS..).unwrap_or_default());
        }
        messages = rest;
    }
}

fn hide_attribute(mut attributes: &mut [u8]) {
    while let (Some(len), Some(kind)) = (u16_at(attributes, 0), u16_at(attributes, 2)) {
        let Some((attribute, rest)) = split(attributes, len.into()) else { return };
        if kind & TYPE == RTA_METRICS {
            attribute[2..4].copy_from_slice(&RTA_UNSPEC.to_ne_bytes());
        }
        attributes = rest;
    }
}

/// The first `len` bytes, and what comes after their padding; nothing when there are not so many, or too few for a header.
fn split(bytes: &mut [u8], len: usize) -> Option<(&mut [u8], &mut [u8])> {
    if len < 4 || len > bytes.len() {
        return None;
    }
    let next = len.next_multiple_of(4).min(bytes.len());
    let (first, rest) = bytes.split_at_mut(next);
    Some((&mut first[..len], rest))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = (4 + value.len() as u16).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn message(kind: u16, attributes: &[Vec<u8>]) -> Vec<u8> {
        let attributes = attributes.concat();
        let mut bytes = (HEADERS as u32 + attributes.len() as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.resize(HEADERS, 0);
        bytes.extend(attributes);
        bytes
    }

    #[test]
    fn only_metrics_of_routes_are_hidden_in_every_message() {
        let (oif, odd) = (attribute(4, &7u32.to_ne_bytes()), attribute(99, b"odd"));
        let metrics = |kind| attribute(kind, &attribute(16, b"cubic\0"));
        let route = |kind| message(RTM_NEWROUTE, &[oif.clone(), odd.clone(), metrics(kind), oif.clone()]);
        let other = message(28, &[metrics(RTA_METRICS)]);
        let mut all = [route(RTA_METRICS), other.clone(), route(RTA_METRICS)].concat();
        hide_metrics(&mut all);
        assert_eq!(all, [route(RTA_UNSPEC), other, route(RTA_UNSPEC)].concat());
    }

    #[test]
    fn what_is_cut_or_lies_about_its_length_does_no_harm() {
        let whole = message(RTM_NEWROUTE, &[attribute(RTA_METRICS, &[1; 8]), attribute(4, &[0; 4])]);
        for len in 0..whole.len() {
            hide_metrics(&mut whole[..len].to_vec());
        }
        for at in [0, HEADERS] {
            for lie in [0, 1, 3, 200] {
                let mut bytes = whole.clone();
                bytes[at] = lie;
                hide_metrics(&mut bytes);
            }
        }
    }
}
