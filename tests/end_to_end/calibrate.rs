//! `calibrate`: from a model to rules that were measured, and on from where it was interrupted.

use crate::program::{fail, json, root, shipped_model, succeed};
use ndarray::Array2;
use ndarray_npy::write_npy;
use pab_patch::calibrate::Calibration;
use pab_patch::rules::{Rules, Strategy};
use std::ffi::OsString;
use std::path::Path;

/// Few steps and clips of a model.
fn few(model: &Path, folder: &Path, forms: &str, options: &[&str]) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["calibrate".into(), model.into(), "-o".into(), folder.into()];
    let few = ["--clips", "1", "--forms", forms, "--ranges", "2", "--points", "2"];
    arguments.extend(few.iter().chain(options).map(OsString::from));
    arguments
}

/// The shipped model, whose clips are pictures.
fn arguments(folder: &Path, forms: &str, options: &[&str]) -> Vec<OsString> {
    few(&shipped_model(), folder, forms, &[&["--steps", "6"], options].concat())
}

/// A small model of the same structure, whose clips are latents.
fn small(folder: &Path, options: &[&str]) -> Vec<OsString> {
    let text = folder.join("text.npy");
    if !text.exists() {
        let values = Array2::from_shape_fn((5, 24), |(token, place)| ((7 * token + place) % 5) as f32 - 2.0);
        write_npy(&text, &values).unwrap();
    }
    let scheduler = shipped_model().with_file_name("scheduler/scheduler_config.json");
    let model = root().join("tests/data/corpus/latte.ts17.static.onnx");
    let mut arguments = few(&model, folder, "span-1", &["--steps", "8", "--windows", "2"]);
    arguments.extend([
        "--scheduler".into(),
        scheduler.into(),
        "--prompt-embeds".into(),
        text.into(),
    ]);
    arguments.extend(options.iter().map(OsString::from));
    arguments
}

fn record(folder: &Path) -> Calibration {
    serde_json::from_slice(&std::fs::read(folder.join("calibration.json")).unwrap()).unwrap()
}

#[test]
fn a_calibration_leaves_rules_curves_and_plots() {
    let folder = tempfile::tempdir().unwrap();
    let printed = json(arguments(
        folder.path(),
        "span-1,sites",
        &[
            "--frontier",
            "--windows",
            "1",
            "--against",
            "latte",
            "--against-steps",
            "9,3",
            "--judge-clips",
            "1",
        ],
    ));
    let calibration = record(folder.path());
    assert_eq!(printed["format"], calibration.format);
    // 18 attentions and 12 feed-forwards, from the second of 6 steps.
    assert_eq!(calibration.drift.len(), 30);
    for site in &calibration.drift {
        assert_eq!(site.steps.len(), 5, "{}", site.site);
        for change in &site.steps {
            assert!(
                change.mse > 0.0 && change.relative_l2 > 0.0 && change.cosine < 1.0,
                "{}: {change:?}",
                site.site
            );
        }
    }
    let csv = std::fs::read_to_string(folder.path().join("drift.csv")).unwrap();
    assert_eq!(csv.lines().count(), 1 + 30 * 5);
    // A span and four kinds.
    assert_eq!(calibration.measured.len(), 5);
    assert!(calibration.measured.iter().any(|cell| cell.mse > 0.0));
    assert_eq!(calibration.chosen, None);
    for point in &calibration.frontier {
        assert!(
            point.time.unwrap() > 0.0
                && point.dissimilarity.unwrap() > 0.0
                && point.worst_dissimilarity == point.dissimilarity
        );
    }
    let first = folder.path().join(&calibration.frontier[0].rules);
    let rules = Rules::load(&first).unwrap();
    let text = std::fs::read_to_string(first).unwrap();
    assert!(text.contains("# Run on these clips: "), "{text}");
    assert!(rules.rules.iter().all(|rule| matches!(
        rule.strategy(),
        Some(Strategy::ResidualForecast { .. } | Strategy::Reuse)
    )));
    let judged = &calibration.judged[0];
    let [.., latte, fewer] = &judged.rules[..] else {
        panic!("{judged:?}")
    };
    // More steps than the run has are nothing to compare with.
    assert_eq!(judged.rules.len(), calibration.frontier.len() + 2);
    assert_eq!(
        (latte.rules.as_str(), latte.fitted, latte.sha256.len()),
        ("latte", false, 64)
    );
    assert_eq!((fewer.fewer_steps, fewer.clips.len()), (Some(3), 1));
    assert!(fewer.mse > 0.0 && fewer.speed_up > 0.0, "{fewer:?}");
    assert!(
        judged
            .rules
            .iter()
            .all(|rules| rules.speed_up > 0.0 && rules.quality.is_some())
    );
    for plot in ["drift", "drift-mse", "drift-blocks", "frontier", "frontier-psnr"] {
        let svg = std::fs::read_to_string(folder.path().join(plot).with_extension("svg")).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{plot}");
        image::open(folder.path().join(plot).with_extension("png")).unwrap();
    }
    let left = std::fs::read_dir(folder.path()).unwrap();
    let hidden = left.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with('.'));
    assert_eq!(hidden.count(), 0, "temporary files stay");
}

/// Fitted to two runs, in ranges that hold for both.
#[test]
fn an_interrupted_calibration_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let write = |calibration: &Calibration| {
        let text = serde_json::to_vec(calibration).unwrap();
        std::fs::write(folder.path().join("calibration.json"), text).unwrap();
    };
    succeed(small(
        folder.path(),
        &["--frontier", "--also-steps", "4", "--judge-clips", "0"],
    ));
    let whole = record(folder.path());
    assert_eq!((whole.chosen, whole.judged.len()), (None, 0));
    assert_eq!((whole.run.steps, whole.also.len(), whole.also[0].steps), (8, 1, 4));
    // A span in two windows of two runs. At 4 steps, which are 250 apart, nothing is in reach.
    let steps: Vec<(usize, bool)> = whole.measured.iter().map(|cell| (cell.run, cell.steps > 0)).collect();
    assert_eq!(steps, [(0, true), (1, false), (0, true), (1, false)]);

    // As an interrupt leaves it; what is there is not measured again, which numbers show that no clip gives. So small a model
    // may save no time, which the first number makes good.
    let mut part = whole.clone();
    part.measured.truncate(2);
    part.measured[0].step_time = 0.01;
    part.measured[1].mse = 0.125;
    part.frontier.clear();
    write(&part);
    // Clips are latents: any error is allowed, and there is no SSIM.
    let resumed = [
        "--resume",
        "--min-psnr=-90",
        "--each-clip",
        "--also-steps",
        "4",
        "--judge-clips",
        "1",
    ];
    succeed(small(folder.path(), &resumed));
    let again = record(folder.path());
    assert_eq!(again.measured.len(), whole.measured.len());
    assert_eq!(again.measured[1].mse, 0.125);
    // Reading what was written may change the last bit.
    let close = |one: f64, other: f64| (one - other).abs() <= 1e-12 * one.abs();
    for (place, (one, other)) in whole.measured.iter().zip(&again.measured).enumerate().skip(2) {
        assert_eq!((&one.form, one.window), (&other.form, other.window), "cell {place}");
        assert!(close(one.mse, other.mse), "cell {place}: {} and {}", one.mse, other.mse);
    }
    for (one, other) in whole.drift.iter().zip(&again.drift) {
        assert!(
            one.site == other.site && close(one.steps[6].mse, other.steps[6].mse),
            "{}",
            one.site
        );
    }
    let chosen = &again.frontier[again.chosen.unwrap()];
    assert_eq!(chosen.runs.len(), 2);
    assert_eq!((chosen.runs[1].mse, chosen.mse), (0.0, Some(chosen.runs[0].mse)));
    assert_eq!((chosen.worst_mse, chosen.dissimilarity), (chosen.mse, None));
    let text = std::fs::read_to_string(folder.path().join("rules.yaml")).unwrap();
    // Steps are 125 apart; half a step less than 2 of them.
    assert!(
        text.contains("{ range: { timesteps: 188 }, window: { fraction: [0."),
        "{text}"
    );
    assert!(
        text.contains("8 steps by DDIMScheduler and of 4 steps by DDIMScheduler"),
        "{text}"
    );
    let judged: Vec<(usize, usize)> = again
        .judged
        .iter()
        .map(|judged| (judged.run.steps, judged.rules.len()))
        .collect();
    assert_eq!(judged, [(8, again.frontier.len()), (4, again.frontier.len())]);

    // Points that were run are taken over, and the clips that were judged by the same rules; others are judged.
    let mut part = again.clone();
    part.frontier[0].time = Some(0.375);
    part.judged[0].rules[0].clips[0].mse = 0.25;
    part.judged.truncate(1);
    write(&part);
    succeed(small(folder.path(), &resumed));
    let last = record(folder.path());
    assert_eq!(last.frontier.len(), again.frontier.len());
    assert_eq!(last.frontier[0].time, Some(0.375));
    assert_eq!(last.judged[0].rules[0].clips[0].mse, 0.25);
    assert_eq!((last.judged.len(), last.judged[1].rules[0].clips.len()), (2, 1));
    let other = [&resumed[..], &["--seed", "7"]].concat();
    let message = fail(2, small(folder.path(), &other));
    assert!(message.contains("--seed") && message.contains("--resume"), "{message}");
}

#[test]
fn numbers_of_which_nothing_comes_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (options, word) in [
        (&["--min-ssim", "1.5"][..], "--min-ssim"),
        (&["--max-time", "0"], "--max-time"),
        (&["--ranges", "1"], "--ranges"),
        (&["--against-steps", "0"], "--against-steps"),
    ] {
        let message = fail(2, arguments(folder.path(), "span", options));
        assert!(message.contains(word), "{message}");
    }
    let message = fail(2, arguments(folder.path(), "spam", &[]));
    assert!(message.contains("span-1"), "{message}");
}
