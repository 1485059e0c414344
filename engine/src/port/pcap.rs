//! A port that replays a capture file and records what is sent: what happened once happens again, exactly.
//!
//! The file is read entirely when the port opens. Answers carry the capture time of the packet that arrived last, never the
//! clock's, so two replays write the same bytes. It is not meant to be fast.

use super::{Port, PortInfo, PortStats, ReplayConfig, ReplayPort};
use crate::frame::{Burst, Ledger, flag};
use pcap_file::pcap::{PcapPacket, PcapReader, PcapWriter};
use pcap_file::{DataLink, Endianness, TsResolution, pcap::PcapHeader};
use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why a capture could not be opened or the recording not be made.
#[derive(Debug, thiserror::Error)]
pub enum PcapError {
    /// The capture or the recording cannot be opened.
    #[error("{}: {source}", .path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is no pcap file, or a damaged one.
    #[error("{}: packet {packet} cannot be read: {source}; a pcapng capture becomes pcap with `editcap -F pcap`", .path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Number of the packet, from 1; 0 for the file's header.
        packet: usize,
        /// What is wrong.
        source: pcap_file::PcapError,
    },
    /// The capture is not of Ethernet frames.
    #[error("{}: link type is {link:?}; only Ethernet captures can be replayed (capture on one interface, not on `any`)", .path.display())]
    LinkType {
        /// The file.
        path: PathBuf,
        /// The capture's link type.
        link: DataLink,
    },
    /// The capture was cut (snap length).
    #[error("{}: packet {packet} was cut to {kept} of {len} bytes; capture with `tcpdump -s0`", .path.display())]
    Cut {
        /// The file.
        path: PathBuf,
        /// Number of the packet, from 1.
        packet: usize,
        /// Bytes in the file.
        kept: usize,
        /// Bytes it had on the wire.
        len: usize,
    },
    /// The recording cannot be written.
    #[error("{}: {source}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: pcap_file::PcapError,
    },
}

/// See the module.
pub struct PcapPort {
    replay: ReplayPort,
    /// Capture time of each packet.
    times: Vec<Duration>,
    recording: Option<Recording>,
    failure: Option<String>,
}

struct Recording {
    path: PathBuf,
    writer: PcapWriter<BufWriter<File>>,
    packet: Vec<u8>,
}

impl PcapPort {
    /// Reads the capture at `input`; what is sent is written to `output`, if given.
    ///
    /// # Errors
    /// See [`PcapError`].
    pub fn open(input: &Path, output: Option<&Path>, config: &ReplayConfig) -> Result<PcapPort, PcapError> {
        let (packets, times) = read(input)?;
        let recording = output.map(Recording::create).transpose()?;
        let mut replay = ReplayPort::new(packets, config);
        replay.rename(format!("pcap {}", input.display()));
        Ok(PcapPort { replay, times, recording, failure: None })
    }

    /// True when the whole capture has been delivered.
    pub fn is_finished(&self) -> bool {
        self.replay.is_finished()
    }

    fn record(&mut self, burst: &Burst) {
        let Some(recording) = &mut self.recording else { return };
        let last = self.replay.position().checked_sub(1).unwrap_or(self.times.len().saturating_sub(1));
        let time = self.times.get(last).copied().unwrap_or_default();
        for frame in burst {
            recording.packet.extend_from_slice(frame.bytes());
            if frame.has(flag::MORE) {
                continue;
            }
            let len = recording.packet.len() as u32;
            let packet = PcapPacket::new(time, len, &recording.packet);
            if let Err(error) = recording.writer.write_packet(&packet) {
                self.failure = Some(format!("{}: {error}", recording.path.display()));
            }
            recording.packet.clear();
        }
    }
}

impl Recording {
    fn create(path: &Path) -> Result<Recording, PcapError> {
        let file =
            File::create(path).map_err(|source| PcapError::Open { path: path.to_owned(), source })?;
        let header = PcapHeader {
            datalink: DataLink::ETHERNET,
            ts_resolution: TsResolution::NanoSecond,
            endianness: Endianness::native(),
            ..PcapHeader::default()
        };
        let writer = PcapWriter::with_header(BufWriter::new(file), header)
            .map_err(|source| PcapError::Write { path: path.to_owned(), source })?;
        Ok(Recording { path: path.to_owned(), writer, packet: Vec::new() })
    }
}

fn read(path: &Path) -> Result<(Vec<Vec<u8>>, Vec<Duration>), PcapError> {
    let format = |packet, source| PcapError::Format { path: path.to_owned(), packet, source };
    let file = File::open(path).map_err(|source| PcapError::Open { path: path.to_owned(), source })?;
    let mut reader = PcapReader::new(BufReader::new(file)).map_err(|source| format(0, source))?;
    let link = reader.header().datalink;
    if link != DataLink::ETHERNET {
        return Err(PcapError::LinkType { path: path.to_owned(), link });
    }
    let (mut packets, mut times) = (Vec::new(), Vec::new());
    while let Some(packet) = reader.next_packet() {
        let number = packets.len() + 1;
        let packet = packet.map_err(|source| format(number, source))?;
        let (kept, len) = (packet.data.len(), packet.orig_len as usize);
        if kept < len {
            return Err(PcapError::Cut { path: path.to_owned(), packet: number, kept, len });
        }
        packets.push(packet.data.into_owned());
        times.push(packet.timestamp);
    }
    Ok((packets, times))
}

impl Port for PcapPort {
    fn info(&self) -> &PortInfo {
        self.replay.info()
    }

    fn rx(&mut self, burst: &mut Burst) -> usize {
        self.replay.rx(burst)
    }

    fn tx(&mut self, burst: &mut Burst) -> usize {
        self.record(burst);
        self.replay.tx(burst)
    }

    fn flush(&mut self) {}

    fn alloc(&mut self, burst: &mut Burst, want: usize) -> usize {
        self.replay.alloc(burst, want)
    }

    fn free(&mut self, burst: &mut Burst) {
        self.replay.free(burst);
    }

    fn ledger(&self) -> Ledger {
        self.replay.ledger()
    }

    fn stats(&self) -> PortStats {
        self.replay.stats()
    }

    fn stop_rx(&mut self) {
        self.replay.stop_rx();
    }

    fn failure(&self) -> Option<String> {
        self.failure.clone()
    }
}

impl Drop for PcapPort {
    fn drop(&mut self) {
        if let Some(Recording { path, writer, .. }) = self.recording.take()
            && let Err(error) = writer.into_writer().flush()
        {
            log::error!("{}: the recording is not complete: {error}", path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, link: DataLink, packets: &[(u64, u32, &[u8])]) {
        let header = PcapHeader { datalink: link, ..PcapHeader::default() };
        let mut writer = PcapWriter::with_header(File::create(path).unwrap(), header).unwrap();
        for (millis, orig_len, data) in packets {
            let time = Duration::from_millis(*millis);
            writer.write_packet(&PcapPacket::new(time, *orig_len, data)).unwrap();
        }
    }

    #[test]
    fn what_is_answered_is_recorded_with_the_times_of_the_capture() {
        let dir = tempfile::tempdir().unwrap();
        let (input, output) = (dir.path().join("in.pcap"), dir.path().join("out.pcap"));
        let long = vec![9; 3000];
        write(&input, DataLink::ETHERNET, &[(5, 60, &[1; 60]), (8, 3000, &long), (13, 64, &[2; 64])]);

        let config = ReplayConfig { rounds: Some(1), ..ReplayConfig::default() };
        let mut port = PcapPort::open(&input, Some(&output), &config).unwrap();
        let mut burst = Burst::new();
        assert_eq!(port.rx(&mut burst), 4);
        burst[0].bytes_mut()[0] = 0xaa;
        assert_eq!(port.tx(&mut burst), 4);
        assert!(port.is_finished() && port.ledger().free == port.ledger().total);
        assert_eq!(port.failure(), None);
        drop(port);

        let (packets, times) = read(&output).unwrap();
        assert_eq!(packets.len(), 3);
        assert_eq!((packets[0][0], packets[0][1], packets[0].len()), (0xaa, 1, 60));
        assert_eq!((&packets[1], &packets[2]), (&long, &vec![2; 64]));
        assert_eq!(times, [Duration::from_millis(13); 3]);
    }

    #[test]
    fn captures_that_cannot_be_replayed_say_why() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("in.pcap");
        let open = |path: &Path| match PcapPort::open(path, None, &ReplayConfig::default()) {
            Ok(_) => panic!("it opened"),
            Err(error) => error.to_string(),
        };
        assert!(open(&path).contains("in.pcap"), "the file is named");
        write(&path, DataLink::LINUX_SLL, &[]);
        assert!(open(&path).contains("not on `any`"));
        write(&path, DataLink::ETHERNET, &[(1, 60, &[1; 60]), (1, 100, &[1; 60])]);
        assert!(open(&path).contains("packet 2 was cut to 60 of 100"));
        std::fs::write(&path, b"\x0a\x0d\x0d\x0a not a pcap file, but a pcapng's first four bytes")
            .unwrap();
        assert!(open(&path).contains("editcap"));
    }
}
