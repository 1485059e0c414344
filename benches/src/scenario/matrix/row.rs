//! What is measured of one row, and of all: plain numbers that are written to matrix.json, read back, and added to.

use super::watch::Cost;
use crate::generator::Measured;
use crate::rounds::{Ratio, Rounds};
use crate::server::Server;
use crate::setup::Machine;
use crate::stats::{self, Estimate};
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;

/// Loss from which on a row has collapsed.
pub const COLLAPSE: f64 = 0.01;

/// One row in one round.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Sample {
    /// Million answers a second at saturation.
    pub mpps: f64,
    /// Part of the packets at saturation that was not answered.
    pub loss: f64,
    /// Costs at saturation.
    pub cost: Cost,
    /// At the common rate, every answer compared byte for byte.
    pub latency: Measured,
}

/// One offered load.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct Point {
    /// Packets a second.
    pub pps: f64,
    /// Median round trip, in ns.
    pub p50_ns: f64,
    /// 99th percentile of the round trip, in ns.
    pub p99_ns: f64,
    /// The same, of what the generator sent on time; none when that was nothing, or an earlier version measured.
    #[serde(default)]
    pub p99_on_time_ns: Option<f64>,
    /// Part that was not answered. From [`COLLAPSE`] on it is the row's last point.
    pub lost: f64,
}

/// Everything measured of one row.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// What it is.
    pub what: String,
    /// One a round; none where it failed or was left out.
    pub rounds: Vec<Option<Sample>>,
    /// Frame size and million answers a second.
    pub sizes: Vec<(f64, f64)>,
    /// Flows and million answers a second.
    pub flows: Vec<(f64, f64)>,
    /// Over offered load, until it collapsed or the generator could send no faster.
    pub loads: Vec<Point>,
}

impl Row {
    /// Nothing measured yet.
    pub fn new(server: Server) -> Row {
        let (name, what) = (server.as_str().to_owned(), server.in_words().to_owned());
        Row { name, what, ..Row::default() }
    }

    /// Something of each round that it was measured in.
    pub fn each<T>(&self, of: impl Fn(&Sample) -> T) -> Vec<T> {
        self.rounds.iter().flatten().map(of).collect()
    }

    /// The median of something over the rounds, with its interval.
    pub fn estimate(&self, of: impl Fn(&Sample) -> f64) -> Option<Estimate> {
        stats::estimate(&self.each(of))
    }

    /// The same without its interval.
    pub fn median(&self, of: impl Fn(&Sample) -> f64) -> Option<f64> {
        self.estimate(of).map(|estimate| estimate.median)
    }

    /// The offered load at which it collapsed, when one was found, in packets a second.
    pub fn collapse(&self) -> Option<f64> {
        self.loads.last().filter(|point| point.lost > COLLAPSE).map(|point| point.pps)
    }

    /// The most that it was offered, in packets a second.
    pub fn most_offered(&self) -> Option<f64> {
        self.loads.last().map(|point| point.pps)
    }

    /// The most flows that it was tried with and answered.
    pub fn most_flows(&self) -> Option<f64> {
        self.flows.iter().filter(|(_, mpps)| *mpps > 0.0).map(|(flows, _)| *flows).reduce(f64::max)
    }
}

/// The whole of it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Matrix {
    /// What it is.
    pub scenario: String,
    /// Where and when it began.
    pub machine: Machine,
    /// Seconds of each measurement at saturation.
    pub seconds: f64,
    /// Packets a second of the latency rounds.
    pub common_rate: f64,
    /// The rows.
    pub rows: Vec<Row>,
    /// What the rows are to each other; made from them.
    #[serde(skip_deserializing)]
    pub ratios: Vec<Ratio>,
    /// Rows that were not measured, and why.
    pub skipped: Vec<(String, String)>,
    /// What went wrong in single measurements.
    pub failures: Vec<String>,
}

impl Matrix {
    /// Nothing measured yet.
    pub fn new(seconds: f64) -> Matrix {
        Matrix {
            scenario: "matrix".into(),
            machine: Machine::here(),
            seconds,
            common_rate: 0.0,
            rows: Vec::new(),
            ratios: Vec::new(),
            skipped: Vec::new(),
            failures: Vec::new(),
        }
    }

    /// One of before.
    pub fn read(path: &Path) -> Result<Matrix> {
        let name = || path.display().to_string();
        let text = fs::read_to_string(path).with_context(name)?;
        let mut matrix: Matrix = serde_json::from_str(&text).with_context(name)?;
        ensure!(matrix.scenario == "matrix", "{} is no matrix", name());
        matrix.ratios = ratios(&matrix.rounds());
        Ok(matrix)
    }

    /// The place of a server's row, which is made, with no value in the rounds there were, when there is none.
    pub fn row(&mut self, server: Server) -> usize {
        if let Some(at) = self.rows.iter().position(|row| row.name == server.as_str()) {
            return at;
        }
        let rounds = vec![None; self.count()];
        self.rows.push(Row { rounds, ..Row::new(server) });
        self.rows.len() - 1
    }

    /// How many rounds there are.
    pub fn count(&self) -> usize {
        self.rows.iter().map(|row| row.rounds.len()).max().unwrap_or(0)
    }

    /// The saturation rates, for ratios within a round.
    pub fn rounds(&self) -> Rounds {
        let mut rounds = Rounds::new(self.rows.iter().map(|row| row.name.as_str()));
        for (at, row) in self.rows.iter().enumerate() {
            for sample in &row.rounds {
                rounds.note(at, sample.as_ref().map(|sample| sample.mpps));
            }
        }
        rounds
    }
}

/// The rows over kernel sockets that send each datagram for itself: all but GSO.
pub const KERNEL: [&str; 8] =
    ["epoll", "epoll-et", "poll", "select", "mio", "mmsg", "io-uring", "io-uring-sqpoll"];

/// The ratios that are wanted, of the rows there are.
pub fn ratios(rounds: &Rounds) -> Vec<Ratio> {
    let median = |row: &crate::rounds::Row| row.estimate.map_or(0.0, |estimate| estimate.median);
    let kernel = rounds.rows().iter().filter(|row| KERNEL.contains(&row.name.as_str()));
    let best = kernel.max_by(|one, other| median(one).total_cmp(&median(other)));
    let mut ratios = Vec::new();
    ratios.extend(best.and_then(|best| rounds.ratio("af-xdp", &best.name, 2.6)));
    ratios.extend(rounds.ratio("mmsg", "epoll", 1.2));
    ratios.extend(rounds.ratio("io-uring", "mmsg", 1.0));
    for peer in ["testpmd", "xdp", "xsk-rs"] {
        ratios.extend(rounds.ratio("af-xdp", peer, 1.05));
    }
    ratios
}

/// How AF_XDP's round trips at the common rate stand to the kernel-socket rows': one sentence a wish.
pub fn latency_verdicts(rows: &[Row]) -> Vec<String> {
    type Of = fn(&Sample) -> f64;
    let wishes: [(&str, f64, Of); 4] = [
        ("p50", 1.0, |sample| sample.latency.latency.p50_ns as f64),
        ("p99", 1.1, |sample| sample.latency.latency.p99_ns as f64),
        ("p99 of what was sent on time", 1.1, |sample| sample.latency.latency_on_time.p99_ns as f64),
        ("p99 from the actual send", 1.1, |sample| sample.latency.latency_uncorrected.p99_ns as f64),
    ];
    let ours = rows.iter().find(|row| row.name == "af-xdp");
    let verdict = |(what, most, of): (&str, f64, Of)| {
        let ours = ours?.median(of).filter(|ns| *ns > 0.0)?;
        let kernel = rows.iter().filter(|row| KERNEL.contains(&row.name.as_str()) || row.name == "gso");
        let medians = kernel.filter_map(|row| Some((row.name.as_str(), row.median(of)?)));
        let (name, best) = medians.min_by(|one, other| one.1.total_cmp(&other.1))?;
        let (wanted, met) = match most > 1.0 {
            true => (format!("at most {most:.1} ×"), ours <= best * most),
            false => ("less".to_owned(), ours < best),
        };
        let time = |ns: f64| crate::table::time(ns as u64);
        Some(format!(
            "{what}: af-xdp {}, best kernel-socket row {} ({name}): {:.2} ×; wanted {wanted}: {}",
            time(ours),
            time(best),
            ours / best,
            if met { "met" } else { "missed" }
        ))
    };
    wishes.into_iter().filter_map(verdict).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generator::Times;

    fn sample(mpps: f64, p50_ns: u64, p99_ns: u64) -> Option<Sample> {
        let latency = Times { p50_ns, p99_ns, ..Times::default() };
        let latency = Measured {
            latency,
            latency_uncorrected: latency,
            latency_on_time: latency,
            ..Measured::default()
        };
        Some(Sample { mpps, latency, ..Sample::default() })
    }

    #[test]
    fn a_matrix_reads_back_and_a_late_row_has_no_value_before() {
        let mut matrix = Matrix::new(1.0);
        let mmsg = matrix.row(Server::Mmsg);
        matrix.rows[mmsg].rounds.push(sample(0.2, 20_000, 90_000));
        let ours = matrix.row(Server::AfXdp);
        assert_eq!(matrix.row(Server::Mmsg), mmsg);
        matrix.rows[mmsg].rounds.push(sample(0.3, 20_000, 90_000));
        matrix.rows[ours].rounds.push(sample(0.9, 10_000, 95_000));
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), serde_json::to_string(&matrix).unwrap()).unwrap();
        let read = Matrix::read(file.path()).unwrap();
        assert_eq!((read.count(), read.rows[ours].rounds.len()), (2, 2));
        let ratio = read.ratios.iter().find(|ratio| ratio.of == "af-xdp").unwrap().estimate.unwrap();
        assert!((ratio.median - 3.0).abs() < 1e-9 && ratio.count == 1);
        fs::write(file.path(), r#"{"scenario": "echo"}"#).unwrap();
        assert!(Matrix::read(file.path()).unwrap_err().to_string().contains("/"));
    }

    #[test]
    fn latency_is_judged_against_the_best_row_over_kernel_sockets() {
        let mut rows = [Server::AfXdp, Server::Epoll, Server::Mmsg, Server::Testpmd].map(Row::new);
        rows[0].rounds = vec![sample(1.0, 10_000, 100_000)];
        rows[1].rounds = vec![sample(1.0, 20_000, 95_000)];
        rows[2].rounds = vec![sample(1.0, 9_000, 200_000)];
        rows[3].rounds = vec![sample(1.0, 1_000, 1_000)];
        let verdicts = latency_verdicts(&rows);
        assert_eq!(verdicts.len(), 4);
        assert!(verdicts[0].contains("(mmsg)") && verdicts[0].ends_with("missed"), "{}", verdicts[0]);
        assert!(verdicts[1].contains("(epoll): 1.05 ×") && verdicts[1].ends_with("met"), "{}", verdicts[1]);
        assert!(latency_verdicts(&rows[1..]).is_empty());
    }
}
