//! What the axes of a model's inputs count, as a rules file says.

use super::read::{Reader, did_you_mean};
use super::scalar::describe;
use super::suggest::closest;
use super::tree::{Content, Node, Place};
use super::{Diagnostic, Report, Rules, RulesError};
use crate::axes::{AxesError, InputLabels, Label};
use serde::Serializer;
use serde::ser::SerializeMap;
use std::rc::Rc;

/// The most inputs; far above any model, so that checking stays quick.
const MOST: usize = 256;

/// What the axes of one input count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputAxes {
    /// The input's name in the model.
    pub name: String,
    /// One label for each axis.
    pub labels: Vec<Label>,
    /// Where the name stands.
    named: Place,
    /// Where the labels stand.
    labelled: Place,
}

impl Reader<'_> {
    /// `inputs:`, a mapping of names to lists of labels.
    pub fn inputs(&mut self, node: &Node) -> Vec<InputAxes> {
        const FORM: &str = "write `inputs: { hidden_states: [batch, channels, frames, height, width] }`";
        let Content::Map(pairs) = &node.content else {
            self.wrong(node, "inputs and the axes of each", FORM);
            return Vec::new();
        };
        if pairs.len() > MOST {
            let message = format!("`inputs` has {} entries; {MOST} are the most", pairs.len());
            self.findings
                .add(node.place, message, "label only the inputs that cannot be told");
            return Vec::new();
        }
        let mut inputs: Vec<InputAxes> = Vec::new();
        let mut names: Vec<(&str, usize)> = Vec::new();
        for (key, value) in pairs {
            let name = match &key.content {
                Content::Scalar { text, .. } if text == "<<" => {
                    self.findings
                        .add(key.place, "rules have no merge keys (`<<`)", "write the inputs out");
                    continue;
                }
                // Names such as `1` or `null` are names all the same.
                Content::Scalar { text, .. } => text,
                Content::Reported => continue,
                _ => {
                    let message = format!("{} cannot be the name of an input", describe(key));
                    self.findings.add(key.place, message, FORM);
                    continue;
                }
            };
            if let Some((_, line)) = names.iter().find(|(other, _)| other == name) {
                let message = format!("the input {} stands here twice, first in line {line}", describe(key));
                self.findings.add(key.place, message, "keep one of the two");
                continue;
            }
            names.push((name, key.place.line));
            let Some(labels) = self.labels(value) else { continue };
            inputs.push(InputAxes {
                name: name.clone(),
                labels,
                named: key.place,
                labelled: value.place,
            });
        }
        inputs
    }

    fn labels(&mut self, node: &Rc<Node>) -> Option<Vec<Label>> {
        let help = format!("name what each axis counts, in order: {}", words());
        let nodes = self.list(node, "the axes of an input", &help)?;
        if nodes.is_empty() {
            self.findings.add(
                node.place,
                "no axes are named",
                "leave inputs out that have none or need none",
            );
            return None;
        }
        let labels: Vec<Label> = nodes.iter().filter_map(|node| self.label(node)).collect();
        (labels.len() == nodes.len()).then_some(labels)
    }

    fn label(&mut self, node: &Node) -> Option<Label> {
        let word = self.text(node, "what an axis counts")?;
        let label = Label::ALL.into_iter().find(|label| label.word() == word);
        if label.is_none() {
            let near = closest(&word, Label::ALL.map(Label::word));
            let message = format!("{} is no axis", describe(node));
            self.findings
                .add(node.place, message, did_you_mean(near, "axes are", &words()));
        }
        label
    }
}

/// All labels, for messages.
fn words() -> String {
    Label::ALL.map(Label::word).join(", ")
}

impl Rules {
    /// Labels of the model's inputs: those of the rules, but for the inputs that `given` names.
    pub fn input_labels(&self, given: &InputLabels) -> InputLabels {
        let mut labels = given.clone();
        for input in &self.inputs {
            let entry = labels.inputs.entry(input.name.clone());
            entry.or_insert_with(|| input.labels.clone());
        }
        labels
    }

    /// The error at the lines of the rules whose labels do not fit the model; `None` where no fault is one of theirs.
    /// `faults` are those of [`InputLabels::faults`].
    pub fn input_faults(&self, faults: &[AxesError]) -> Option<RulesError> {
        let diagnostics: Vec<Diagnostic> = self
            .inputs
            .iter()
            .filter_map(|input| faults.iter().find_map(|fault| diagnostic(input, fault)))
            .collect();
        (!diagnostics.is_empty()).then(|| {
            RulesError::Invalid(Report {
                file: self.file.clone(),
                text: self.text.clone(),
                diagnostics,
                left_out: 0,
            })
        })
    }
}

fn diagnostic(input: &InputAxes, fault: &AxesError) -> Option<Diagnostic> {
    let (place, message, help) = match fault {
        AxesError::UnknownInput { name, inputs } if *name == input.name => {
            let near = closest(name, inputs.iter().map(String::as_str));
            (
                input.named,
                format!("the model has no input `{name}`"),
                did_you_mean(near, "its inputs are", &inputs.join(", ")),
            )
        }
        AxesError::Rank { name, rank, labels } if *name == input.name => (
            input.labelled,
            format!("input `{name}` has {rank} axes in the model, but {labels} are named here"),
            "say of each axis what it counts; `other` is for one that means none of the others".to_owned(),
        ),
        _ => return None,
    };
    Some(Diagnostic {
        line: place.line,
        column: place.column,
        length: place.length,
        message,
        help,
    })
}

/// Writes inputs in the form that they have in YAML.
pub(super) fn as_mapping<S: Serializer>(inputs: &[InputAxes], serializer: S) -> Result<S::Ok, S::Error> {
    let mut mapping = serializer.serialize_map(Some(inputs.len()))?;
    for input in inputs {
        mapping.serialize_entry(&input.name, &input.labels)?;
    }
    mapping.end()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::axes::Label::{Batch, Channels, Frames, Height, Text, Width};

    const RULES: &str = "rules:\n  - { name: r, match: { kind: cross }, broadcast: { range: 2 } }\n";

    fn parse(inputs: &str) -> Result<Rules, RulesError> {
        Rules::parse("rules.yaml", &format!("version: 1\n{inputs}{RULES}"))
    }

    #[test]
    fn labels_by_name() {
        let text = "inputs:\n  x: [batch, channels, frames, height, width]\n  \"a: b\": [batch, text]\n  1: [batch]\n";
        let rules = parse(text).unwrap();
        let labels = rules.input_labels(&InputLabels::default()).inputs;
        assert_eq!(labels["x"], [Batch, Channels, Frames, Height, Width]);
        assert_eq!(labels["a: b"], [Batch, Text]);
        assert_eq!(labels["1"], [Batch]);
        let json = serde_json::to_string(&rules).unwrap();
        assert!(
            json.contains(r#""inputs":{"x":["batch","channels","frames","height","width"],"#),
            "{json}"
        );
        assert!(parse("").unwrap().inputs.is_empty());
    }

    #[test]
    fn labels_given_elsewhere_win() {
        let mut given = InputLabels::default();
        given.inputs.insert("x".to_owned(), vec![Batch, Text]);
        let rules = parse("inputs: { x: [batch, frames], y: [text] }\n").unwrap();
        let labels = rules.input_labels(&given).inputs;
        assert_eq!((&labels["x"], &labels["y"]), (&vec![Batch, Text], &vec![Text]));
    }

    #[test]
    fn the_line_of_an_advice_is_read() {
        for name in ["hidden_states", "a: b", "-x\"\\\u{7}", "1", "null", "~", ""] {
            let line = crate::axes::labelling(name, "batch,frames");
            let (_, line) = line.split_once("in the rules file: ").unwrap();
            let rules = parse(&format!("{line}\n")).unwrap();
            assert_eq!(rules.inputs[0].name, name);
            assert_eq!(rules.inputs[0].labels, [Batch, Frames]);
        }
    }

    #[test]
    fn what_is_wrong_is_shown_in_its_line() {
        let text = "\
inputs:
  x: [batch, chanels, 3]
  y: batch
  x: [batch]
  [z]: [batch]
  w: []
";
        insta::assert_snapshot!(parse(text).unwrap_err(), @r"
        error: `chanels` is no axis
         --> rules.yaml:3:14
          |
        3 |   x: [batch, chanels, 3]
          |              ^^^^^^^
          = help: did you mean `channels`? Axes are batch, channels, frames, height, width, tokens, text, other

        error: expected what an axis counts, found `3`
         --> rules.yaml:3:23
          |
        3 |   x: [batch, chanels, 3]
          |                       ^
          = help: write a text; put it in quotes if it looks like something else

        error: expected a list for the axes of an input, found `batch`
         --> rules.yaml:4:6
          |
        4 |   y: batch
          |      ^^^^^
          = help: name what each axis counts, in order: batch, channels, frames, height, width, tokens, text, other

        error: the input `x` stands here twice, first in line 3
         --> rules.yaml:5:3
          |
        5 |   x: [batch]
          |   ^
          = help: keep one of the two

        error: a list of 1 cannot be the name of an input
         --> rules.yaml:6:3
          |
        6 |   [z]: [batch]
          |   ^^^
          = help: write `inputs: { hidden_states: [batch, channels, frames, height, width] }`

        error: no axes are named
         --> rules.yaml:7:6
          |
        7 |   w: []
          |      ^^
          = help: leave inputs out that have none or need none

        6 errors in rules.yaml
        ");
        insta::assert_snapshot!(parse("inputs: [x]\n").unwrap_err(), @r"
        error: expected inputs and the axes of each, found a list of 1
         --> rules.yaml:2:9
          |
        2 | inputs: [x]
          |         ^^^
          = help: write `inputs: { hidden_states: [batch, channels, frames, height, width] }`

        1 error in rules.yaml
        ");
    }

    #[test]
    fn labels_that_do_not_fit_the_model_are_shown_in_their_line() {
        let rules = parse("inputs:\n  hiden_states: [batch]\n  mask: [batch, text, text]\n  t: [batch]\n").unwrap();
        let faults = [
            AxesError::UnknownInput {
                name: "hiden_states".to_owned(),
                inputs: vec!["hidden_states".to_owned(), "mask".to_owned()],
            },
            AxesError::Rank {
                name: "mask".to_owned(),
                rank: 2,
                labels: 3,
            },
        ];
        insta::assert_snapshot!(rules.input_faults(&faults).unwrap(), @r"
        error: the model has no input `hiden_states`
         --> rules.yaml:3:3
          |
        3 |   hiden_states: [batch]
          |   ^^^^^^^^^^^^
          = help: did you mean `hidden_states`? Its inputs are hidden_states, mask

        error: input `mask` has 2 axes in the model, but 3 are named here
         --> rules.yaml:4:9
          |
        4 |   mask: [batch, text, text]
          |         ^^^^^^^^^^^^^^^^^^^
          = help: say of each axis what it counts; `other` is for one that means none of the others

        2 errors in rules.yaml
        ");
        assert!(rules.input_faults(&[]).is_none());
        let elsewhere = AxesError::Rank {
            name: "z".to_owned(),
            rank: 2,
            labels: 3,
        };
        assert!(rules.input_faults(&[elsewhere]).is_none());
    }
}
