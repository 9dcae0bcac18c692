//! The results as one HTML page that loads nothing else and can be read without colours and on paper.

use super::peers::{Published, Topic, introduction, topics};
use super::plot::{escaped, svg};
use super::results::{Figure, Results, row};

const STYLE: &str = include_str!("report.css");

/// Returns the complete page.
pub(crate) fn html(results: &Results) -> String {
    let scenarios = scenarios(results);
    let links: String =
        scenarios.iter().map(|name| format!("<li><a href=\"#{}\">{}</a></li>", anchor(name), escaped(name))).collect();
    let sections: String = scenarios.iter().map(|name| section(results, name)).collect();
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>Rollcall under load</title><style>{STYLE}</style></head><body><main>\
         <h1>Rollcall under load</h1><p>{}</p><p>{}</p>\
         <nav aria-label=\"Scenarios\"><ul>{links}<li><a href=\"#peers\">peers</a></li></ul></nav>\n\
         {sections}{}</main></body></html>\n",
        escaped(&results.machine),
        verdict(results),
        peers(results)
    )
}

/// Returns the scenarios in the order in which they ran.
fn scenarios(results: &Results) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for figure in &results.figures {
        if !names.contains(&figure.scenario.as_str()) {
            names.push(&figure.scenario);
        }
    }
    names
}

fn anchor(scenario: &str) -> String {
    scenario.replace(' ', "-")
}

fn verdict(results: &Results) -> String {
    let judged = results.figures.iter().filter_map(Figure::holds);
    let (kept, all) = judged.fold((0, 0), |(kept, all), holds| (kept + usize::from(holds), all + 1));
    match all - kept {
        0 => format!("All {all} limits are kept."),
        missed => format!("{missed} of {all} limits are missed: their rows say MISSED."),
    }
}

fn section(results: &Results, scenario: &str) -> String {
    let figures = || results.figures.iter().filter(|figure| figure.scenario == scenario);
    let rows: String = figures().map(figure_row).collect();
    let plots: String = results
        .plots
        .iter()
        .filter(|plot| plot.scenario == scenario)
        .map(|plot| format!("<figure><figcaption>{}</figcaption>{}</figure>\n", escaped(&plot.title), svg(plot)))
        .collect();
    let plots = if plots.is_empty() { plots } else { format!("<div class=\"plots\">{plots}</div>\n") };
    let earlier = if figures().all(|figure| figure.earlier) { " <small>of an earlier run</small>" } else { "" };
    let heads =
        [("Figure", ""), ("System", ""), ("Value", NUMBER), ("Of the floor", NUMBER), ("Limit", NUMBER), ("Kept", "")];
    format!(
        "<section aria-labelledby=\"{0}\"><h2 id=\"{0}\">{1}{earlier}</h2>{2}{plots}</section>\n",
        anchor(scenario),
        escaped(scenario),
        table(&format!("Figures of {scenario}"), &heads, &rows)
    )
}

const NUMBER: &str = " class=\"number\"";

fn figure_row(figure: &Figure) -> String {
    let missed = if figure.holds() == Some(false) { " class=\"missed\"" } else { "" };
    let [_, system, name, value, share, limit, kept] = row(figure).map(|cell| escaped(&cell));
    format!(
        "<tr{missed}><th scope=\"row\">{name}</th><td>{system}</td><td{NUMBER}>{value}</td>\
         <td{NUMBER}>{share}</td><td{NUMBER}>{limit}</td><td>{kept}</td></tr>\n"
    )
}

/// Returns a table that scrolls if it is too wide, also with the keyboard.
fn table(name: &str, heads: &[(&str, &str)], rows: &str) -> String {
    let heads: String = heads.iter().map(|(head, class)| format!("<th scope=\"col\"{class}>{head}</th>")).collect();
    format!(
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{}\"><table><thead><tr>{heads}</tr></thead>\
         <tbody>{rows}</tbody></table></div>\n",
        escaped(name)
    )
}

fn peers(results: &Results) -> String {
    let topics: String = topics(results).iter().map(|topic| topic_table(topic, results)).collect();
    format!(
        "<section aria-labelledby=\"peers\"><h2 id=\"peers\">Beside what peers publish</h2><p>{}</p>\n{topics}</section>\n",
        escaped(&introduction())
    )
}

fn topic_table(Topic { title, ours, peers }: &Topic<'_>, results: &Results) -> String {
    let own: String = ours.iter().map(|figure| own_row(figure, &results.machine)).collect();
    let own = if own.is_empty() {
        "<tr><th scope=\"row\">Rollcall</th><td colspan=\"3\">not measured in this run</td></tr>".to_owned()
    } else {
        own
    };
    let theirs: String = peers.iter().map(peer_row).collect();
    let heads = ["Who", "Figure", "Measured on", "Source"].map(|head| (head, ""));
    format!("<h3>{}</h3>{}", escaped(title), table(title, &heads, &(own + &theirs)))
}

fn own_row(figure: &Figure, machine: &str) -> String {
    let [scenario, system, name, value, ..] = row(figure).map(|cell| escaped(&cell));
    format!(
        "<tr class=\"ours\"><th scope=\"row\">Rollcall, {system}</th><td>{value} <small>{name}</small></td><td>{}</td>\
         <td><a href=\"#{}\">{scenario}</a></td></tr>\n",
        escaped(machine),
        anchor(&scenario)
    )
}

fn peer_row(Published { who, figure, measured_on, source, address }: &Published) -> String {
    let [who, figure, measured_on, source, address] =
        [who, figure, measured_on, source, address].map(|cell| escaped(cell));
    format!(
        "<tr><th scope=\"row\">{who}</th><td>{figure}</td><td>{measured_on}</td>\
         <td><a href=\"{address}\" rel=\"noreferrer\">{source}</a></td></tr>\n"
    )
}
