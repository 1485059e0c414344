//! Segments as a script writes them, with sequence numbers that count from the initial ones.

use crate::word::{Word, number};
use std::fmt;

/// Letters of the flags, from bit 0 up.
const LETTERS: [char; 8] = ['F', 'S', 'R', 'P', 'A', 'U', 'E', 'C'];

/// A value, or anything.
pub(crate) type Maybe<T> = Option<T>;

/// One option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Opt {
    Mss(Maybe<u16>),
    Scale(Maybe<u8>),
    SackOk,
    Stamps(Maybe<i64>, Maybe<i64>),
    Sack(Vec<(i64, i64)>),
    Nop,
    Eol,
    Raw(Vec<u8>),
}

/// Payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Data {
    /// So many bytes of the pattern.
    Pattern(u32),
    Text(Vec<u8>),
}

impl Data {
    pub(crate) fn len(&self) -> u32 {
        match self {
            Data::Pattern(n) => *n,
            Data::Text(text) => text.len() as u32,
        }
    }
}

/// A segment, to be sent by the peer or expected of the stack. In the latter what is `None` may be anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Anything at all.
    pub any: bool,
    pub flags: Maybe<u8>,
    pub seq: Maybe<i64>,
    pub data: Maybe<Data>,
    pub ack: Maybe<i64>,
    pub window: Maybe<u16>,
    pub options: Maybe<Vec<Opt>>,
    pub ecn: Maybe<u8>,
    pub ttl: Maybe<u8>,
    pub tos: Maybe<u8>,
    pub urgent: u16,
    pub path: Maybe<u32>,
    pub offset: Option<u8>,
    pub reserved: u8,
    pub truncate: Option<usize>,
    pub bad_checksum: bool,
}

fn flags(word: &str) -> Result<Maybe<u8>, String> {
    if word == "*" {
        return Ok(None);
    }
    let mut flags = 0;
    for letter in word.chars().filter(|&c| c != '-') {
        let bit = LETTERS
            .iter()
            .position(|&l| l == letter)
            .ok_or_else(|| format!("'{letter}' is no flag: letters of SFRPAUEC, or - for none"))?;
        flags |= 1 << bit;
    }
    Ok(Some(flags))
}

fn maybe<T: TryFrom<i64>>(word: &str) -> Result<Maybe<T>, String> {
    if word == "*" { Ok(None) } else { number(word).map(Some) }
}

impl Segment {
    /// Reads what follows `<` or `>`.
    pub(crate) fn parse(words: &[Word]) -> Result<Segment, String> {
        let mut segment = Segment::default();
        let mut words = words.iter();
        let mut plain = |what: &str| match words.next() {
            Some(Word::Plain(word)) => Ok(word.as_str()),
            _ => Err(format!("{what} is missing")),
        };
        segment.flags = flags(plain("the flags")?)?;
        let Ok(sequence) = plain("the sequence number") else {
            segment.any = segment.flags.is_none();
            return if segment.any { Ok(segment) } else { Err("the sequence number is missing".into()) };
        };
        match sequence.split_once(':') {
            None => {
                segment.seq = maybe(sequence)?;
                segment.data = Some(Data::Pattern(0));
            }
            Some((start, end)) => {
                segment.seq = maybe(start)?;
                if let (Some(start), Some(end)) = (segment.seq, maybe::<i64>(end)?) {
                    let len = u32::try_from(end - start).map_err(|_| "the end is before the start")?;
                    segment.data = Some(Data::Pattern(len));
                }
            }
        }
        while let Some(word) = words.next() {
            let word = match word {
                Word::Plain(word) => word.as_str(),
                Word::Text(text) => {
                    segment.data = Some(Data::Text(text.clone()));
                    continue;
                }
                Word::List(list) => {
                    segment.options = Some(options(list)?);
                    continue;
                }
            };
            if word == "badsum" {
                segment.bad_checksum = true;
                continue;
            }
            let Some(Word::Plain(value)) = words.next() else {
                return Err(format!("'{word}' has no value, or means nothing in a segment"));
            };
            match word {
                "ack" => segment.ack = maybe(value)?,
                "win" => segment.window = maybe(value)?,
                "urg" => segment.urgent = number(value)?,
                "path" => segment.path = maybe(value)?,
                "ttl" => segment.ttl = maybe(value)?,
                "tos" => segment.tos = maybe(value)?,
                "offset" => segment.offset = Some(number(value)?),
                "reserved" => segment.reserved = number(value)?,
                "truncate" => segment.truncate = Some(number(value)?),
                "ecn" => {
                    let bits = ["none", "ect1", "ect0", "ce"].iter().position(|name| name == value);
                    let bits = bits.ok_or_else(|| format!("ecn {value}: none, ect0, ect1 or ce"))?;
                    segment.ecn = Some(bits as u8);
                }
                _ => return Err(format!("a segment has no '{word}'")),
            }
        }
        Ok(segment)
    }
}

fn options(list: &str) -> Result<Vec<Opt>, String> {
    let mut options = Vec::new();
    for item in list.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        let mut words = item.split_whitespace();
        let name = words.next().unwrap_or("");
        let mut value = || words.next().ok_or_else(|| format!("'{item}' has no value"));
        options.push(match name {
            "mss" => Opt::Mss(maybe(value()?)?),
            "ws" => Opt::Scale(maybe(value()?)?),
            "sack_ok" => Opt::SackOk,
            "ts" => Opt::Stamps(maybe(value()?)?, maybe(value()?)?),
            "nop" => Opt::Nop,
            "eol" => Opt::Eol,
            "raw" => {
                let hex = value()?;
                let bytes = (0..hex.len())
                    .step_by(2)
                    .map(|i| hex.get(i..i + 2).and_then(|byte| u8::from_str_radix(byte, 16).ok()));
                Opt::Raw(bytes.collect::<Option<_>>().ok_or_else(|| format!("'{hex}' is not hexadecimal"))?)
            }
            "sack" => {
                let mut blocks = Vec::new();
                for block in words.by_ref() {
                    let (start, end) = block.split_once(':').ok_or("a block is START:END")?;
                    blocks.push((number(start)?, number(end)?));
                }
                Opt::Sack(blocks)
            }
            _ => return Err(format!("there is no option '{name}'")),
        });
        if let Some(extra) = words.next() {
            return Err(format!("'{extra}' is too much in '{item}'"));
        }
    }
    Ok(options)
}

fn star<T: fmt::Display>(value: &Maybe<T>) -> String {
    value.as_ref().map_or("*".into(), T::to_string)
}

impl fmt::Display for Opt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Opt::Mss(n) => write!(f, "mss {}", star(n)),
            Opt::Scale(n) => write!(f, "ws {}", star(n)),
            Opt::SackOk => f.write_str("sack_ok"),
            Opt::Stamps(value, echo) => write!(f, "ts {} {}", star(value), star(echo)),
            Opt::Sack(blocks) => {
                f.write_str("sack")?;
                blocks.iter().try_for_each(|(start, end)| write!(f, " {start}:{end}"))
            }
            Opt::Nop => f.write_str("nop"),
            Opt::Eol => f.write_str("eol"),
            Opt::Raw(bytes) => {
                f.write_str("raw ")?;
                bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    }
}

/// In the form that [`Segment::parse`] reads.
impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.any {
            return f.write_str("*");
        }
        match self.flags {
            None => f.write_str("*")?,
            Some(0) => f.write_str("-")?,
            Some(flags) => {
                for bit in [1, 0, 2, 3, 4, 5, 6, 7].into_iter().filter(|bit| flags >> bit & 1 == 1) {
                    write!(f, "{}", LETTERS[bit])?;
                }
            }
        }
        write!(f, " {}", star(&self.seq))?;
        match (&self.data, self.seq) {
            (None, _) => f.write_str(":*")?,
            (Some(Data::Text(text)), _) => write!(f, " \"{}\"", text.escape_ascii())?,
            (Some(Data::Pattern(0)), _) => {}
            (Some(Data::Pattern(n)), Some(seq)) => write!(f, ":{}", seq + i64::from(*n))?,
            (Some(Data::Pattern(n)), None) => write!(f, " ({n} bytes)")?,
        }
        if let Some(ack) = self.ack {
            write!(f, " ack {ack}")?;
        }
        if let Some(window) = self.window {
            write!(f, " win {window}")?;
        }
        if let Some(options) = &self.options {
            let list: Vec<String> = options.iter().map(Opt::to_string).collect();
            write!(f, " <{}>", list.join(", "))?;
        }
        if let Some(ecn) = self.ecn {
            write!(f, " ecn {}", ["none", "ect1", "ect0", "ce"][usize::from(ecn & 3)])?;
        }
        for (name, value) in [("ttl", self.ttl), ("tos", self.tos)] {
            if let Some(value) = value {
                write!(f, " {name} {value}")?;
            }
        }
        Ok(())
    }
}
