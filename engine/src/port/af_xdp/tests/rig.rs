//! A port over rings on the heap, and the kernel's ends of them.

use super::super::queue::{self, Doorbell};
use super::super::ring::{Consumer, Descriptor, PKT_CONTD, Producer, pair};
use super::*;
use std::sync::{Arc, Mutex, MutexGuard};

/// Small rings, so that they fill and wrap.
pub const RING: u32 = 8;
const CHUNK: u64 = 2048;
/// Starts of all indices: far from, at and just before the wrap.
pub const STARTS: [u32; 4] = [0, u32::MAX, u32::MAX - 3, u32::MAX - 13];

/// The kernel's ends of a queue's rings.
pub struct Kernel {
    pub fill: Consumer<u64>,
    completion: Producer<u64>,
    rx: Producer<Descriptor>,
    pub tx: Consumer<Descriptor>,
    /// Taken from the transmit ring and not completed yet.
    pub sending: VecDeque<Descriptor>,
    /// What the next transmit wakeups answer; then they send everything.
    pub script: VecDeque<Result<(), i32>>,
    /// What receive wakeups answer.
    pub rx_answer: Result<(), i32>,
    pub wakeups: u32,
}

impl Kernel {
    /// Puts a packet of these part lengths into posted chunks; false when there are not enough or the receive ring is full.
    pub fn deliver(&mut self, parts: &[u32]) -> bool {
        let count = parts.len() as u32;
        if self.fill.ready(count) < count || self.rx.room(count) < count {
            return false;
        }
        self.deliver_some(parts, false);
        true
    }

    /// The same, of a packet that goes on with what is delivered next when `open`.
    pub fn deliver_some(&mut self, parts: &[u32], open: bool) {
        assert!(self.fill.ready(parts.len() as u32) >= parts.len() as u32, "the test posts enough");
        assert!(self.rx.room(parts.len() as u32) >= parts.len() as u32, "the port made room");
        for (n, len) in parts.iter().enumerate() {
            let addr = self.fill.peek(n as u32) + 256;
            let more = open || n + 1 < parts.len();
            self.rx.push(Descriptor { addr, len: *len, options: if more { PKT_CONTD } else { 0 } });
        }
        self.fill.release(parts.len() as u32);
        self.rx.publish();
    }

    /// Names a chunk outside the UMEM, as no kernel does.
    pub fn deliver_nonsense(&mut self) {
        self.rx.push(Descriptor { addr: 1 << 40, len: 60, options: 0 });
        self.rx.publish();
    }

    /// Gives a chunk back that nobody has sent.
    pub fn complete_nonsense(&mut self) {
        self.completion.push(1 << 40);
        self.completion.publish();
    }

    /// Takes at most `count` descriptors for transmit, completing each at once.
    pub fn transmit(&mut self, count: u32) -> Vec<Descriptor> {
        let count = self.tx.ready(count).min(count);
        let taken: Vec<_> = (0..count).map(|n| self.tx.peek(n)).collect();
        self.tx.release(count);
        for descriptor in &taken {
            assert!(self.completion.room(1) > 0);
            self.completion.push(descriptor.addr);
        }
        self.completion.publish();
        taken
    }

    fn woken(&mut self) -> Result<(), i32> {
        self.wakeups += 1;
        match self.script.pop_front() {
            None => {
                let sent = self.transmit(u32::MAX);
                self.sending.extend(sent);
                Ok(())
            }
            // As the kernel: a dropped frame is completed, a used-up budget has sent some (here: one).
            Some(Err(errno @ (libc::EBUSY | libc::EAGAIN))) => {
                let sent = self.transmit(1);
                self.sending.extend(sent);
                Err(errno)
            }
            Some(answer) => answer,
        }
    }
}

pub struct Rig {
    pub port: AfXdp,
    kernels: Vec<Arc<Mutex<Kernel>>>,
}

impl Rig {
    pub fn new(queues: u16, frames: u32, reserve: u32, start: u32) -> Rig {
        Rig::with(queues, frames, reserve, start, None)
    }

    /// A port whose device finishes checksums.
    pub fn finishing_checksums() -> Rig {
        let mut rig = Rig::new(1, 32, 4, 0);
        rig.port.queues.iter_mut().for_each(Queue::finish_checksums);
        rig
    }

    /// A port in zero-copy mode when the entries of its device's receive ring are given.
    pub fn with(queues: u16, frames: u32, reserve: u32, start: u32, device_ring: Option<u32>) -> Rig {
        let mut config = AfXdpConfig::new("test", (0..queues).collect::<Vec<_>>());
        (config.frames, config.tx_reserve) = (frames, reserve);
        (config.rx_ring, config.tx_ring, config.fill_ring, config.completion_ring) =
            (RING, RING, RING, RING);
        config.check().unwrap();
        let zero_copy = device_ring.is_some();
        let mode = Mode { zero_copy, busy_poll: false, segments: MAX_SEGMENTS as u32, tx_checksum: false };
        let (mut ours, mut kernels) = (Vec::new(), Vec::new());
        for id in 0..queues {
            let (rx_kernel, rx) = pair(RING, start);
            let (tx, tx_kernel) = pair(RING, start);
            let (fill, fill_kernel) = pair(RING, start);
            let (completion_kernel, completion) = pair(RING, start);
            tx_kernel.ask_for_wakeup(true);
            let kernel = Arc::new(Mutex::new(Kernel {
                fill: fill_kernel,
                completion: completion_kernel,
                rx: rx_kernel,
                tx: tx_kernel,
                sending: VecDeque::new(),
                script: VecDeque::new(),
                rx_answer: Ok(()),
                wakeups: 0,
            }));
            let bell = Arc::clone(&kernel);
            let doorbell = Doorbell::Simulated(Box::new(move |side| {
                let mut kernel = bell.lock().unwrap();
                match side {
                    queue::Side::Rx => kernel.rx_answer,
                    queue::Side::Tx => kernel.woken(),
                }
            }));
            ours.push(Queue::over(id, (rx, tx, fill, completion), doorbell, mode));
            kernels.push(kernel);
        }
        let umem = Umem::new(frames as usize * CHUNK as usize, false, None).unwrap();
        let chunks = Chunks::new(umem, CHUNK as u32, 256);
        let info = PortInfo {
            name: "af_xdp test".into(),
            mtu: 9000,
            mac: None,
            queues: config.queues.clone(),
            tx_checksum: false,
            max_segments: MAX_SEGMENTS,
        };
        let mut port =
            AfXdp::over(ours, chunks, &config, target(&config, device_ring.unwrap_or(0)), zero_copy, info);
        port.flush();
        Rig { port, kernels }
    }

    pub fn kernel(&self, queue: usize) -> MutexGuard<'_, Kernel> {
        self.kernels[queue].lock().unwrap()
    }

    #[track_caller]
    pub fn balanced(&self) -> Ledger {
        let ledger = self.port.ledger();
        assert!(ledger.balances(), "{ledger}");
        ledger
    }

    /// Frames to send, one for each length; `MORE` on all but the last when `chain`.
    pub fn frames(&mut self, lens: &[usize], chain: bool) -> Burst {
        let mut burst = Burst::new();
        assert_eq!(self.port.alloc(&mut burst, lens.len()), lens.len());
        for (n, (frame, len)) in burst.iter_mut().zip(lens).enumerate() {
            assert!(frame.set_len(*len));
            frame.set_flags(if chain && n + 1 < lens.len() { flag::MORE } else { 0 });
        }
        burst
    }
}
