//! `plan`: predictions for devices that are not here.

use crate::program::{fail, json, root, shipped_model, succeed};
use serde_json::Value;

/// Checks of a number in JSON.
fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[test]
fn a_model_is_planned_for_1_to_64_ranks() {
    let folder = tempfile::tempdir().unwrap();
    let (model, plot) = (shipped_model(), folder.path().join("plot.svg"));
    let plan = json([
        "plan".as_ref(),
        model.as_os_str(),
        "--rules".as_ref(),
        "latte".as_ref(),
        "--size".as_ref(),
        "text=4".as_ref(),
        "--link".as_ref(),
        "100GB/s".as_ref(),
        "--plot".as_ref(),
        plot.as_os_str(),
    ]);
    let rows = plan["rows"].as_array().unwrap();
    let ranks: Vec<f64> = rows.iter().map(|row| number(&row["ranks"])).collect();
    assert_eq!(ranks, [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0]);
    for row in rows {
        let (original, broadcast) = (&row["original"], &row["broadcast"]);
        assert!(number(&broadcast["clip"]) < number(&original["clip"]), "{row}");
        assert!(number(&broadcast["sent"]) <= number(&original["sent"]), "{row}");
        assert!(number(&broadcast["memory"]["caches"]) > 0.0, "{row}");
    }
    assert_eq!(number(&rows[0]["original"]["sent"]), 0.0);
    assert!(number(&rows[3]["original"]["sent"]) > 0.0);
    assert_eq!(number(&plan["link"]["bandwidth"]), 100e9);
    assert!(!plan["assumptions"].as_array().unwrap().is_empty());
    assert!(std::fs::read_to_string(plot).unwrap().starts_with("<svg"));
}

#[test]
fn ulysses_sends_twice_as_much_and_weights_need_not_be_there() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model.onnx");
    std::fs::copy(root().join("tests/data/corpus/osp10/osp10.dyn23.static.onnx"), &model).unwrap();
    let plan = |method: &str| {
        json([
            "plan".as_ref(),
            model.as_os_str(),
            "--axis".as_ref(),
            "frames".as_ref(),
            "--method".as_ref(),
            method.as_ref(),
        ])
    };
    let sent = |plan: &Value| number(&plan["rows"][1]["original"]["sent"]);
    assert_eq!(sent(&plan("ulysses")), 2.0 * sent(&plan("dsp")));
    let printed = succeed(["plan".as_ref(), model.as_os_str()]);
    assert!(printed.contains("Assumed") && printed.contains("keeps the scores"));
}

#[test]
fn what_cannot_be_planned_is_refused() {
    let model = shipped_model();
    let model = model.to_str().unwrap();
    for (arguments, said) in [
        (vec!["plan", model, "--device", "abacus"], "is no device"),
        (vec!["plan", model, "--link", "450"], "bytes a second"),
        (vec!["plan", model], "text"),
        (vec!["plan", model, "--size", "wings=2"], "open dimensions"),
    ] {
        let message = fail(2, &arguments);
        assert!(message.contains(said), "{arguments:?}: {message}");
    }
}
