//! The charts, as SVG on white, so that they read on any page.

use std::collections::BTreeSet;
use std::error::Error;
use std::io;
use std::ops::Range;
use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::markdown::{count, figure};
use crate::server::Server;

/// The bars of one work.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) title: String,
    pub(crate) bars: Vec<Bar>,
}

/// One server at one work.
#[derive(Debug)]
pub(crate) struct Bar {
    pub(crate) server: Server,
    /// Its cost, in that of ours.
    pub(crate) ratio: f64,
    /// Its cost, with the unit.
    pub(crate) label: String,
}

/// What a chart of lines is called, and its axes.
#[derive(Debug)]
pub(crate) struct Axis {
    pub(crate) title: &'static str,
    pub(crate) x: &'static str,
    pub(crate) y: &'static str,
    /// Whether equal steps upwards are equal factors.
    pub(crate) logarithmic: bool,
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn Error + Send + Sync>>;

/// Draws groups of bars that grow from the cost of ours, to the left where another is cheaper.
pub(crate) fn bars(title: &str, groups: &[Group], path: &Path) -> io::Result<()> {
    let rows = groups.iter().map(|group| group.bars.len() + ROWS_AROUND).sum::<usize>();
    let height = u32::try_from(rows).unwrap_or(u32::MAX).saturating_mul(ROW_HEIGHT) + HEAD_AND_FOOT;
    let area = SVGBackend::new(path, (WIDTH, height)).into_drawing_area();
    draw_bars(&area, title, groups, rows).map_err(io::Error::other)
}

fn draw_bars(area: &Area<'_>, title: &str, groups: &[Group], rows: usize) -> Drawn {
    area.fill(&WHITE)?;
    let ratios = groups.iter().flat_map(|group| &group.bars).map(|bar| bar.ratio);
    let bars = decades(ratios.chain([1.0]), 1.0, 1.0);
    // Room for what is written at the ends of the longest bars, about a fifth of the width on each side.
    let room = (bars.end / bars.start).powf(0.3).max(2.0);
    let range = bars.start / room..bars.end * room;
    let mut chart = ChartBuilder::on(area)
        .caption(title, font(CAPTION))
        .margin(15)
        .x_label_area_size(45)
        .build_cartesian_2d(range.clone().log_scale(), 0.0..rows as f64)?;
    chart
        .configure_mesh()
        .disable_y_axis()
        .disable_y_mesh()
        .light_line_style(GRID.mix(0.5))
        .x_label_formatter(&|ratio| format!("× {ratio}"))
        .x_desc("times the cost of ours, logarithmic")
        .label_style(font(TEXT))
        .draw()?;
    let mut top = rows as f64;
    for group in groups {
        let style = font(TEXT).into_font().style(FontStyle::Bold).color(&BLACK).pos(Pos::new(HPos::Left, VPos::Center));
        chart.draw_series([Text::new(group.title.clone(), (range.start, top - 0.7), style)])?;
        top -= 1.2;
        let start = top;
        for bar in &group.bars {
            let (low, high) = (bar.ratio.min(1.0), bar.ratio.max(1.0));
            let corners = [(low, top - 0.1), (high, top - 0.9)];
            chart.draw_series([Rectangle::new(corners, colour(bar.server).filled())])?;
            let side = if bar.ratio < 1.0 { HPos::Right } else { HPos::Left };
            let gap = if bar.ratio < 1.0 { 1.0 / GAP } else { GAP };
            let style = font(TEXT).into_font().color(&BLACK).pos(Pos::new(side, VPos::Center));
            let text = format!("{}, {}", bar.server.title(), bar.label);
            chart.draw_series([Text::new(text, (bar.ratio * gap, top - 0.5), style)])?;
            top -= 1.0;
        }
        chart.draw_series([PathElement::new([(1.0, start), (1.0, top)], BLACK)])?;
        top -= 0.8;
    }
    area.present()?;
    Ok(())
}

/// Draws lines over sizes.
pub(crate) fn lines(axis: &Axis, lines: &[(&str, Vec<(u32, f64)>)], path: &Path) -> io::Result<()> {
    let area = SVGBackend::new(path, (WIDTH, LINES_HEIGHT)).into_drawing_area();
    draw_lines(&area, axis, lines).map_err(io::Error::other)
}

fn draw_lines(area: &Area<'_>, axis: &Axis, lines: &[(&str, Vec<(u32, f64)>)]) -> Drawn {
    area.fill(&WHITE)?;
    let points = || lines.iter().flat_map(|(_, points)| points.iter().copied());
    let sizes = points().map(|(size, _)| size).collect::<BTreeSet<_>>();
    let sizes = sizes.into_iter().map(f64::from).collect::<Vec<_>>();
    let xs = decades(sizes.iter().copied(), 0.9, 1.1).log_scale().with_key_points(sizes);
    let ys = points().map(|(_, value)| value);
    let mut builder = ChartBuilder::on(area);
    builder.caption(axis.title, font(CAPTION)).margin(15).margin_right(40).x_label_area_size(45).y_label_area_size(75);
    // The two differ in the type of the axis only.
    macro_rules! draw {
        ($ys:expr) => {{
            let mut chart = builder.build_cartesian_2d(xs, $ys)?;
            chart
                .configure_mesh()
                .light_line_style(TRANSPARENT)
                .bold_line_style(GRID)
                .x_label_formatter(&|size| count(size.round() as u64))
                .y_label_formatter(&|value| figure(*value))
                .x_desc(format!("{}, logarithmic", axis.x))
                .y_desc(if axis.logarithmic { format!("{}, logarithmic", axis.y) } else { axis.y.to_owned() })
                .label_style(font(TEXT))
                .draw()?;
            for ((title, points), colour) in lines.iter().zip(LINE_COLOURS) {
                let points = points.iter().map(|(size, value)| (f64::from(*size), *value)).collect::<Vec<_>>();
                chart
                    .draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))?
                    .label(*title)
                    .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(2)));
                chart.draw_series(points.into_iter().map(|point| Circle::new(point, 4, colour.filled())))?;
            }
            if lines.len() > 1 {
                let style = font(TEXT);
                chart
                    .configure_series_labels()
                    .position(SeriesLabelPosition::UpperMiddle)
                    .background_style(WHITE.filled())
                    .border_style(GRID)
                    .label_font(style)
                    .draw()?;
            }
        }};
    }
    if axis.logarithmic {
        let range = decades(ys, 0.8, 2.0);
        draw!(range.clone().log_scale().with_key_points(steps(&range)));
    } else {
        draw!(0.0..ys.fold(f64::MIN_POSITIVE, f64::max) * 1.4);
    }
    area.present()?;
    Ok(())
}

/// What a logarithmic axis has to span, one and all values, with some room at both ends.
fn decades(values: impl Iterator<Item = f64> + Clone, below: f64, above: f64) -> Range<f64> {
    let least = values.clone().fold(f64::INFINITY, f64::min);
    let most = values.fold(0.0, f64::max);
    if least > 0.0 && most.is_finite() && least <= most { least * below..most * above } else { 0.1..10.0 }
}

/// 1, 2 and 5 in each decade of a range.
fn steps(range: &Range<f64>) -> Vec<f64> {
    let decades = range.start.log10().floor() as i32..=range.end.log10().floor() as i32;
    let all = decades.flat_map(|decade| [1.0, 2.0, 5.0].map(|step| step * 10_f64.powi(decade)));
    all.filter(|step| range.contains(step)).collect()
}

fn font(size: i32) -> (&'static str, i32) {
    ("sans-serif", size)
}

fn colour(server: Server) -> RGBColor {
    match server {
        Server::Raw => RGBColor(120, 120, 120),
        Server::Tungstenite => RGBColor(170, 170, 170),
        Server::Ours | Server::Syncwatch | Server::Recovering | Server::RecoveringCluster => RGBColor(0, 114, 178),
        Server::Socketioxide => RGBColor(213, 94, 0),
        Server::SocketIo | Server::Contract | Server::RecoveringSocketIo => RGBColor(0, 158, 115),
        Server::PythonSocketIo => RGBColor(204, 121, 167),
    }
}

const GRID: RGBColor = RGBColor(215, 215, 215);
const LINE_COLOURS: [RGBColor; 3] = [RGBColor(0, 114, 178), RGBColor(213, 94, 0), RGBColor(0, 158, 115)];
const WIDTH: u32 = 960;
const LINES_HEIGHT: u32 = 460;
const ROW_HEIGHT: u32 = 20;
/// A group's title, and the space below its bars.
const ROWS_AROUND: usize = 2;
const HEAD_AND_FOOT: u32 = 120;
const CAPTION: i32 = 20;
const TEXT: i32 = 14;
/// Between a bar and what is written beside it.
const GAP: f64 = 1.04;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_spans_all_values_and_stands_without_any() {
        assert_eq!(decades([2.0, 8.0].into_iter(), 0.5, 2.0), 1.0..16.0);
        assert_eq!(steps(&(1.5..25.0)), [2.0, 5.0, 10.0, 20.0]);
        assert_eq!(decades(std::iter::empty(), 0.5, 2.0), 0.1..10.0);
    }
}
