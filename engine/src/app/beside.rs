//! Two apps on one worker: one for datagrams, one for streams.

use super::{App, Ctx};
use crate::datagram::Datagram;
use crate::stream::{Peer, StreamEvent};

/// Datagrams go to the first app, streams to the second; ticks, start and shutdown to both, timers and messages to the first.
pub struct Beside<D, S>(pub D, pub S);

impl<D: App, S: App<Msg = D::Msg>> App for Beside<D, S> {
    type Msg = D::Msg;

    #[inline]
    fn on_burst(&mut self, burst: &mut [Datagram<'_>], ctx: &mut Ctx<'_, D::Msg>) {
        self.0.on_burst(burst, ctx);
    }
    fn on_stream(&mut self, peer: Peer, event: StreamEvent, ctx: &mut Ctx<'_, D::Msg>) {
        self.1.on_stream(peer, event, ctx);
    }
    fn on_timer(&mut self, key: u64, ctx: &mut Ctx<'_, D::Msg>) {
        self.0.on_timer(key, ctx);
    }
    fn on_tick(&mut self, late_ns: u64, ctx: &mut Ctx<'_, D::Msg>) {
        self.0.on_tick(late_ns, ctx);
        self.1.on_tick(late_ns, ctx);
    }
    fn on_post(&mut self, msg: D::Msg, ctx: &mut Ctx<'_, D::Msg>) {
        self.0.on_post(msg, ctx);
    }
    fn on_start(&mut self, ctx: &mut Ctx<'_, D::Msg>) {
        self.0.on_start(ctx);
        self.1.on_start(ctx);
    }
    fn on_shutdown(&mut self, deadline_ns: u64, ctx: &mut Ctx<'_, D::Msg>) {
        self.0.on_shutdown(deadline_ns, ctx);
        self.1.on_shutdown(deadline_ns, ctx);
    }
}
