//! `sasl.jaas.config`: the options of one login module. No class is ever loaded.

use crate::secret::Secret;

/// Options by name, in the order in which they stand there.
pub(super) type Options = Vec<(String, Secret)>;

/// Reads `class flag name=value …;` as Java does: values in quotes of either kind, or bare words.
/// `None` if it is something else.
pub(super) fn options(text: &str) -> Option<Options> {
    let mut rest = Tokens(text);
    let (Token::Word(_class), Token::Word(flag)) = (rest.next()?, rest.next()?) else {
        return None;
    };
    if !FLAGS.iter().any(|known| known.eq_ignore_ascii_case(&flag)) {
        return None;
    }
    let mut options = Options::new();
    loop {
        match rest.next()? {
            Token::End => return rest.next().is_none().then_some(options),
            Token::Word(name) => {
                let (Token::Equals, Token::Word(value) | Token::Quoted(value)) =
                    (rest.next()?, rest.next()?)
                else {
                    return None;
                };
                options.push((name, Secret::new(value)));
            }
            Token::Equals | Token::Quoted(_) => return None,
        }
    }
}

enum Token {
    Word(String),
    Quoted(String),
    Equals,
    End,
}

struct Tokens<'a>(&'a str);

impl Tokens<'_> {
    /// `None` at the end, or at an open quote.
    fn next(&mut self) -> Option<Token> {
        self.0 = self.0.trim_start();
        let first = self.0.chars().next()?;
        let after = self.0.get(first.len_utf8()..)?;
        match first {
            ';' | '=' => {
                self.0 = after;
                Some(if first == ';' { Token::End } else { Token::Equals })
            }
            '"' | '\'' => {
                let (text, rest) = quoted(after, first)?;
                self.0 = rest;
                Some(Token::Quoted(text))
            }
            _ => {
                let end = self.0.find(|c: char| c.is_whitespace() || "=;\"'".contains(c));
                let (word, rest) = self.0.split_at_checked(end.unwrap_or(self.0.len()))?;
                self.0 = rest;
                Some(Token::Word(word.to_owned()))
            }
        }
    }
}

/// What stands before the closing quote, and what follows it; a backslash takes the next character
/// as it is.
fn quoted(text: &str, quote: char) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => value.push(chars.next()?.1),
            _ if c == quote => return Some((value, text.get(at + c.len_utf8()..)?)),
            _ => value.push(c),
        }
    }
    None
}

const FLAGS: [&str; 4] = ["required", "requisite", "sufficient", "optional"];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Option<Vec<(String, String)>> {
        let shown = |(name, value): (String, Secret)| (name, value.expose().to_owned());
        options(text).map(|options| options.into_iter().map(shown).collect())
    }

    #[test]
    fn options_are_read_as_java_reads_them() {
        let text = "org.apache.kafka.common.security.scram.ScramLoginModule REQUIRED\n  \
            username=\"alice\"\tpassword='a=\"b\\';' tokenauth=true\n  empty=\"\";";
        let expected =
            [("username", "alice"), ("password", "a=\"b';"), ("tokenauth", "true"), ("empty", "")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(read(text), Some(expected.to_vec()));
        assert_eq!(read("A required;"), Some(Vec::new()));
    }

    #[test]
    fn what_is_not_one_module_is_refused() {
        for text in [
            "",
            "A",
            "A required",
            "A maybe;",
            "A required user;",
            "A required user=;",
            "A required user=\"x;",
            "A required user=\"x\\",
            "A required \"user\"=x;",
            "A required; B required;",
            "KafkaClient { A required; };",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "\\PC*", quoted in "[a-z \\\\\"'=;\u{e4}]*") {
            let _ = options(&text);
            let _ = options(&format!("A required x={quoted};"));
        }
    }
}
