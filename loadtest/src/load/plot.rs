//! A plot as SVG inside the report, without scripts or styles from other addresses. Curves differ by their dashes and
//! marks, not only by colours: `report.css` has both.

use std::fmt::Write;

use super::results::Plot;

const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 280.0;
const LEFT: f64 = 66.0;
const BOTTOM: f64 = 46.0;
const TOP: f64 = 50.0;
const RIGHT: f64 = 22.0;
const TICKS: usize = 4;
/// How many curves look different from each other.
const KINDS: usize = 4;
/// The approximate number of marks on a curve.
const MARKS: usize = 8;
/// The width of a curve's name above the plot.
const NAME: f64 = 140.0;

/// Returns the plot as one `<svg>` element.
pub(super) fn svg(plot: &Plot) -> String {
    let points = || plot.curves.iter().flat_map(|(_, points)| points);
    let least_x = points().map(|point| point.0).fold(f64::INFINITY, f64::min);
    let most_x = points().map(|point| point.0).fold(f64::NEG_INFINITY, f64::max);
    let most_y = points().map(|point| point.1).filter(|y| y.is_finite()).fold(0.0, f64::max);
    let (span_x, span_y) = ((most_x - least_x).max(f64::EPSILON), (most_y * 1.1).max(f64::EPSILON));
    let x = |value: f64| LEFT + (value - least_x) / span_x * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| HEIGHT - BOTTOM - value / span_y * (HEIGHT - BOTTOM - TOP);

    let title = escaped(&plot.title);
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}: {}\">", said(plot));
    for tick in 0..=TICKS {
        let share = tick as f64 / TICKS as f64;
        let (at_y, at_x) = (share * span_y, least_x + share * span_x);
        let (right, height) = (WIDTH - RIGHT, y(at_y));
        element(
            &mut svg,
            format_args!(
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{height:.1}\" y2=\"{height:.1}\"/>\
                 <text class=\"y\" x=\"{}\" y=\"{:.1}\">{}</text>",
                LEFT - 6.0,
                height + 5.0,
                label(at_y)
            ),
        );
        element(
            &mut svg,
            format_args!(
                "<text class=\"x\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                x(at_x),
                HEIGHT - BOTTOM + 18.0,
                label(at_x)
            ),
        );
    }
    element(
        &mut svg,
        format_args!(
            "<text class=\"x\" x=\"{:.1}\" y=\"{:.1}\">{}</text><text x=\"6\" y=\"{:.1}\">{}</text>",
            f64::midpoint(LEFT, WIDTH - RIGHT),
            HEIGHT - 6.0,
            escaped(&plot.x),
            TOP - 12.0,
            escaped(&plot.y)
        ),
    );
    for (index, (name, points)) in plot.curves.iter().enumerate() {
        let drawn: Vec<(f64, f64)> =
            points.iter().filter(|point| point.1.is_finite()).map(|&(at_x, at_y)| (x(at_x), y(at_y))).collect();
        line(&mut svg, index, &drawn);
        let every = drawn.len().div_ceil(MARKS).max(1);
        // The marks of curves that lie on each other are at different places.
        let first = (index + 1) * every / (KINDS + 1);
        drawn.iter().skip(first).step_by(every).for_each(|at| mark(&mut svg, index, *at));

        let from = 6.0 + NAME * index as f64;
        line(&mut svg, index, &[(from, 14.0), (from + 30.0, 14.0)]);
        mark(&mut svg, index, (from + 15.0, 14.0));
        element(&mut svg, format_args!("<text x=\"{:.1}\" y=\"19\">{}</text>", from + 36.0, escaped(name)));
    }
    svg.push_str("</svg>");
    svg
}

/// Returns a description of the plot for readers who do not see it.
fn said(plot: &Plot) -> String {
    let curves = plot.curves.iter().filter_map(|(name, points)| {
        let finite = || points.iter().map(|point| point.1).filter(|y| y.is_finite());
        let (most, last) = (finite().fold(0.0, f64::max), finite().next_back()?);
        Some(format!("{} at most {}, at last {}", escaped(name), label(most), label(last)))
    });
    format!("{} {}", curves.collect::<Vec<_>>().join("; "), escaped(&plot.y))
}

fn line(svg: &mut String, index: usize, points: &[(f64, f64)]) {
    let path: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    element(svg, format_args!("<polyline class=\"curve c{}\" points=\"{}\"/>", index % KINDS, path.join(" ")));
}

/// Draws a circle, a square, a triangle or a diamond.
fn mark(svg: &mut String, index: usize, (x, y): (f64, f64)) {
    let kind = index % KINDS;
    let path = match kind {
        0 => format!("M{:.1} {y:.1}a4 4 0 1 0 8 0a4 4 0 1 0 -8 0", x - 4.0),
        1 => format!("M{:.1} {:.1}h7v7h-7z", x - 3.5, y - 3.5),
        2 => format!("M{x:.1} {:.1}l4.5 8h-9z", y - 5.0),
        _ => format!("M{x:.1} {:.1}l5 5l-5 5l-5 -5z", y - 5.0),
    };
    element(svg, format_args!("<path class=\"mark c{kind}\" d=\"{path}\"/>"));
}

/// Returns the text in a form that is safe inside HTML.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

fn element(svg: &mut String, element: std::fmt::Arguments<'_>) {
    svg.write_fmt(element).expect("a String takes all");
}

fn label(value: f64) -> String {
    match value {
        0.0 => "0".to_owned(),
        big if big >= 1_000_000.0 => format!("{:.2}M", big / 1_000_000.0),
        big if big >= 10_000.0 => format!("{:.0}k", big / 1000.0),
        middle if middle >= 100.0 => format!("{middle:.0}"),
        small => format!("{small:.1}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::system::Kind;

    #[test]
    fn curves_stay_inside_have_marks_of_their_own_and_names_are_escaped() {
        let plot = Plot {
            scenario: "join".to_owned(),
            system: Kind::Real,
            title: "a < b".to_owned(),
            x: "s".to_owned(),
            y: "ms".to_owned(),
            curves: ["p50", "p99"]
                .map(|name| (name.to_owned(), vec![(0.0, 1.0), (1.0, f64::INFINITY), (2.0, 3.0)]))
                .to_vec(),
        };
        let svg = svg(&plot);
        assert!(svg.contains("aria-label=\"a &lt; b: p50 at most"));
        let (_, points) = svg.split_once("points=\"").expect("a curve");
        let (points, _) = points.split_once('"').expect("its end");
        let points: Vec<(f64, f64)> = points
            .split(' ')
            .filter_map(|point| point.split_once(','))
            .map(|(x, y)| (x.parse().expect("x"), y.parse().expect("y")))
            .collect();
        assert_eq!(points.len(), 2);
        assert!(points.iter().all(|(x, y)| (0.0..=WIDTH).contains(x) && (0.0..=HEIGHT).contains(y)));
        // Circles and squares tell the curves apart without colours.
        assert!(svg.contains("a4 4") && svg.contains("h7v7"));
    }
}
