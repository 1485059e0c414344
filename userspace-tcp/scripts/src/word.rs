//! The words of a line: plain, quoted, and lists in angle brackets.

use std::time::Duration;

/// One word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// Anything without a space.
    Plain(String),
    /// Between double quotes; `\n`, `\r`, `\"` and `\\` are escapes.
    Text(Vec<u8>),
    /// Between angle brackets.
    List(String),
}

/// Splits a line; what follows `#` is not of it. `<` and `>` alone are plain words.
pub(crate) fn split(line: &str) -> Result<Vec<Word>, String> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while let Some(first) = rest.chars().next() {
        match first {
            '#' => break,
            '"' => {
                let (text, after) = quoted(&rest[1..])?;
                words.push(Word::Text(text));
                rest = after;
            }
            '<' if rest.len() > 1 && !rest[1..].starts_with(' ') => {
                let end = rest.find('>').ok_or("a list of options has no end: '>' is missing")?;
                words.push(Word::List(rest[1..end].trim().to_owned()));
                rest = &rest[end + 1..];
            }
            _ => {
                let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
                words.push(Word::Plain(rest[..end].to_owned()));
                rest = &rest[end..];
            }
        }
        rest = rest.trim_start();
    }
    Ok(words)
}

fn quoted(rest: &str) -> Result<(Vec<u8>, &str), String> {
    let mut text = Vec::new();
    let mut chars = rest.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((text, &rest[at + 1..])),
            '\\' => match chars.next().map(|(_, c)| c) {
                Some('n') => text.push(b'\n'),
                Some('r') => text.push(b'\r'),
                Some(c @ ('"' | '\\')) => text.push(c as u8),
                other => return Err(format!("unknown escape {other:?}")),
            },
            c => text.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    Err("a text has no end: '\"' is missing".into())
}

/// A number, decimal or `0x…`.
pub(crate) fn number<T: TryFrom<i64>>(word: &str) -> Result<T, String> {
    let parsed = match word.strip_prefix("0x") {
        Some(hex) => i64::from_str_radix(hex, 16),
        None => word.replace('_', "").parse(),
    };
    let value = parsed.map_err(|_| format!("'{word}' is no number"))?;
    T::try_from(value).map_err(|_| format!("{word} is out of range"))
}

/// `40ms`, `1.5s`, `300us`, `2min`.
pub(crate) fn duration(word: &str) -> Result<Duration, String> {
    let at = word.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(word.len());
    let (value, unit) = word.split_at(at);
    let seconds = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "min" => 60.0,
        _ => return Err(format!("'{word}' is no time: a number and us, ms, s or min")),
    };
    let value: f64 = value.parse().map_err(|_| format!("'{word}' is no time"))?;
    let nanos = (value * seconds * 1e9).round();
    if !(0.0..1e18).contains(&nanos) {
        return Err(format!("'{word}' is out of range"));
    }
    Ok(Duration::from_nanos(nanos as u64))
}

/// `on` or `off`.
pub(crate) fn switch(word: &str) -> Result<bool, String> {
    match word {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("'{word}' is neither on nor off")),
    }
}

/// `KEY=VALUE`.
pub(crate) fn pair(word: &str) -> Result<(&str, &str), String> {
    word.split_once('=').ok_or_else(|| format!("'{word}' is not KEY=VALUE"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_words_texts_and_lists() {
        let words = split(r#"< PA 1 "a \"b\"\n" ack 1 <mss 1460, ws 7>  # no more"#).unwrap();
        assert_eq!(words[3], Word::Text(b"a \"b\"\n".to_vec()));
        assert_eq!(words[6], Word::List("mss 1460, ws 7".into()));
        assert_eq!((words.len(), &words[0]), (7, &Word::Plain("<".into())));
        assert!(split("< S 0 <mss 1").is_err() && split("write c \"x").is_err());
    }

    #[test]
    fn numbers_and_times_have_units_and_ranges() {
        assert_eq!(number::<u32>("0xffff_ffff").map_err(|_| ()), Err(()));
        assert_eq!(number::<u32>("4294967295"), Ok(u32::MAX));
        assert!(number::<u8>("256").is_err() && number::<u8>("x").is_err());
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("40us"), Ok(Duration::from_micros(40)));
        assert!(duration("40").is_err() && duration("-1s").is_err());
    }
}
