//! Plots of what was measured, as SVG: lines over two axes, each of which is linear, logarithmic or in nines.

mod delays;
mod files;

pub(crate) use delays::Delays;
pub(crate) use files::Plots;

use hdrhistogram::Histogram;
use std::fmt::Write;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 420.0;
/// Where the area of the lines begins and ends.
const LEFT: f64 = 70.0;
const RIGHT: f64 = WIDTH - 170.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = HEIGHT - 50.0;
/// Told apart also by who does not see red and green.
const COLOURS: [&str; 9] =
    ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#555555", "#882255", "#117733"];
/// With at most so many points each is marked.
const MARKED: usize = 12;

/// How values lie on an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    Linear,
    /// Values above 0; others are left out.
    Log,
    /// Shares from 0 to below 1, so that 0.9, 0.99 and 0.999 are as far from each other.
    Nines,
}

/// What an axis says.
#[derive(Clone, Debug)]
pub(crate) struct Axis {
    pub label: &'static str,
    pub scale: Scale,
}

/// One line, and what it is of.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

impl Line {
    /// The quantiles of some latencies that were recorded in microseconds, in milliseconds, as far as there are enough of them.
    pub fn quantiles(name: impl Into<String>, latencies: &Histogram<u64>) -> Line {
        let shares = (0..).map(|step| 1.0 - 10_f64.powf(-f64::from(step) / 10.0));
        let shares = shares.take_while(|share| (1.0 - share) * latencies.len() as f64 >= 1.0);
        let point = |share: f64| (share, latencies.value_at_quantile(share) as f64 / 1000.0);
        Line { name: name.into(), points: shares.map(point).collect() }
    }
}

/// Lines over two axes.
#[derive(Clone, Debug)]
pub(crate) struct Plot {
    pub title: String,
    pub x: Axis,
    pub y: Axis,
    pub lines: Vec<Line>,
}

impl Plot {
    /// How latencies are distributed.
    pub fn of_quantiles(title: impl Into<String>, lines: Vec<Line>) -> Plot {
        let x = Axis { label: "share of the calls", scale: Scale::Nines };
        Plot { title: title.into(), x, y: Axis { label: "milliseconds", scale: Scale::Log }, lines }
    }

    /// The plot as a file's content.
    pub fn svg(&self) -> String {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let x = Range::of(self.x.scale, points().map(|point| point.0), (LEFT, RIGHT));
        let y = Range::of(self.y.scale, points().map(|point| point.1), (BOTTOM, TOP));
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n"
        );
        text(&mut svg, (LEFT, 24.0), "start", &self.title);
        for tick in x.ticks() {
            let at = x.place(tick);
            line(&mut svg, (at, TOP), (at, BOTTOM));
            text(&mut svg, (at, BOTTOM + 18.0), "middle", &x.label(tick));
        }
        for tick in y.ticks() {
            let at = y.place(tick);
            line(&mut svg, (LEFT, at), (RIGHT, at));
            text(&mut svg, (LEFT - 6.0, at + 4.0), "end", &y.label(tick));
        }
        text(&mut svg, (f64::midpoint(LEFT, RIGHT), HEIGHT - 12.0), "middle", self.x.label);
        text(&mut svg, (8.0, TOP - 10.0), "start", self.y.label);
        for (number, line) in self.lines.iter().enumerate() {
            draw(&mut svg, line, number, (&x, &y));
        }
        svg.push_str("</svg>\n");
        svg
    }
}

fn draw(svg: &mut String, line: &Line, number: usize, (x, y): (&Range, &Range)) {
    let colour = COLOURS[number % COLOURS.len()];
    let shown = line.points.iter().filter(|(across, up)| x.has(*across) && y.has(*up));
    let places: Vec<(f64, f64)> = shown.map(|(across, up)| (x.place(*across), y.place(*up))).collect();
    let path: Vec<String> = places.iter().map(|(across, up)| format!("{across:.1},{up:.1}")).collect();
    let _ = writeln!(
        svg,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.8\"/>",
        path.join(" ")
    );
    for (across, up) in places.iter().filter(|_| places.len() <= MARKED) {
        let _ = writeln!(svg, "<circle cx=\"{across:.1}\" cy=\"{up:.1}\" r=\"3\" fill=\"{colour}\"/>");
    }
    let at = TOP + 8.0 + 18.0 * number as f64;
    let _ = writeln!(
        svg,
        "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"14\" height=\"4\" fill=\"{colour}\"/>",
        RIGHT + 14.0,
        at - 6.0
    );
    text(svg, (RIGHT + 34.0, at), "start", &line.name);
}

fn line(svg: &mut String, from: (f64, f64), to: (f64, f64)) {
    let _ = writeln!(
        svg,
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"#dddddd\"/>",
        from.0, from.1, to.0, to.1
    );
}

fn text(svg: &mut String, at: (f64, f64), anchor: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\" fill=\"#222222\">{text}</text>",
        at.0, at.1
    );
}

/// The values of an axis, and where it lies in the picture.
struct Range {
    scale: Scale,
    /// As they lie on the axis.
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Range {
    fn of(scale: Scale, values: impl Iterator<Item = f64>, (from, to): (f64, f64)) -> Range {
        let lying = values.filter(|value| is_on(scale, *value)).map(|value| lies(scale, value));
        let (low, high) = lying.fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)));
        let (low, high) = match scale {
            // What is counted begins at nothing.
            Scale::Linear => (low.min(0.0), high),
            Scale::Log => (low.floor(), high.ceil()),
            Scale::Nines => (0.0, high),
        };
        // Nothing, or one value alone, lies somewhere too.
        let high = if high > low { high } else { low.min(0.0) + 1.0 };
        Range { scale, low: low.min(high - 1e-9), high, from, to }
    }

    fn has(&self, value: f64) -> bool {
        is_on(self.scale, value)
    }

    fn place(&self, value: f64) -> f64 {
        let share = (lies(self.scale, value) - self.low) / (self.high - self.low);
        self.from + (self.to - self.from) * share
    }

    fn ticks(&self) -> Vec<f64> {
        match self.scale {
            Scale::Linear => {
                let step = step((self.high - self.low) / 6.0);
                let first = (self.low / step).ceil() as i64;
                (first..).map(|number| number as f64 * step).take_while(|tick| *tick <= self.high * 1.000_001).collect()
            }
            Scale::Log => (self.low as i32..=self.high as i32).map(|power| 10_f64.powi(power)).collect(),
            Scale::Nines => (0..=self.high as i32).map(|nines| 1.0 - 10_f64.powi(-nines)).collect(),
        }
    }

    fn label(&self, tick: f64) -> String {
        match self.scale {
            Scale::Nines => format!("{} %", (tick * 1e8).round() / 1e6),
            Scale::Linear | Scale::Log => ((tick * 1e6).round() / 1e6).to_string(),
        }
    }
}

fn is_on(scale: Scale, value: f64) -> bool {
    match scale {
        Scale::Linear => value.is_finite(),
        Scale::Log => value.is_finite() && value > 0.0,
        Scale::Nines => (0.0..1.0).contains(&value),
    }
}

fn lies(scale: Scale, value: f64) -> f64 {
    match scale {
        Scale::Linear => value,
        Scale::Log => value.log10(),
        Scale::Nines => -(1.0 - value).log10(),
    }
}

/// The smallest of 1, 2 and 5 times a power of ten that is no smaller.
fn step(least: f64) -> f64 {
    let power = 10_f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|digit| digit * power).find(|step| *step >= least).unwrap_or(10.0 * power)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every element ends, in order; attributes are quoted; nothing else stands where it must not. Gives how many elements there are.
    fn elements(svg: &str) -> usize {
        let (mut open, mut count) = (Vec::new(), 0);
        for part in svg.split('<').skip(1) {
            let (tag, after) = part.split_once('>').expect("an element ends");
            assert!(!after.contains('>'), "{after}");
            assert!(
                after
                    .split('&')
                    .skip(1)
                    .all(|entity| ["amp;", "lt;", "gt;"].iter().any(|known| entity.starts_with(known))),
                "{after}"
            );
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop(), Some(name), "{svg}");
                continue;
            }
            count += 1;
            assert_eq!(tag.matches('"').count(), 2 * tag.matches("=\"").count(), "{tag}");
            assert!(!tag.contains("NaN") && !tag.contains("inf"), "{tag}");
            if !tag.ends_with('/') {
                open.push(tag.split(' ').next().expect("a name"));
            }
        }
        assert!(open.is_empty(), "{open:?}");
        count
    }

    fn plot(scales: (Scale, Scale), lines: &[(&str, &[(f64, f64)])]) -> String {
        let axis = |scale| Axis { label: "a & b", scale };
        let line = |(name, points): &(&str, &[(f64, f64)])| Line { name: (*name).to_owned(), points: points.to_vec() };
        let lines = lines.iter().map(line).collect();
        Plot { title: "x < y > z".into(), x: axis(scales.0), y: axis(scales.1), lines }.svg()
    }

    #[test]
    fn a_plot_is_well_formed_whatever_was_measured() {
        let cases: [&[(f64, f64)]; 6] = [
            &[],
            &[(0.0, 0.0)],
            &[(5.0, 5.0)],
            &[(0.5, 1.0), (0.9, 10.0), (0.999, 1000.0)],
            &[(-3.0, f64::NAN), (f64::INFINITY, 2.0), (1.0, 2.0)],
            &[(1e9, 1e-9), (2e9, 1e9)],
        ];
        for scale in [Scale::Linear, Scale::Log, Scale::Nines] {
            for points in cases {
                let svg = plot((scale, scale), &[("one", points), ("two & <more>", points)]);
                assert!(elements(&svg) > 8, "{svg}");
            }
        }
    }

    #[test]
    fn every_point_is_where_it_belongs() {
        let svg = plot((Scale::Linear, Scale::Log), &[("one", &[(0.0, 1.0), (10.0, 100.0)])]);
        let ends = format!("points=\"{LEFT:.1},{BOTTOM:.1} {RIGHT:.1},{TOP:.1}\"");
        assert!(svg.contains(&ends), "{svg}");
        for label in [">0<", ">2<", ">10<", ">1<", ">100<", "one", "x &lt; y &gt; z"] {
            assert!(svg.contains(label), "{label}: {svg}");
        }
        let svg = plot((Scale::Nines, Scale::Linear), &[("one", &[(0.0, 1.0), (0.9999, 4.0)])]);
        for label in [">90 %<", ">99.99 %<"] {
            assert!(svg.contains(label), "{label}: {svg}");
        }
    }

    #[test]
    fn quantiles_go_as_far_as_there_are_values() {
        let mut latencies = Histogram::new_with_bounds(1, 100_000_000, 3).unwrap();
        (1..=1000).for_each(|value| latencies.record(value * 1000).unwrap());
        let line = Line::quantiles("all", &latencies);
        let (share, last) = *line.points.last().unwrap();
        assert!((0.99..0.9991).contains(&share), "{share}");
        assert!((990.0..1000.0).contains(&last), "{last}");
        assert!(Line::quantiles("none", &Histogram::new(3).unwrap()).points.is_empty());
    }
}
