//! `KEY=VALUE` settings: the stack's configuration, and options of connections.

use crate::word::{duration, number, pair, switch};
use std::time::Duration;
use volley_tcp::{
    Config, CongestionControl, ConnectionOptions, Ecn, KeepAlive, ListenOptions, SocketOption, SynCookies,
};

/// Sets one field of the stack's configuration.
pub(crate) fn config(config: &mut Config, word: &str) -> Result<(), String> {
    let (key, value) = pair(word)?;
    match key {
        "max_connections" => config.max_connections = number(value)?,
        "pool_bytes" => config.pool_bytes = number(value)?,
        "max_segments_in_flight" => config.max_segments_in_flight = number(value)?,
        "syn_table" => config.syn_table = number(value)?,
        "syn_cookies" => {
            config.syn_cookies = match value {
                "off" => SynCookies::Off,
                "when_full" => SynCookies::WhenFull,
                "always" => SynCookies::Always,
                _ => return Err(format!("syn_cookies={value}: off, when_full or always")),
            }
        }
        "cookie_rate" => config.cookie_rate = number(value)?,
        "reset_rate" => config.reset_rate = number(value)?,
        "max_time_wait" => config.max_time_wait = number(value)?,
        "time_wait" => config.time_wait = duration(value)?,
        "mtu" => config.mtu = number(value)?,
        "initial_rto" => config.initial_rto = duration(value)?,
        "min_rto" => config.min_rto = duration(value)?,
        "max_rto" => config.max_rto = duration(value)?,
        "connect_timeout" => config.connect_timeout = duration(value)?,
        "syn_ack_attempts" => config.syn_ack_attempts = number(value)?,
        "fin_wait_2" => config.fin_wait_2 = duration(value)?,
        "orphan_timeout" => config.orphan_timeout = duration(value)?,
        "challenge_acks" => config.challenge_acks = number(value)?,
        "initial_window" => config.initial_window = number(value)?,
        "timestamps" => config.timestamps = switch(value)?,
        "window_scaling" => config.window_scaling = switch(value)?,
        "sack" => config.sack = switch(value)?,
        "ecn" => {
            config.ecn = match value {
                "off" => Ecn::Off,
                "accept" => Ecn::Accept,
                "request" => Ecn::Request,
                _ => return Err(format!("ecn={value}: off, accept or request")),
            }
        }
        "ephemeral_ports" => {
            let (first, last) = value.split_once("..").ok_or("ephemeral_ports=FIRST..LAST")?;
            config.ephemeral_ports = (number(first)?, number(last)?);
        }
        _ => return Err(format!("the configuration has no '{key}'")),
    }
    Ok(())
}

/// One option of a connection, as `set` has it.
pub(crate) fn option(word: &str) -> Result<SocketOption, String> {
    let (key, value) = pair(word)?;
    Ok(match key {
        "nodelay" => SocketOption::NoDelay(switch(value)?),
        "cork" => SocketOption::Cork(switch(value)?),
        "delayed_ack" => SocketOption::DelayedAck(duration(value)?),
        "receive_buffer" => SocketOption::ReceiveBuffer(number(value)?),
        "send_buffer" => SocketOption::SendBuffer(number(value)?),
        "low_water" => SocketOption::LowWater(number(value)?),
        "mss" => SocketOption::Mss(number(value)?),
        "keep_alive" => SocketOption::KeepAlive(keep_alive(value)?),
        "user_timeout" => SocketOption::UserTimeout(maybe(value)?),
        "linger" => SocketOption::Linger(maybe(value)?),
        "cc" => SocketOption::CongestionControl(congestion_control(value)?),
        "ttl" => SocketOption::Ttl(number(value)?),
        "tos" => SocketOption::Tos(number(value)?),
        _ => return Err(format!("a connection has no option '{key}'")),
    })
}

/// Sets one option of those that connections begin with.
pub(crate) fn connection(options: &mut ConnectionOptions, word: &str) -> Result<(), String> {
    match option(word)? {
        SocketOption::NoDelay(on) => options.no_delay = on,
        SocketOption::DelayedAck(d) => options.delayed_ack = d,
        SocketOption::ReceiveBuffer(n) => options.receive_buffer = n,
        SocketOption::SendBuffer(n) => options.send_buffer = n,
        SocketOption::LowWater(n) => options.low_water = n,
        SocketOption::Mss(n) => options.mss = Some(n),
        SocketOption::KeepAlive(k) => options.keep_alive = k,
        SocketOption::UserTimeout(d) => options.user_timeout = d,
        SocketOption::Linger(d) => options.linger = d,
        SocketOption::CongestionControl(c) => options.congestion_control = c,
        SocketOption::Ttl(n) => options.ttl = n,
        SocketOption::Tos(n) => options.tos = n,
        _ => return Err(format!("'{word}' can be set only later")),
    }
    Ok(())
}

/// Sets one option of a listener: its backlog, or what its connections begin with.
pub(crate) fn listener(options: &mut ListenOptions, word: &str) -> Result<(), String> {
    match pair(word)? {
        ("backlog", value) => options.backlog = number(value)?,
        _ => connection(&mut options.connection, word)?,
    }
    Ok(())
}

fn maybe(value: &str) -> Result<Option<Duration>, String> {
    if value == "off" { Ok(None) } else { duration(value).map(Some) }
}

/// `IDLE/INTERVAL/PROBES`.
fn keep_alive(value: &str) -> Result<Option<KeepAlive>, String> {
    if value == "off" {
        return Ok(None);
    }
    let mut parts = value.split('/');
    let (Some(idle), Some(interval), Some(probes), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err("keep_alive=IDLE/INTERVAL/PROBES or off".into());
    };
    Ok(Some(KeepAlive { idle: duration(idle)?, interval: duration(interval)?, probes: number(probes)? }))
}

fn congestion_control(value: &str) -> Result<CongestionControl, String> {
    match value {
        "cubic" => Ok(CongestionControl::Cubic),
        "newreno" => Ok(CongestionControl::NewReno),
        _ => Err(format!("cc={value}: cubic or newreno")),
    }
}
