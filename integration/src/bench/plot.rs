//! The figures as bars, in an SVG of its own: CPU seconds on the left, wall time on the right, shorter is better.

use std::fmt::Write as _;

use super::{clients::Client, report::CaseReport};
use crate::measure::Spread;

const WIDTH: f64 = 960.0;
const LABEL_WIDTH: f64 = 190.0;
const PANEL_WIDTH: f64 = 290.0;
const PANEL_GAP: f64 = 90.0;
const BAR_HEIGHT: f64 = 18.0;
const TITLE_HEIGHT: f64 = 52.0;

/// Every case below the other.
pub(super) fn svg(reports: &[CaseReport]) -> String {
    let heights = reports.iter().map(|report| TITLE_HEIGHT + BAR_HEIGHT * report.case.clients.len() as f64 + 16.0);
    let height = heights.sum::<f64>() + 8.0;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\" fill=\"#222\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    let mut top = 8.0;
    for report in reports {
        let _ = writeln!(text, "<text x=\"8\" y=\"{}\" font-weight=\"bold\">{}</text>", top + 14.0, report.case.title);
        let clients = &report.case.clients;
        let cpu = clients.iter().map(|client| (*client, report.cpu(*client))).collect();
        let wall = clients.iter().map(|client| (*client, report.wall(*client))).collect();
        for (index, client) in clients.iter().enumerate() {
            let y = top + TITLE_HEIGHT + BAR_HEIGHT * index as f64;
            let x = LABEL_WIDTH - 6.0;
            let _ = writeln!(text, "<text x=\"{x}\" y=\"{}\" text-anchor=\"end\">{}</text>", y + 11.0, client.title());
        }
        panel(&mut text, LABEL_WIDTH, top, report.case.cpu_unit().1, cpu);
        panel(&mut text, LABEL_WIDTH + PANEL_WIDTH + PANEL_GAP, top, report.case.wall_unit().1, wall);
        top += TITLE_HEIGHT + BAR_HEIGHT * clients.len() as f64 + 16.0;
    }
    text + "</svg>\n"
}

fn panel(text: &mut String, left: f64, top: f64, title: &str, bars: Vec<(Client, Spread)>) {
    let _ = writeln!(text, "<text x=\"{left}\" y=\"{}\" fill=\"#666\">{title}</text>", top + TITLE_HEIGHT - 14.0);
    let most = bars.iter().map(|(_, spread)| spread.max).fold(f64::MIN_POSITIVE, f64::max);
    let length = |figure: f64| figure / most * PANEL_WIDTH;
    for (index, (client, spread)) in bars.into_iter().enumerate() {
        let y = top + TITLE_HEIGHT + BAR_HEIGHT * index as f64;
        let colour = match client {
            Client::Ours | Client::Limited => "#1b6ca8",
            Client::Floor => "#8a8a8a",
            Client::S5cmd | Client::Kserve | Client::AwsCli | Client::Curl => "#e0a458",
        };
        let middle = y + 7.0;
        let (low, high) = (left + length(spread.min), left + length(spread.max));
        let _ = writeln!(
            text,
            "<rect x=\"{left}\" y=\"{y}\" width=\"{:.1}\" height=\"14\" fill=\"{colour}\"/>\
             <path d=\"M{low:.1} {middle}H{high:.1}\" stroke=\"#222\"/>\
             <text x=\"{:.1}\" y=\"{}\">{:.2}</text>",
            length(spread.median),
            high + 5.0,
            y + 11.0,
            spread.median
        );
    }
}
