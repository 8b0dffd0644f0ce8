//! YAML text → a tree in which every node knows its place.
//!
//! `serde_saphyr` re-exports the event parser that it is built on. The tree is made from its events rather than through
//! `Deserialize`, because checking has to go on after the first error, has to see keys twice where they stand twice,
//! and needs the place of keys and of whole lists.

use super::diagnostic::{Diagnostic, lines};
use serde_saphyr::granit_parser::{Event, Options, Parser, ScalarStyle, Span, StructureStyle};
use std::collections::HashMap;
use std::rc::Rc;

/// How deep nodes may stand in one another. The language needs six levels.
const DEPTH: usize = 32;

/// How many errors are kept; the others are only counted.
const MOST: usize = 50;

/// Where a node stands; all of it in one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// In characters, up to the end of the line.
    pub length: usize,
}

/// A value of the text. Anchored nodes are shared, not copied, so that aliases cost nothing.
#[derive(Debug)]
pub(super) struct Node {
    pub place: Place,
    pub content: Content,
    /// The number of levels below and including this one.
    depth: usize,
}

#[derive(Debug)]
pub(super) enum Content {
    /// A text as written after unescaping; `plain` if without quotes, so that it may be a number or `null`.
    Scalar { text: String, plain: bool },
    /// A sequence.
    List(Vec<Rc<Node>>),
    /// A mapping, in the order written, with keys that may be repeated.
    Map(Vec<(Rc<Node>, Rc<Node>)>),
    /// Something that has been reported already; nothing more is said of it.
    Reported,
}

/// The errors found so far.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub diagnostics: Vec<Diagnostic>,
    pub left_out: usize,
}

impl Findings {
    /// Notes an error: what is wrong, and what to do.
    pub fn add(&mut self, place: Place, message: impl Into<String>, help: impl Into<String>) {
        if self.diagnostics.len() >= MOST {
            self.left_out += 1;
            return;
        }
        self.diagnostics.push(Diagnostic {
            line: place.line,
            column: place.column,
            length: place.length,
            message: message.into(),
            help: help.into(),
        });
    }
}

/// Reads a text that holds one YAML document. `None` if there is no document or it does not follow YAML's grammar, which
/// is then among the findings.
pub(super) fn parse(text: &str, findings: &mut Findings) -> Option<Rc<Node>> {
    let mut options = Options::default();
    options.emit_unresolved_aliases = true;
    options.flow_nesting_limit = DEPTH;
    options.block_nesting_limit = DEPTH;
    options.set_emit_comments(false);
    let mut builder = Builder {
        widths: lines(text).iter().map(|line| line.chars().count()).collect(),
        open: Vec::new(),
        anchors: HashMap::new(),
        root: None,
        documents: 0,
        findings,
    };
    for event in Parser::new_from_str_with_options(text, options) {
        match event {
            Ok((event, span)) => builder.event(event, span),
            Err(error) => {
                let place = builder.at(error.marker().line(), error.marker().col(), 1);
                let message = match error.info() {
                    info if info.is_empty() => format!("{:?}", error.kind()),
                    info => info,
                };
                builder.findings.add(
                    place,
                    format!("this is no YAML: {message}"),
                    "check the indentation (spaces, no tabs), the quotes and the brackets before this place",
                );
                return None;
            }
        }
    }
    builder.root
}

/// A collection whose end has not come yet.
struct Open {
    place: Place,
    anchor: usize,
    /// The offset of the first character, in characters from the start of the text.
    start: usize,
    block: bool,
    /// For a mapping: keys and values in turn.
    nodes: Vec<Rc<Node>>,
    mapping: bool,
}

struct Builder<'f> {
    /// The characters of every line.
    widths: Vec<usize>,
    open: Vec<Open>,
    /// The finished nodes that have an anchor, by its number.
    anchors: HashMap<usize, Rc<Node>>,
    root: Option<Rc<Node>>,
    documents: usize,
    findings: &'f mut Findings,
}

impl Builder<'_> {
    fn event(&mut self, event: Event<'_>, span: Span) {
        if let Some(tag) = event.tag() {
            let place = span
                .tag_span()
                .map_or_else(|| self.place(span), |span| self.place(span));
            let message = format!("rules have no tags, but here is `{}`", tag.original());
            self.findings.add(place, message, "remove the tag");
        }
        let place = self.place(span);
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents == 2 {
                    let help = "put all rules under one `rules:`, and remove the line `---`";
                    self.findings
                        .add(place, "a second document begins here, but a rules file is one", help);
                }
            }
            Event::Scalar(text, style, anchor, _) => {
                let content = Content::Scalar {
                    text: text.into_owned(),
                    plain: style == ScalarStyle::Plain,
                };
                self.finish(place, content, anchor);
            }
            Event::SequenceStart(style, anchor, _) => self.begin(place, span, style, anchor, false),
            Event::MappingStart(style, anchor, _) => self.begin(place, span, style, anchor, true),
            Event::SequenceEnd | Event::MappingEnd => self.end(span),
            Event::Alias(anchor) => self.alias(place, anchor),
            Event::UnresolvedAlias(name) => {
                let message = format!("`*{name}` refers to an anchor that is not defined above");
                let help = format!("a text that begins with `*` has to stand in quotes: \"*{name}\"");
                self.findings.add(place, message, help);
                self.finish(place, Content::Reported, 0);
            }
            // The ends of the stream and of documents, and comments.
            _ => {}
        }
    }

    fn begin(&mut self, place: Place, span: Span, style: StructureStyle, anchor: usize, mapping: bool) {
        self.open.push(Open {
            place,
            anchor,
            start: span.start.index(),
            block: style == StructureStyle::Block,
            nodes: Vec::new(),
            mapping,
        });
    }

    fn end(&mut self, span: Span) {
        let Some(open) = self.open.pop() else { return };
        let mut nodes = open.nodes.into_iter();
        let mut place = open.place;
        if open.block {
            // A block has no end of its own; its first key or entry stands for it.
            if let Some(first) = nodes.as_slice().first() {
                place = first.place;
            }
        } else {
            place = self.at(
                place.line,
                place.column - 1,
                span.end.index().saturating_sub(open.start),
            );
        }
        let content = if open.mapping {
            let mut pairs = Vec::new();
            while let (Some(key), Some(value)) = (nodes.next(), nodes.next()) {
                pairs.push((key, value));
            }
            Content::Map(pairs)
        } else {
            Content::List(nodes.collect())
        };
        self.finish(place, content, open.anchor);
    }

    fn alias(&mut self, place: Place, anchor: usize) {
        let Some(node) = self.anchors.get(&anchor).cloned() else {
            let help = "write the values out instead of referring to them";
            self.findings
                .add(place, "this alias stands inside the value that it refers to", help);
            return self.finish(place, Content::Reported, 0);
        };
        if self.open.len() + node.depth > DEPTH {
            let help = "write the values out; rules need six levels";
            self.findings
                .add(place, format!("aliases nest deeper than {DEPTH} levels"), help);
            return self.finish(place, Content::Reported, 0);
        }
        self.attach(node);
    }

    fn finish(&mut self, place: Place, content: Content, anchor: usize) {
        let below = match &content {
            Content::List(nodes) => nodes.iter().map(|node| node.depth).max(),
            Content::Map(pairs) => pairs.iter().map(|(key, value)| key.depth.max(value.depth)).max(),
            Content::Scalar { .. } | Content::Reported => None,
        };
        let node = Rc::new(Node {
            place,
            content,
            depth: below.unwrap_or(0) + 1,
        });
        if anchor != 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        self.attach(node);
    }

    fn attach(&mut self, node: Rc<Node>) {
        match self.open.last_mut() {
            Some(open) => open.nodes.push(node),
            None if self.documents <= 1 => self.root = Some(node),
            None => {}
        }
    }

    fn place(&self, span: Span) -> Place {
        self.at(span.start.line(), span.start.col(), span.len())
    }

    /// A place from a line (from 1), a column (from 0) and a length that may go beyond the line.
    fn at(&self, line: usize, column: usize, length: usize) -> Place {
        let width = line
            .checked_sub(1)
            .and_then(|index| self.widths.get(index))
            .copied()
            .unwrap_or(0);
        Place {
            line,
            column: column + 1,
            length: length.min(width.saturating_sub(column)).max(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(text: &str) -> Vec<(usize, usize, String)> {
        let mut findings = Findings::default();
        parse(text, &mut findings);
        findings
            .diagnostics
            .into_iter()
            .map(|found| (found.line, found.column, found.message))
            .collect()
    }

    #[test]
    fn places() {
        let mut found = Findings::default();
        let root = parse("a: [1, 22]\nb:\n  c: \"x y\" # note\n", &mut found).unwrap();
        let Content::Map(pairs) = &root.content else {
            panic!("a mapping")
        };
        let place = |line, column, length| Place { line, column, length };
        assert_eq!(root.place, place(1, 1, 1));
        assert_eq!(pairs[0].1.place, place(1, 4, 7));
        let Content::List(items) = &pairs[0].1.content else {
            panic!("a list")
        };
        assert_eq!(items[1].place, place(1, 8, 2));
        let Content::Map(inner) = &pairs[1].1.content else {
            panic!("a mapping")
        };
        assert_eq!(inner[0].1.place, place(3, 6, 5));
        assert!(matches!(&inner[0].1.content, Content::Scalar { text, plain: false } if text == "x y"));
    }

    #[test]
    fn aliases_share_their_node() {
        let mut found = Findings::default();
        let root = parse("a: &x [1]\nb: *x\n", &mut found).unwrap();
        let Content::Map(pairs) = &root.content else {
            panic!("a mapping")
        };
        assert!(Rc::ptr_eq(&pairs[0].1, &pairs[1].1));
        assert!(found.diagnostics.is_empty());
    }

    #[test]
    fn hostile_structures_are_refused() {
        assert!(findings(&"[".repeat(100_000))[0].2.contains("no YAML"));
        assert!(
            findings(
                &(0..1000)
                    .map(|level| format!("{}a:\n", " ".repeat(level)))
                    .collect::<String>()
            )[0]
            .2
            .contains("no YAML")
        );
        assert!(findings("a: &x [*x]")[0].2.contains("inside the value"));
        let chain: String = (1..50_000)
            .map(|level| format!("- &a{level} [*a{}]\n", level - 1))
            .collect();
        assert!(findings(&format!("- &a0 [x]\n{chain}"))[0].2.contains("deeper than"));
        assert_eq!(findings("a: *unknown")[0].0, 1);
        assert!(findings("a: !!python/object:os.system x")[0].2.contains("no tags"));
        assert!(findings("a: 1\n---\nb: 2\n")[0].2.contains("second document"));
    }
}
