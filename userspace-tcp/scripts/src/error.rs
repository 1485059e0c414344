//! What can be wrong: with a script, and with the stack.

use std::path::PathBuf;

/// Why a script did not pass.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A line means nothing.
    #[error("{script}:{line}: {message}\n    {text}")]
    Syntax {
        /// The script.
        script: String,
        /// Its line, counted from one.
        line: usize,
        /// What is wrong with it.
        message: String,
        /// The line.
        text: String,
    },
    /// The stack did something else.
    #[error("{0}")]
    Mismatch(Box<Mismatch>),
}

/// A step whose outcome is not what the script says.
#[derive(Debug, thiserror::Error)]
#[error("{script}:{line}: {message}\n    {text}\n  so far:\n{trace}")]
pub struct Mismatch {
    /// The script.
    pub script: String,
    /// The line of the step, counted from one.
    pub line: usize,
    /// Expected and found.
    pub message: String,
    /// The step.
    pub text: String,
    /// What the two ends have said, in the script's own form, with the time in milliseconds.
    pub trace: String,
}
