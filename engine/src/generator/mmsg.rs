//! Bursts of datagrams over connected sockets: `sendmmsg` and `recvmmsg` with memory that is laid out once.
//!
//! The only `unsafe` of the generator.

use crate::frame::BURST;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Room for a burst of datagrams.
pub struct Messages {
    /// What the headers and vectors point into; never moved or resized.
    buffers: Box<[u8]>,
    vectors: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
    stride: usize,
}

impl Messages {
    /// Room for [`BURST`] datagrams of up to `longest` bytes each.
    pub fn new(longest: usize) -> Messages {
        let mut buffers = vec![0u8; longest * BURST].into_boxed_slice();
        let base = buffers.as_mut_ptr();
        let mut vectors: Box<[libc::iovec]> = (0..BURST)
            .map(|n| libc::iovec { iov_base: base.wrapping_add(n * longest).cast(), iov_len: longest })
            .collect();
        let headers = vectors
            .iter_mut()
            .map(|vector| {
                // SAFETY: mmsghdr is plain data, for which all zeros (no name, no control data) is a valid
                // value.
                let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
                header.msg_hdr.msg_iov = vector;
                header.msg_hdr.msg_iovlen = 1;
                header
            })
            .collect();
        Messages { buffers, vectors, headers, stride: longest }
    }

    /// The room of datagram `n`, cut to `len` bytes, to write the next [`Messages::send`] into.
    #[inline]
    pub fn write(&mut self, n: usize, len: usize) -> &mut [u8] {
        self.vectors[n].iov_len = len;
        let at = n * self.stride;
        &mut self.buffers[at..at + len]
    }

    /// Sends the first `count` datagrams; how many the kernel took. Does not block.
    pub fn send(&mut self, socket: BorrowedFd<'_>, count: usize) -> io::Result<usize> {
        let count = count.min(BURST);
        // SAFETY: the first `count` headers point to vectors, and those to buffers, that this struct owns
        // and that are not resized; each vector's length was cut to its buffer by `write`.
        let sent = unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                count as libc::c_uint,
                libc::MSG_DONTWAIT as _,
            )
        };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }

    /// Receives up to a burst, read with [`Messages::received`]; how many came. Does not block.
    pub fn recv(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        for vector in &mut self.vectors {
            vector.iov_len = self.stride;
        }
        // SAFETY: as in `send`; every vector spans exactly its own buffer, which nothing else borrows.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                BURST as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        };
        usize::try_from(received).map_err(|_| io::Error::last_os_error())
    }

    /// Datagram `n` of the last [`Messages::recv`], cut to the buffer's length if it was longer.
    #[inline]
    pub fn received(&self, n: usize) -> &[u8] {
        let at = n * self.stride;
        &self.buffers[at..at + (self.headers[n].msg_len as usize).min(self.stride)]
    }
}
