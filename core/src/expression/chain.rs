//! How long an expression's chains of operators, members and calls are, by its text alone: the
//! parser goes as deep as they are long, and copies what it has read, before a tree can be
//! measured.

/// The longest chain, those around it included. A comma ends one, and so does a closing bracket.
pub(super) fn longest(source: &str) -> usize {
    let (mut around, mut own, mut longest) = (Vec::new(), 0, 0);
    let (mut rest, mut raw) = (source, false);
    while let Some(c) = rest.chars().next() {
        if let Some(quote) = QUOTES.iter().find(|quote| rest.starts_with(**quote)) {
            rest = after_text(rest.get(quote.len()..).unwrap_or(""), quote, raw);
            continue;
        }
        if rest.starts_with("//") {
            rest = rest.split_once('\n').map_or("", |(_, after)| after);
            continue;
        }
        let word = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let length = word.unwrap_or(rest.len()).max(c.len_utf8());
        let (token, after) = rest.split_at_checked(length).unwrap_or((rest, ""));
        rest = after;
        raw = matches!(token.to_ascii_lowercase().as_str(), "r" | "rb" | "br");
        match token {
            "(" | "[" | "{" => {
                own += 1;
                around.push(own);
            }
            ")" | "]" | "}" => own = around.pop().unwrap_or(own),
            "," => own = around.last().copied().unwrap_or(0),
            "." | "?" | "!" | "+" | "-" | "*" | "/" | "%" | "<" | ">" | "in" => own += 1,
            // The first half of a doubled one.
            "=" | "&" | "|" if rest.starts_with(token) => own += 1,
            _ => {}
        }
        longest = longest.max(own);
    }
    longest
}

/// What comes after the end of a string; one that has no end ends with its line.
fn after_text<'a>(text: &'a str, quote: &str, raw: bool) -> &'a str {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        let here = text.get(at..).unwrap_or("");
        match here.strip_prefix(quote) {
            _ if c == '\n' && quote.len() == 1 => return here,
            _ if escaped => escaped = false,
            Some(after) => return after,
            None => escaped = c == '\\' && !raw,
        }
    }
    ""
}

const QUOTES: [&str; 4] = ["\"\"\"", "'''", "\"", "'"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_is_as_long_as_its_operators_members_and_brackets() {
        for (source, length) in [
            ("message", 0),
            ("message.body_args.id", 2),
            ("a.b == c || !d", 4),
            ("[a.b, c.d, e[0].f]", 3),
            ("f(a.b.c, g(1 + 2))", 3),
            ("a in b ? index : c", 2),
            ("{'a.b.c': x.y, \"d\\\".e.\": 1}", 2),
            ("r'\\' + '''a'.b''' + \"\"\"c\n.d\"\"\"", 2),
            ("a // b.c.d\n.e", 1),
            ("'a.b\n.c.d", 2),
            ("\u{fc}.a", 1),
        ] {
            assert_eq!(longest(source), length, "{source}");
        }
    }
}
