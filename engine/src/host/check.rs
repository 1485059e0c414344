//! One thing that was checked: whether the way is open, what was found, and what mends it.

use serde::Serialize;

/// Whether the way is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// As it should be.
    Open,
    /// Not as it should be; the remedy says what to do.
    Closed,
    /// It cannot be told from here; `found` says why.
    Unknown,
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Answer::Open => "open",
            Answer::Closed => "closed",
            Answer::Unknown => "unknown",
        })
    }
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at; stable, for scripts.
    pub name: &'static str,
    /// Whether the way is open.
    pub answer: Answer,
    /// The engine's XDP path does not work without it. Otherwise it costs speed or is good to know.
    pub needed: bool,
    /// What there is.
    pub found: String,
    /// The command, or what else to do, that opens the way.
    pub remedy: Option<String>,
}

impl Check {
    /// All is well.
    pub fn open(name: &'static str, found: impl Into<String>) -> Check {
        Check { name, answer: Answer::Open, needed: false, found: found.into(), remedy: None }
    }

    /// Something is not, and `remedy` mends it.
    pub fn closed(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Check {
        let (found, remedy) = (found.into(), Some(remedy.into()));
        Check { name, answer: Answer::Closed, needed: false, found, remedy }
    }

    /// Nobody can say from here, and `remedy` finds out.
    pub fn unknown(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Check {
        Check { answer: Answer::Unknown, ..Check::closed(name, found, remedy) }
    }

    /// Without it nothing works.
    pub fn needed(self) -> Check {
        Check { needed: true, ..self }
    }

    /// True when the engine's XDP path cannot work because of it.
    pub fn is_fatal(&self) -> bool {
        self.needed && self.answer == Answer::Closed
    }
}
