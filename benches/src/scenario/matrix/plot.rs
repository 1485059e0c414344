//! The plots, as SVG text.

use super::row::Row;
use anyhow::{Result, anyhow};
use plotters::prelude::*;

/// Size of a plot, in pixels.
const SIZE: (u32, u32) = (960, 480);
const FONT: &str = "sans-serif";

pub(super) fn color(index: usize) -> RGBColor {
    const COLORS: [(u8, u8, u8); 13] = [
        (0, 90, 181),
        (220, 50, 32),
        (0, 135, 90),
        (90, 180, 140),
        (148, 80, 200),
        (230, 140, 0),
        (80, 80, 80),
        (160, 160, 160),
        (120, 70, 30),
        (200, 60, 140),
        (30, 170, 190),
        (150, 150, 40),
        (255, 130, 130),
    ];
    let (red, green, blue) = COLORS[index % COLORS.len()];
    RGBColor(red, green, blue)
}

/// Room for the names of the rows, right of a plot of lines, in pixels.
const LEGEND: i32 = 120;
/// Labels that find room under a plot of lines.
const MOST_LABELS: usize = 6;
/// Height of a name there, in pixels.
const NAME: i32 = 20;

fn failed(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("plot: {error}")
}

/// A bar a row: its median rate, with its least and greatest over the rounds.
pub fn bars(rows: &[Row]) -> Result<String> {
    let mut svg = String::new();
    let top = rows.iter().flat_map(|row| row.each(|sample| sample.mpps)).fold(0.1, f64::max) * 1.1;
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        area.fill(&WHITE).map_err(failed)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(
                "Answers a second at saturation, 64-byte frames (median, least and greatest)",
                (FONT, 18),
            )
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(56)
            .build_cartesian_2d(0f64..rows.len() as f64, 0f64..top)
            .map_err(failed)?;
        // A label stands at each half: the middle of a bar.
        let label = |at: &f64| match (at.fract() - 0.5).abs() < 0.01 {
            true => rows.get(*at as usize).map_or(String::new(), |row| row.name.clone()),
            false => String::new(),
        };
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .x_labels(2 * rows.len() + 1)
            .x_label_formatter(&label)
            .y_desc("Mpps")
            .draw()
            .map_err(failed)?;
        for (index, row) in rows.iter().enumerate() {
            let Some(rate) = row.estimate(|sample| sample.mpps) else { continue };
            let mpps = row.each(|sample| sample.mpps);
            let (left, middle) = (index as f64 + 0.2, index as f64 + 0.5);
            let bar = Rectangle::new([(left, 0.0), (left + 0.6, rate.median)], color(index).filled());
            chart.draw_series([bar]).map_err(failed)?;
            let least = mpps.iter().copied().fold(f64::MAX, f64::min);
            let most = mpps.iter().copied().fold(0.0, f64::max);
            let range = PathElement::new([(middle, least), (middle, most)], BLACK.stroke_width(2));
            chart.draw_series([range]).map_err(failed)?;
        }
        area.present().map_err(failed)?;
    }
    Ok(svg)
}

/// What a plot of lines shows.
pub struct Axes {
    /// Above it.
    pub title: &'static str,
    /// Under the x axis, which is logarithmic.
    pub x: &'static str,
    /// Beside the y axis.
    pub y: &'static str,
    /// The y axis is logarithmic, too.
    pub log_y: bool,
}

/// 1, 2 and 5 times the powers of ten within a range: where a logarithmic axis has its labels.
fn round_numbers(from: f64, to: f64) -> Vec<f64> {
    let tens = (from.log10().floor() as i32)..=(to.log10().ceil() as i32);
    let all = tens.flat_map(|ten| [1.0, 2.0, 5.0].map(|digit| digit * 10f64.powi(ten)));
    all.filter(|number| (from..=to).contains(number)).collect()
}

/// The labels under an axis: what was measured, when that is little, or round numbers.
fn labels(points: impl Iterator<Item = f64>, from: f64, to: f64) -> Vec<f64> {
    let mut all: Vec<f64> = points.collect();
    all.sort_by(f64::total_cmp);
    all.dedup();
    if (2..=MOST_LABELS).contains(&all.len()) { all } else { round_numbers(from, to) }
}

/// A line a row through its points, with the names beside the plot.
pub fn lines(axes: &Axes, rows: &[(&str, Vec<(f64, f64)>)]) -> Result<String> {
    let points = || rows.iter().flat_map(|(_, points)| points.iter().copied());
    let range = |of: fn((f64, f64)) -> f64| {
        let least = points().map(of).fold(f64::MAX, f64::min);
        let most = points().map(of).fold(f64::MIN, f64::max);
        if least > most { (1.0, 10.0) } else { (least, most.max(least * 1.01)) }
    };
    let ((left, right), (bottom, top)) = (range(|(x, _)| x), range(|(_, y)| y));
    let mut svg = String::new();
    {
        let all = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        all.fill(&WHITE).map_err(failed)?;
        let (area, names) = all.split_horizontally(SIZE.0 as i32 - LEGEND);
        let mut builder = ChartBuilder::on(&area);
        builder.caption(axes.title, (FONT, 18)).margin(12).x_label_area_size(40).y_label_area_size(64);
        // The two kinds of axis are two types: the same is drawn on either.
        macro_rules! draw {
            ($chart:expr) => {{
                let mut chart = $chart.map_err(failed)?;
                // No more digits than tell two labels apart.
                let plain = |value: &f64| format!("{}", (value * 1e3).round() / 1e3);
                let mut mesh = chart.configure_mesh();
                mesh.x_desc(axes.x)
                    .y_desc(axes.y)
                    .light_line_style(TRANSPARENT)
                    .x_label_formatter(&plain)
                    .y_label_formatter(&plain);
                mesh.draw().map_err(failed)?;
                for (index, (_, points)) in rows.iter().enumerate() {
                    let style = color(index).stroke_width(2);
                    let line = LineSeries::new(points.iter().copied(), style).point_size(3);
                    chart.draw_series(line).map_err(failed)?;
                }
            }};
        }
        let x = (left..right).log_scale().with_key_points(labels(points().map(|(x, _)| x), left, right));
        let (low, high) = (bottom * 0.8, top * 1.25);
        match axes.log_y {
            true => {
                let y = (low..high).log_scale().with_key_points(round_numbers(low, high));
                draw!(builder.build_cartesian_2d(x, y));
            }
            false => draw!(builder.build_cartesian_2d(x, 0.0..top * 1.1)),
        }
        for (index, (name, _)) in rows.iter().enumerate() {
            let y = 48 + NAME * index as i32;
            let mark = PathElement::new([(4, y), (22, y)], color(index).stroke_width(4));
            names.draw(&mark).map_err(failed)?;
            names.draw(&Text::new((*name).to_owned(), (28, y - 6), (FONT, 13))).map_err(failed)?;
        }
        all.present().map_err(failed)?;
    }
    Ok(svg)
}
