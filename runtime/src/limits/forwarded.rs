//! Reads the header `Forwarded` (RFC 7239), which names the hops of a request.
//!
//! Invariant: a line that breaks the grammar anywhere is not read at all. So a client that leaves a quote open cannot
//! hide what the proxy adds to the line: the client's own line is ignored, and the proxy counts as the client.
use std::net::{IpAddr, SocketAddr};

/// Returns the addresses of the hops in a line, in their order. An element is `None` for a hop without an address. The
/// result is `None` if the line is invalid.
pub(super) fn hops(line: &str) -> Option<Vec<Option<IpAddr>>> {
    let mut hops = Vec::new();
    let mut rest = line;
    loop {
        let (hop, more) = element(rest)?;
        hops.push(hop);
        match more {
            Some(more) => rest = more,
            None => return Some(hops),
        }
    }
}

/// Returns one hop's address, and the text after the comma that ends the hop, if there is a comma.
fn element(mut rest: &str) -> Option<(Option<IpAddr>, Option<&str>)> {
    let mut hop = None;
    loop {
        let (name, value) = rest.split_once('=')?;
        let name = name.trim_matches([' ', '\t']);
        let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if name.is_empty() || !name.bytes().all(is_token) {
            return None;
        }
        let (value, after) = match value.strip_prefix('"') {
            Some(quoted) => quoted_text(quoted)?,
            None => {
                let end = value.bytes().position(|b| !is_token(b)).unwrap_or(value.len());
                (value[..end].to_owned(), &value[end..])
            }
        };
        if name.eq_ignore_ascii_case("for") {
            // Two `for` in one hop are an error (section 4).
            if hop.replace(address(&value)).is_some() {
                return None;
            }
        }
        let after = after.trim_start_matches([' ', '\t']);
        let hop = hop.flatten();
        match after.as_bytes().first() {
            None => return Some((hop, None)),
            Some(b',') => return Some((hop, Some(&after[1..]))),
            Some(b';') => rest = &after[1..],
            Some(_) => return None,
        }
    }
}

/// Reads a quoted text after its first quote. Returns the text without its escapes, and the text after the last quote.
fn quoted_text(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((place, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[place + 1..])),
            '\\' => value.push(characters.next()?.1),
            character => value.push(character),
        }
    }
    None
}

/// Reads an address with or without a port. IPv6 is in brackets. Returns `None` for `unknown` and for names that hide
/// an address (`_gazonk`).
pub(super) fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip())).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Option<String> {
        let hops = hops(line)?.into_iter();
        let hops: Vec<_> = hops.map(|hop| hop.map_or("-".to_owned(), |address| address.to_string())).collect();
        Some(hops.join(" "))
    }

    #[test]
    fn hops_are_read_in_their_order() {
        for (line, expected) in [
            ("for=192.0.2.43", "192.0.2.43"),
            ("For=192.0.2.43, FOR=\"[2001:db8:cafe::17]\"", "192.0.2.43 2001:db8:cafe::17"),
            ("for=\"[2001:db8:cafe::17]:4711\";proto=https;by=203.0.113.43", "2001:db8:cafe::17"),
            ("for=\"192.0.2.43:47011\"", "192.0.2.43"),
            ("by=_x;for=192.0.2.43;host=\"a,b;c=\\\"d\\\"\"", "192.0.2.43"),
            ("for=unknown, for=_gazonk, for=\"_gazonk:_port\", proto=http", "- - - -"),
            ("for = 192.0.2.43", "-"),
            ("for=\"1.2.3.4\\5\"", "1.2.3.45"),
        ] {
            // RFC 7239 allows no space around the equals sign.
            let expected = (line != "for = 192.0.2.43").then(|| expected.to_owned());
            assert_eq!(read(line), expected, "{line}");
        }
    }

    #[test]
    fn a_line_against_the_grammar_says_nothing() {
        for line in [
            "",
            ",",
            "for",
            "for=1.2.3.4,",
            "for=1.2.3.4 5.6.7.8",
            "for=\"1.2.3.4",
            "for=\"1.2.3.4\"x",
            "for=[2001:db8::1]",
            "for=1.2.3.4;for=5.6.7.8",
            "=1.2.3.4",
            "f(r=1.2.3.4",
            // The client leaves a quote open before the text that the proxy adds.
            "for=\", for=6.6.6.6",
            "for=9.9.9.9;x=\", for=\"[2001:db8::1]\"",
            "for=9.9.9.9, x=\"\\, for=\"6.6.6.6\"",
        ] {
            assert_eq!(read(line), None, "{line}");
        }
    }
}
