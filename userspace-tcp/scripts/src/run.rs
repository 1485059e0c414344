//! Runs a script: step by step, and at the end nothing may be left.

use crate::error::{Error, Mismatch};
use crate::flow::Flow;
use crate::script::{Act, Check, Script, Step, Wait};
use crate::segment::Data;
use crate::wire::differs;
use crate::world::{World, brief};
use std::time::Duration;
use volley_tcp::{CloseReason, Drop, EventKind, IcmpMessage, State};

/// What a script that passed has done.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Outcome {
    /// Steps in it.
    pub steps: usize,
    /// Virtual time that it took.
    pub time: Duration,
    /// What the two ends have said.
    pub trace: String,
}

/// Runs a script against a new stack.
pub fn run(script: &Script) -> Result<Outcome, Error> {
    let mut world = World::new(script.config);
    let start = world.now;
    for step in &script.steps {
        if let Err(message) = world.step(step) {
            return Err(mismatch(script, step.line, &step.text, message, &world));
        }
    }
    if let Err(message) = world.finish() {
        let line = script.steps.last().map_or(1, |step| step.line);
        return Err(mismatch(script, line, "(the end)", message, &world));
    }
    Ok(Outcome { steps: script.steps.len(), time: world.now.since(start), trace: world.trace })
}

fn mismatch(script: &Script, line: usize, text: &str, message: String, world: &World) -> Error {
    Error::Mismatch(Box::new(Mismatch {
        script: script.name.clone(),
        line,
        message,
        text: text.to_owned(),
        trace: world.trace.clone(),
    }))
}

/// Reasons that are no received segment's.
fn beside_the_ledger(reason: Drop) -> bool {
    matches!(reason, Drop::ReplyQueueFull | Drop::IcmpUnverified)
}

impl World {
    fn step(&mut self, step: &Step) -> Result<(), String> {
        let started = self.now;
        match step.wait {
            Wait::For(time) => {
                // What was sent before the wait has had its line.
                if !time.is_zero() {
                    self.nothing_unexpected()?;
                    self.pass(time)?;
                }
            }
            Wait::Sent(from, to) => {
                self.nothing_unexpected()?;
                self.advance(started + to, true)?;
                match self.sent.front() {
                    None => return Err(format!("expected within {to:?}: the stack has sent nothing")),
                    Some(sent) if sent.at < started + from => {
                        return Err(format!("sent after {:?}, which is too early", sent.at.since(started)));
                    }
                    Some(_) => {}
                }
            }
        }
        if let Act::Expect(expected) = &step.act {
            let Some(sent) = self.sent.pop_front() else {
                return Err(format!("expected  > {expected}\n      the stack has sent nothing"));
            };
            let found = brief(&sent.segment);
            if matches!(step.wait, Wait::For(_)) && sent.at != self.now {
                let early = self.now.since(sent.at);
                return Err(format!("expected  > {expected}\n      sent {early:?} early:  > {found}"));
            }
            if sent.flow != self.flow {
                return Err(format!(
                    "expected  > {expected}\n      sent, in flow {}:  > {found}",
                    sent.flow
                ));
            }
            return match differs(expected, &sent.segment, &sent.payload) {
                None => Ok(()),
                Some(what) => Err(format!(
                    "{what} differ{}\n      expected  > {expected}\n      sent      > {found}",
                    if what.ends_with('s') { "" } else { "s" }
                )),
            };
        }
        if matches!(step.act, Act::Drain) {
            self.sent.clear();
            return Ok(());
        }
        self.nothing_unexpected()?;
        self.act(&step.act)?;
        self.collect()
    }

    fn nothing_unexpected(&self) -> Result<(), String> {
        match self.sent.front() {
            None => Ok(()),
            Some(sent) => {
                Err(format!("before this step the stack has sent, unexpected:  > {}", brief(&sent.segment)))
            }
        }
    }

    fn act(&mut self, act: &Act) -> Result<(), String> {
        match act {
            Act::Fails(error, call) => {
                return match self.call(call) {
                    Ok(()) => Err(format!("the call should have failed with '{error}'")),
                    Err(Some(e)) if name_of(e) == error => Ok(()),
                    Err(Some(e)) => Err(format!("failed with '{}' ({e}), not '{error}'", name_of(e))),
                    Err(None) => Err("only calls can fail".into()),
                };
            }
            Act::Flow { name, local, remote, isn } => {
                let old = self.flows.get(name).cloned();
                let like = old.unwrap_or_else(|| self.flows["main"].clone());
                let (local, remote) = (local.unwrap_or(like.local), remote.unwrap_or(like.remote));
                let fresh = Flow::new(local, remote, isn.unwrap_or(like.peer_isn));
                let moved = (local, remote) != (like.local, like.remote);
                if isn.is_some() || moved || !self.flows.contains_key(name) {
                    self.flows.insert(name.clone(), fresh);
                }
                self.flow = name.clone();
            }
            Act::Inject(segments) => self.inject(segments),
            Act::Accept(name) => {
                let listener = self.listener.ok_or("nobody listens")?;
                let id = self.stack.accept(listener).ok_or("there is no connection to accept")?;
                self.connections.insert(name.clone(), (id, self.flow.clone()));
            }
            Act::NoAccept => {
                let listener = self.listener.ok_or("nobody listens")?;
                if self.stack.accept(listener).is_some() {
                    return Err("there is a connection to accept".into());
                }
            }
            Act::Write(name, data, takes) => {
                let id = self.connection(name)?;
                let bytes = self.flow_of(name).to_write(data);
                let n = self.stack.write(id, &bytes).map_err(|e| format!("refused: {e}"))?;
                self.flow_of(name).written.extend_from_slice(&bytes[..n]);
                let takes = takes.unwrap_or(bytes.len());
                if n != takes {
                    return Err(format!("{n} of {} bytes were taken, not {takes}", bytes.len()));
                }
            }
            Act::Read(name, data) => self.read(name, data)?,
            Act::Unread(name, wanted) => {
                let id = self.connection(name)?;
                let n = self.stack.unread(id).map_err(|e| e.to_string())?;
                equal("bytes that can be read", &n.to_string(), &wanted.to_string())?;
            }
            Act::State(name, wanted) => {
                let id = self.connection(name)?;
                let found = self.stack.info(id).map_or("gone", |info| state(info.state));
                equal("state", found, wanted)?;
            }
            Act::Event(name, wanted) => {
                let id = self.connection(name)?;
                let next = self.events.get_mut(&id).and_then(|events| events.pop_front());
                equal("event", &next.map_or("none".into(), event), wanted)?;
            }
            Act::NoEvent(name) => {
                let id = self.connection(name)?;
                if let Some(next) = self.events.get(&id).and_then(|events| events.front()) {
                    return Err(format!("there is an event: {}", event(*next)));
                }
            }
            Act::Info(name, checks) => {
                let id = self.connection(name)?;
                let info = self.stack.info(id).map_err(|e| e.to_string())?;
                for check in checks {
                    verify(check, &info_value(&info, &check.key)?)?;
                }
            }
            Act::Icmp { error, seq, believed } => {
                let flow = self.flow().clone();
                let message = IcmpMessage {
                    error: *error,
                    local: flow.local,
                    remote: flow.remote,
                    sequence: flow.stack(*seq),
                };
                self.note(&format!("icmp {error:?} seq {seq}"));
                if self.stack.icmp(&message) != *believed {
                    return Err(format!(
                        "the error was {}",
                        if *believed { "refused" } else { "believed" }
                    ));
                }
            }
            Act::Count(name, wanted) => {
                let found = self.stack.counters().iter().find(|(key, _)| key == name);
                let (_, n) = found.ok_or_else(|| format!("there is no counter '{name}'"))?;
                equal(name, &n.to_string(), &wanted.to_string())?;
            }
            Act::Dropped(name, wanted) => {
                let found = self.stack.counters().drops().find(|(reason, _)| reason.as_str() == name);
                let (_, n) = found.ok_or_else(|| format!("nothing is dropped as '{name}'"))?;
                equal(name, &n.to_string(), &wanted.to_string())?;
            }
            Act::Population(checks) => {
                let p = self.stack.population();
                for check in checks {
                    let n = match check.key.as_str() {
                        "connections" => p.connections,
                        "half_open" => p.half_open,
                        "time_wait" => p.time_wait,
                        "segments_in_flight" => p.segments_in_flight,
                        "chunks" => p.chunks,
                        "ranges" => p.ranges,
                        key => return Err(format!("nobody counts '{key}'")),
                    };
                    verify(check, &n.to_string())?;
                }
            }
            Act::Room(room) => self.room = *room,
            Act::Nothing | Act::Expect(_) | Act::Drain => {}
            call => {
                return self
                    .call(call)
                    .map_err(|e| e.map_or("no call".into(), |e| format!("refused: {e}")));
            }
        }
        Ok(())
    }

    /// What can fail with an error of the stack's.
    fn call(&mut self, act: &Act) -> Result<(), Option<volley_tcp::Error>> {
        let (local, remote) = (self.flow().local, self.flow().remote);
        let id = |world: &World, name: &str| world.connection(name).map_err(|_| None);
        match act {
            Act::Listen(options) => {
                self.listener = Some(self.stack.listen(local, *options)?);
            }
            Act::CloseListener => {
                let listener = self.listener.ok_or(None)?;
                self.stack.close_listener(listener)?;
            }
            Act::Connect(name, options) => {
                // The clock of the stack is told with segments and timers only.
                self.stack.timers(self.now);
                let id = self.stack.connect(local, remote, 0, options)?;
                let local = self.stack.info(id)?.local;
                self.flow().local = local;
                self.connections.insert(name.clone(), (id, self.flow.clone()));
            }
            Act::Write(name, data, _) => {
                let bytes = match data {
                    Data::Text(text) => text.clone(),
                    Data::Pattern(n) => vec![0; *n as usize],
                };
                let id = id(self, name)?;
                self.stack.write(id, &bytes)?;
            }
            Act::Read(name, data) => {
                let id = id(self, name)?;
                self.stack.read(id, data.len() as usize)?;
            }
            Act::Shutdown(name, how) => {
                let id = id(self, name)?;
                self.stack.shutdown(id, *how)?;
            }
            Act::Close(name) => {
                let id = id(self, name)?;
                self.stack.close(id)?;
            }
            Act::Abort(name) => {
                let id = id(self, name)?;
                self.stack.abort(id)?;
            }
            Act::Set(name, option) => {
                let id = id(self, name)?;
                self.stack.set_option(id, *option)?;
            }
            _ => return Err(None),
        }
        Ok(())
    }

    /// Nothing may be left unsaid, and no memory of any connection once all are aborted.
    fn finish(&mut self) -> Result<(), String> {
        self.nothing_unexpected()?;
        self.room = None;
        if let Some(listener) = self.listener {
            let _ = self.stack.close_listener(listener);
        }
        for (id, _) in self.connections.clone().into_values() {
            let _ = self.stack.abort(id);
        }
        self.collect()?;
        self.sent.clear();
        let counters = *self.stack.counters();
        let dropped: u64 =
            counters.drops().filter(|(reason, _)| !beside_the_ledger(*reason)).map(|(_, n)| n).sum();
        if counters.received != counters.accepted + dropped {
            return Err(format!("the ledger does not balance: {counters:?}"));
        }
        let p = self.stack.population();
        if (p.connections, p.half_open, p.segments_in_flight, p.chunks, p.ranges) != (0, 0, 0, 0, 0) {
            return Err(format!("after the abort of all connections there is something left: {p:?}"));
        }
        Ok(())
    }
}

fn equal(what: &str, found: &str, wanted: &str) -> Result<(), String> {
    if found == wanted { Ok(()) } else { Err(format!("{what}: {found}, not {wanted}")) }
}

fn verify(check: &Check, found: &str) -> Result<(), String> {
    let Check { key, how, value } = check;
    if *how == '=' {
        return equal(key, found, value);
    }
    let number = |text: &str| text.parse::<f64>().map_err(|_| format!("{key}: '{text}' is no number"));
    let (a, b) = (number(found)?, number(value)?);
    let holds = if *how == '>' { a >= b } else { a <= b };
    if holds { Ok(()) } else { Err(format!("{key}: {found}, not {how}= {value}")) }
}

fn state(state: State) -> &'static str {
    match state {
        State::Closed => "closed",
        State::SynSent => "syn_sent",
        State::SynReceived => "syn_received",
        State::Established => "established",
        State::FinWait1 => "fin_wait_1",
        State::FinWait2 => "fin_wait_2",
        State::CloseWait => "close_wait",
        State::Closing => "closing",
        State::LastAck => "last_ack",
        State::TimeWait => "time_wait",
    }
}

fn event(kind: EventKind) -> String {
    let reason = match kind {
        EventKind::Established => return "established".into(),
        EventKind::Readable => return "readable".into(),
        EventKind::Writable => return "writable".into(),
        EventKind::PeerClosed => return "peer_closed".into(),
        EventKind::Closed(reason) => reason,
    };
    let reason = match reason {
        CloseReason::Finished => "finished",
        CloseReason::Reset => "reset",
        CloseReason::Refused => "refused",
        CloseReason::Aborted => "aborted",
        CloseReason::TimedOut => "timed_out",
        CloseReason::Unreachable => "unreachable",
    };
    format!("closed:{reason}")
}

fn name_of(error: volley_tcp::Error) -> &'static str {
    use volley_tcp::Error;
    match error {
        Error::Stale => "stale",
        Error::Ended => "ended",
        Error::ShutDown => "shut_down",
        Error::NoSlot(_) => "no_slot",
        Error::AddressInUse(_) => "address_in_use",
        Error::BadAddress(_) => "bad_address",
        Error::NoPort(_) => "no_port",
        _ => "another",
    }
}

fn info_value(info: &volley_tcp::Info, key: &str) -> Result<String, String> {
    let yes = |on: bool| if on { "yes" } else { "no" }.to_owned();
    let ms = |d: Duration| format!("{}", d.as_micros() as f64 / 1e3);
    Ok(match key {
        "local" => info.local.to_string(),
        "remote" => info.remote.to_string(),
        "path" => info.path.to_string(),
        "queued" => info.queued.to_string(),
        "unsent" => info.unsent.to_string(),
        "writable" => info.writable.to_string(),
        "mss" => info.mss.to_string(),
        "mtu" => info.mtu.to_string(),
        "cwnd" => info.cwnd.to_string(),
        "ssthresh" => info.ssthresh.to_string(),
        "in_flight" => info.in_flight.to_string(),
        "send_window" => info.send_window.to_string(),
        "receive_window" => info.receive_window.to_string(),
        "rtt" => info.rtt.map_or("none".into(), ms),
        "rto" => ms(info.rto),
        "retransmits" => info.retransmits.to_string(),
        "backoff" => info.backoff.to_string(),
        "bytes_received" => info.bytes_received.to_string(),
        "bytes_acked" => info.bytes_acked.to_string(),
        "sack" => yes(info.sack),
        "timestamps" => yes(info.timestamps),
        "window_scale" => format!("{},{}", info.window_scale.0, info.window_scale.1),
        "ecn" => yes(info.ecn),
        "reordering" => yes(info.reordering),
        "recovering" => yes(info.recovering),
        _ => return Err(format!("info has no '{key}'")),
    })
}
