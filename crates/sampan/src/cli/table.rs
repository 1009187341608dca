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
        text.push_str(&line(&widths, std::array::from_fn(|at| row[at].as_str())));
    }
    text
}

fn line<const N: usize>(widths: &[usize; N], cells: [&str; N]) -> String {
    let mut line = String::new();
    for (at, cell) in cells.iter().enumerate() {
        let cell = if cell.is_empty() { "-" } else { cell };
        line.push_str(cell);
        if at + 1 < N {
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
