//! The figures that other projects publish, from `loadtest/peers.md`, and which of our figures are compared with them.
//!
//! Invariant: each topic of the page has figures of ours, and each figure of another project has the address of its
//! source.

use super::results::{Figure, Results};

const PAGE: &str = include_str!("../../peers.md");

/// The names of our figures that are compared.
pub(crate) const MEMORY: &str = "memory a joined connection";
pub(crate) const IDLE: &str = "all idle, on pings: of one core";
pub(crate) const PRESENT: &str = "present at the end";
pub(crate) const DELIVERIES: &str = "deliveries back to back";
pub(crate) const WAIT: &str = "publish to the last of 50: p99";
pub(crate) const JOINS: &str = "connect and join";

/// The topics of the page. Each has the scenario and the end of the name of our figures.
const OURS: [(&str, &str, &str); 6] = [
    ("Memory a connection", "idle", MEMORY),
    ("Processor time of idle connections", "idle", IDLE),
    ("Connections at once", "soak", PRESENT),
    ("Deliveries a second", "fanout", DELIVERIES),
    ("Wait of receivers", "fanout", WAIT),
    ("Connects a second", "join", JOINS),
];

/// A topic of the page.
pub(super) struct Topic<'a> {
    pub(super) title: &'static str,
    pub(super) ours: Vec<&'a Figure>,
    pub(super) peers: Vec<Published>,
}

/// A figure that another project has published.
pub(super) struct Published {
    pub(super) who: &'static str,
    pub(super) figure: &'static str,
    pub(super) measured_on: &'static str,
    pub(super) source: &'static str,
    pub(super) address: &'static str,
}

/// Returns the text of the page before its first topic, without markup.
pub(super) fn introduction() -> String {
    let text = PAGE.split("\n## ").next().unwrap_or_default();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.collect::<Vec<_>>().join(" ").replace('`', "").trim().to_owned()
}

/// Returns the topics, with the figures of these results.
pub(super) fn topics(results: &Results) -> Vec<Topic<'_>> {
    PAGE.split("\n## ").skip(1).map(|part| topic(part, results)).collect()
}

fn topic<'a>(part: &'static str, results: &'a Results) -> Topic<'a> {
    let (title, table) = part.split_once('\n').unwrap_or((part, ""));
    let wanted: Vec<_> = OURS.iter().filter(|(topic, ..)| *topic == title).collect();
    let ours = |figure: &&Figure| {
        wanted.iter().any(|(_, scenario, name)| figure.scenario == *scenario && figure.name.ends_with(name))
    };
    Topic {
        title,
        ours: results.figures.iter().filter(ours).collect(),
        peers: table.lines().filter_map(published).collect(),
    }
}

/// Reads a row of a table. Returns `None` for the table's head and for other lines.
fn published(line: &'static str) -> Option<Published> {
    let row = line.strip_prefix("| ")?.strip_suffix(" |")?;
    let mut cells = row.split(" | ");
    let (who, figure, measured_on) = (cells.next()?, cells.next()?, cells.next()?);
    let (source, address) = cells.next()?.strip_prefix('[')?.strip_suffix(')')?.split_once("](")?;
    Some(Published { who, figure, measured_on, source, address })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::system::Kind;

    #[test]
    fn every_topic_has_a_figure_of_ours_and_every_peer_a_source() {
        let figure = |(_, scenario, name): &(&str, &str, &str)| Figure {
            scenario: (*scenario).to_owned(),
            system: Kind::Real,
            name: (*name).to_owned(),
            value: 1.0,
            unit: String::new(),
            floor: None,
            limit: None,
            earlier: false,
        };
        let results = Results { figures: OURS.iter().map(figure).collect(), ..Results::default() };
        let topics = topics(&results);
        assert_eq!(topics.len(), OURS.len());
        let rows =
            PAGE.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| who") && !line.contains("---"));
        assert_eq!(topics.iter().map(|topic| topic.peers.len()).sum::<usize>(), rows.count());
        for Topic { title, ours, peers } in topics {
            assert_eq!(ours.len(), 1, "{title}");
            assert!(peers.iter().all(|peer| peer.address.starts_with("https://")), "{title}");
        }
    }
}
