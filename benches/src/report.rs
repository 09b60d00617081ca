//! Rows, the table, and what is kept of a run. Ratios are ours to the floor's; targets are those of the
//! README.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;

use crate::machine::Machine;
use crate::stats::Slice;
use crate::stats::Slices;
use crate::stats::median;
use crate::stats::paired_ratio;

/// A fresh instance with every limit on may take so much of the bare engine's time.
pub(crate) const INSTANCE_RATIO_MAX: f64 = 1.3;

/// A call over HTTP has at least so much of the bare server's throughput, in durability `process`.
pub(crate) const CALL_RATIO_MIN: f64 = 0.5;

/// What a ratio is held against.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    AtMost(f64),
    AtLeast(f64),
}

/// One number of ours, with its floor where there is one. Units are at the end of the name.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) ours: f64,
    pub(crate) floor: Option<f64>,
    pub(crate) ratio: Option<f64>,
    pub(crate) target: Option<f64>,
    pub(crate) holds: Option<bool>,
}

/// What a slice came to, in one number.
type Column = fn(&Slice) -> f64;

/// A run.
#[derive(Serialize)]
pub(crate) struct Report {
    pub(crate) quick: bool,
    pub(crate) machine: Machine,
    pub(crate) rows: Vec<Row>,
    /// Threads, and microseconds of a call in each slice: ours, the floor's.
    pub(crate) instances: Vec<(usize, Vec<f64>, Vec<f64>)>,
    /// Every slice of every load.
    pub(crate) loads: Vec<(String, Slices)>,
}

impl Report {
    pub(crate) fn new(quick: bool, machine: Machine) -> Self {
        Self { quick, machine, rows: Vec::new(), instances: Vec::new(), loads: Vec::new() }
    }

    /// A number against its floor.
    pub(crate) fn compare(&mut self, name: String, ours: f64, floor: f64, ratio: f64, target: Option<Target>) {
        let (bound, holds) = match target {
            None => (None, None),
            Some(Target::AtMost(most)) => (Some(most), Some(ratio <= most)),
            Some(Target::AtLeast(least)) => (Some(least), Some(ratio >= least)),
        };
        self.rows.push(Row { name, ours, floor: Some(floor), ratio: Some(ratio), target: bound, holds });
    }

    /// A number of ours that has no floor.
    pub(crate) fn part(&mut self, name: &str, ours: f64) {
        self.rows.push(Row { name: name.to_owned(), ours, floor: None, ratio: None, target: None, holds: None });
    }

    /// The rows of one load.
    pub(crate) fn load(&mut self, name: &str, slices: Slices, least: Option<f64>) {
        let columns: [(&str, Column); 5] = [
            ("calls_per_s", Slice::per_second),
            ("p50_us", |slice| slice.p50_us),
            ("p99_us", |slice| slice.p99_us),
            ("cpu_us", |slice| slice.cpu_us),
            ("rss_mib", |slice| slice.rss_mib),
        ];
        for (index, (column, of)) in columns.into_iter().enumerate() {
            let ours: Vec<f64> = slices.ours.iter().map(of).collect();
            let floor: Vec<f64> = slices.floor.iter().map(of).collect();
            let ratio = paired_ratio(&ours, &floor);
            let target = least.filter(|_| index == 0).map(Target::AtLeast);
            self.compare(format!("{name}.{column}"), median(ours), median(floor), ratio, target);
        }
        self.loads.push((name.to_owned(), slices));
    }

    /// A number that was measured before; 0 if it was not.
    pub(crate) fn ours(&self, name: &str) -> f64 {
        self.find(name).map_or(0.0, |row| row.ours)
    }

    fn find(&self, name: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.name == name)
    }

    /// The rows as JSON, those of the command line's `--json`.
    ///
    /// # Errors
    /// None in practice.
    pub(crate) fn rows_json(&self) -> anyhow::Result<String> {
        Ok(serde_json::to_string_pretty(&self.rows)? + "\n")
    }

    /// Keeps the run: every slice, the table, and the machine in words.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn keep(&self, folder: &Path) -> anyhow::Result<()> {
        let folder = folder.join(self.machine.slug());
        std::fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
        let name = if self.quick { "quick" } else { "full" };
        std::fs::write(folder.join(format!("{name}.json")), serde_json::to_string(self)? + "\n")?;
        std::fs::write(folder.join(format!("{name}.txt")), self.table())?;
        std::fs::write(folder.join("machine.txt"), format!("{}\n", self.machine))?;
        eprintln!("kept in {}", folder.display());
        Ok(())
    }

    /// Prints the table.
    #[expect(clippy::print_stdout, reason = "the table is what the command is for")]
    pub(crate) fn print(&self) {
        println!("{}", self.table());
    }

    fn table(&self) -> String {
        let mut text = String::new();
        self.write_table(&mut text).expect("a String takes everything");
        text
    }

    fn write_table(&self, out: &mut String) -> std::fmt::Result {
        let short = if self.quick { " (quick: noisier)" } else { "" };
        writeln!(out, "Medians of alternating slices; a ratio is the median of ours / floor within pairs{short}.\n")?;
        writeln!(out, "a. a fresh instance, in-process     ours µs   floor µs   ratio    target")?;
        for row in self.rows.iter().filter(|row| row.name.starts_with("a.")) {
            let floor = row.floor.unwrap_or_default();
            writeln!(out, "   {:<30} {:>9.1} {:>10.1} {}", row.name, row.ours, floor, verdict(row, "<="))?;
        }
        writeln!(out, "\nb. POST /v1/calls, no way out; c. the same with one credentialed request over TLS")?;
        writeln!(
            out,
            "   {:<18} {:>17}  {:<23} {:>15} {:>15} {:>15} {:>13}",
            "", "calls/s", "ratio    target", "p50 µs", "p99 µs", "cpu µs/call", "RSS MiB"
        )?;
        let pair = format!("{:>7} {:>7}", "ours", "floor");
        writeln!(
            out,
            "   {:<18} {:>8} {:>8}  {:<23} {pair} {pair} {pair} {:>6} {:>6}",
            "", "ours", "floor", "", "ours", "floor"
        )?;
        for (name, _) in &self.loads {
            let row = |column: &str| self.find(&format!("{name}.{column}"));
            let two = |column: &str, width: usize| {
                let (ours, floor) = row(column).map_or((0.0, 0.0), |row| (row.ours, row.floor.unwrap_or_default()));
                format!("{ours:>width$.0} {floor:>width$.0}")
            };
            let ratio = row("calls_per_s").map(|row| verdict(row, ">=")).unwrap_or_default();
            writeln!(
                out,
                "   {name:<18} {}  {ratio:<23} {} {} {} {}",
                two("calls_per_s", 8),
                two("p50_us", 7),
                two("p99_us", 7),
                two("cpu_us", 7),
                two("rss_mib", 6),
            )?;
        }
        writeln!(out, "\nWhere our time goes, µs a call, one call at a time, durability process")?;
        for row in self.rows.iter().filter(|row| row.name.starts_with("part.")) {
            writeln!(out, "   {:<44} {:>9.2}", row.name, row.ours)?;
        }
        Ok(())
    }
}

/// `0.53  >= 0.50 holds`
fn verdict(row: &Row, sign: &str) -> String {
    let ratio = row.ratio.unwrap_or_default();
    match (row.target, row.holds) {
        (Some(target), Some(holds)) => {
            format!("{ratio:>5.2}   {sign} {target:.2} {}", if holds { "holds" } else { "MISSED" })
        }
        _ => format!("{ratio:>5.2}"),
    }
}
