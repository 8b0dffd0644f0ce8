//! A stack as a graph in the language of Graphviz.

use super::super::html::shown;
use super::super::number;
use super::{Branch, Stack, colour};
use std::fmt::Write as _;

impl Stack {
    /// The stack in the DOT language: the residual stream from top to bottom, each branch beside its addition.
    pub fn dot(&self) -> String {
        let mut dot = String::new();
        // Writing to a string does not fail.
        let _ = self.write_dot(&mut dot);
        dot
    }

    fn write_dot(&self, dot: &mut String) -> std::fmt::Result {
        writeln!(dot, "digraph {} {{", quoted(&self.title))?;
        writeln!(dot, "  rankdir=TB;")?;
        writeln!(dot, "  node [fontname=\"sans-serif\", fontsize=11];")?;
        writeln!(dot, "  stream0 [label=\"residual stream\", shape=plaintext];")?;
        let mut place = 0;
        for (index, block) in self.blocks.iter().enumerate() {
            let label = match &block.module {
                Some(module) => format!("block {index}: {module}"),
                None => format!("block {index}"),
            };
            writeln!(dot, "  subgraph cluster{index} {{")?;
            writeln!(dot, "    label={}; labeljust=l; color=\"#b0b7c3\";", quoted(&label))?;
            for branch in &block.branches {
                place += 1;
                writeln!(
                    dot,
                    "    branch{place} [label={}, shape=box, style=filled, fillcolor=\"{}\", fontcolor=white, tooltip={}];",
                    quoted(&label_of(branch)),
                    colour(branch.kind),
                    quoted(branch.module.as_deref().unwrap_or(&branch.name)),
                )?;
                writeln!(
                    dot,
                    "    stream{place} [label=\"+\", shape=circle, width=0.3, fixedsize=true];"
                )?;
            }
            writeln!(dot, "  }}")?;
        }
        for end in 1..=place {
            let start = end - 1;
            writeln!(dot, "  stream{start} -> branch{end} -> stream{end};")?;
            writeln!(dot, "  stream{start} -> stream{end} [weight=10];")?;
        }
        writeln!(dot, "}}")
    }
}

fn label_of(branch: &Branch) -> String {
    let mut lines = vec![branch.name.clone()];
    lines.extend(branch.axes.clone());
    let mut costs = vec![
        number::flops(branch.flops as u64),
        format!("{} of a step", number::percent(branch.share)),
    ];
    costs.extend(
        branch
            .cache_bytes
            .map(|bytes| format!("cache {}", number::bytes(bytes))),
    );
    lines.push(costs.join(", "));
    lines.extend(branch.rule.as_ref().map(|rule| format!("rule {rule}")));
    lines.join("\n")
}

/// A quoted string. Graphviz knows `\"` and, in labels, `\n` for a new line and `\\` for a backslash.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '\n' => quoted.push_str("\\n"),
            '"' | '\\' => quoted.extend(['\\', character]),
            other => quoted.push(shown(other)),
        }
    }
    quoted.push('"');
    quoted
}
