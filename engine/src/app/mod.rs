//! The app's contract: what a server programmer writes.
//!
//! One value of an [`App`] lives on each worker and is driven by it; every callback has an empty default. Payload is
//! borrowed for the call. Nothing blocks.

mod ctx;

pub use ctx::Ctx;

use crate::datagram::Datagram;

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
