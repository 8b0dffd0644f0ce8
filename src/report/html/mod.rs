//! Pages that need nothing else: one file, nothing from the network, and nothing in it but text where a name is meant.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

/// Colours of the kinds, light and dark, and what all pages share.
const BASE: &str = include_str!("base.css");

/// A page of a title (not yet escaped), styles beside the shared ones, what stands in its body, and a script that it can be read
/// without.
pub(super) fn page(title: &str, style: &str, body: &str, script: &str) -> String {
    let title = escaped(title);
    // The text between the tags, to the byte.
    let script = format!("\n{script}");
    let hash = STANDARD.encode(Sha256::digest(script.as_bytes()));
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:; \
         script-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>\n{BASE}{style}</style>\n</head>\n<body>\n{body}<script>{script}</script>\n</body>\n\
         </html>\n"
    )
}

/// Bytes of a picture as an address that holds them.
pub(super) fn png_address(png: &[u8]) -> String {
    format!("data:image/png;base64,{}", STANDARD.encode(png))
}

/// A text that is only text, in elements and in quoted attributes.
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(shown(other)),
        }
    }
    escaped
}

/// A character as it can be shown: what steers terminals or changes the direction of text is replaced.
pub(super) fn shown(character: char) -> char {
    let invisible =
        matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
    if character.is_control() || invisible {
        char::REPLACEMENT_CHARACTER
    } else {
        character
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_meant_as_text_stays_text() {
        assert_eq!(
            escaped("a<b> & \"c\" 'd'\u{202e}\n"),
            "a&lt;b&gt; &amp; &quot;c&quot; &#39;d&#39;\u{fffd}\u{fffd}"
        );
        let page = page("</title><script>", "", "<p>body</p>\n", "let x = 1;\n");
        assert!(page.contains("<title>&lt;/title&gt;&lt;script&gt;</title>"));
        assert_eq!(page.matches("<script>").count(), 1);
        // As a browser counts it: `printf '\nlet x = 1;\n' | sha256sum`, in base 64.
        assert!(
            page.contains("script-src 'sha256-PCA06x5AClOd4MjKmg3RZDFBTufKR2vjtf2Rt+9Kt3s='"),
            "{page}"
        );
    }

    #[test]
    fn pictures_hold_their_bytes() {
        assert_eq!(png_address(b"abc"), "data:image/png;base64,YWJj");
    }
}
