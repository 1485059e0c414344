//! Ports, queues and cores as people write them: `7777`, `7777-7780`, `0-3,6`.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// UDP or TCP ports: one, or a range with both its ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "NumberOrText", into = "String")]
pub struct Ports(pub RangeInclusive<u16>);

impl FromStr for Ports {
    type Err = String;
    fn from_str(text: &str) -> Result<Ports, String> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let port = |text: &str| {
            let port = text.trim().parse().map_err(|_| format!("{text:?} is not a port (1 to 65535)"))?;
            if port == 0 { Err("port 0 cannot be served".to_owned()) } else { Ok(port) }
        };
        let (first, last): (u16, u16) = (port(first)?, port(last)?);
        match first <= last {
            true => Ok(Ports(first..=last)),
            false => Err(format!("{text:?} runs backwards: write {last}-{first}")),
        }
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.start(), self.0.end()) {
            (first, last) if first == last => write!(f, "{first}"),
            (first, last) => write!(f, "{first}-{last}"),
        }
    }
}

/// A set of queues or cores, as written: `0-3,6`. Order is kept, each number once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "NumberOrText", into = "String")]
pub struct Numbers(pub Vec<u16>);

impl FromStr for Numbers {
    type Err = String;
    fn from_str(text: &str) -> Result<Numbers, String> {
        let number =
            |text: &str| text.trim().parse::<u16>().map_err(|_| format!("{text:?} is not a number"));
        let mut numbers = Vec::new();
        for part in text.split(',').filter(|part| !part.trim().is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(format!("{part:?} runs backwards: write {last}-{first}"));
            }
            numbers.extend((first..=last).filter(|n| !numbers.contains(n)).collect::<Vec<_>>());
        }
        Ok(Numbers(numbers))
    }
}

impl fmt::Display for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = &self.0[..];
        while let [first, ..] = rest {
            let run = rest.iter().zip(*first..).take_while(|(is, would)| **is == *would).count();
            match run {
                1 => write!(f, "{first}")?,
                _ => write!(f, "{first}-{}", rest[run - 1])?,
            }
            rest = &rest[run..];
            if !rest.is_empty() {
                f.write_str(",")?;
            }
        }
        Ok(())
    }
}

/// What stands in a TOML file: `7777` or `"7777-7780"`.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum NumberOrText {
    Number(u16),
    Text(String),
}

impl NumberOrText {
    pub fn parse<T: FromStr<Err = String>>(self) -> Result<T, String> {
        match self {
            NumberOrText::Number(number) => number.to_string().parse(),
            NumberOrText::Text(text) => text.parse(),
        }
    }
}

/// Reads and writes types as the text that [`FromStr`] and [`fmt::Display`] make of them.
macro_rules! as_text {
    ($($type:ty),*) => { $(
        impl TryFrom<NumberOrText> for $type {
            type Error = String;
            fn try_from(value: NumberOrText) -> Result<$type, String> {
                value.parse()
            }
        }
        impl From<$type> for String {
            fn from(value: $type) -> String {
                value.to_string()
            }
        }
    )* };
}
pub(super) use as_text;
as_text!(Ports, Numbers);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_numbers_read_as_they_are_written() {
        assert_eq!("7777".parse(), Ok(Ports(7777..=7777)));
        assert_eq!("7777-7780".parse::<Ports>().unwrap().to_string(), "7777-7780");
        for bad in ["", "0", "70000", "9-3", "a-b", "1-"] {
            assert!(bad.parse::<Ports>().is_err(), "{bad:?}");
        }
        assert_eq!("0-3, 6,2".parse(), Ok(Numbers(vec![0, 1, 2, 3, 6])));
        assert_eq!(Numbers(vec![0, 1, 2, 6, 8, 9]).to_string(), "0-2,6,8-9");
        assert!("3-1".parse::<Numbers>().is_err() && "x".parse::<Numbers>().is_err());
    }
}
