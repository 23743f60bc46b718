//! Tables in plain text.

/// A column of a table: its heading, and a function that returns a row's text.
pub type Column<T> = (&'static str, fn(&T) -> String);

/// Formats rows as a table.
pub fn table_of<'r, T: 'r>(columns: &[Column<T>], rows: impl IntoIterator<Item = &'r T>) -> String {
    let heads: Vec<_> = columns.iter().map(|(head, _)| *head).collect();
    let cells = |row| columns.iter().map(|(_, cell)| cell(row)).collect();
    table(&heads, &rows.into_iter().map(cells).collect::<Vec<_>>())
}

/// Formats a table with the narrowest possible columns and right-aligned numbers.
pub fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(heads.get(column).map(|head| head.len())).max().unwrap_or_default()
    };
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded = cells.enumerate().map(|(column, cell)| {
            let is_number = cell.starts_with(|first: char| first.is_ascii_digit());
            let width = width(column);
            if is_number { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        let line = padded.collect::<Vec<_>>().join("  ");
        format!("{}\n", line.trim_end())
    };
    let mut text = line(&mut heads.iter().copied());
    for row in rows {
        text.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    text
}

/// Returns a cell that is not empty.
pub fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

/// Returns a time without fractional seconds, for which tables have no room.
pub fn seconds(time: &str) -> String {
    time.split('.').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_as_wide_as_its_cells() {
        let rows =
            [vec!["a".to_owned(), "1".to_owned()], vec!["longer".to_owned(), "23".to_owned()]];
        assert_eq!(
            table(&["name", "count"], &rows),
            "name    count\na           1\nlonger     23\n"
        );
    }
}
