//! A tree → rules, or all that is wrong with it.

use super::blocks::{BlockRange, Blocks, BlocksError};
use super::broadcast::{Broadcast, Window, WindowError};
use super::read::{Fields, Reader, Shape, did_you_mean};
use super::scalar::describe;
use super::select::Match;
use super::suggest::closest;
use super::tree::{Content, Node, Place};
use super::{CutPoint, InputAxes, Rule};
use crate::attention::Kind;
use std::rc::Rc;

/// The version of the language that this program reads.
const VERSION: i64 = 1;
/// The most characters of a rule's name: it becomes part of tensor names.
const LONGEST_NAME: usize = 64;

/// The whole file.
pub(super) struct File {
    pub description: Option<String>,
    pub inputs: Vec<InputAxes>,
    pub rules: Vec<Rule>,
    /// Where each rule says what it matches.
    pub matches: Vec<Place>,
}

const FILE: Shape = Shape {
    what: "a rules file",
    keys: &["version", "description", "inputs", "rules"],
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

impl Reader<'_> {
    /// The file's rules, as far as they can be read. Only to be used where nothing was found.
    pub fn file(&mut self, root: &Node) -> Option<File> {
        let fields = self.fields(root, &FILE, "begin with `version: 1` and a list `rules:`")?;
        self.version(&fields);
        let description = fields
            .get("description")
            .and_then(|node| self.text(&node, "a description"));
        let inputs = fields.get("inputs").map_or_else(Vec::new, |node| self.inputs(&node));
        let list = self.required(&fields, "rules", "add `rules:` with at least one rule below it")?;
        let nodes = self.list(&list, "`rules`", "write one `- name: …` for each rule")?;
        if nodes.is_empty() {
            let help = "add a rule, or use a preset; a rule that leaves sites alone has `broadcast: never`";
            self.findings.add(list.place, "there are no rules", help);
        }
        let (mut rules, mut matches): (Vec<Rule>, Vec<Place>) = (Vec::new(), Vec::new());
        let mut names = Vec::new();
        for node in nodes {
            let Some((rule, place)) = self.rule(node, &mut names) else {
                continue;
            };
            rules.push(rule);
            matches.push(place);
        }
        Some(File {
            description,
            inputs,
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

    fn rule(&mut self, node: &Rc<Node>, names: &mut Vec<(String, usize)>) -> Option<(Rule, Place)> {
        let fields = self.fields(node, &RULE, "write `name:`, `match:` and `broadcast:` below one `-`")?;
        let name = self.name(&fields, names);
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

    fn name(&mut self, fields: &Fields, names: &mut Vec<(String, usize)>) -> Option<String> {
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
        if let Some((_, line)) = names.iter().find(|(taken, _)| *taken == name) {
            let message = format!("the name `{name}` is taken by the rule in line {line}");
            self.findings
                .add(node.place, message, "give each rule a name of its own");
            return None;
        }
        names.push((name.clone(), node.place.line));
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
}

/// All kinds, for messages.
fn kinds() -> String {
    Kind::ALL.map(Kind::word).join(", ")
}
