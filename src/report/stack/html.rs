//! A stack as one page that needs nothing else.

use super::super::html::{escaped, page};
use super::super::number;
use super::{Branch, COLOURS, Stack, StackBlock};
use std::fmt::{Result, Write as _};

const STYLE: &str = include_str!("stack.css");
const SCRIPT: &str = include_str!("stack.js");

impl Stack {
    /// The stack as a page: one file, without anything from the network. It can be read without its script, which only
    /// filters and folds.
    pub fn html(&self) -> String {
        let mut body = String::new();
        // Writing to a string does not fail.
        let _ = self.write_body(&mut body);
        page(&self.title, STYLE, &body, SCRIPT)
    }

    fn write_body(&self, page: &mut String) -> Result {
        let title = escaped(&self.title);
        writeln!(page, "<header>\n<h1>{title}</h1>\n<dl class=\"facts\">")?;
        for (name, value) in &self.facts {
            writeln!(page, "<div><dt>{}</dt><dd>{}</dd></div>", escaped(name), escaped(value))?;
        }
        page.push_str("</dl>\n");
        self.write_shares(page)?;
        page.push_str(
            "<p class=\"tools\"><input id=\"filter\" type=\"search\" placeholder=\"Filter by name\" aria-label=\"Filter by \
             name\"> <button id=\"open\" type=\"button\">Open all</button> <button id=\"close\" type=\"button\">Close \
             all</button></p>\n</header>\n<main>\n<ol class=\"stack\">\n",
        );
        for (index, block) in self.blocks.iter().enumerate() {
            write_block(page, index, block)?;
        }
        page.push_str("</ol>\n");
        self.write_notes(page)?;
        page.push_str("</main>\n");
        Ok(())
    }

    /// What each kind has of a step, as one bar with its legend.
    fn write_shares(&self, page: &mut String) -> Result {
        let branches = || self.blocks.iter().flat_map(|block| &block.branches);
        let of_kind = |kind: &str| {
            let shares = branches()
                .filter(|branch| branch.kind == kind)
                .map(|branch| branch.share);
            (shares.clone().count(), shares.sum::<f64>())
        };
        let kinds: Vec<(&str, usize, f64)> = COLOURS
            .iter()
            .map(|(kind, _)| (*kind, of_kind(kind)))
            .filter(|(_, (count, _))| *count > 0)
            .map(|(kind, (count, share))| (kind, count, share))
            .collect();
        page.push_str("<div class=\"shares\" aria-hidden=\"true\">");
        for (kind, _, share) in &kinds {
            write!(
                page,
                "<span class=\"{kind}\" style=\"width:{:.2}%\"></span>",
                share * 100.0
            )?;
        }
        page.push_str("</div>\n<p class=\"legend\">");
        for (kind, count, share) in &kinds {
            write!(
                page,
                "<label class=\"{kind}\"><input type=\"checkbox\" data-kind=\"{kind}\" checked> {count} {kind}, {}</label> ",
                number::percent(*share)
            )?;
        }
        let rest = 1.0 - kinds.iter().map(|(_, _, share)| share).sum::<f64>();
        writeln!(
            page,
            "<span>everything else: {}</span></p>",
            number::percent(rest.max(0.0))
        )
    }

    fn write_notes(&self, page: &mut String) -> Result {
        writeln!(page, "<section class=\"notes\">\n<h2>Not understood</h2>")?;
        if self.notes.is_empty() && self.opaque.is_empty() {
            return writeln!(page, "<p>Nothing: every attention is a branch above.</p>\n</section>");
        }
        page.push_str("<ul>\n");
        for note in &self.notes {
            writeln!(
                page,
                "<li><strong>{}</strong>: {}. <em>{}</em></li>",
                escaped(&note.subject),
                escaped(&note.reason),
                escaped(&note.advice)
            )?;
        }
        for (operator, nodes) in &self.opaque {
            let operator = escaped(operator);
            writeln!(
                page,
                "<li><strong>{operator}</strong>: the axes beyond its {nodes} nodes are not known</li>"
            )?;
        }
        writeln!(page, "</ul>\n</section>")
    }
}

fn write_block(page: &mut String, index: usize, block: &StackBlock) -> Result {
    let share: f64 = block.branches.iter().map(|branch| branch.share).sum();
    write!(page, "<li class=\"block\">\n<h2>block {index}")?;
    if let Some(module) = &block.module {
        write!(page, " <code>{}</code>", escaped(module))?;
    }
    writeln!(page, " <small>{} of a step</small></h2>", number::percent(share))?;
    for branch in &block.branches {
        write_branch(page, branch)?;
    }
    page.push_str("</li>\n");
    Ok(())
}

fn write_branch(page: &mut String, branch: &Branch) -> Result {
    let name = escaped(&branch.name);
    let kind = escaped(branch.kind);
    let shape = branch.cuts.first().map(|cut| cut.shape.as_str());
    let cell = |text: Option<&str>| escaped(text.unwrap_or("–"));
    let bytes = |count: Option<u64>| count.map_or_else(|| "–".to_owned(), number::bytes);
    writeln!(
        page,
        "<details class=\"branch {kind}\" data-kind=\"{kind}\" id=\"site-{name}\">\n<summary>"
    )?;
    writeln!(page, "<b>{name}</b> <i class=\"kind\">{kind}</i>")?;
    writeln!(page, "<code class=\"module\">{}</code>", cell(branch.module.as_deref()))?;
    writeln!(
        page,
        "<code class=\"axes\">{}<br>{}</code>",
        cell(branch.axes.as_deref()),
        cell(shape)
    )?;
    writeln!(
        page,
        "<span title=\"bytes of the cache\">{}</span>",
        bytes(branch.cache_bytes)
    )?;
    let (flops, share) = (number::flops(branch.flops as u64), number::percent(branch.share));
    writeln!(page, "<span title=\"operations that a broadcast saves\">{flops}</span>")?;
    writeln!(
        page,
        "<span class=\"share\" title=\"share of a step\" style=\"--share:{:.2}%\">{share}</span>\n</summary>",
        branch.share * 100.0
    )?;
    let heads = branch.heads.map_or_else(|| "–".to_owned(), |heads| heads.to_string());
    writeln!(page, "<p>Rule: {}. Heads: {heads}.</p>", cell(branch.rule.as_deref()))?;
    page.push_str("<table>\n<tr><th>cut</th><th>value</th><th>type</th><th>shape</th><th>cache</th></tr>\n");
    for cut in &branch.cuts {
        writeln!(
            page,
            "<tr><td>{}</td><td><code>{}</code></td><td>{}</td><td><code>{}</code></td><td>{}</td></tr>",
            escaped(
                &cut.part
                    .as_ref()
                    .map_or_else(|| cut.point.to_owned(), |part| format!("{}, {part}", cut.point))
            ),
            escaped(&cut.value),
            escaped(&cut.element_type),
            escaped(&cut.shape),
            bytes(cut.bytes)
        )?;
    }
    writeln!(
        page,
        "</table>\n<p>{} nodes, those of the core in bold:</p>",
        branch.nodes.len()
    )?;
    page.push_str("<ol class=\"nodes\">\n");
    for node in &branch.nodes {
        let class = if node.core { " class=\"core\"" } else { "" };
        let (operator, name) = (escaped(&node.operator), escaped(&node.name));
        writeln!(page, "<li{class}><span>{operator}</span> <code>{name}</code></li>")?;
    }
    page.push_str("</ol>\n</details>\n");
    Ok(())
}
