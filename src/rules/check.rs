//! A tree → rules, or all that is wrong with it.

use super::blocks::{BlockRange, Blocks, BlocksError};
use super::broadcast::{Broadcast, Window, WindowError};
use super::scalar::{self, describe};
use super::select::Match;
use super::suggest::closest;
use super::tree::{Content, Findings, Node, Place};
use super::{CutPoint, Rule};
use crate::attention::Kind;
use std::rc::Rc;

/// The version of the language that this program reads.
const VERSION: i64 = 1;
/// The most rules of a file, and the most entries of a list; far above any use, so that checking stays quick.
const MOST: usize = 256;
/// The most characters of a rule's name: it becomes part of tensor names.
const LONGEST_NAME: usize = 64;

/// The whole file.
pub(super) struct File {
    pub description: Option<String>,
    pub rules: Vec<Rule>,
    /// Where each rule says what it matches.
    pub matches: Vec<Place>,
}

/// The keys of a mapping.
struct Shape {
    /// What the mapping is, for messages: "`broadcast`".
    what: &'static str,
    keys: &'static [&'static str],
}

const FILE: Shape = Shape {
    what: "a rules file",
    keys: &["version", "description", "rules"],
};
const RULE: Shape = Shape {
    what: "a rule",
    keys: &["name", "description", "match", "cut", "broadcast"],
};
const MATCH: Shape = Shape {
    what: "`match`",
    keys: &["kind", "blocks", "name"],
};
const BROADCAST: Shape = Shape {
    what: "`broadcast`",
    keys: &["range", "window"],
};
const WINDOW: Shape = Shape {
    what: "`window`",
    keys: &["timesteps", "fraction"],
};

/// The values of a mapping by the position of their key in its [`Shape`].
struct Fields {
    place: Place,
    values: Vec<Option<Rc<Node>>>,
    shape: &'static Shape,
}

impl Fields {
    fn get(&self, key: &str) -> Option<Rc<Node>> {
        let index = self.shape.keys.iter().position(|known| *known == key)?;
        self.values.get(index).cloned().flatten()
    }
}

pub(super) struct Checker<'f> {
    pub findings: &'f mut Findings,
}

impl Checker<'_> {
    /// The file's rules, as far as they can be read. Only to be used where nothing was found.
    pub fn file(&mut self, root: &Node) -> Option<File> {
        let fields = self.fields(root, &FILE, "begin with `version: 1` and a list `rules:`")?;
        self.version(&fields);
        let description = fields
            .get("description")
            .and_then(|node| self.text(&node, "a description"));
        let list = self.required(&fields, "rules", "add `rules:` with at least one rule below it")?;
        let nodes = self.list(&list, "`rules`", "write one `- name: …` for each rule")?;
        if nodes.is_empty() {
            let help = "add a rule, or use a preset; a rule that leaves sites alone has `broadcast: never`";
            self.findings.add(list.place, "there are no rules", help);
        }
        let (mut rules, mut matches): (Vec<Rule>, Vec<Place>) = (Vec::new(), Vec::new());
        for node in nodes {
            let Some((rule, place)) = self.rule(node, &rules) else {
                continue;
            };
            rules.push(rule);
            matches.push(place);
        }
        Some(File {
            description,
            rules,
            matches,
        })
    }

    fn version(&mut self, fields: &Fields) {
        let Some(node) = self.required(fields, "version", "write `version: 1` in the first line") else {
            return;
        };
        match self.integer(&node, "the version") {
            Some(VERSION) | None => {}
            Some(other) => {
                let help = format!("write `version: {VERSION}`, or use a program that reads version {other}");
                let message = format!("version {other} of the rules is not known; this program reads {VERSION}");
                self.findings.add(node.place, message, help);
            }
        }
    }

    fn rule(&mut self, node: &Rc<Node>, earlier: &[Rule]) -> Option<(Rule, Place)> {
        let fields = self.fields(node, &RULE, "write `name:`, `match:` and `broadcast:` below one `-`")?;
        let name = self.name(&fields, earlier);
        let description = fields
            .get("description")
            .and_then(|node| self.text(&node, "a description"));
        let select = self.required(&fields, "match", "say what the rule is for: `match: { kind: spatial }`");
        let place = select.as_ref().map_or(fields.place, |node| node.place);
        let select = select.and_then(|node| self.select(&node));
        let help = "say how: `broadcast: { range: 2 }`, or `broadcast: never` to leave these sites alone";
        let broadcast = self
            .required(&fields, "broadcast", help)
            .and_then(|node| self.broadcast(&node));
        let cut = fields.get("cut").map(|node| (node.place, self.cut(&node)));
        if let (Some((place, _)), Some(None)) = (&cut, &broadcast) {
            let help = "remove `cut`";
            self.findings
                .add(*place, "a rule that never broadcasts has nothing to cut", help);
        }
        let rule = Rule {
            name: name?,
            description,
            select: select?,
            cut: cut.map_or(Some(CutPoint::default()), |(_, cut)| cut)?,
            broadcast: broadcast?,
            line: node.place.line,
            column: node.place.column,
        };
        Some((rule, place))
    }

    fn name(&mut self, fields: &Fields, earlier: &[Rule]) -> Option<String> {
        let node = self.required(
            fields,
            "name",
            "give the rule a name of its own, such as `name: spatial`",
        )?;
        let name = self.text(&node, "a name")?;
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'-';
        if name.is_empty() || name.len() > LONGEST_NAME || !name.bytes().all(allowed) {
            let message = format!("{} is no name for a rule", describe(&node));
            let help = format!(
                "names become part of tensor names: 1 to {LONGEST_NAME} of the characters a-z, 0-9, `_` and `-`"
            );
            self.findings.add(node.place, message, help);
            return None;
        }
        if let Some(other) = earlier.iter().find(|rule| rule.name == name) {
            let message = format!("the name `{name}` is taken by the rule in line {}", other.line);
            self.findings
                .add(node.place, message, "give each rule a name of its own");
            return None;
        }
        Some(name)
    }

    fn select(&mut self, node: &Rc<Node>) -> Option<Match> {
        let fields = self.fields(node, &MATCH, "write `match: { kind: spatial }`")?;
        let help = format!(
            "say which kind of site, `kind: spatial` for example; kinds are {}",
            kinds()
        );
        let kinds = self.required(&fields, "kind", &help).and_then(|node| self.kinds(&node));
        let blocks = fields
            .get("blocks")
            .map_or(Some(Blocks::all()), |node| self.blocks(&node));
        let name = match fields.get("name") {
            Some(node) => Some(self.pattern(&node)?),
            None => None,
        };
        Some(Match {
            kinds: kinds?,
            blocks: blocks?,
            name,
        })
    }

    fn kinds(&mut self, node: &Rc<Node>) -> Option<Vec<Kind>> {
        let mut kinds = Vec::new();
        for item in self.one_or_more(node, "`kind`", &format!("name at least one kind: {}", self::kinds()))? {
            let word = self.text(&item, "a kind")?;
            match word.parse::<Kind>() {
                Ok(kind) if kinds.contains(&kind) => {
                    self.findings.add(
                        item.place,
                        format!("the kind {kind} is named twice"),
                        "name each kind once",
                    );
                }
                Ok(kind) => kinds.push(kind),
                Err(_) => {
                    let near = closest(&word, Kind::ALL.map(Kind::word));
                    let message = format!("{} is no kind of site", describe(&item));
                    self.findings
                        .add(item.place, message, did_you_mean(near, "kinds are", &self::kinds()));
                    return None;
                }
            }
        }
        Some(kinds)
    }

    fn blocks(&mut self, node: &Rc<Node>) -> Option<Blocks> {
        const FORMS: &str = "blocks count from 0: `3`, `0..6` (without 6), `0..=5` (with 5), `4..`, `..4`, or a list";
        let mut ranges = Vec::new();
        for item in self.one_or_more(node, "`blocks`", "leave `blocks` out to mean all blocks")? {
            let Content::Scalar { text, .. } = &item.content else {
                self.wrong(&item, "blocks", FORMS);
                return None;
            };
            match text.parse::<BlockRange>() {
                Ok(range) => ranges.push(range),
                Err(error) => {
                    let message = match error {
                        BlocksError::Form(_) => format!("{} names no blocks", describe(&item)),
                        other => other.to_string(),
                    };
                    self.findings.add(item.place, message, FORMS);
                    return None;
                }
            }
        }
        Some(Blocks::union(ranges))
    }

    fn pattern(&mut self, node: &Node) -> Option<super::Pattern> {
        let text = self.text(node, "a name pattern")?;
        match text.parse() {
            Ok(pattern) => Some(pattern),
            Err(error) => {
                let help = "`*` stands for any characters and `?` for exactly one; the whole module name has to match";
                self.findings.add(node.place, format!("{error}"), help);
                None
            }
        }
    }

    fn cut(&mut self, node: &Node) -> Option<CutPoint> {
        let word = self.text(node, "a cut")?;
        let cut = CutPoint::ALL.into_iter().find(|cut| cut.word() == word);
        if cut.is_none() {
            let near = closest(&word, CutPoint::ALL.map(CutPoint::word));
            let allowed = "`output` (after the output projection) or `gated` (after the gate too)";
            let message = format!("{} is no place to cut", describe(node));
            self.findings
                .add(node.place, message, did_you_mean(near, "write", allowed));
        }
        cut
    }

    /// `Some(None)` where the rule never broadcasts.
    fn broadcast(&mut self, node: &Node) -> Option<Option<Broadcast>> {
        const FORMS: &str = "write `broadcast: { range: 2, window: { timesteps: [100, 800] } }` or `broadcast: never`";
        if let Content::Scalar { text, .. } = &node.content {
            if text == "never" {
                return Some(None);
            }
            self.wrong(node, "how to broadcast", FORMS);
            return None;
        }
        let fields = self.fields(node, &BROADCAST, FORMS)?;
        let help = "say how often to compute, `range: 2` for every second step";
        let range = self.required(&fields, "range", help).and_then(|node| self.range(&node));
        let window = fields
            .get("window")
            .map_or(Some(Window::Whole), |node| self.window(&node));
        Some(Some(Broadcast::new(range?, window?).ok()?))
    }

    fn range(&mut self, node: &Node) -> Option<u32> {
        let range = self.integer(node, "a range")?;
        match u32::try_from(range) {
            Ok(1) => {
                let help = "write `broadcast: never` to leave these sites alone, or a range of 2 or more";
                self.findings.add(
                    node.place,
                    "range 1 computes at every step and broadcasts nothing",
                    help,
                );
                None
            }
            Ok(range) if range >= 2 => Some(range),
            _ => {
                let help = "a range is a whole number from 2 on: compute every so many steps, reuse in between";
                self.findings.add(node.place, format!("{range} is no range"), help);
                None
            }
        }
    }

    fn window(&mut self, node: &Node) -> Option<Window> {
        const FORMS: &str =
            "write `{ timesteps: [100, 800] }` or `{ fraction: [0.15, 0.85] }`; without a window it is the whole run";
        if matches!(&node.content, Content::Scalar { text, .. } if text == "whole") {
            return Some(Window::Whole);
        }
        let fields = self.fields(node, &WINDOW, FORMS)?;
        match (fields.get("timesteps"), fields.get("fraction")) {
            (Some(timesteps), None) => self.ends(&timesteps, "`timesteps`", Window::timesteps),
            (None, Some(fraction)) => self.ends(&fraction, "`fraction`", Window::fraction),
            (Some(_), Some(fraction)) => {
                let message = "a window is either in timesteps or a fraction of the run, and this is both";
                self.findings.add(fraction.place, message, "keep one of the two");
                None
            }
            (None, None) => {
                self.findings.add(fields.place, "this window has no ends", FORMS);
                None
            }
        }
    }

    /// Reads the two ends of a window, and makes it.
    fn ends(&mut self, node: &Node, what: &str, make: fn(f64, f64) -> Result<Window, WindowError>) -> Option<Window> {
        let help = "write two numbers, the lower first: `[100, 800]` for timesteps, `[0.15, 0.85]` for a fraction";
        let [low, high] = self.list(node, what, help)? else {
            self.findings.add(
                node.place,
                format!("{what} has two ends, but {} stands here", describe(node)),
                help,
            );
            return None;
        };
        let (low_value, high_value) = (
            self.number(low, "an end of a window"),
            self.number(high, "an end of a window"),
        );
        let (first, second) = (low_value?, high_value?);
        match make(first, second) {
            Ok(window) => Some(window),
            Err(error) => {
                let (place, help) = match error {
                    WindowError::OutsideUnit(outside) => {
                        let place = if outside == first { low.place } else { high.place };
                        (
                            place,
                            "write 0.15 for 15 %; ends in the scheduler's unit belong under `timesteps`".to_owned(),
                        )
                    }
                    WindowError::Empty { .. } if first > second => {
                        (node.place, format!("did you mean `[{second}, {first}]`?"))
                    }
                    WindowError::Empty { .. } => {
                        (node.place, "widen the window, or write `broadcast: never`".to_owned())
                    }
                    WindowError::NotFinite(_) => (node.place, help.to_owned()),
                };
                self.findings.add(place, error.to_string(), help);
                None
            }
        }
    }

    /// The values of a mapping; unknown and repeated keys are findings.
    fn fields(&mut self, node: &Node, shape: &'static Shape, help: &str) -> Option<Fields> {
        let Content::Map(pairs) = &node.content else {
            self.wrong(node, shape.what, help);
            return None;
        };
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
            shape,
        })
    }

    fn required(&mut self, fields: &Fields, key: &str, help: &str) -> Option<Rc<Node>> {
        let value = fields.get(key);
        if value.is_none() {
            let message = format!("{} has no `{key}`", fields.shape.what);
            self.findings.add(fields.place, message, help);
        }
        value
    }

    fn list<'n>(&mut self, node: &'n Node, what: &str, help: &str) -> Option<&'n [Rc<Node>]> {
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
    fn one_or_more(&mut self, node: &Rc<Node>, what: &str, help: &str) -> Option<Vec<Rc<Node>>> {
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

    fn text(&mut self, node: &Node, what: &str) -> Option<String> {
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

    fn integer(&mut self, node: &Node, what: &str) -> Option<i64> {
        let value = scalar::number(node).and_then(scalar::Number::whole);
        if value.is_none() {
            self.wrong(node, what, "write a whole number, without quotes");
        }
        value
    }

    fn number(&mut self, node: &Node, what: &str) -> Option<f64> {
        let value = scalar::number(node).map(scalar::Number::value);
        if value.is_none() {
            self.wrong(node, what, "write a finite number, without quotes");
        }
        value
    }

    /// A value of the wrong type, unless it was reported before.
    fn wrong(&mut self, node: &Node, wanted: &str, help: &str) {
        if !matches!(node.content, Content::Reported) {
            self.findings
                .add(node.place, format!("expected {wanted}, found {}", describe(node)), help);
        }
    }
}

/// All kinds, for messages.
fn kinds() -> String {
    Kind::ALL.map(Kind::word).join(", ")
}

fn did_you_mean(near: Option<&str>, introduction: &str, allowed: &str) -> String {
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
