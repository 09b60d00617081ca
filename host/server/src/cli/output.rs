//! What commands print on stdout: JSON where it is asked for, otherwise tables and lines.

use std::io::Write as _;

use keybearer_contract::UnixMillis;
use serde_json::Value;

/// How to print.
#[derive(Clone, Copy)]
pub(crate) struct Output {
    pub(crate) json: bool,
}

impl Output {
    /// Prints an answer: a list as a table of these columns, an object as lines of these fields (all of
    /// them, if none is named).
    pub(crate) fn show(&self, value: &Value, columns: &[&str]) {
        if self.json {
            self.line(&pretty(value));
        } else if let Some(items) = value.get("items").and_then(Value::as_array) {
            self.table(items, columns);
        } else {
            self.fields(value, columns);
        }
    }

    /// Prints one sentence, or the value where JSON is asked for.
    pub(crate) fn say(&self, sentence: &str, value: &Value) {
        self.line(if self.json { pretty(value) } else { sentence.to_owned() }.as_str());
    }

    /// Prints a line.
    pub(crate) fn line(&self, text: &str) {
        // Whoever closed the pipe has read enough.
        let _ = writeln!(std::io::stdout().lock(), "{text}");
    }

    /// Prints an error as JSON.
    pub(crate) fn error(&self, value: &Value) {
        let _ = writeln!(std::io::stderr().lock(), "{value}");
    }

    fn table(&self, items: &[Value], columns: &[&str]) {
        if items.is_empty() {
            self.line("(none)");
            return;
        }
        let head = columns.iter().map(|column| column.replace('_', " ").to_uppercase()).collect();
        let mut rows: Vec<Vec<String>> = vec![head];
        rows.extend(items.iter().map(|item| columns.iter().map(|column| named_cell(column, &item[*column])).collect()));
        let widths: Vec<usize> = (0..columns.len())
            .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
            .collect();
        for row in rows {
            let cells: Vec<String> =
                row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}", width = *width)).collect();
            self.line(cells.join("  ").trim_end());
        }
    }

    fn fields(&self, value: &Value, columns: &[&str]) {
        let Some(members) = value.as_object() else {
            self.line(&cell(value));
            return;
        };
        let shown: Vec<(&str, &Value)> = if columns.is_empty() {
            members.iter().map(|(name, value)| (name.as_str(), value)).collect()
        } else {
            columns.iter().filter_map(|name| Some((*name, members.get(*name)?))).collect()
        };
        let width = shown.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (name, value) in shown {
            self.line(&format!("{:<width$}  {}", name.replace('_', " "), named_cell(name, value)));
        }
    }
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

/// Fields that hold milliseconds since 1970.
const TIMES: &[&str] = &[
    "created",
    "expires",
    "issued",
    "revoked",
    "published",
    "withdrawn",
    "opened",
    "closed",
    "contained",
    "last_use",
    "last_rotation",
    "rotation_due",
    "overlap_until",
    "deadline",
    "ended",
];

/// A value in a table by its field's name: times as people read them.
fn named_cell(name: &str, value: &Value) -> String {
    match value.as_u64().filter(|_| TIMES.contains(&name)) {
        Some(ms) => time(ms),
        None => cell(value),
    }
}

/// Milliseconds since 1970 as `2026-11-22 08:16:53Z`.
pub(crate) fn time(ms: u64) -> String {
    UnixMillis(ms).to_utc().replace('T', " ")
}

/// A value in a table: one line, and nothing that would speak to the terminal.
fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.iter().all(|item| item.is_string() || item.is_number()) => {
            items.iter().map(cell).collect::<Vec<_>>().join(",")
        }
        other => other.to_string(),
    };
    text.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_cell_is_one_line_and_does_not_speak_to_the_terminal() {
        assert_eq!(cell(&json!("a\n\u{1b}[31mb")), "a\u{fffd}\u{fffd}[31mb");
        assert_eq!(cell(&json!(["call", "audit"])), "call,audit");
        assert_eq!(cell(&Value::Null), "-");
    }

    #[test]
    fn times_are_shown_as_people_read_them() {
        assert_eq!(time(0), "1970-01-01 00:00:00Z");
        assert_eq!(time(951_782_400_000), "2000-02-29 00:00:00Z");
        assert_eq!(time(1_795_335_413_214), "2026-11-22 08:16:53Z");
        assert!(!time(u64::MAX).is_empty());
        assert_eq!(named_cell("expires", &json!(0)), "1970-01-01 00:00:00Z");
        assert_eq!(named_cell("epoch", &json!(3)), "3");
    }
}
