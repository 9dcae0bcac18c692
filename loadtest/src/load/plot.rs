//! A plot as SVG inside the report, without a script or a style from elsewhere.

use std::fmt::Write;

use super::results::Plot;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 80.0;
const BOTTOM: f64 = 45.0;
const TOP: f64 = 30.0;
const RIGHT: f64 = 20.0;
const TICKS: usize = 5;
const COLOURS: [&str; 4] = ["#2563eb", "#dc2626", "#16a34a", "#9333ea"];

/// The plot as one `<svg>` element.
pub(super) fn svg(plot: &Plot) -> String {
    let points = || plot.curves.iter().flat_map(|(_, points)| points);
    let least_x = points().map(|point| point.0).fold(f64::INFINITY, f64::min);
    let most_x = points().map(|point| point.0).fold(f64::NEG_INFINITY, f64::max);
    let most_y = points().map(|point| point.1).filter(|y| y.is_finite()).fold(0.0, f64::max);
    let (span_x, span_y) = ((most_x - least_x).max(f64::EPSILON), (most_y * 1.1).max(f64::EPSILON));
    let x = |value: f64| LEFT + (value - least_x) / span_x * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| HEIGHT - BOTTOM - value / span_y * (HEIGHT - BOTTOM - TOP);

    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\"><title>{}</title>", escaped(&plot.title));
    for tick in 0..=TICKS {
        let share = tick as f64 / TICKS as f64;
        let (at_y, at_x) = (share * span_y, least_x + share * span_x);
        let (right, height) = (WIDTH - RIGHT, y(at_y));
        element(
            &mut svg,
            format_args!(
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{height:.1}\" y2=\"{height:.1}\"/>\
                 <text class=\"y\" x=\"{}\" y=\"{height:.1}\">{}</text>",
                LEFT - 6.0,
                label(at_y)
            ),
        );
        if !plot.x.is_empty() {
            element(
                &mut svg,
                format_args!(
                    "<text class=\"x\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                    x(at_x),
                    HEIGHT - BOTTOM + 16.0,
                    label(at_x)
                ),
            );
        }
    }
    element(
        &mut svg,
        format_args!(
            "<text class=\"x\" x=\"{:.1}\" y=\"{:.1}\">{}</text><text x=\"6\" y=\"16\">{}</text>",
            f64::midpoint(LEFT, WIDTH - RIGHT),
            HEIGHT - 6.0,
            escaped(&plot.x),
            escaped(&plot.y)
        ),
    );
    for (index, (name, points)) in plot.curves.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let finite = points.iter().filter(|point| point.1.is_finite());
        let path: Vec<String> = finite.map(|&(at_x, at_y)| format!("{:.1},{:.1}", x(at_x), y(at_y))).collect();
        element(
            &mut svg,
            format_args!(
                "<polyline stroke=\"{colour}\" points=\"{}\"/><text fill=\"{colour}\" x=\"{:.1}\" y=\"16\">{}</text>",
                path.join(" "),
                LEFT + 20.0 + 130.0 * index as f64,
                escaped(name)
            ),
        );
    }
    svg.push_str("</svg>");
    svg
}

/// Text that is safe inside HTML.
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

    #[test]
    fn curves_stay_inside_and_names_are_escaped() {
        let plot = Plot {
            title: "a < b".to_owned(),
            x: "s".to_owned(),
            y: "ms".to_owned(),
            curves: vec![("p99".to_owned(), vec![(0.0, 1.0), (1.0, f64::INFINITY), (2.0, 3.0)])],
        };
        let svg = svg(&plot);
        assert!(svg.contains("<title>a &lt; b</title>"));
        let (_, points) = svg.split_once("points=\"").expect("a curve");
        let (points, _) = points.split_once('"').expect("its end");
        let points: Vec<(f64, f64)> = points
            .split(' ')
            .filter_map(|point| point.split_once(','))
            .map(|(x, y)| (x.parse().expect("x"), y.parse().expect("y")))
            .collect();
        assert_eq!(points.len(), 2);
        assert!(points.iter().all(|(x, y)| (0.0..=WIDTH).contains(x) && (0.0..=HEIGHT).contains(y)));
    }
}
