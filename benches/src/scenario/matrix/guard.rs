//! The regression guard: a run against a stored one, as ratios to the recvmmsg row of the same run.
//!
//! Absolute rates differ between machines and hours; how a row stands to recvmmsg under the same load, on the same core, seconds
//! apart, does so much less. And what is left of the noise is in the interval of the ratio's median: a row has fallen when its
//! median is below the baseline's by more than a tolerance, *and* the baseline's is above everything in the interval.
//!
//! Peers are told, too, and fail nothing: what falls there is not ours.

use super::Matrix;
use crate::rounds::Rounds;
use crate::server::Server;
use crate::setup::{Machine, Setup};
use crate::stats::Estimate;
use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The row that all are held against.
const REFERENCE: &str = "mmsg";
/// How far a ratio may fall, as a part of it. Drawn from ten rounds on a shared machine, six rounds in which nothing has changed
/// fail in 4 runs of 1,000, and six in which a row is slower by a fifth in 95 % of them. With 0.10 it is 11 runs of 1,000, with 0.15
/// it is one, but 90 %.
pub const TOLERANCE: f64 = 0.12;
/// Fewer rounds than these make no baseline: the interval of their median is not worth its name.
const LEAST_ROUNDS: usize = 6;

/// Options of `volley-bench compare`.
#[derive(Args, Clone, Debug)]
pub struct CompareArgs {
    /// The run [default: the matrix.json of the last one]
    #[arg(long, value_name = "FILE")]
    pub run: Option<PathBuf>,

    /// The baseline
    #[arg(long, value_name = "FILE", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/baseline.json"))]
    pub baseline: PathBuf,

    /// How far a ratio may fall below the baseline's, as a part of it
    #[arg(long, default_value_t = TOLERANCE)]
    pub tolerance: f64,

    /// Make the run the baseline, in place of the one there is
    #[arg(long)]
    pub renew: bool,
}

/// A stored baseline.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Baseline {
    /// Where and when it was measured.
    pub machine: Machine,
    /// Rounds it is the median of.
    pub rounds: usize,
    /// The row that all are held against.
    pub reference: String,
    /// Each row's median ratio to it.
    pub ratios: BTreeMap<String, f64>,
}

impl Baseline {
    fn of(matrix: &Matrix) -> Baseline {
        Baseline {
            machine: matrix.machine.clone(),
            rounds: matrix.count(),
            reference: REFERENCE.into(),
            ratios: estimates(&matrix.rounds()).into_iter().map(|(row, is)| (row, is.median)).collect(),
        }
    }
}

/// The command.
pub fn run(arguments: &CompareArgs, setup: &Setup) -> Result<()> {
    let run = arguments.run.clone().unwrap_or_else(|| setup.out.join("matrix.json"));
    let matrix = Matrix::read(&run).context("there is no run to compare: volley-bench matrix")?;
    if !arguments.renew {
        return compare(&matrix, &arguments.baseline, arguments.tolerance);
    }
    let baseline = Baseline::of(&matrix);
    ensure!(
        baseline.rounds >= LEAST_ROUNDS && matrix.failures.is_empty(),
        "{}: {} rounds and {} failures make no baseline: it takes {LEAST_ROUNDS} rounds without any",
        run.display(),
        baseline.rounds,
        matrix.failures.len()
    );
    let path = &arguments.baseline;
    fs::write(path, serde_json::to_string_pretty(&baseline)? + "\n")
        .with_context(|| format!("cannot write {}", path.display()))?;
    println!("compare: {} is now {}", path.display(), run.display());
    Ok(())
}

/// Fails when a row's ratio fell more than `tolerance` (a part of it) below the baseline's, or a row of it is gone without a reason.
pub fn compare(matrix: &Matrix, baseline: &Path, tolerance: f64) -> Result<()> {
    let name = || baseline.display().to_string();
    let text = fs::read_to_string(baseline).with_context(name)?;
    let before: Baseline = serde_json::from_str(&text).with_context(name)?;
    ensure!(before.reference == REFERENCE, "{}: it holds rows against {}", name(), before.reference);
    let now = estimates(&matrix.rounds());
    ensure!(!now.is_empty(), "compare: the run has no row {REFERENCE} to hold the others against");
    for (row, was) in &before.ratios {
        let is = now
            .get(row)
            .map_or("–".into(), |is| format!("{:.2} × ({:.2} – {:.2})", is.median, is.low, is.high));
        println!("compare: {row:<16} {is:>22} {REFERENCE}, was {was:.2} ×");
    }
    let missing = |row: &&String| {
        !now.contains_key(*row) && !matrix.skipped.iter().any(|(skipped, _)| skipped == *row)
    };
    let mut wrong = fallen(&before.ratios, &now, tolerance);
    wrong.extend(before.ratios.keys().filter(missing).map(|row| format!("{row}: not measured")));
    ensure!(
        wrong.is_empty(),
        "compare: {} rows fell more than {:.0} % below {} ({}): {}",
        wrong.len(),
        tolerance * 100.0,
        name(),
        before.machine,
        wrong.join("; ")
    );
    println!("compare: no row fell more than {:.0} % below {}", tolerance * 100.0, name());
    Ok(())
}

/// Each row's ratio to the reference.
fn estimates(rounds: &Rounds) -> BTreeMap<String, Estimate> {
    let ratio = |row: &crate::rounds::Row| {
        Some((row.name.clone(), rounds.ratio(&row.name, REFERENCE, 0.0)?.estimate?))
    };
    rounds.rows().iter().filter_map(ratio).collect()
}

/// The rows of ours in both that fell too far, in words.
fn fallen(before: &BTreeMap<String, f64>, now: &BTreeMap<String, Estimate>, tolerance: f64) -> Vec<String> {
    let both = before.iter().filter_map(|(name, before)| Some((name, *before, now.get(name)?)));
    both.filter(|(name, ..)| !Server::PEERS.iter().any(|peer| peer.as_str() == *name))
        .filter(|(_, before, now)| now.median < before * (1.0 - tolerance) && now.high < *before)
        .map(|(name, before, now)| {
            let Estimate { median, low, high, .. } = now;
            format!("{name}: {median:.2} × {REFERENCE} ({low:.2} – {high:.2}), was {before:.2} ×")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::matrix::row::Sample;

    /// A run in which recvmmsg answers `mmsg` Mpps in every round, and each of `rows` what its rounds say.
    fn run(mmsg: f64, rows: &[(Server, &[f64])]) -> Matrix {
        let mut matrix = Matrix::new(1.0);
        let sample = |mpps: f64| Some(Sample { mpps, ..Sample::default() });
        let count = rows.iter().map(|(_, rounds)| rounds.len()).max().unwrap_or(LEAST_ROUNDS);
        let at = matrix.row(Server::Mmsg);
        matrix.rows[at].rounds = vec![sample(mmsg); count];
        for (server, rounds) in rows {
            let at = matrix.row(*server);
            matrix.rows[at].rounds = rounds.iter().map(|mpps| sample(*mpps)).collect();
        }
        matrix
    }

    /// The same with an AF_XDP row that does not vary.
    fn matrix(mmsg: f64, other: f64) -> Matrix {
        run(mmsg, &[(Server::AfXdp, &[other; LEAST_ROUNDS])])
    }

    fn stored(matrix: &Matrix) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), serde_json::to_string(&Baseline::of(matrix)).unwrap()).unwrap();
        file
    }

    #[test]
    fn a_slower_machine_is_no_regression_and_a_slower_row_is() {
        let before = stored(&matrix(0.25, 0.65));
        compare(&matrix(0.125, 0.325), before.path(), TOLERANCE).unwrap();
        compare(&matrix(0.25, 0.60), before.path(), TOLERANCE).unwrap();
        let error = compare(&matrix(0.25, 0.50), before.path(), TOLERANCE).unwrap_err().to_string();
        assert!(error.contains("1 rows fell") && error.contains("af-xdp: 2.00 × mmsg"), "{error}");
    }

    #[test]
    fn a_ratio_that_varies_fell_only_when_the_baseline_is_above_all_of_it() {
        let before = stored(&run(0.25, &[(Server::AfXdp, &[0.8, 0.81, 0.85, 0.85, 0.87, 0.96])]));
        // A bad minute took two rounds of six and lowered a third: noise.
        compare(
            &run(0.25, &[(Server::AfXdp, &[0.6, 0.65, 0.7, 0.78, 0.85, 0.87])]),
            before.path(),
            TOLERANCE,
        )
        .unwrap();
        // The baseline's rounds, each a fifth slower: a regression, though its best round reaches the old ones.
        let slower = [0.64, 0.65, 0.68, 0.68, 0.70, 0.77];
        let error = compare(&run(0.25, &[(Server::AfXdp, &slower)]), before.path(), TOLERANCE).unwrap_err();
        assert!(error.to_string().contains("af-xdp: 2.72 ×"), "{error}");
    }

    #[test]
    fn the_stored_baseline_holds_against_itself_and_fails_when_any_row_of_ours_is_slower_by_a_fifth() {
        let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/baseline.json"));
        let stored: Baseline = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        assert!(stored.rounds >= LEAST_ROUNDS, "{} rounds", stored.rounds);
        for server in Server::MODELS {
            assert!(stored.ratios.contains_key(server.as_str()), "{} is not in it", server.as_str());
        }
        let again = |slower: Option<Server>, by: f64| {
            let rows: Vec<_> = (Server::MODELS.iter().filter(|server| **server != Server::Mmsg))
                .map(|server| {
                    let part = if slower == Some(*server) { by } else { 1.0 };
                    (*server, [stored.ratios[server.as_str()] * part; LEAST_ROUNDS])
                })
                .collect();
            let rows: Vec<(Server, &[f64])> =
                rows.iter().map(|(server, rounds)| (*server, &rounds[..])).collect();
            compare(&run(1.0, &rows), path, TOLERANCE)
        };
        again(None, 1.0).unwrap();
        for server in Server::MODELS {
            let peer = Server::PEERS.contains(&server) || server == Server::Mmsg;
            assert_eq!(again(Some(server), 0.8).is_ok(), peer, "{}", server.as_str());
            again(Some(server), 0.95).unwrap();
        }
    }

    #[test]
    fn a_row_that_is_gone_fell_unless_it_was_skipped_for_a_reason() {
        let before = stored(&matrix(0.25, 0.65));
        let mut now = matrix(0.25, 0.65);
        now.rows.retain(|row| row.name == REFERENCE);
        let error = compare(&now, before.path(), 0.15).unwrap_err().to_string();
        assert!(error.contains("af-xdp: not measured"), "{error}");
        now.skipped.push(("af-xdp".into(), "no root".into()));
        compare(&now, before.path(), 0.15).unwrap();
    }

    #[test]
    fn a_baseline_that_is_none_is_an_error_that_names_the_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "{}").unwrap();
        let error = format!("{:#}", compare(&matrix(1.0, 1.0), file.path(), 0.1).unwrap_err());
        assert!(error.contains(file.path().to_str().unwrap()), "{error}");
    }
}
