//! The report renders: every plot is drawn by an SVG renderer, and has the colours of its rows in it.

use super::*;
use crate::generator::{Measured, Times};
use crate::scenario::matrix::row::ratios;
use crate::scenario::matrix::watch::Cost;
use crate::server::Server;
use resvg::{tiny_skia, usvg};
use std::process::Command;
use volley_testlab::cannot_run;

fn matrix() -> Matrix {
    let mut matrix = Matrix::new(1.0);
    matrix.common_rate = 50e3;
    for (index, server) in Server::MODELS.iter().enumerate() {
        let mpps = 0.2 + index as f64 / 10.0;
        let times = Times { p50_ns: 20_000, p99_ns: 90_000, p999_ns: 300_000, ..Times::default() };
        let on_time = Times { p99_ns: 60_000, ..Times::default() };
        let cost = Cost { user_ns: 100.0, system_ns: 900.0, resident_mib: 12.0, calls: Some(0.031) };
        let latency = Measured {
            sent: 1000,
            lost: 1,
            latency: times,
            latency_on_time: on_time,
            ..Measured::default()
        };
        let sample = |mpps| Some(Sample { mpps, loss: 0.5, cost, latency: latency.clone() });
        let point = |pps: f64, us: f64, lost| Point {
            pps,
            p50_ns: (us + index as f64) * 1e3,
            p99_ns: (us * 3.0 + index as f64) * 1e3,
            p99_on_time_ns: (pps > 30e3).then_some((us * 2.0 + index as f64) * 1e3),
            lost,
        };
        let row = matrix.row(*server);
        matrix.rows[row].rounds = vec![sample(mpps), sample(mpps * 1.1), sample(mpps * 0.9)];
        matrix.rows[row].sizes = vec![(64.0, mpps), (512.0, mpps), (1446.0, mpps / 2.0)];
        matrix.rows[row].flows = vec![(1.0, mpps), (100.0, mpps), (10_000.0, mpps / 3.0)];
        matrix.rows[row].loads = vec![point(20e3, 18.0, 0.0), point(1e5, 25.0, 0.0), point(2e5, 60.0, 0.2)];
    }
    matrix.ratios = ratios(&matrix.rounds());
    matrix.skipped.push(("dpdk".into(), "it is <not> installed".into()));
    matrix
}

/// Draws an SVG and returns its pixels.
fn pixels(svg: &str) -> tiny_skia::Pixmap {
    let tree = usvg::Tree::from_str(svg, &usvg::Options::default()).expect("an SVG that can be read");
    let size = tree.size().to_int_size();
    let mut pixmap = tiny_skia::Pixmap::new(size.width(), size.height()).unwrap();
    resvg::render(&tree, tiny_skia::Transform::identity(), &mut pixmap.as_mut());
    pixmap
}

#[test]
fn every_plot_renders_with_a_mark_of_each_row() {
    let plots = plots(&matrix()).unwrap();
    assert_eq!(plots.len(), 5);
    for (name, svg) in plots {
        let pixmap = pixels(&svg);
        assert_eq!((pixmap.width(), pixmap.height()), (960, 480), "{name}");
        for (index, server) in Server::MODELS.iter().enumerate() {
            let color = super::plot::color(index);
            let marks = pixmap
                .pixels()
                .iter()
                .filter(|pixel| (pixel.red(), pixel.green(), pixel.blue()) == (color.0, color.1, color.2));
            let least = if name == "matrix-rate.svg" { 500 } else { 10 };
            // Lines may lie upon each other, but each has its own place here, or its mark in the legend.
            assert!(marks.count() >= least, "{name}: nothing of {} is to be seen", server.as_str());
            assert!(svg.contains(server.as_str()), "{name}: {} is not named", server.as_str());
        }
    }
}

#[test]
fn a_matrix_without_sweeps_or_with_a_failed_row_is_drawn_all_the_same() {
    let mut matrix = matrix();
    for row in &mut matrix.rows {
        (row.sizes, row.flows, row.loads) = Default::default();
    }
    matrix.rows[1] = Row::new(Server::Testpmd);
    matrix.rows[1].rounds = vec![None; 3];
    assert_eq!(plots(&matrix).unwrap().len(), 1);
    assert!(table(&matrix).contains("| testpmd | – | – |"));
}

#[test]
fn table_and_page_say_what_was_measured_and_what_was_not() {
    let matrix = matrix();
    let table = table(&matrix);
    let cells = "| af-xdp | 0.200 | 0.180 – 0.220 | 50.0 % | 20.0 µs | 90.0 µs | 300.0 µs | 60.0 µs | 0 ns | 0.1 % | 100 | 900 | 0.031 \
                 | 12 | 10000 | 200 k/s |";
    assert!(table.contains(cells), "{table}");
    assert!(table.contains("Skipped: dpdk: it is <not> installed"));
    let page = page(&matrix, &plots(&matrix).unwrap());
    assert_eq!(page.matches("<svg").count(), 5);
    assert!(page.contains("it is &lt;not&gt; installed") && page.contains("<td>io-uring</td>"));
    assert!(page.contains("mmsg ÷ epoll") && page.contains("p50: af-xdp"), "{page}");
}

/// A picture of the page, as a browser shows it.
fn screenshot(html: &str) -> Option<tiny_skia::Pixmap> {
    let directory = tempfile::tempdir().unwrap();
    let (page, picture) = (directory.path().join("page.html"), directory.path().join("page.png"));
    std::fs::write(&page, html).unwrap();
    let mut browser = Command::new("chromium-headless-shell");
    // As root it starts only without its sandbox; the page is our own. A container's /dev/shm may be too small for it.
    browser.args(["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]);
    browser.arg("--window-size=1200,4000").env("HOME", directory.path());
    browser.arg(format!("--user-data-dir={}", directory.path().join("profile").display()));
    browser.arg(format!("--screenshot={}", picture.display()));
    let browser = browser.arg(format!("file://{}", page.display())).output();
    let Ok(said) = browser else {
        cannot_run("chromium-headless-shell is not installed: hw-setup/deps test");
        return None;
    };
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    // To look at: VOLLEY_SCREENSHOT=page.png cargo test -p volley-bench browser
    if let Some(copy) = std::env::var_os("VOLLEY_SCREENSHOT") {
        std::fs::copy(&picture, copy).unwrap();
    }
    Some(tiny_skia::Pixmap::load_png(&picture).unwrap_or_else(|error| panic!("{error}: {said}")))
}

#[test]
fn a_browser_shows_the_table_and_every_plot() {
    let matrix = matrix();
    let html = page(&matrix, &plots(&matrix).unwrap());
    // A stripe beside each figure, in a colour that nothing else has, says where the browser put it.
    let stripe = |figure: u8| (1, 250, 100 + 20 * figure);
    let rule = |figure: u8| {
        let (red, green, blue) = stripe(figure);
        let number = figure + 1;
        format!("figure:nth-of-type({number}){{border-left:8px solid rgb({red},{green},{blue})}}")
    };
    let rules: String = (0..5).map(rule).collect();
    let Some(picture) = screenshot(&html.replace("</style>", &format!("{rules}</style>"))) else { return };
    let (width, pixels) = (picture.width() as usize, picture.pixels());
    let is = |pixel: &tiny_skia::PremultipliedColorU8, color: (u8, u8, u8)| {
        (pixel.red(), pixel.green(), pixel.blue()) == color
    };
    let lines = |figure: u8| -> Vec<usize> {
        let shows = |line: &usize| {
            pixels[line * width..][..width].iter().filter(|pixel| is(pixel, stripe(figure))).count() >= 6
        };
        (0..picture.height() as usize).filter(shows).collect()
    };
    let mut above = 0;
    for figure in 0..5 {
        let lines = lines(figure);
        assert!(lines.len() > 300, "figure {figure} has {} lines", lines.len());
        assert!(lines[0] > above, "figure {figure} lies over what is above it");
        for (index, server) in Server::MODELS.iter().enumerate() {
            let color = super::plot::color(index);
            let here = &pixels[lines[0] * width..=lines[lines.len() - 1] * width];
            let marks = here.iter().filter(|pixel| is(pixel, (color.0, color.1, color.2))).count();
            let least = if figure == 0 { 300 } else { 8 };
            assert!(marks >= least, "figure {figure}: {marks} pixels of {}", server.as_str());
        }
        above = lines[lines.len() - 1];
        // Above the first figure are the table and the verdicts: dark text on white.
        if figure == 0 {
            let dark = pixels[..lines[0] * width].iter().filter(|pixel| pixel.red() < 100).count();
            assert!(dark > 5_000, "{dark} dark pixels of text");
        }
    }
}
