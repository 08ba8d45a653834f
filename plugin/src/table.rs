//! patronictl's table: a title in the top rule, then columns.

/// Draws it; columns of numbers are aligned to the right.
pub fn draw(title: &str, head: &[&str], right: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = head.iter().map(|h| h.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let inner: usize = widths.iter().map(|w| w + 3).sum::<usize>() - 1;
    if let Some(last) = widths.last_mut().filter(|_| title.chars().count() > inner) {
        *last += title.chars().count() - inner;
    }
    let dashes: Vec<String> = widths.iter().map(|w| "-".repeat(w + 2)).collect();
    let rule = format!("+{}+", dashes.join("+"));
    let line = |cells: &[String]| -> String {
        let padded: Vec<String> = cells
            .iter()
            .zip(&widths)
            .zip(head)
            .map(
                |((cell, width), name)| {
                    if right.contains(name) { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
                },
            )
            .collect();
        format!("| {} |", padded.join(" | "))
    };
    let top: String =
        std::iter::once('+').chain(title.chars()).chain(rule.chars().skip(1 + title.chars().count())).collect();
    let titles: Vec<String> = head.iter().map(|&h| h.to_owned()).collect();
    let mut lines = vec![top, line(&titles), rule.clone()];
    lines.extend(rows.iter().map(|row| line(row)));
    lines.push(rule);
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_title_is_in_the_top_rule() {
        let text = super::draw(" Cluster: o (7) ", &["Member", "TL"], &["TL"], &[vec!["o-0".into(), "12".into()]]);
        let wanted = [
            "+ Cluster: o (7) +",
            "| Member |    TL |",
            "+--------+-------+",
            "| o-0    |    12 |",
            "+--------+-------+",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), wanted, "{text}");
    }
}
