//! The table that `plan` prints.

use super::{Report, Row};
use crate::predict::{Figures, Method, ShardedAxis, Split};
use crate::report::{Alignment, Table, TableStyle, number};

/// The report for people.
pub fn text(report: &Report, style: TableStyle) -> String {
    let mut text = format!(
        "{} on {}: {} a step, {} steps, rules: {}\n",
        report.model.file_name().unwrap_or_default().to_string_lossy(),
        report.device.name,
        number::flops(report.flops as u64),
        report.steps,
        report.rules_from
    );
    for rule in &report.rules {
        text.push_str(&format!(
            "  {} broadcasts at {} of {} steps\n",
            rule.name, rule.broadcast, report.steps
        ));
    }
    text.push('\n');
    text.push_str(&rows(report).render(style));
    text.push_str(&format!(
        "\nsent: bytes that leave a rank in a clip; memory: of a rank; ×: the original on one rank / broadcast\n\nKernels of a \
         computing step on {} ranks, of the rank with the most to do\n",
        report.ranks
    ));
    text.push_str(&kernels(report).render(style));
    text.push_str("\nAssumed\n");
    for line in &report.assumptions {
        text.push_str(&format!("- {line}\n"));
    }
    text
}

fn rows(report: &Report) -> Table {
    use Alignment::{Left, Right};
    let mut table = Table::new([
        ("ranks", Right),
        ("divided", Left),
        ("step", Right),
        ("clip", Right),
        ("sent", Right),
        ("memory", Right),
        ("broadcast: step", Right),
        ("clip", Right),
        ("sent", Right),
        ("memory", Right),
        ("×", Right),
    ]);
    for row in &report.rows {
        table.row(cells(row, report.device.memory));
    }
    table
}

fn cells(row: &Row, memory: f64) -> Vec<String> {
    let Row {
        ranks,
        forecast,
        speed_up,
    } = row;
    let mut cells = vec![ranks.to_string(), divided(&forecast.split)];
    cells.extend(figures(&forecast.original, memory));
    cells.extend(figures(&forecast.broadcast, memory));
    cells.push(number::ratio(*speed_up));
    cells
}

fn figures(figures: &Figures, memory: f64) -> [String; 4] {
    let total = figures.memory.total();
    let fits = if total > memory { "!" } else { "" };
    [
        number::milliseconds(figures.step * 1e3),
        number::milliseconds(figures.clip * 1e3),
        number::bytes(figures.sent as u64),
        format!("{}{fits}", number::bytes(total as u64)),
    ]
}

/// What a split divides, in words.
fn divided(split: &Split) -> String {
    let axis = match split.axis {
        ShardedAxis::Frames => "frames",
        ShardedAxis::Places => "places",
    };
    let method = match split.method {
        Method::Dsp => "",
        Method::Ulysses => ", ulysses",
    };
    match (split.guidance, split.sequence) {
        (0 | 1, 0 | 1) => "–".to_owned(),
        (0 | 1, ranks) => format!("{axis} {ranks}{method}"),
        (groups, 0 | 1) => format!("guidance {groups}"),
        (groups, ranks) => format!("guidance {groups}, {axis} {ranks}{method}"),
    }
}

fn kernels(report: &Report) -> Table {
    use Alignment::{Left, Right};
    let mut table = Table::new([
        ("kind", Left),
        ("kernels", Right),
        ("operations", Right),
        ("bytes", Right),
        ("time", Right),
        ("share", Right),
    ]);
    let all: f64 = report.kernels.iter().map(|class| class.seconds).sum();
    for class in &report.kernels {
        table.row([
            class.class.word().to_owned(),
            class.kernels.to_string(),
            number::flops(class.flops as u64),
            number::bytes(class.bytes as u64),
            number::milliseconds(class.seconds * 1e3),
            number::percent(if all > 0.0 { class.seconds / all } else { 0.0 }),
        ]);
    }
    table
}
