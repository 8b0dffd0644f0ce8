//! What was found in the model.

use super::markup::{command, table};
use super::{Inspection, Part, Results};
use crate::report::html::escaped;
use crate::report::number;
use crate::report::stack::class_of;
use crate::report::table::Alignment;
use crate::rewrite::Plan;
use std::fmt::Write as _;

/// The kinds of a model, with what each comes to.
#[derive(Default)]
struct KindRow {
    kind: String,
    sites: usize,
    broadcast: usize,
    share: f64,
    cache_bytes: Option<u64>,
}

pub fn part(results: &Results) -> Part {
    let mut html = String::new();
    for inspection in &results.inspections {
        write_inspection(&mut html, &inspection.value);
    }
    if results.inspections.is_empty() {
        let mut seen: Vec<String> = Vec::new();
        for plan in &results.plans {
            let table = of_plan(&plan.value);
            if !seen.contains(&table) {
                let _ = writeln!(
                    html,
                    "<p>What the plan {} has: the modules that are broadcast, by {}. All that is in the model, and what each module \
                     costs, {} tells.</p>",
                    command(&plan.path.display().to_string()),
                    escaped(&plan.value.rules_from),
                    command("pab-patch inspect MODEL --json > inspect.json")
                );
                html.push_str(&table);
                seen.push(table);
            }
        }
    }
    Part::new(
        "found",
        "What was found in the model",
        (!html.is_empty()).then_some(html),
        &format!(
            "{} beside the other results.",
            command("pab-patch inspect MODEL --json > inspect.json")
        ),
    )
}

fn write_inspection(html: &mut String, inspection: &Inspection) {
    let mut rows: Vec<KindRow> = Vec::new();
    for site in &inspection.sites {
        let place = rows.iter().position(|row| row.kind == site.kind);
        let place = place.unwrap_or_else(|| {
            rows.push(KindRow {
                kind: site.kind.clone(),
                cache_bytes: Some(0),
                ..KindRow::default()
            });
            rows.len() - 1
        });
        if let Some(row) = rows.get_mut(place) {
            row.sites += 1;
            row.broadcast += usize::from(site.rule.is_some());
            row.share += site.share;
            row.cache_bytes = row
                .cache_bytes
                .zip(site.cache_bytes)
                .map(|(sum, bytes)| sum.saturating_add(bytes));
        }
    }
    let (sites, broadcast) = (
        inspection.sites.len(),
        rows.iter().map(|row| row.broadcast).sum::<usize>(),
    );
    let _ = writeln!(
        html,
        "<p>In {} {sites} modules were found that mix tokens or channels; the rules of {} broadcast {broadcast} of them. A step takes {}.</p>",
        command(&inspection.model),
        escaped(&inspection.rules_from),
        escaped(&number::flops(inspection.flops as u64))
    );
    html.push_str("<div class=\"shares\" role=\"img\" aria-label=\"Shares of a step by kind, as in the table below\">");
    for row in &rows {
        let _ = write!(
            html,
            "<span class=\"{}\" style=\"width:{:.2}%\"></span>",
            class_of(&row.kind),
            (row.share * 100.0).clamp(0.0, 100.0)
        );
    }
    html.push_str("</div>\n");
    let cells = rows.iter().map(|row| {
        [
            row.kind.clone(),
            row.sites.to_string(),
            row.broadcast.to_string(),
            number::percent(row.share),
            row.cache_bytes.map_or_else(|| "–".to_owned(), number::bytes),
        ]
    });
    let rest = 1.0 - rows.iter().map(|row| row.share).sum::<f64>();
    let everything_else = [
        "everything else".to_owned(),
        "–".to_owned(),
        "–".to_owned(),
        number::percent(rest.max(0.0)),
        "–".to_owned(),
    ];
    let columns = [
        ("kind", Alignment::Left),
        ("modules", Alignment::Right),
        ("broadcast", Alignment::Right),
        ("share of a step", Alignment::Right),
        ("caches", Alignment::Right),
    ];
    html.push_str(&table(
        "Modules by kind",
        columns,
        &cells.chain([everything_else]).collect::<Vec<_>>(),
    ));
    if !inspection.open_dimensions.is_empty() {
        let _ = writeln!(
            html,
            "<p class=\"remark\">Counted with {} for {}, which the model leaves open.</p>",
            inspection.open_size,
            escaped(&inspection.open_dimensions.join(", "))
        );
    }
    if inspection.notes.is_empty() && inspection.opaque.is_empty() {
        html.push_str("<p>Nothing was seen and not understood.</p>\n");
        return;
    }
    html.push_str("<p>Seen and not understood:</p>\n<ul>\n");
    for note in &inspection.notes {
        let (subject, reason, advice) = (escaped(&note.subject), escaped(&note.reason), escaped(&note.advice));
        let _ = writeln!(html, "<li><b>{subject}</b>: {reason}. <i>{advice}</i></li>");
    }
    for operator in &inspection.opaque {
        let domain = if operator.domain.is_empty() {
            String::new()
        } else {
            format!("{}:", operator.domain)
        };
        let _ = writeln!(
            html,
            "<li><b>{}{}</b>: the axes beyond its {} nodes are not known</li>",
            escaped(&domain),
            escaped(&operator.operator),
            operator.nodes
        );
    }
    html.push_str("</ul>\n");
}

fn of_plan(plan: &Plan) -> String {
    let mut rows: Vec<(&'static str, usize, String)> = Vec::new();
    for site in &plan.sites {
        let kind = site.kind.word();
        match rows.iter_mut().find(|(known, ..)| *known == kind) {
            Some((_, count, _)) => *count += 1,
            None => {
                let shape = site.caches.first().map(|cache| {
                    let sizes: Vec<String> = cache.shape.iter().map(ToString::to_string).collect();
                    format!("[{}]", sizes.join(", "))
                });
                rows.push((kind, 1, shape.unwrap_or_default()));
            }
        }
    }
    let rows: Vec<[String; 3]> = rows
        .into_iter()
        .map(|(kind, count, shape)| [kind.to_owned(), count.to_string(), shape])
        .collect();
    let columns = [
        ("kind", Alignment::Left),
        ("modules broadcast", Alignment::Right),
        ("shape of a cache", Alignment::Left),
    ];
    table("Modules that are broadcast", columns, &rows)
}
