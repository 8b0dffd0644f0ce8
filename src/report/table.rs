//! Tables for people, in two styles.

use comfy_table::{CellAlignment, ContentArrangement, Row, presets};

/// Where the text of a column stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alignment {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// How a table is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableStyle {
    /// Columns apart by two spaces, no lines, never wrapped: for files, pipes and narrow tools.
    Plain,
    /// With lines around the header, wrapped where it is wider than this many characters.
    Terminal {
        /// The terminal's width.
        width: u16,
    },
}

/// A table: a header, rows of as many cells, and each column's alignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    columns: Vec<(String, Alignment)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns and no rows yet.
    pub fn new<T: Into<String>>(columns: impl IntoIterator<Item = (T, Alignment)>) -> Table {
        let columns = columns
            .into_iter()
            .map(|(name, alignment)| (name.into(), alignment))
            .collect();
        Table {
            columns,
            rows: Vec::new(),
        }
    }

    /// Adds a row; missing cells are empty and surplus cells are left out.
    pub fn row<T: Into<String>>(&mut self, cells: impl IntoIterator<Item = T>) -> &mut Table {
        let mut cells: Vec<String> = cells.into_iter().map(Into::into).collect();
        cells.resize(self.columns.len(), String::new());
        self.rows.push(cells);
        self
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table as text, lines without trailing spaces, with a newline at the end.
    pub fn render(&self, style: TableStyle) -> String {
        let mut table = comfy_table::Table::new();
        match style {
            TableStyle::Plain => {
                table
                    .load_style(presets::NOTHING)
                    .set_content_arrangement(ContentArrangement::Disabled);
            }
            TableStyle::Terminal { width } => {
                table
                    .load_style(presets::UTF8_FULL_CONDENSED)
                    .set_content_arrangement(ContentArrangement::Dynamic);
                table.set_width(width);
            }
        }
        table.set_header(row(self.columns.iter().map(|(name, _)| name)));
        table.add_rows(self.rows.iter().map(row));
        for (column, (_, alignment)) in table.column_iter_mut().zip(&self.columns) {
            column.set_cell_alignment(match alignment {
                Alignment::Left => CellAlignment::Left,
                Alignment::Right => CellAlignment::Right,
            });
            if style == TableStyle::Plain {
                column.set_padding((0, 2));
            }
        }
        table
            .lines()
            .flat_map(|line| [line.trim_end().to_owned(), "\n".to_owned()])
            .collect()
    }
}

/// A row of cells without control characters: names come from model files, and must not steer the terminal.
fn row<'a>(cells: impl IntoIterator<Item = &'a String>) -> Row {
    Row::from(
        cells
            .into_iter()
            .map(|cell| cell.replace(|c: char| c.is_control() && c != '\n', "\u{fffd}")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sites() -> Table {
        let mut table = Table::new([
            ("site", Alignment::Left),
            ("cache", Alignment::Right),
            ("share", Alignment::Right),
        ]);
        table
            .row(["spatial.0", "18.0 MiB", "2.5 %"])
            .row(["temporal.0.with.a.long.name", "512 B"]);
        table
    }

    #[test]
    fn plain_tables_align_and_have_no_lines() {
        insta::assert_snapshot!(sites().render(TableStyle::Plain));
    }

    #[test]
    fn terminal_tables_wrap_at_the_width() {
        let text = sites().render(TableStyle::Terminal { width: 36 });
        assert!(text.lines().all(|line| line.chars().count() <= 36), "{text}");
        insta::assert_snapshot!(text);
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let mut table = Table::new([("name", Alignment::Left)]);
        table.row(["red\u{1b}[31m"]);
        assert!(!table.render(TableStyle::Plain).contains('\u{1b}'));
    }

    #[test]
    fn surplus_cells_are_left_out() {
        let mut table = Table::new([("name", Alignment::Left)]);
        assert!(table.is_empty());
        table.row(["a", "b"]);
        assert_eq!(table.render(TableStyle::Plain), "name\na\n");
    }
}
