//! A page about a run: bars with every single run as a dot, so that the spread can be seen.

use std::fmt::Write as _;

use super::report::{Report, Sample};

/// Pixels of the longest bar, and of the names before the bars.
const BAR: f64 = 520.0;
const NAMES: f64 = 150.0;

/// Pixels of a line.
const LINE: f64 = 28.0;

/// What a plot is of.
type Figure<'a> = &'a dyn Fn(&Sample) -> f64;

/// A page that needs nothing else.
pub fn page(report: &Report, samples: &[Sample]) -> String {
    let mut page = format!(
        "<!doctype html><meta charset=\"utf-8\"><title>{0}</title>\
         <style>body{{font:15px sans-serif;margin:2em;max-width:60em}}text{{font:13px sans-serif}}</style>\
         <h1>{0}</h1><p>{1} s a run, {2} runs of each system in turns, {3} void runs. Bars are medians, dots \
         are runs; less is better.</p>",
        report.scenario,
        report.seconds,
        report.rows.iter().map(|row| row.runs).max().unwrap_or(0),
        report.void_runs
    );
    let figures: [(&str, Figure<'_>); 5] = [
        (
            "Processor time a delivery, all server processes (µs)",
            &|sample| sample.cpu_us_per_delivery,
        ),
        ("99 of 100 deliveries within (ms)", &|sample| sample.seen.p99_ms),
        ("Last subscriber of the median message (ms)", &|sample| {
            sample.seen.last_ms
        }),
        ("Resident memory a connection (KiB)", &|sample| {
            sample.rss_per_conn / 1_024.0
        }),
        ("Packets a delivery, both sides", &|sample| {
            sample.packets_per_delivery
        }),
    ];
    for (title, figure) in figures {
        let _ = write!(page, "<h2>{title}</h2>{}", bars(report, samples, figure));
    }
    for failure in &report.failures {
        let _ = write!(page, "<p><b>Failed:</b> {failure}</p>");
    }
    page
}

fn bars(report: &Report, samples: &[Sample], figure: Figure<'_>) -> String {
    let longest = samples.iter().map(figure).fold(f64::MIN_POSITIVE, f64::max);
    let height = LINE * report.rows.len() as f64;
    let mut plot = format!("<svg width=\"{}\" height=\"{height}\">", NAMES + BAR + 80.0);
    for (place, row) in report.rows.iter().enumerate() {
        let mut values: Vec<f64> = samples
            .iter()
            .filter(|sample| sample.system == row.system)
            .map(figure)
            .collect();
        values.sort_by(f64::total_cmp);
        let median = values.get(values.len() / 2).copied().unwrap_or(0.0);
        let (y, width) = (LINE * place as f64, BAR * (median / longest).max(0.0));
        let _ = write!(
            plot,
            "<text x=\"0\" y=\"{}\">{}</text><rect x=\"{NAMES}\" y=\"{}\" width=\"{width:.1}\" height=\"16\" \
             fill=\"#8ab\"/><text x=\"{:.1}\" y=\"{}\">{median:.2}</text>",
            y + 17.0,
            row.system,
            y + 4.0,
            NAMES + BAR + 12.0,
            y + 17.0
        );
        for value in values {
            let x = NAMES + BAR * (value / longest).max(0.0);
            let _ = write!(
                plot,
                "<circle cx=\"{x:.1}\" cy=\"{}\" r=\"3\" fill=\"#235\"/>",
                y + 12.0
            );
        }
    }
    plot + "</svg>"
}
