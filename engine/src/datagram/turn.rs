//! One turn of a port without a worker: for tests, benches and tools that drive a port by themselves.

use super::{Batch, Datagram, DatagramPort, Datagrams, Verdicts};
use crate::time::Now;

/// Receives one burst of `port` at `now`, shows each datagram to `app`, carries out the verdicts and flushes: what a worker does in
/// a turn. Returns how many datagrams there were. Allocates.
///
/// # Panics
/// When the port breaks its contract: the batch is not empty in the end, or the frames do not add up.
pub fn turn(port: &mut dyn DatagramPort, now: Now, mut app: impl FnMut(&mut Datagram<'_>)) -> usize {
    let (mut batch, mut seen) = (Batch::default(), 0);
    if port.recv(&mut batch, now) > 0 {
        loop {
            let (mut views, mut verdicts) = (Datagrams::new(), Verdicts::new());
            let opened = port.open(&mut batch, &mut views);
            views.iter_mut().for_each(&mut app);
            verdicts.extend(views.iter().map(Datagram::verdict));
            drop(views);
            port.settle(&mut batch, &verdicts);
            seen += opened;
            // A kernel buffer may hold more datagrams than one burst: go on until the batch is through.
            if opened == 0 || batch.frames.is_empty() {
                break;
            }
        }
    }
    port.flush();
    let ledger = port.ledger();
    assert!(batch.frames.is_empty() && ledger.balances(), "{}: {ledger}", port.name());
    seen
}
