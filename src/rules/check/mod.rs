//! A tree → rules, or all that is wrong with it.

pub(super) mod timing;

use super::blocks::{BlockRange, Blocks};
use super::bytes::{self, Bytes};
use super::indices::IndicesError;
use super::limit::{Limit, LimitError, Limits};
use super::read::{Fields, Reader, Shape, did_you_mean};
use super::scalar::describe;
use super::select::Match;
use super::suggest::closest;
use super::tree::{Content, Node, Place};
use super::{CutPoint, InputAxes, Rule};
use crate::attention::Kind;
use crate::shard::{Group, Mesh};
use std::rc::Rc;
use std::str::FromStr;

/// The version of the language that this program reads.
pub(super) const VERSION: i64 = 1;
/// The most characters of a rule's name: it becomes part of tensor names.
pub(super) const LONGEST_NAME: usize = 64;

/// The whole file.
pub(super) struct File {
    pub description: Option<String>,
    pub memory: Option<u64>,
    /// The ranks that the model is split over.
    pub parallel: Option<Mesh>,
    pub inputs: Vec<InputAxes>,
    pub rules: Vec<Rule>,
    /// Where each rule says what it matches.
    pub matches: Vec<Place>,
}

pub(super) const FILE: Shape = Shape {
    what: "a rules file",
    keys: &["version", "description", "memory", "parallel", "inputs", "rules"],
};
pub(super) const PARALLEL: Shape = Shape {
    what: "`parallel`",
    keys: &["guidance", "sequence", "tensor"],
};
pub(super) const RULE: Shape = Shape {
    what: "a rule",
    keys: &[
        "name",
        "description",
        "match",
        "cut",
        "broadcast",
        "forecast",
        "residual",
        "guidance",
    ],
};
pub(super) const MATCH: Shape = Shape {
    what: "`match`",
    keys: &["kind", "blocks", "name", "cache", "share"],
};
/// The keys of a rule of which it has exactly one.
pub(super) const ACTIONS: [&str; 4] = ["broadcast", "forecast", "residual", "guidance"];

impl Reader<'_> {
    /// The file's rules, as far as they can be read. Only to be used where nothing was found.
    pub fn file(&mut self, root: &Node) -> Option<File> {
        let fields = self.fields(root, &FILE, "begin with `version: 1` and a list `rules:`")?;
        self.version(&fields);
        let description = fields
            .get("description")
            .and_then(|node| self.text(&node, "a description"));
        let memory = fields.get("memory").and_then(|node| self.memory(&node));
        let parallel = fields.get("parallel").and_then(|node| self.parallel(&node));
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
            memory,
            parallel,
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
        let (key, value) = self.action_key(&fields)?;
        let action = self.action(key, &value);
        let selected = fields.get("match");
        let place = selected.as_ref().map_or(fields.place, |node| node.place);
        let select = match (key, selected) {
            ("guidance", Some(node)) => {
                let message = "guidance is of the whole model, and matches no sites";
                self.findings.add(node.place, message, "remove `match`");
                None
            }
            ("guidance", None) => Some(Match::nothing()),
            ("residual", None) => Some(Match::inner_blocks()),
            ("residual", Some(node)) => self.select(&node, true),
            (_, Some(node)) => self.select(&node, false),
            (_, None) => {
                let help = "say what the rule is for: `match: { kind: spatial }`";
                self.required(&fields, "match", help);
                None
            }
        };
        let cut = fields.get("cut").map(|node| (node.place, self.cut(&node)));
        if let (Some((place, _)), Some(action)) = (&cut, &action) {
            let by_site = action.as_ref().map(|action| action.strategy.is_by_site());
            let message = match by_site {
                None => "a rule that never broadcasts has nothing to cut",
                Some(false) => "only rules with `broadcast` or `forecast` cut sites",
                Some(true) => "",
            };
            if !message.is_empty() {
                self.findings.add(*place, message, "remove `cut`");
            }
        }
        let rule = Rule {
            name: name?,
            description,
            select: select?,
            cut: cut.map_or(Some(CutPoint::default()), |(_, cut)| cut)?,
            action: action?,
            line: node.place.line,
            column: node.place.column,
        };
        Some((rule, place))
    }

    /// The key that says what the rule does, and its value.
    fn action_key(&mut self, fields: &Fields) -> Option<(&'static str, Rc<Node>)> {
        let mut found = ACTIONS.into_iter().filter_map(|key| Some((key, fields.get(key)?)));
        let Some((key, node)) = found.next() else {
            let help = "say how: `broadcast: { range: 2 }`, or `broadcast: never` to leave these sites alone; other ways \
                        are `forecast`, `residual` and `guidance`";
            if !ACTIONS.iter().any(|key| fields.means(key)) {
                self.required(fields, "broadcast", help);
            }
            return None;
        };
        if let Some((other, second)) = found.next() {
            let message = format!("a rule has one of {}, and this has `{key}` too", words(&ACTIONS));
            let help = format!("keep one of the two, or make `{other}` a rule of its own");
            self.findings.add(second.place, message, help);
            return None;
        }
        Some((key, node))
    }

    fn memory(&mut self, node: &Node) -> Option<u64> {
        let Content::Scalar { text, .. } = &node.content else {
            self.wrong(node, "an amount of memory", bytes::FORMS);
            return None;
        };
        match text.parse::<Bytes>() {
            Ok(Bytes(0)) => {
                let help = "use the original model, or remove `memory`";
                self.findings
                    .add(node.place, "without memory nothing can be broadcast", help);
                None
            }
            Ok(Bytes(memory)) => Some(memory),
            Err(()) => {
                self.findings.add(
                    node.place,
                    format!("{} is no amount of memory", describe(node)),
                    bytes::FORMS,
                );
                None
            }
        }
    }

    fn parallel(&mut self, node: &Node) -> Option<Mesh> {
        /// More ranks than these are a mistake.
        const MOST: i64 = 4096;
        let help = "write ranks along each axis, such as `{ guidance: 2, sequence: 4 }`";
        let fields = self.fields(node, &PARALLEL, help)?;
        let mut along = |group: Group| {
            let Some(node) = fields.get(group.name()) else {
                return Some(1);
            };
            let ranks = self.integer(&node, "a number of ranks")?;
            if !(1..=MOST).contains(&ranks) {
                let message = format!("{ranks} ranks along `{group}` cannot be; 1 to {MOST} can");
                self.findings.add(node.place, message, help);
                return None;
            }
            usize::try_from(ranks).ok()
        };
        let (guidance, sequence, tensor) = (along(Group::Guidance), along(Group::Sequence), along(Group::Tensor));
        Some(Mesh {
            guidance: guidance?,
            sequence: sequence?,
            tensor: tensor?,
        })
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

    /// What a rule matches; `spans` where it is for whole blocks, whose kinds and ends need not be named.
    fn select(&mut self, node: &Rc<Node>, spans: bool) -> Option<Match> {
        let fields = self.fields(node, &MATCH, "write `match: { kind: spatial }`")?;
        let help = format!(
            "say which kind of site, `kind: spatial` for example; kinds are {}",
            kinds()
        );
        let kinds = match fields.get("kind") {
            None if spans => Some(Vec::new()),
            _ => self.required(&fields, "kind", &help).and_then(|node| self.kinds(&node)),
        };
        let without = if spans { Blocks::inner() } else { Blocks::all() };
        let blocks = fields.get("blocks").map_or(Some(without), |node| self.blocks(&node));
        let name = match fields.get("name") {
            Some(node) => Some(self.pattern(&node)?),
            None => None,
        };
        let costs: Vec<Rc<Node>> = ["cache", "share"].iter().filter_map(|key| fields.get(key)).collect();
        if let (Some(node), true) = (costs.first(), spans) {
            let message = "rules for spans of blocks cannot ask what a site costs";
            self.findings.add(node.place, message, "match blocks, kinds and names");
            return None;
        }
        let cache = self.limits(&fields, "cache", "write a bound such as `<= 8MiB`, or a list of bounds");
        let share = self.limits(
            &fields,
            "share",
            "write a bound from 0 to 1 such as `>= 0.01`, or a list of bounds",
        );
        Some(Match {
            kinds: kinds?,
            blocks: blocks?,
            name,
            cache: cache?,
            share: share?,
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
        const FORMS: &str = "blocks count from 0, or from the last as -1: `3`, `0..6` (without 6), `0..=5` (with 5), `4..`, \
                             `..4`, `-1`, `1..-1`, or a list";
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
                        IndicesError::Form(_) => format!("{} names no blocks", describe(&item)),
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

    /// Bounds on what a site costs; `Some(None)` where there are none.
    fn limits<T: PartialOrd + Copy>(&mut self, fields: &Fields, key: &str, help: &str) -> Option<Option<Limits<T>>>
    where
        Limit<T>: FromStr<Err = LimitError>,
    {
        let Some(node) = fields.get(key) else {
            return Some(None);
        };
        let mut limits: Vec<Limit<T>> = Vec::new();
        for item in self.one_or_more(&node, &format!("`{key}`"), help)? {
            // A bare `> 0.1` is a block scalar's head in YAML, so that bounds stand in quotes.
            let Content::Scalar { text, .. } = &item.content else {
                self.wrong(&item, "a bound", help);
                return None;
            };
            let message = match text.parse::<Limit<T>>() {
                Ok(limit) if limits.iter().any(|other| other.excludes(&limit)) => {
                    format!("no number keeps this bound and the one before: {}", describe(&item))
                }
                Ok(limit) => {
                    limits.push(limit);
                    continue;
                }
                Err(error) => format!("{} is no bound: {error}", describe(&item)),
            };
            self.findings.add(item.place, message, help);
            return None;
        }
        Some(Some(Limits::new(limits)))
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
}

/// All kinds, for messages.
fn kinds() -> String {
    Kind::ALL.map(Kind::word).join(", ")
}

/// Keys, for messages: "`a`, `b`".
fn words(keys: &[&str]) -> String {
    let quoted: Vec<String> = keys.iter().map(|key| format!("`{key}`")).collect();
    quoted.join(", ")
}
