//! A page about growth: what a delivery costs and when the last subscriber has it, over the audience.

use std::fmt::Write as _;

use super::{Growth, Measured};

/// Pixels of a plot, and of the margin for its figures.
const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 240.0;
const MARGIN: f64 = 60.0;

/// What a plot is of.
type Figure<'a> = &'a dyn Fn(&Measured) -> f64;

/// A page that needs nothing else.
pub fn page(growth: &Growth) -> String {
    let mut page = "<!doctype html><meta charset=\"utf-8\"><title>growth</title>\
                    <style>body{font:15px sans-serif;margin:2em;max-width:60em}text{font:12px sans-serif}\
                    td,th{padding:0 .6em;text-align:right}</style><h1>growth</h1>"
        .to_owned();
    let _ = write!(
        page,
        "<p>{}; the held-out point (hollow) differs by {:+.1} %.</p>",
        growth.law,
        100.0 * growth.held_out_error
    );
    let plots: [(&str, Figure<'_>); 3] = [
        ("Processor time a delivery, all server processes (µs)", &|one| {
            one.row.cpu_us_per_delivery
        }),
        ("Processor time a delivery, edge (µs)", &|one| {
            one.edge_us_per_delivery
        }),
        ("Last subscriber of the median message (ms)", &|one| {
            one.row.delivery_ms.last
        }),
    ];
    for (title, figure) in plots {
        let _ = write!(page, "<h2>{title}</h2>{}", over_audience(growth, figure));
    }
    page.push_str(
        "<h2>All points</h2><table><tr><th>subscribers<th>groups<th>messages/s<th>µs a delivery<th>of it edge\
         <th>last ms<th>packets<th>processors<th>by the law</tr>",
    );
    for one in growth.points.iter().chain([&growth.held_out]) {
        let _ = write!(
            page,
            "<tr><td>{}<td>{}<td>{}<td>{:.2}<td>{:.2}<td>{:.1}<td>{:.2}<td>{:.3}<td>{:.3}</tr>",
            one.point.subscribers,
            one.point.groups,
            one.point.rate,
            one.row.cpu_us_per_delivery,
            one.edge_us_per_delivery,
            one.row.delivery_ms.last,
            one.row.packets_per_delivery,
            one.busy_cpus,
            one.predicted_cpus
        );
    }
    page.push_str("</table>");
    for failure in &growth.failures {
        let _ = write!(page, "<p><b>Failed:</b> {failure}</p>");
    }
    page
}

/// The points of one group over their audiences, which are on a scale of powers of ten.
fn over_audience(growth: &Growth, figure: Figure<'_>) -> String {
    let shown: Vec<&Measured> = growth
        .points
        .iter()
        .chain([&growth.held_out])
        .filter(|one| one.point.groups == 1)
        .collect();
    let power = |one: &Measured| (one.point.subscribers.max(1) as f64).log10();
    let (from, to) = shown
        .iter()
        .map(|one| power(one))
        .fold((f64::MAX, f64::MIN), |(low, high), value| {
            (low.min(value), high.max(value))
        });
    let most = shown
        .iter()
        .map(|one| figure(one))
        .fold(f64::MIN_POSITIVE, f64::max);
    let mut plot = format!(
        "<svg width=\"{}\" height=\"{}\"><path d=\"M{MARGIN} 0V{HEIGHT}H{}\" fill=\"none\" stroke=\"#888\"/>",
        WIDTH + MARGIN + 40.0,
        HEIGHT + 30.0,
        WIDTH + MARGIN
    );
    for one in shown {
        let held_out = one.point == growth.held_out.point;
        let x = MARGIN + WIDTH * (power(one) - from) / (to - from).max(f64::MIN_POSITIVE);
        let y = HEIGHT * (1.0 - 0.9 * figure(one) / most);
        let _ = write!(
            plot,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"5\" stroke=\"#235\" fill=\"{}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\">{:.1} ({}/s)</text><text x=\"{:.1}\" y=\"{}\">{}</text>",
            if held_out { "none" } else { "#8ab" },
            x + 8.0,
            y - 6.0,
            figure(one),
            one.point.rate,
            x - 14.0,
            HEIGHT + 18.0,
            one.point.subscribers
        );
    }
    plot + "</svg>"
}
