//! The results as one HTML page that needs nothing else.

use super::plot::{escaped, svg};
use super::results::{Results, row};

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:1100px;margin:2rem auto;padding:0 1rem;color:#111}\
table{border-collapse:collapse;width:100%}td,th{padding:.25rem .6rem;border-bottom:1px solid #ddd;text-align:left}\
td:nth-child(n+4):nth-child(-n+6){text-align:right}.missed{background:#fee2e2}\
figure{display:inline-block;width:520px;margin:1rem 0}svg{width:100%}svg text{font-size:12px}\
svg .grid{stroke:#e5e7eb}svg .y{text-anchor:end}svg .x{text-anchor:middle}svg polyline{fill:none;stroke-width:2}";

/// The whole page.
pub(crate) fn html(results: &Results) -> String {
    let rows: String = results
        .figures
        .iter()
        .map(|figure| {
            let missed = if figure.holds() == Some(false) { " class=\"missed\"" } else { "" };
            let cells = row(figure).map(|cell| format!("<td>{}</td>", escaped(&cell)));
            format!("<tr{missed}>{}</tr>\n", cells.concat())
        })
        .collect();
    let plots: String = results
        .plots
        .iter()
        .map(|plot| {
            let title = escaped(&plot.title);
            format!("<figure><figcaption>{title}</figcaption>{}</figure>\n", svg(plot))
        })
        .collect();
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Rollcall under load</title>\
         <style>{STYLE}</style><h1>Rollcall under load</h1><p>{}</p>\n<table><tr><th>scenario<th>system\
         <th>figure<th>value<th>of the floor<th>limit<th></tr>\n{rows}</table>\n{plots}</html>\n",
        escaped(&results.machine)
    )
}
