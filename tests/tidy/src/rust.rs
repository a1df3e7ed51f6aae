//! Rust text without what is not code, so that rules do not trip over comments and strings.
//!
//! This is a scanner for comments, strings and test modules, not a parser.

/// `text` with comments and the insides of strings and characters blanked; lines stay where they are.
#[must_use]
pub fn code(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut kept = vec![b' '; bytes.len()];
    let mut at = 0;
    while at < bytes.len() {
        let end = match not_code(bytes, at) {
            Some(end) => end,
            None => {
                kept[at] = bytes[at];
                at + 1
            }
        };
        for (place, byte) in bytes.iter().enumerate().take(end).skip(at) {
            if *byte == b'\n' {
                kept[place] = b'\n';
            }
        }
        at = end;
    }
    String::from_utf8_lossy(&kept).into_owned()
}

/// Where the comment, string or character that starts at `at` ends.
fn not_code(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = &bytes[at..];
    let after_word = at > 0 && is_word(bytes[at - 1]);
    match rest[0] {
        b'/' if rest.starts_with(b"//") => Some(find(bytes, at, b"\n").unwrap_or(bytes.len())),
        b'/' if rest.starts_with(b"/*") => Some(block_comment(bytes, at)),
        b'"' => Some(string(bytes, at)),
        b'r' if !after_word || is_prefix(bytes, at) => raw_string(bytes, at),
        b'\'' => character(bytes, at),
        _ => None,
    }
}

/// Whether the letter before `at` is itself the start of a literal such as `br"…"`.
fn is_prefix(bytes: &[u8], at: usize) -> bool {
    matches!(bytes[at - 1], b'b' | b'c') && (at < 2 || !is_word(bytes[at - 2]))
}

/// Whether `byte` can be part of an identifier.
#[must_use]
pub fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn find(bytes: &[u8], from: usize, what: &[u8]) -> Option<usize> {
    bytes[from..]
        .windows(what.len())
        .position(|window| window == what)
        .map(|offset| from + offset)
}

fn block_comment(bytes: &[u8], start: usize) -> usize {
    let (mut at, mut depth) = (start, 0_usize);
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if bytes[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    bytes.len()
}

fn string(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

fn raw_string(bytes: &[u8], start: usize) -> Option<usize> {
    let hashes = bytes[start + 1..]
        .iter()
        .take_while(|byte| **byte == b'#')
        .count();
    let open = start + 1 + hashes;
    if bytes.get(open) != Some(&b'"') {
        return None;
    }
    let close = [b"\"".as_slice(), &vec![b'#'; hashes]].concat();
    Some(find(bytes, open + 1, &close).map_or(bytes.len(), |at| at + close.len()))
}

/// A character literal; a lifetime is code.
fn character(bytes: &[u8], start: usize) -> Option<usize> {
    let next = *bytes.get(start + 1)?;
    if next == b'\\' {
        let from = start + 3;
        return (from <= bytes.len()).then(|| find(bytes, from, b"'").map_or(bytes.len(), |at| at + 1));
    }
    let width = match next {
        0..=0x7f => 1,
        0xc0..=0xdf => 2,
        0xe0..=0xef => 3,
        _ => 4,
    };
    (bytes.get(start + 1 + width) == Some(&b'\'')).then_some(start + width + 2)
}

/// The part of `text` before its test module, which by custom is the last item of a file.
#[must_use]
pub fn without_tests(text: &str) -> &str {
    &text[..tests_start(text)]
}

/// The test module at the end of `text`; empty when there is none.
#[must_use]
pub fn only_tests(text: &str) -> &str {
    &text[tests_start(text)..]
}

fn tests_start(text: &str) -> usize {
    let mut at = 0;
    while let Some(offset) = text[at..].find("#[cfg(test)]") {
        let after = text[at + offset + "#[cfg(test)]".len()..].trim_start();
        // Only an inline module: `mod tests;` is a file of its own, `fn` a helper among the code.
        let inline = after
            .lines()
            .take(3)
            .any(|line| line.starts_with("mod ") && line.trim_end().ends_with('{'));
        if inline {
            return at + offset;
        }
        at += offset + 1;
    }
    text.len()
}

/// The numbers (from 1) of the lines of `code` that contain `pattern` with no identifier glued to
/// an end of the pattern that is itself part of one.
#[must_use]
pub fn lines_with(code: &str, pattern: &str) -> Vec<usize> {
    code.lines()
        .enumerate()
        .filter(|(_, line)| holds(line.as_bytes(), pattern.as_bytes()))
        .map(|(number, _)| number + 1)
        .collect()
}

fn holds(line: &[u8], pattern: &[u8]) -> bool {
    let (Some(first), Some(last)) = (pattern.first(), pattern.last()) else {
        return false;
    };
    line.windows(pattern.len())
        .enumerate()
        .filter(|(_, window)| *window == pattern)
        .any(|(at, _)| {
            let glued_before = is_word(*first) && at > 0 && is_word(line[at - 1]);
            let glued_after =
                is_word(*last) && line.get(at + pattern.len()).is_some_and(|byte| is_word(*byte));
            !glued_before && !glued_after
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_strings_are_blanked_and_lines_kept() {
        let text =
            "let a = \"todo!\"; // todo!\n/* todo! /* nested */ */ let b = r#\"todo!\"#;\nlet c = br\"x\";";
        let code = code(text);
        assert!(!code.contains("todo"));
        assert!(code.contains("let a") && code.contains("let b") && code.contains("let c"));
        assert_eq!(code.lines().count(), text.lines().count());
    }

    #[test]
    fn lifetimes_are_code_and_quotes_in_characters_open_no_string() {
        assert_eq!(code("fn f<'a>(x: &'a str)"), "fn f<'a>(x: &'a str)");
        assert!(code("let q = '\"'; unsafe").contains("unsafe"));
        assert!(code("let q = '\\''; unsafe").contains("unsafe"));
        assert!(code("let q = 'é'; unsafe").contains("unsafe"));
    }

    #[test]
    fn the_test_module_is_told_from_the_code_before_it() {
        let text =
            "fn a() {}\n#[cfg(test)]\nmod tests;\nfn b() {}\n#[cfg(test)]\nmod tests {\n fn c() {}\n}\n";
        assert!(without_tests(text).contains("fn b"));
        assert!(!without_tests(text).contains("fn c"));
        assert!(only_tests(text).contains("fn c"));
    }

    #[test]
    fn patterns_match_whole_words_only() {
        assert_eq!(lines_with("a\nunsafe {\nunsafe_code", "unsafe"), [2]);
        assert_eq!(lines_with("operand::x\nrand::rng()", "rand::"), [2]);
    }
}
