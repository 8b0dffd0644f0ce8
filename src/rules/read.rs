//! Typed reading of a tree: mappings of known keys, lists, texts and numbers; all else is a finding.

use super::scalar::{self, describe};
use super::suggest::closest;
use super::tree::{Content, Findings, Node, Place};
use std::rc::Rc;

/// The most entries of a list; far above any use, so that checking stays quick.
const MOST: usize = 256;

/// The keys of a mapping.
pub(super) struct Shape {
    /// What the mapping is, for messages: "`broadcast`".
    pub what: &'static str,
    /// Its keys, in the order in which messages list them.
    pub keys: &'static [&'static str],
}

/// The values of a mapping by the position of their key in its [`Shape`].
pub(super) struct Fields {
    /// Where the mapping stands.
    pub place: Place,
    values: Vec<Option<Rc<Node>>>,
    /// Keys that are there in a wrong spelling.
    meant: Vec<&'static str>,
    shape: &'static Shape,
}

impl Fields {
    /// The value of a key of the shape.
    pub fn get(&self, key: &str) -> Option<Rc<Node>> {
        let index = self.shape.keys.iter().position(|known| *known == key)?;
        self.values.get(index).cloned().flatten()
    }

    /// Whether a key is there in a wrong spelling.
    pub fn means(&self, key: &str) -> bool {
        self.meant.contains(&key)
    }
}

/// Reads nodes, and notes what is wrong with them.
pub(super) struct Reader<'f> {
    /// The errors found so far.
    pub findings: &'f mut Findings,
}

impl Reader<'_> {
    /// The values of a mapping; unknown and repeated keys are findings.
    pub fn fields(&mut self, node: &Node, shape: &'static Shape, help: &str) -> Option<Fields> {
        let Content::Map(pairs) = &node.content else {
            if !matches!(node.content, Content::Reported) {
                let message = format!("{} is keys and values, but here is {}", shape.what, describe(node));
                self.findings.add(node.place, message, help);
            }
            return None;
        };
        let mut meant = Vec::new();
        let mut values: Vec<Option<Rc<Node>>> = vec![None; shape.keys.len()];
        let mut lines: Vec<usize> = vec![0; shape.keys.len()];
        for (key, value) in pairs {
            let word = match &key.content {
                Content::Scalar { text, .. } => text.as_str(),
                Content::Reported => continue,
                _ => "",
            };
            let index = shape.keys.iter().position(|known| *known == word);
            match index.and_then(|index| Some((values.get_mut(index)?, lines.get_mut(index)?))) {
                None => {
                    let near = closest(word, shape.keys.iter().copied());
                    meant.extend(near);
                    let message = match &key.content {
                        Content::Scalar { .. } if word == "<<" => "rules have no merge keys (`<<`)".to_owned(),
                        Content::Scalar { .. } => format!("unknown key {} in {}", describe(key), shape.what),
                        _ => format!("{} cannot be a key in {}", describe(key), shape.what),
                    };
                    self.findings.add(
                        key.place,
                        message,
                        did_you_mean(near, "keys here are", &shape.keys.join(", ")),
                    );
                }
                Some((slot, line)) if slot.is_some() => {
                    let message = format!("the key `{word}` stands here twice, first in line {line}");
                    self.findings.add(key.place, message, "keep one of the two");
                }
                Some((slot, line)) => {
                    *slot = Some(Rc::clone(value));
                    *line = key.place.line;
                }
            }
        }
        Some(Fields {
            place: node.place,
            values,
            meant,
            shape,
        })
    }

    /// The value of a key that has to be there.
    pub fn required(&mut self, fields: &Fields, key: &str, help: &str) -> Option<Rc<Node>> {
        let value = fields.get(key);
        if value.is_none() && !fields.meant.contains(&key) {
            let message = format!("{} has no `{key}`", fields.shape.what);
            self.findings.add(fields.place, message, help);
        }
        value
    }

    /// The entries of a list.
    pub fn list<'n>(&mut self, node: &'n Node, what: &str, help: &str) -> Option<&'n [Rc<Node>]> {
        match &node.content {
            Content::List(nodes) if nodes.len() > MOST => {
                let message = format!("{what} has {} entries; {MOST} are the most", nodes.len());
                self.findings.add(
                    node.place,
                    message,
                    "use ranges of blocks, and rules for several kinds at once",
                );
                None
            }
            Content::List(nodes) => Some(nodes),
            _ => {
                self.wrong(node, &format!("a list for {what}"), help);
                None
            }
        }
    }

    /// The entries of a list, or the node itself where it is none.
    pub fn one_or_more(&mut self, node: &Rc<Node>, what: &str, help: &str) -> Option<Vec<Rc<Node>>> {
        if !matches!(node.content, Content::List(_)) {
            return Some(vec![Rc::clone(node)]);
        }
        let nodes = self.list(node, what, help)?;
        if nodes.is_empty() {
            self.findings
                .add(node.place, format!("the list of {what} is empty"), help);
            return None;
        }
        Some(nodes.to_vec())
    }

    /// A text, with or without quotes.
    pub fn text(&mut self, node: &Node, what: &str) -> Option<String> {
        match &node.content {
            Content::Scalar { text, plain } if !*plain || scalar::is_text(text) => Some(text.clone()),
            _ => {
                self.wrong(
                    node,
                    what,
                    "write a text; put it in quotes if it looks like something else",
                );
                None
            }
        }
    }

    /// A whole number.
    pub fn integer(&mut self, node: &Node, what: &str) -> Option<i64> {
        let value = scalar::number(node).and_then(scalar::Number::whole);
        if value.is_none() {
            self.wrong(node, what, "write a whole number, without quotes");
        }
        value
    }

    /// A finite number.
    pub fn number(&mut self, node: &Node, what: &str) -> Option<f64> {
        let value = scalar::number(node).map(scalar::Number::value);
        if value.is_none() {
            self.wrong(node, what, "write a finite number, without quotes");
        }
        value
    }

    /// A value of the wrong type, unless it was reported before.
    pub fn wrong(&mut self, node: &Node, wanted: &str, help: &str) {
        if !matches!(node.content, Content::Reported) {
            self.findings
                .add(node.place, format!("expected {wanted}, found {}", describe(node)), help);
        }
    }
}

/// A help that names the word that was probably meant, if there is one, and those that are allowed.
pub(super) fn did_you_mean(near: Option<&str>, introduction: &str, allowed: &str) -> String {
    match near {
        Some(near) => format!("did you mean `{near}`? {} {allowed}", capitalised(introduction)),
        None => format!("{introduction} {allowed}"),
    }
}

fn capitalised(text: &str) -> String {
    let mut characters = text.chars();
    characters
        .next()
        .map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}
