//! A script: its steps, read line by line.

use crate::error::Error;
use crate::segment::{Data, Segment};
use crate::settings;
use crate::word::{Word, duration, number, pair, split};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use volley_tcp::{Config, ConnectionOptions, IcmpError, ListenOptions, Shutdown, SocketOption};

/// A script that has been read.
#[derive(Clone, Debug)]
pub struct Script {
    /// Its name, for messages.
    pub(crate) name: String,
    pub(crate) config: Config,
    pub(crate) steps: Vec<Step>,
}

#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// Counted from one.
    pub line: usize,
    pub text: String,
    pub wait: Wait,
    pub act: Act,
}

/// What a step waits for before it acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    For(Duration),
    /// Until the stack sends something, in this span.
    Sent(Duration, Duration),
}

/// `KEY=VALUE`, `KEY>=N`, `KEY<=N`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Check {
    pub key: String,
    pub how: char,
    pub value: String,
}

#[derive(Clone, Debug)]
pub(crate) enum Act {
    Nothing,
    Flow {
        name: String,
        local: Option<SocketAddr>,
        remote: Option<SocketAddr>,
        isn: Option<u32>,
    },
    Listen(ListenOptions),
    CloseListener,
    Connect(String, ConnectionOptions),
    /// The peer's segments of one burst.
    Inject(Vec<Segment>),
    Expect(Segment),
    Accept(String),
    NoAccept,
    Write(String, Data, Option<usize>),
    Read(String, Data),
    Unread(String, usize),
    State(String, String),
    Shutdown(String, Shutdown),
    Close(String),
    Abort(String),
    Set(String, SocketOption),
    Event(String, String),
    NoEvent(String),
    Info(String, Vec<Check>),
    Icmp {
        error: IcmpError,
        seq: i64,
        believed: bool,
    },
    Count(String, u64),
    Dropped(String, u64),
    Population(Vec<Check>),
    Room(Option<usize>),
    Drain,
    Fails(String, Box<Act>),
}

impl Script {
    /// Reads a file.
    pub fn load(path: &Path) -> Result<Script, Error> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| Error::Read { path: path.to_owned(), source })?;
        Script::parse(&path.display().to_string(), &text)
    }

    /// Reads a script from memory. `name` is for messages.
    pub fn parse(name: &str, text: &str) -> Result<Script, Error> {
        let mut script = Script { name: name.to_owned(), config: Config::default(), steps: Vec::new() };
        let mut burst: Vec<Segment> = Vec::new();
        for (at, text) in text.lines().enumerate() {
            let wrong = |message: String| Error::Syntax {
                script: name.to_owned(),
                line: at + 1,
                message,
                text: text.trim().to_owned(),
            };
            let mut words = split(text).map_err(wrong)?;
            let more = words.last() == Some(&Word::Plain("&".into()));
            if more {
                words.pop();
            }
            let Some(step) = script.step(at + 1, text, &words).map_err(wrong)? else { continue };
            match step.act {
                Act::Inject(mut segments) => {
                    if !burst.is_empty() && step.wait != Wait::For(Duration::ZERO) {
                        return Err(wrong("within a burst there is no time".into()));
                    }
                    burst.append(&mut segments);
                    if !more {
                        let act = Act::Inject(std::mem::take(&mut burst));
                        script.steps.push(Step { act, ..step });
                    }
                }
                _ if more || !burst.is_empty() => {
                    return Err(wrong(
                        "'&' joins a segment of the peer's with the next: here is none".into(),
                    ));
                }
                _ => script.steps.push(step),
            }
        }
        if burst.is_empty() {
            return Ok(script);
        }
        Err(Error::Syntax {
            script: name.to_owned(),
            line: text.lines().count(),
            message: "the script ends within a burst".into(),
            text: String::new(),
        })
    }

    fn step(&mut self, line: usize, text: &str, words: &[Word]) -> Result<Option<Step>, String> {
        let mut words = words;
        let mut wait = Wait::For(Duration::ZERO);
        if let [Word::Plain(first), rest @ ..] = words
            && let Some(time) = first.strip_prefix('+')
        {
            wait = match time.split_once("..") {
                None => Wait::For(duration(time)?),
                Some((from, to)) => Wait::Sent(duration(from)?, duration(to)?),
            };
            words = rest;
        }
        let act = match words {
            [] if wait == Wait::For(Duration::ZERO) => return Ok(None),
            [] => Act::Nothing,
            [Word::Plain(first), rest @ ..] if first == "config" => {
                if !self.steps.is_empty() {
                    return Err("the configuration comes before everything else".into());
                }
                for word in plain(rest)? {
                    settings::config(&mut self.config, word)?;
                }
                return Ok(None);
            }
            _ => act(words)?,
        };
        if matches!(wait, Wait::Sent(..)) && !matches!(act, Act::Expect(_)) {
            return Err("a span of time is for what the stack sends: '>'".into());
        }
        Ok(Some(Step { line, text: text.trim().to_owned(), wait, act }))
    }
}

fn plain(words: &[Word]) -> Result<Vec<&str>, String> {
    words
        .iter()
        .map(|word| match word {
            Word::Plain(word) => Ok(word.as_str()),
            other => Err(format!("{other:?} means nothing here")),
        })
        .collect()
}

fn data(word: Option<&Word>) -> Result<Data, String> {
    match word {
        Some(Word::Text(text)) => Ok(Data::Text(text.clone())),
        Some(Word::Plain(word)) => Ok(Data::Pattern(number(word)?)),
        _ => Err("how many bytes, or which?".into()),
    }
}

fn checks(words: &[&str]) -> Result<Vec<Check>, String> {
    let check = |word: &&str| {
        let (key, value) = pair(word)?;
        let (key, how) = match key.strip_suffix(['>', '<']) {
            Some(stem) => (stem, if key.ends_with('>') { '>' } else { '<' }),
            None => (key, '='),
        };
        Ok(Check { key: key.to_owned(), how, value: value.to_owned() })
    };
    words.iter().map(check).collect()
}

fn act(words: &[Word]) -> Result<Act, String> {
    let Some((Word::Plain(verb), rest)) = words.split_first() else {
        return Err("a line begins with a time or a step".into());
    };
    // Those that take more than plain words.
    match verb.as_str() {
        "<" => return Ok(Act::Inject(vec![injected(rest)?])),
        ">" => return Ok(Act::Expect(Segment::parse(rest)?)),
        "write" | "read" => {
            let Some(Word::Plain(name)) = rest.first() else { return Err("which connection?".into()) };
            let data = data(rest.get(1))?;
            let takes = match &rest[2..] {
                [] => None,
                [Word::Plain(takes), Word::Plain(n)] if takes == "takes" && verb == "write" => {
                    Some(number(n)?)
                }
                _ => return Err(format!("there is too much behind {verb}")),
            };
            return Ok(match verb.as_str() {
                "write" => Act::Write(name.clone(), data, takes),
                _ => Act::Read(name.clone(), data),
            });
        }
        "fails" => {
            let Some((Word::Plain(error), call)) = rest.split_first() else {
                return Err("which error?".into());
            };
            return Ok(Act::Fails(error.clone(), Box::new(act(call)?)));
        }
        _ => {}
    }
    let words = plain(rest)?;
    Ok(match (verb.as_str(), &words[..]) {
        ("flow", [name, rest @ ..]) => flow(name, rest)?,
        ("listen", settings) => {
            let mut options = ListenOptions::default();
            settings.iter().try_for_each(|word| settings::listener(&mut options, word))?;
            Act::Listen(options)
        }
        ("close_listener", []) => Act::CloseListener,
        ("connect", [name, settings @ ..]) => {
            let mut options = ConnectionOptions::default();
            settings.iter().try_for_each(|word| settings::connection(&mut options, word))?;
            Act::Connect((*name).into(), options)
        }
        ("accept", [name]) => Act::Accept((*name).into()),
        ("no_accept", []) => Act::NoAccept,
        ("unread", [name, n]) => Act::Unread((*name).into(), number(n)?),
        ("state", [name, state]) => Act::State((*name).into(), (*state).into()),
        ("shutdown", [name, how]) => {
            let how = match *how {
                "read" => Shutdown::Read,
                "write" => Shutdown::Write,
                "both" => Shutdown::Both,
                _ => return Err(format!("shutdown {how}: read, write or both")),
            };
            Act::Shutdown((*name).into(), how)
        }
        ("close", [name]) => Act::Close((*name).into()),
        ("abort", [name]) => Act::Abort((*name).into()),
        ("set", [name, setting]) => Act::Set((*name).into(), settings::option(setting)?),
        ("event", [name, kind]) => Act::Event((*name).into(), (*kind).into()),
        ("no_event", [name]) => Act::NoEvent((*name).into()),
        ("info", [name, rest @ ..]) => Act::Info((*name).into(), checks(rest)?),
        ("icmp", rest) => icmp(rest)?,
        ("count", [name, n]) => Act::Count((*name).into(), number(n)?),
        ("dropped", [name, n]) => Act::Dropped((*name).into(), number(n)?),
        ("population", rest) => Act::Population(checks(rest)?),
        ("room", ["all"]) => Act::Room(None),
        ("room", [n]) => Act::Room(Some(number(n)?)),
        ("drain", []) => Act::Drain,
        _ => return Err(format!("'{verb}' is no step, or not with these words")),
    })
}

/// A segment of the peer's says everything that matters.
fn injected(words: &[Word]) -> Result<Segment, String> {
    let segment = Segment::parse(words)?;
    if segment.any || segment.flags.is_none() || segment.seq.is_none() || segment.data.is_none() {
        return Err("what the peer sends has no '*'".into());
    }
    Ok(segment)
}

fn flow(name: &str, words: &[&str]) -> Result<Act, String> {
    let (mut local, mut remote, mut isn) = (None, None, None);
    for pair in words.chunks(2) {
        let &[key, value] = pair else { return Err(format!("'{}' has no value", pair[0])) };
        let address = || value.parse().map_err(|_| format!("'{value}' is no address and port"));
        match key {
            "local" => local = Some(address()?),
            "remote" => remote = Some(address()?),
            "isn" => isn = Some(number(value)?),
            _ => return Err(format!("a flow has no '{key}'")),
        }
    }
    Ok(Act::Flow { name: name.into(), local, remote, isn })
}

fn icmp(words: &[&str]) -> Result<Act, String> {
    let (error, rest) = match words {
        ["too_big", mtu, rest @ ..] => (IcmpError::TooBig(number(mtu)?), rest),
        ["unreachable", rest @ ..] => (IcmpError::Unreachable, rest),
        ["transient", rest @ ..] => (IcmpError::Transient, rest),
        _ => return Err("icmp too_big MTU, unreachable or transient".into()),
    };
    let (seq, believed) = match rest {
        ["seq", seq] | ["seq", seq, "believed"] => (number(seq)?, true),
        ["seq", seq, "refused"] => (number(seq)?, false),
        _ => return Err("an ICMP error quotes a sequence number: seq N".into()),
    };
    Ok(Act::Icmp { error, seq, believed })
}
