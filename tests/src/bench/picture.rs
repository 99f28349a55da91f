//! The start as a picture: one bar per phase on a common axis, as an SVG of its own.

use std::fmt::Write;

use super::timeline::Timeline;

const WIDTH: f64 = 640.0;
const ROW: f64 = 26.0;
const LABEL: f64 = 170.0;

/// Each bar runs from the phase before it to its own median.
pub fn svg(timeline: &Timeline) -> String {
    let phases: Vec<(&str, f64)> =
        timeline.phases().map(|(phase, samples)| (phase, samples.median())).collect();
    let end = phases.iter().map(|(_, at)| *at).fold(1.0, f64::max);
    let mut text = String::new();
    #[allow(clippy::cast_precision_loss)]
    let height = ROW * (phases.len() as f64 + 1.5);
    let total = LABEL + WIDTH + 90.0;
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {total} {height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"8\" y=\"18\" font-weight=\"bold\">bulkhead run, from the command to the exit (median)</text>"
    );
    let mut before = 0.0;
    for (row, (phase, at)) in phases.iter().enumerate() {
        #[allow(clippy::cast_precision_loss)]
        let y = ROW * (row as f64 + 1.0);
        let x = LABEL + before / end * WIDTH;
        let width = ((at - before) / end * WIDTH).max(1.0);
        let _ = writeln!(
            text,
            "<text x=\"8\" y=\"{:.1}\">{phase}</text>\
             <rect x=\"{x:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"16\" rx=\"2\" fill=\"#2a6f97\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" fill=\"#555\">{:.0} ms</text>",
            y + 17.0,
            y + 4.0,
            x + width + 6.0,
            y + 17.0,
            at - before
        );
        before = *at;
    }
    text.push_str("</svg>\n");
    text
}
