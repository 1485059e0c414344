//! Options of a connection, as the kernel's sockets have them (tcp(7), socket(7), ip(7), ipv6(7)).

use crate::stream::{CongestionControl, StreamError, StreamOption};
use socket2::{SockRef, TcpKeepalive};
use std::os::fd::OwnedFd;
use std::time::Duration;

/// The longest user timeout that the kernel takes: 24 days, for one that never ends a connection. Its 0 is its own default.
const NEVER: Duration = Duration::from_millis(i32::MAX as u64);

/// Sets one option of the socket of a connection over IPv4 or IPv6.
///
/// # Errors
/// [`StreamError::Unsupported`] for what kernel sockets do not have, or this kernel does not take.
pub(super) fn set(fd: &OwnedFd, ipv4: bool, option: StreamOption) -> Result<(), StreamError> {
    let socket = SockRef::from(fd);
    let (name, result) = match option {
        StreamOption::NoDelay(on) => ("TCP_NODELAY", socket.set_tcp_nodelay(on)),
        StreamOption::Cork(on) => ("TCP_CORK", socket.set_tcp_cork(on)),
        StreamOption::ReceiveBuffer(bytes) => ("SO_RCVBUF", socket.set_recv_buffer_size(bytes as usize)),
        StreamOption::SendBuffer(bytes) => ("SO_SNDBUF", socket.set_send_buffer_size(bytes as usize)),
        StreamOption::KeepAlive(None) => ("SO_KEEPALIVE", socket.set_keepalive(false)),
        StreamOption::KeepAlive(Some(keep)) => {
            let second = Duration::from_secs(1);
            let settings = TcpKeepalive::new()
                .with_time(keep.idle.max(second))
                .with_interval(keep.interval.max(second))
                .with_retries(u32::from(keep.probes.clamp(1, 127)));
            ("TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT", socket.set_tcp_keepalive(&settings))
        }
        StreamOption::UserTimeout(timeout) => {
            let timeout = timeout.map_or(NEVER, |timeout| timeout.clamp(Duration::from_millis(1), NEVER));
            ("TCP_USER_TIMEOUT", socket.set_tcp_user_timeout(Some(timeout)))
        }
        StreamOption::Linger(None) => ("SO_LINGER", socket.set_linger(None)),
        StreamOption::Linger(Some(Duration::ZERO)) => {
            ("SO_LINGER", socket.set_linger(Some(Duration::ZERO)))
        }
        StreamOption::Linger(Some(_)) => {
            return Err(StreamError::Unsupported(
                "a time to linger: close would hold the worker up so long",
            ));
        }
        StreamOption::CongestionControl(kind) => {
            let (name, module) = match kind {
                CongestionControl::Cubic => ("TCP_CONGESTION cubic", "cubic"),
                CongestionControl::NewReno => ("TCP_CONGESTION reno", "reno"),
            };
            (name, socket.set_tcp_congestion(module.as_bytes()))
        }
        StreamOption::Ttl(ttl) => match ipv4 {
            true => ("IP_TTL", socket.set_ttl_v4(u32::from(ttl.max(1)))),
            false => ("IPV6_UNICAST_HOPS", socket.set_unicast_hops_v6(u32::from(ttl.max(1)))),
        },
        StreamOption::Tos(tos) => match ipv4 {
            true => ("IP_TOS", socket.set_tos_v4(u32::from(tos & 0xfc))),
            false => ("IPV6_TCLASS", socket.set_tclass_v6(u32::from(tos & 0xfc))),
        },
        StreamOption::DelayedAck(_) => {
            return Err(StreamError::Unsupported("a time for delayed acknowledgments"));
        }
        StreamOption::LowWater(_) => return Err(StreamError::Unsupported("a low-water mark")),
        StreamOption::Mss(_) => return Err(StreamError::Unsupported("an MSS after the handshake")),
        _ => return Err(StreamError::Unsupported("this option")),
    };
    result.map_err(|_| StreamError::Unsupported(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::KeepAlive;
    use std::net::{TcpListener, TcpStream};

    fn fd(address: &str) -> OwnedFd {
        let listener = TcpListener::bind(address).unwrap();
        TcpStream::connect(listener.local_addr().unwrap()).unwrap().into()
    }

    #[test]
    fn what_the_kernel_has_is_set_on_its_socket() {
        let fd = fd("127.0.0.1:0");
        let keep =
            KeepAlive { idle: Duration::from_secs(9), interval: Duration::from_millis(1), probes: 4 };
        for option in [
            StreamOption::NoDelay(true),
            StreamOption::Cork(true),
            StreamOption::ReceiveBuffer(20_000),
            StreamOption::SendBuffer(30_000),
            StreamOption::KeepAlive(Some(keep)),
            StreamOption::UserTimeout(Some(Duration::from_secs(7))),
            StreamOption::Linger(Some(Duration::ZERO)),
            StreamOption::CongestionControl(CongestionControl::NewReno),
            StreamOption::Ttl(33),
            StreamOption::Tos(0x2b),
        ] {
            set(&fd, true, option).unwrap();
        }
        let socket = SockRef::from(&fd);
        assert!(socket.tcp_nodelay().unwrap() && socket.tcp_cork().unwrap() && socket.keepalive().unwrap());
        // The kernel doubles what it is asked for, for its own notes (socket(7)).
        assert_eq!(
            (socket.recv_buffer_size().unwrap(), socket.send_buffer_size().unwrap()),
            (40_000, 60_000)
        );
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(9));
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(1));
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 4);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(7)));
        assert_eq!(socket.linger().unwrap(), Some(Duration::ZERO));
        assert!(socket.tcp_congestion().unwrap().starts_with(b"reno"));
        assert_eq!((socket.ttl_v4().unwrap(), socket.tos_v4().unwrap()), (33, 0x28));
        set(&fd, true, StreamOption::KeepAlive(None)).unwrap();
        set(&fd, true, StreamOption::UserTimeout(None)).unwrap();
        set(&fd, true, StreamOption::Linger(None)).unwrap();
        assert!(!socket.keepalive().unwrap());
        assert_eq!((socket.tcp_user_timeout().unwrap(), socket.linger().unwrap()), (Some(NEVER), None));
    }

    #[test]
    fn ipv6_has_a_hop_limit_and_a_traffic_class() {
        let fd = fd("[::1]:0");
        set(&fd, false, StreamOption::Ttl(9)).unwrap();
        set(&fd, false, StreamOption::Tos(0xb8)).unwrap();
        let socket = SockRef::from(&fd);
        assert_eq!((socket.unicast_hops_v6().unwrap(), socket.tclass_v6().unwrap()), (9, 0xb8));
    }

    #[test]
    fn what_the_kernel_has_not_is_refused_by_name() {
        let fd = fd("127.0.0.1:0");
        let refused = |option| set(&fd, true, option).unwrap_err().to_string();
        let second = Duration::from_secs(1);
        assert!(refused(StreamOption::DelayedAck(second)).contains("delayed acknowledgments"));
        assert!(refused(StreamOption::LowWater(9)).contains("low-water"));
        assert!(refused(StreamOption::Mss(536)).contains("MSS"));
        assert!(refused(StreamOption::Linger(Some(second))).contains("linger"));
    }
}
