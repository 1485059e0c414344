//! The app's contract: what a server programmer writes.
//!
//! One value of an [`App`] lives on each worker and is driven by it; every callback has an empty default. Payload is
//! borrowed for the call. Nothing blocks.

mod beside;
mod ctx;
mod echo;
mod sink;
pub mod tcp;

pub use beside::Beside;
pub use ctx::Ctx;
pub(crate) use ctx::{STREAM_PORTS, stream_port};
pub use echo::Echo;
pub use sink::Sink;

use crate::datagram::Datagram;
use crate::stream::{Peer, StreamEvent};

/// A worker's number, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(pub u16);

/// Server logic on one worker.
///
/// The engine builds one value per worker, on that worker, and calls it from there only, so an app needs neither locks nor
/// `Sync`. What takes over 50 µs or blocks goes to [`Ctx::offload`].
pub trait App: 'static {
    /// What workers and helper threads send to this app ([`Ctx::post`], [`Ctx::offload`]).
    type Msg: Send + 'static;

    /// A burst of datagrams, 1 to 64. The default calls [`App::on_datagram`] for each.
    #[inline]
    fn on_burst(&mut self, burst: &mut [Datagram<'_>], ctx: &mut Ctx<'_, Self::Msg>) {
        for datagram in burst {
            self.on_datagram(datagram, ctx);
        }
    }

    /// One datagram. Leave a verdict on it: `reply`, `consume` (the default) or `drop`.
    #[inline]
    fn on_datagram(&mut self, _datagram: &mut Datagram<'_>, _ctx: &mut Ctx<'_, Self::Msg>) {}

    /// Something happened to a stream: see [`StreamEvent`], and [`Ctx::stream`] for what can be done. The default turns every
    /// stream away: an app that does not know of streams must not collect them.
    fn on_stream(&mut self, peer: Peer, event: StreamEvent, ctx: &mut Ctx<'_, Self::Msg>) {
        if event == StreamEvent::Opened
            && let Ok(mut stream) = ctx.stream(peer)
        {
            // Stale only if it has ended by itself.
            let _ = stream.abort();
        }
    }

    /// A timer set with [`Ctx::timer`] is due.
    fn on_timer(&mut self, _key: u64, _ctx: &mut Ctx<'_, Self::Msg>) {}

    /// The tick configured for the engine is due; `late_ns` is how long ago it should have been called.
    fn on_tick(&mut self, _late_ns: u64, _ctx: &mut Ctx<'_, Self::Msg>) {}

    /// A message from a worker or a helper thread.
    fn on_post(&mut self, _msg: Self::Msg, _ctx: &mut Ctx<'_, Self::Msg>) {}

    /// The worker has started: its ports are open.
    fn on_start(&mut self, _ctx: &mut Ctx<'_, Self::Msg>) {}

    /// The engine is stopping; what is sent before `deadline_ns` (monotonic) still goes out.
    fn on_shutdown(&mut self, _deadline_ns: u64, _ctx: &mut Ctx<'_, Self::Msg>) {}
}

impl<A: App + ?Sized> App for Box<A> {
    type Msg = A::Msg;

    #[inline]
    fn on_burst(&mut self, burst: &mut [Datagram<'_>], ctx: &mut Ctx<'_, Self::Msg>) {
        (**self).on_burst(burst, ctx);
    }
    fn on_datagram(&mut self, datagram: &mut Datagram<'_>, ctx: &mut Ctx<'_, Self::Msg>) {
        (**self).on_datagram(datagram, ctx);
    }
    fn on_stream(&mut self, peer: Peer, event: StreamEvent, ctx: &mut Ctx<'_, Self::Msg>) {
        (**self).on_stream(peer, event, ctx);
    }
    fn on_timer(&mut self, key: u64, ctx: &mut Ctx<'_, Self::Msg>) {
        (**self).on_timer(key, ctx);
    }
    fn on_tick(&mut self, late_ns: u64, ctx: &mut Ctx<'_, Self::Msg>) {
        (**self).on_tick(late_ns, ctx);
    }
    fn on_post(&mut self, msg: Self::Msg, ctx: &mut Ctx<'_, Self::Msg>) {
        (**self).on_post(msg, ctx);
    }
    fn on_start(&mut self, ctx: &mut Ctx<'_, Self::Msg>) {
        (**self).on_start(ctx);
    }
    fn on_shutdown(&mut self, deadline_ns: u64, ctx: &mut Ctx<'_, Self::Msg>) {
        (**self).on_shutdown(deadline_ns, ctx);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::datagram::Verdict;
    use crate::net::Path;
    use crate::time::Now;
    use crate::worker::{Helpers, Mailboxes, Timers, Waker};
    use rand::SeedableRng;
    use std::sync::Arc;

    /// What `app` does with a burst of `payloads`: the verdict on each, and its bytes afterwards.
    pub fn burst_of<A: App>(app: &mut A, payloads: &[&[u8]]) -> Vec<(Verdict, Vec<u8>)> {
        let waker = Arc::new(Waker::new(|| ()));
        let mut ctx = Ctx {
            now: Now::default(),
            worker: WorkerId(0),
            rng: &mut rand::rngs::SmallRng::seed_from_u64(1),
            ports: &mut [],
            streams: &mut [],
            timers: &mut Timers::new(4),
            mailboxes: &mut Mailboxes::mesh(&[Arc::clone(&waker)], 4).remove(0),
            helpers: &mut Helpers::new(1, waker),
        };
        let path = Path::to(0, "10.0.0.1:7777".parse().unwrap(), "10.0.0.2:9".parse().unwrap()).unwrap();
        let mut rooms: Vec<Vec<u8>> = payloads.iter().map(|p| [p, &[0u8; 64][..]].concat()).collect();
        let mut burst: Vec<_> = rooms
            .iter_mut()
            .zip(payloads)
            .map(|(room, payload)| Datagram::new(room, payload.len(), &path))
            .collect();
        app.on_burst(&mut burst, &mut ctx);
        let after = |datagram: &Datagram<'_>| (datagram.verdict(), datagram.payload().to_vec());
        burst.iter().map(after).collect()
    }
}
