//! Adaptive rules: what the model decides, recomputed on the host from the indicators that it puts out.

use crate::equality::{Patched, inputs, open, patch_as, patch_with, same, step};
use crate::program::{root, shipped_model};
use crate::wide::load;
use pab_patch::attention::Sites;
use pab_patch::axes::{Axes, InputLabels};
use pab_patch::rewrite::{CacheRole, RewriteError, Wide, variants};
use pab_patch::rules::Rules;
use pab_patch::runtime::{Denoiser, Tensor};
use pab_patch::schedule::Schedule;
use std::path::{Path, PathBuf};

/// Inputs by seed: where a seed comes again, nothing has drifted.
const SEEDS: [u64; 14] = [1, 1, 2, 2, 2, 3, 3, 1, 2, 3, 3, 3, 3, 4];
/// Allows three broadcasts behind every fourth step.
const RANGE: usize = 4;

fn models() -> Vec<PathBuf> {
    let corpus = root().join("tests/data/corpus");
    let names = [
        "latte.ts17.static.onnx",
        "latte.dyn18.dynamic.onnx",
        "latte_fp16.ts17.static.onnx",
    ];
    let mut models = vec![shipped_model()];
    models.extend(names.map(|name| corpus.join(name)));
    models
}

/// Rules for sites and for a span, with what decides put in.
fn rules(adaptive: &str) -> [String; 2] {
    let rule = |rest: &str| format!("version: 1\nrules:\n  - name: all\n    {rest}\n");
    [
        rule(&format!(
            "match: {{ kind: [spatial, temporal, cross, mlp] }}\n    broadcast: {{ range: {RANGE}{adaptive} }}"
        )),
        rule(&format!(
            "match: {{ blocks: 1.. }}\n    residual: {{ range: {RANGE}{adaptive} }}"
        )),
    ]
}

fn adaptive(threshold: f64, rescale: &str) -> String {
    format!(", adaptive: {{ threshold: {threshold}{rescale} }}")
}

fn allowed(step: usize) -> bool {
    !step.is_multiple_of(RANGE)
}

fn schedule() -> Schedule {
    let flags: Vec<Vec<bool>> = (0..SEEDS.len()).map(|step| vec![allowed(step)]).collect();
    Schedule::from_flags(1, &flags)
}

/// What a loop gave: outputs, what was broadcast, the indicators.
struct Loop {
    outputs: Vec<Vec<(String, Tensor)>>,
    broadcast: Vec<bool>,
    indicators: Vec<Option<Vec<f32>>>,
}

/// A loop over the seeds; `flags` says what each step allows.
fn run(denoiser: &mut Denoiser, flags: impl Fn(usize) -> bool) -> Loop {
    let mut run = Loop {
        outputs: Vec::new(),
        broadcast: Vec::new(),
        indicators: Vec::new(),
    };
    for (place, seed) in SEEDS.iter().enumerate() {
        let inputs = inputs(denoiser.session(), *seed);
        run.outputs.push(step(denoiser, &inputs, &[flags(place)]));
        run.broadcast.push(denoiser.broadcast()[0]);
        let held = denoiser.caches().unwrap();
        let indicator = held.into_iter().find(|(name, _)| name == "pab.cache.indicator.all");
        let values = indicator.map(|(_, tensor)| tensor.into_f32().into_iter().collect());
        run.indicators.push(values);
    }
    run
}

/// The relative change of the indicator at each step from the second on.
fn changes(indicators: &[Option<Vec<f32>>]) -> Vec<f64> {
    let pairs = indicators.iter().flatten().zip(indicators.iter().flatten().skip(1));
    let change = |(before, now): (&Vec<f32>, &Vec<f32>)| {
        let size: f64 = before.iter().map(|value| f64::from(value.abs())).sum();
        let pairs = before.iter().zip(now);
        pairs.map(|(before, now)| f64::from((now - before).abs())).sum::<f64>() / size
    };
    pairs.map(change).collect()
}

/// What a host would decide.
fn decided(changes: &[f64], threshold: f64, rescale: impl Fn(f64) -> f64) -> Vec<bool> {
    let mut drift = 0.0;
    let mut broadcast = vec![false];
    for (place, change) in changes.iter().enumerate() {
        drift += rescale(*change).max(0.0);
        let below = allowed(place + 1) && drift < threshold;
        drift = if below { drift } else { 0.0 };
        broadcast.push(below);
    }
    broadcast
}

fn expect_same(one: &Loop, other: &Loop, what: &str) {
    for (step, (one, other)) in one.outputs.iter().zip(&other.outputs).enumerate() {
        same(one, other, &format!("{what}, step {step}"));
    }
}

/// By model and rules, with nothing decided: the fixed form.
fn each(check: impl Fn(&Path, usize, &Patched, &str)) {
    for model in models() {
        for (which, fixed) in rules("").iter().enumerate() {
            let what = format!("{} by rules {which}", model.display());
            check(&model, which, &patch_with(&model, fixed), &what);
        }
    }
}

#[test]
fn the_threshold_runs_from_nothing_to_the_whole_schedule() {
    each(|model, which, fixed, what| {
        let never = patch_with(model, &rules(&adaptive(0.0, ""))[which]);
        let found = run(&mut never.open(), allowed);
        assert_eq!(found.broadcast, [false; SEEDS.len()], "{what}");
        let mut original = Denoiser::plain(open(model));
        for (seed, outputs) in SEEDS.iter().zip(&found.outputs) {
            let inputs = inputs(original.session(), *seed);
            same(&step(&mut original, &inputs, &[]), outputs, what);
        }
        let always = patch_with(model, &rules(&adaptive(1e30, ""))[which]);
        let found = run(&mut always.open(), allowed);
        let steps: Vec<bool> = (0..SEEDS.len()).map(allowed).collect();
        assert_eq!(found.broadcast, steps, "{what}");
        expect_same(&found, &run(&mut fixed.open(), allowed), what);
    });
}

#[test]
fn in_between_the_drift_decides_as_a_host_would() {
    each(|model, which, fixed, what| {
        let never = patch_with(model, &rules(&adaptive(0.0, ""))[which]);
        let changes = changes(&run(&mut never.open(), allowed).indicators);
        assert_eq!(changes.len(), SEEDS.len() - 1, "{what}: an indicator for each step");
        for (place, change) in changes.iter().enumerate() {
            let repeated = SEEDS[place] == SEEDS[place + 1];
            // The indicator of a first site is not what other sites broadcast.
            assert_eq!(
                *change == 0.0,
                repeated,
                "{what}: step {} changes by {change}",
                place + 1
            );
        }
        let largest = changes.iter().copied().fold(0.0, f64::max);
        let thresholds = [
            (largest * 1.25, ", rescale: [0.5, 0.01]", (0.5, 0.01)),
            (largest * 1.25, "", (1.0, 0.0)),
            (largest / 1e3, "", (1.0, 0.0)),
            (largest / 1e3, ", rescale: [0.5, -100]", (0.5, -100.0)),
        ];
        // The whole model takes long; every form that a threshold has, the small ones of the same structure go through.
        let count = if *model == shipped_model() { 1 } else { thresholds.len() };
        for (threshold, rescale, polynomial) in thresholds.into_iter().take(count) {
            let expected = decided(&changes, threshold, |change| polynomial.0 * change + polynomial.1);
            let patched = patch_with(model, &rules(&adaptive(threshold, rescale))[which]);
            let found = run(&mut patched.open(), allowed);
            assert_eq!(found.broadcast, expected, "{what}, threshold {threshold}{rescale}");
            expect_same(&found, &run(&mut fixed.open(), |step| expected[step]), what);
            // Where only what may be needed is held, nothing else comes of it.
            let mut denoiser = patched.open();
            denoiser.begin(&schedule()).unwrap();
            let bounded = run(&mut denoiser, allowed);
            assert_eq!(bounded.broadcast, expected, "{what}, bounded");
            expect_same(&bounded, &found, what);
            assert_eq!(denoiser.host_copies(), 0, "{what}");
        }
        let some = decided(&changes, largest / 1e3, |change| change);
        assert!(some.contains(&true) && (1..SEEDS.len()).any(|step| allowed(step) && !some[step]));
    });
}

#[test]
fn the_step_drives_and_narrowed_caches_change_no_decision() {
    let model = &models()[1];
    for rules in rules(&adaptive(0.5, "")) {
        let by_flags = patch_with(model, &rules);
        let found = run(&mut by_flags.open(), allowed);
        let steps = SEEDS.len().to_string();
        let by_step = patch_as(model, &rules, &["--drive", "step", "--steps", &steps]);
        let stepped = run(&mut by_step.open(), allowed);
        assert_eq!(stepped.broadcast, found.broadcast);
        expect_same(&stepped, &found, "driven by the step");
        let narrowed = patch_as(model, &rules, &["--cache-dtype", "bf16"]);
        assert_eq!(run(&mut narrowed.open(), allowed).broadcast, found.broadcast);
    }
}

#[test]
fn the_indicator_is_what_the_first_site_projects() {
    for path in &models()[1..] {
        let model = load(path);
        let axes = Axes::analyse(&model, &InputLabels::default()).unwrap();
        let sites = Sites::find(&model, &axes).unwrap();
        let place = sites.sites.iter().position(|site| site.name == "spatial.0").unwrap();
        let indicator = sites.indicator(&model.graph, &axes, place).unwrap();
        assert!(
            !sites.sites[place].streams.contains(&indicator.value),
            "{}",
            path.display()
        );
        let readers = model.graph.value(indicator.value).uses().iter();
        let projections = readers
            .filter(|usage| model.graph.node(usage.node).is("MatMul"))
            .count();
        assert_eq!(projections, 3, "{}: queries, keys and values", path.display());
        let plan = patch_with(path, &rules(&adaptive(0.1, ""))[0]).plan;
        let kept: Vec<_> = plan
            .caches()
            .filter(|(_, cache)| cache.role == CacheRole::Indicator)
            .collect();
        assert!(
            matches!(kept[..], [(site, _)] if site.name == plan.sites[0].name),
            "{}",
            path.display()
        );
    }
}

#[test]
fn static_graphs_and_guidance_are_refused() {
    let path = &models()[2];
    let patched = patch_with(path, &rules(&adaptive(0.1, ""))[0]);
    let model = load(&patched.path);
    let steps: Vec<f64> = (0..SEEDS.len()).map(|step| step as f64).collect();
    let schedule = pab_patch::rewrite::SchedulePlan::new(&patched.plan, &steps);
    let error = variants(&model, &patched.plan, &schedule).unwrap_err();
    assert!(
        matches!(&error, RewriteError::Undecided { rule } if rule == "all"),
        "{error}"
    );
    let both = format!(
        "{}  - {{ name: cfg, guidance: {{ range: 2 }} }}\n",
        rules(&adaptive(0.1, ""))[1]
    );
    let model = load(path);
    let axes = Axes::analyse(&model, &InputLabels::default()).unwrap();
    let sites = Sites::find(&model, &axes).unwrap();
    let error = Wide::select(&model, &axes, &sites, &Rules::parse("rules", &both).unwrap()).unwrap_err();
    assert!(matches!(&error, RewriteError::AdaptiveBeside { .. }), "{error}");
}
