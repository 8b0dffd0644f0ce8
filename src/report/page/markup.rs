//! Small pieces of HTML.

use super::super::html::escaped;
use super::super::table::Alignment;
use std::fmt::Write as _;

/// A table that scrolls for itself where it is wider than the screen. Header and cells are texts, which are escaped here.
pub fn table<const N: usize>(name: &str, columns: [(&str, Alignment); N], rows: &[[String; N]]) -> String {
    let mut html = format!(
        "<div class=\"wide\" role=\"region\" tabindex=\"0\" aria-label=\"{}\"><table>\n<thead><tr>",
        escaped(name)
    );
    let class = |alignment| match alignment {
        Alignment::Left => "",
        Alignment::Right => " class=\"number\"",
    };
    for (column, alignment) in columns {
        let _ = write!(html, "<th scope=\"col\"{}>{}</th>", class(alignment), escaped(column));
    }
    html.push_str("</tr></thead>\n<tbody>\n");
    for row in rows {
        html.push_str("<tr>");
        for (place, (cell, (_, alignment))) in row.iter().zip(columns).enumerate() {
            let (tag, scope) = if place == 0 {
                ("th", " scope=\"row\"")
            } else {
                ("td", "")
            };
            let _ = write!(html, "<{tag}{scope}{}>{}</{tag}>", class(alignment), escaped(cell));
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</tbody>\n</table></div>\n");
    html
}

/// What only some want to see, folded away.
pub fn folded(summary: &str, inside: &str) -> String {
    format!(
        "<details>\n<summary>{}</summary>\n{inside}</details>\n",
        escaped(summary)
    )
}

/// A command as it is typed.
pub fn command(line: &str) -> String {
    format!("<code>{}</code>", escaped(line))
}

/// The end of a name that is too long for a picture.
pub fn shortened(name: &str) -> String {
    const MOST: usize = 21;
    match name.chars().count() {
        count if count > MOST => format!("…{}", name.chars().skip(count - MOST + 1).collect::<String>()),
        _ => name.to_owned(),
    }
}

/// A sentence of ours with markup, as text for a terminal.
pub fn plain(html: &str) -> String {
    let mut text = String::new();
    let mut tag = false;
    for character in html.chars() {
        match character {
            '<' => tag = true,
            '>' if tag => tag = false,
            _ if tag => {}
            other => text.push(other),
        }
    }
    text.replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&#39;", "'")
        .replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_texts() {
        let rows = [["<a>".to_owned(), "1".to_owned()]];
        let html = table("x", [("name", Alignment::Left), ("n", Alignment::Right)], &rows);
        assert!(
            html.contains("<th scope=\"row\">&lt;a&gt;</th><td class=\"number\">1</td>"),
            "{html}"
        );
    }

    #[test]
    fn long_names_lose_their_beginning() {
        assert_eq!(shortened("preset latte"), "preset latte");
        assert_eq!(shortened("docs/strategies/reuse-5-7-9.yaml"), "…ies/reuse-5-7-9.yaml");
    }

    #[test]
    fn markup_goes_for_terminals() {
        assert_eq!(plain(&format!("run {}.", command("a <b>"))), "run a <b>.");
    }
}
