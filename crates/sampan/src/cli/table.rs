//! Aligned columns for people.

/// Lays rows out below their header: columns as wide as their widest cell, three spaces between, nothing at the ends.
/// An empty cell is shown as `-`.
pub fn table<const N: usize>(header: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = header.map(width);
    for row in rows {
        for (width_so_far, cell) in widths.iter_mut().zip(row) {
            *width_so_far = (*width_so_far).max(width(cell));
        }
    }
    let mut text = line(&widths, header);
    for row in rows {
        text.push_str(&line(&widths, row.iter().map(String::as_str)));
    }
    text
}

/// The same of lines whose cells have tabs between them.
pub fn columns(header: &str, lines: &[String]) -> String {
    let cells = |line: &str| line.split('\t').map(str::to_owned).collect::<Vec<_>>();
    let all: Vec<_> = std::iter::once(header).chain(lines.iter().map(String::as_str)).map(cells).collect();
    let count = all.iter().map(Vec::len).max().unwrap_or(0);
    let widest = |at: usize| all.iter().filter_map(|cells| cells.get(at)).map(|cell| width(cell)).max().unwrap_or(0);
    let widths: Vec<_> = (0..count).map(widest).collect();
    all.iter().map(|cells| line(&widths, cells.iter().map(String::as_str))).collect()
}

fn line<'a>(widths: &[usize], cells: impl IntoIterator<Item = &'a str>) -> String {
    let mut line = String::new();
    for (at, cell) in cells.into_iter().enumerate() {
        let cell = if cell.is_empty() { "-" } else { cell };
        line.push_str(cell);
        if at + 1 < widths.len() {
            line.extend(std::iter::repeat_n(' ', widths[at].max(1) - width(cell) + 3));
        }
    }
    line.truncate(line.trim_end().len());
    line.push('\n');
    line
}

fn width(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [["hello".to_owned(), String::new(), "8080".into()], ["ä".into(), "yes".into(), String::new()]];
        let expected = "\
NAME    READY   PORT
hello   -       8080
ä       yes     -
";
        assert_eq!(table(["NAME", "READY", "PORT"], &rows), expected);
        assert_eq!(table(["A", "B"], &[]), "A   B\n");
    }
}
