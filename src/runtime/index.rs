//! Looks a file up in a package index (PEP 503, the "simple" HTML pages of PyPI and its mirrors).

use super::{
    download::{Client, shown},
    error::RuntimeError,
};

/// An index page of a busy package has a few hundred kilobytes.
const PAGE_LIMIT: u64 = 32 << 20;

/// The URL of a project's file in the index at `index`.
///
/// The hash that the page may give is not used: the caller knows the right one.
///
/// # Errors
/// The page cannot be fetched, or does not list the file.
pub(super) fn find(client: &Client, index: &str, project: &str, file: &str) -> Result<String, RuntimeError> {
    let page = format!("{}/{project}/", index.trim_end_matches('/'));
    let html = client.text(&page, PAGE_LIMIT)?;
    links(&html)
        .find(|link| link.split(['#', '?']).next().and_then(|path| path.rsplit('/').next()) == Some(file))
        .map(|link| resolve(&page, link.split('#').next().unwrap_or_default()))
        .ok_or_else(|| RuntimeError::NotInIndex {
            url: shown(&page),
            file: file.to_owned(),
        })
}

/// The targets of a page's links.
fn links(html: &str) -> impl Iterator<Item = String> + '_ {
    html.split("href=").skip(1).filter_map(|rest| {
        let quote = rest.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
        rest.get(1..)?
            .split(quote)
            .next()
            .map(|link| link.replace("&amp;", "&"))
    })
}

/// The absolute URL of a link on a page (RFC 3986, section 5.2, as far as index pages use it).
fn resolve(page: &str, link: &str) -> String {
    if link.contains("://") {
        return link.to_owned();
    }
    let (scheme, rest) = page.split_once("://").unwrap_or(("https", page));
    if let Some(link) = link.strip_prefix("//") {
        return format!("{scheme}://{link}");
    }
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let mut segments: Vec<&str> = if link.starts_with('/') {
        Vec::new()
    } else {
        path.split('/').collect()
    };
    // What follows the last slash is the page itself.
    segments.pop();
    for segment in link.trim_start_matches('/').split('/') {
        match segment {
            "." => {}
            ".." => {
                segments.pop();
            }
            segment => segments.push(segment),
        }
    }
    format!("{scheme}://{host}/{}", segments.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_resolved_as_browsers_do() {
        let page = "https://user:secret@mirror.example/root/simple/onnxruntime/";
        for (link, expected) in [
            ("https://files.example/a.whl", "https://files.example/a.whl"),
            ("//files.example/a.whl", "https://files.example/a.whl"),
            ("/packages/a.whl", "https://user:secret@mirror.example/packages/a.whl"),
            (
                "a.whl",
                "https://user:secret@mirror.example/root/simple/onnxruntime/a.whl",
            ),
            (
                "../../packages/./a.whl",
                "https://user:secret@mirror.example/root/packages/a.whl",
            ),
            ("../../../../../a.whl", "https://user:secret@mirror.example/a.whl"),
        ] {
            assert_eq!(resolve(page, link), expected);
        }
        assert_eq!(resolve("http://localhost:8080", "a.whl"), "http://localhost:8080/a.whl");
    }

    #[test]
    fn links_are_read_in_either_quotes() {
        let html = r#"<a href="a?x=1&amp;y=2#sha256=0">a</a> <a data-x="1" href='b'>b</a> <a href=c>c</a>"#;
        assert_eq!(links(html).collect::<Vec<_>>(), ["a?x=1&y=2#sha256=0", "b"]);
    }
}
