//! Forecasts: what a loop through ONNX Runtime predicts is what the recorded values say.

use crate::equality::{Patched, inputs, open, open_unfused, patch_as, same, step};
use crate::program::{json, root, shipped_model};
use ndarray::ArrayD;
use pab_patch::attention::{Cut, Kind, Part, Site};
use pab_patch::axes::Size;
use pab_patch::graph::ModelGraph;
use pab_patch::onnx::messages::{
    DataType, Dimension, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto,
    TensorType, TypeProto, ValueInfoProto,
};
use pab_patch::onnx::{Model, SaveOptions};
use pab_patch::rewrite::{Choice, SwitchOptions, switch};
use pab_patch::rules::Rules;
use pab_patch::runtime::{self, Denoiser, ElementType, Feedback, Options, Provider, Session, Tensor};
use pab_patch::schedule::Schedule;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Sites of every kind, forecast by one rule.
fn rules(strategy: &str) -> String {
    format!(
        "version: 1
rules:
  - name: all
    match: {{ kind: [spatial, temporal, cross, joint, mlp], blocks: 0 }}
    {strategy}
"
    )
}

fn forecast(order: usize) -> String {
    rules(&format!("forecast: {{ order: {order}, range: 3 }}"))
}

/// All blocks but the first as a span, by one rule.
fn span(strategy: &str) -> String {
    format!(
        "{{ version: 1, rules: [{{ name: all, match: {{ blocks: '1..' }}, residual: {{ {strategy} range: 3 }} }}] }}"
    )
}

/// Exports with static and open sizes, in float32 and float16, with one exit and with several.
fn exports() -> [PathBuf; 5] {
    [
        "latte.ts17.static.onnx",
        "latte.dyn18.dynamic.onnx",
        "latte_fp16.ts17.static.onnx",
        "flux/flux.dyn23.dynamic.onnx",
        "sd3/sd3.ts17.static.onnx",
    ]
    .map(|name| root().join("tests/data/corpus").join(name))
}

#[test]
fn nothing_broadcast_equals_the_original() {
    for model in exports() {
        for (order, options) in [(1, vec![]), (2, vec![]), (2, vec!["--cache-dtype", "bf16"])] {
            for rules in [forecast(order), span(&format!("order: {order},"))] {
                let patched = patch_as(&model, &rules, &options);
                // Around spans of other models ONNX Runtime fuses what then stands on both sides of a border.
                let is_latte = model.to_string_lossy().contains("latte");
                let open = if is_latte { open } else { open_unfused };
                let mut original = Denoiser::plain(open(&model));
                let mut switched = patched.opened_by(open);
                for seed in 1..=3 {
                    let inputs = inputs(original.session(), seed);
                    let expected = step(&mut original, &inputs, &[]);
                    let found = step(&mut switched, &inputs, &[false]);
                    same(&expected, &found, &format!("{}, {rules}", model.display()));
                }
            }
        }
    }
}

/// One cache as this test computes it.
#[derive(Clone)]
struct Recorded {
    element_type: ElementType,
    /// The value and its differences.
    held: Vec<ArrayD<f32>>,
}

impl Recorded {
    fn rounded(&self, array: ArrayD<f32>) -> ArrayD<f32> {
        Tensor::from_array(array).cast(self.element_type).into_f32()
    }

    /// A computed value, `ahead` steps after the one before it, of which there were `count`.
    fn computed(&mut self, value: ArrayD<f32>, ahead: f32, count: usize) {
        let mut new = self.rounded(value);
        for order in 0..self.held.len() {
            let old = std::mem::replace(&mut self.held[order], new.clone());
            new = if count > order {
                self.rounded((&new - &old) / ahead)
            } else {
                ArrayD::zeros(new.raw_dim())
            };
        }
    }

    /// The value `ahead` steps after the last computed one.
    fn predicted(&self, ahead: f32) -> ArrayD<f32> {
        let mut predicted = self.held[0].clone();
        let factors = [ahead, ahead * ahead / 2.0];
        for (difference, factor) in self.held[1..].iter().zip(factors) {
            predicted = predicted + difference * factor;
        }
        predicted
    }
}

#[track_caller]
fn close(one: &ArrayD<f32>, other: &ArrayD<f32>, what: &str) {
    assert_eq!(one.shape(), other.shape(), "{what}");
    let largest = one.iter().fold(1.0_f32, |largest, value| largest.max(value.abs()));
    let differences = one.iter().zip(other).map(|(one, other)| (one - other).abs());
    let difference = differences.fold(0.0, f32::max);
    assert!(difference <= 1e-6 * largest, "{what}: {difference} of {largest}");
}

/// The names of the value caches, without their differences.
fn values(patched: &Patched) -> Vec<String> {
    let caches = patched.plan.caches().map(|(_, cache)| cache.input.clone());
    caches
        .filter(|name| !name.ends_with(".d1") && !name.ends_with(".d2"))
        .collect()
}

/// Drives a forecast through a loop, and beside it the static graph that reuses caches, which is fed with the predictions
/// that this test makes from the recorded values.
fn check_loop(model: &Path, [forecast, reuse]: [&str; 2], order: usize, options: &[&str]) {
    let what = format!("{}, {forecast}, {options:?}", model.display());
    let open = if crate::rounded::is_half(model) {
        open
    } else {
        open_unfused
    };
    let patched = patch_as(model, forecast, options);
    let reusing = patch_as(model, reuse, &[]);
    let mut switched = patched.opened_by(open);
    let mut broadcast = reusing.variant(&[true], open);
    let values = values(&patched);
    assert_eq!(values.len(), reusing.plan.caches().count(), "{what}");
    let element_types: BTreeMap<String, ElementType> = broadcast
        .session()
        .inputs()
        .iter()
        .filter_map(|port| Some((port.name.clone(), port.element_type?)))
        .collect();
    let mut recorded: BTreeMap<String, Recorded> = BTreeMap::new();
    let (mut ahead, mut count) = (0.0, 0);
    for (number, character) in "cbccbbcbbbcb".chars().enumerate() {
        ahead += 1.0;
        let own = inputs(switched.session(), number as u64);
        let flag = character == 'b';
        let found = step(&mut switched, &own, &[flag]);
        let caches: BTreeMap<String, Tensor> = switched.caches().unwrap().into_iter().collect();
        if flag {
            let predicted = values.iter().map(|name| {
                let predicted = Tensor::from_array(recorded[name].predicted(ahead));
                (name.clone(), predicted.cast(element_types[name]))
            });
            let given: Vec<(String, Tensor)> = own.iter().cloned().chain(predicted).collect();
            let expected = step(&mut broadcast, &given, &[]);
            for ((name, expected), (_, found)) in expected.into_iter().zip(found) {
                close(
                    &expected.into_f32(),
                    &found.into_f32(),
                    &format!("{what}, step {number}, {name}"),
                );
            }
        } else {
            for name in &values {
                let value = caches[name].clone();
                let held = vec![ArrayD::zeros(value.shape()); order + 1];
                let element_type = value.element_type();
                let entry = recorded.entry(name.clone()).or_insert(Recorded { element_type, held });
                entry.computed(value.into_f32(), ahead, count);
            }
            ahead = 0.0;
            count += 1;
        }
        for (name, recorded) in &recorded {
            for (order, expected) in recorded.held.iter().enumerate().skip(1) {
                let found = caches[&format!("{name}.d{order}")].clone().into_f32();
                close(
                    expected,
                    &found,
                    &format!("{what}, step {number}, difference {order} of {name}"),
                );
            }
        }
    }
}

#[test]
fn a_loop_predicts_what_the_recorded_values_say() {
    let reuse = rules("broadcast: { range: 2 }");
    for model in exports() {
        for order in [1, 2] {
            check_loop(&model, [&forecast(order), &reuse], order, &[]);
        }
        check_loop(&model, [&forecast(2), &reuse], 2, &["--cache-dtype", "bf16"]);
    }
}

#[test]
fn a_loop_predicts_what_spans_added() {
    for model in exports() {
        for order in [1, 2] {
            let forecast = span(&format!("order: {order},"));
            check_loop(&model, [&forecast, &span("")], order, &[]);
        }
        check_loop(&model, [&span("order: 2,"), &span("")], 2, &["--cache-dtype", "bf16"]);
    }
}

fn info(name: &str, element_type: DataType, sizes: &[&str]) -> ValueInfoProto {
    let dim = sizes.iter().map(|size| match size.parse() {
        Ok(number) => Dimension {
            dim_value: Some(number),
            ..Dimension::default()
        },
        Err(_) => Dimension {
            dim_param: Some((*size).to_owned()),
            ..Dimension::default()
        },
    });
    let tensor_type = Some(TensorType {
        elem_type: Some(element_type as i32),
        shape: Some(TensorShapeProto { dim: dim.collect() }),
    });
    ValueInfoProto {
        name: Some(name.to_owned()),
        r#type: Some(TypeProto {
            tensor_type,
            ..TypeProto::default()
        }),
        ..ValueInfoProto::default()
    }
}

/// `out = 2 * sample`, where the product is the module.
fn doubling() -> ModelGraph {
    let node = |operator: &str, inputs: &[&str], output: &str| NodeProto {
        op_type: Some(operator.to_owned()),
        input: inputs.iter().map(|name| (*name).to_owned()).collect(),
        output: vec![output.to_owned()],
        ..NodeProto::default()
    };
    let graph = GraphProto {
        name: Some("doubling".to_owned()),
        input: vec![info("sample", DataType::Float, &["batch", "3"])],
        output: vec![info("out", DataType::Float, &["batch", "3"])],
        initializer: vec![TensorProto {
            name: Some("two".to_owned()),
            data_type: Some(DataType::Float as i32),
            float_data: vec![2.0],
            ..TensorProto::default()
        }],
        node: vec![
            node("Mul", &["sample", "two"], "module"),
            node("Identity", &["module"], "out"),
        ],
        ..GraphProto::default()
    };
    let model = ModelProto {
        ir_version: Some(8),
        opset_import: vec![OperatorSetIdProto {
            domain: Some(String::new()),
            version: Some(17),
        }],
        graph: Some(graph),
        ..ModelProto::default()
    };
    ModelGraph::new(Model::from_proto(model)).unwrap()
}

/// The doubling model with its module forecast.
fn forecast_doubling(order: usize) -> Denoiser {
    runtime::ensure().unwrap();
    let model = doubling();
    let value = model.graph.find("module").unwrap();
    let site = Site {
        name: "mlp.0".to_owned(),
        module: None,
        kind: Kind::Mlp,
        block: 0,
        output: Cut {
            value,
            element_type: DataType::Float,
            shape: vec![Size::symbol("batch"), Size::number(3)],
            part: Part::Whole,
        }
        .into(),
        gated: None,
        core: Vec::new(),
        heads: None,
        streams: Vec::new(),
        additions: Vec::new(),
    };
    let choices = [Choice {
        site: &site,
        rule: 0,
        cuts: &site.output,
    }];
    let rules = Rules::parse("test.yaml", &forecast(order)).unwrap();
    let patched = switch(model, &choices, &rules, &SwitchOptions::default()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("doubling.onnx");
    let feedback = Feedback::try_from(&patched.plan).unwrap();
    patched
        .model
        .into_model()
        .unwrap()
        .save(&path, &SaveOptions::default())
        .unwrap();
    let options = Options {
        threads: Some(crate::program::THREADS),
        provider: Provider::Cpu,
        ..Options::default()
    };
    Denoiser::patched(Session::open(&path, &options).unwrap(), feedback).unwrap()
}

/// What the model gives in a loop through `samples`, broadcasting where the pattern has a `b`.
fn driven(denoiser: &mut Denoiser, pattern: &str, sample: impl Fn(f32) -> f32) -> Vec<f32> {
    let steps = pattern.chars().enumerate().map(|(number, character)| {
        let sample = Tensor::new(&[2, 3], vec![sample(number as f32); 6]).unwrap();
        let outputs = denoiser.step(&[("sample", &sample)], &[character == 'b']).unwrap();
        let (_, out) = outputs.into_iter().next().unwrap();
        out.as_slice::<f32>().unwrap()[0]
    });
    steps.collect()
}

#[test]
fn a_value_that_changes_linearly_is_forecast_exactly() {
    for order in [1, 2] {
        let mut denoiser = forecast_doubling(order);
        // Computed steps at several distances; the sample of a broadcast step is not looked at.
        let pattern = "ccbcbbbccbbcb";
        for _ in 0..2 {
            let line = |step: f32| 3.0 - 4.0 * step;
            let given = driven(&mut denoiser, pattern, |step| {
                let broadcast = pattern.as_bytes()[step as usize] == b'b';
                if broadcast { f32::NAN } else { line(step) }
            });
            let expected: Vec<f32> = (0..pattern.len()).map(|step| 2.0 * line(step as f32)).collect();
            assert_eq!(given, expected, "order {order}");
            denoiser.reset().unwrap();
        }
    }
}

#[test]
fn a_forecast_begins_with_what_there_is() {
    let mut denoiser = forecast_doubling(2);
    // One computed step: its value. Two: along the line. Three: along the parabola.
    let squares = |step: f32| step * step + 1.0;
    let given = driven(&mut denoiser, "cbcbcb", squares);
    // f = 2, 10, 34 at steps 0, 2, 4; d1 = 0, 4, 12; d2 = 0, 0, 4.
    assert_eq!(given, [2.0, 2.0, 10.0, 14.0, 34.0, 34.0 + 12.0 + 2.0]);
    // What is not a number in a cache of the clip before does no harm.
    driven(&mut denoiser, "cc", |_| f32::NAN);
    denoiser.reset().unwrap();
    assert_eq!(driven(&mut denoiser, "cbcbcb", squares), given);
}

#[test]
fn forecasts_hold_memory_in_the_window_alone_and_give_the_same() {
    let flags = |pattern: &str| pattern.chars().map(|flag| vec![flag == 'b']).collect::<Vec<_>>();
    for order in [1, 2] {
        for pattern in ["ccccccbbcbcccc", "cbcccccbccccb", "cccbbbcccccbc"] {
            let mut denoiser = forecast_doubling(order);
            let sample = |step: f32| (step * 1.7).sin();
            let all = driven(&mut denoiser, pattern, sample);
            denoiser.begin(&Schedule::from_flags(1, &flags(pattern))).unwrap();
            let mut held = Vec::new();
            let some: Vec<f32> = pattern
                .char_indices()
                .map(|(step, flag)| {
                    let sample = Tensor::new(&[2, 3], vec![sample(step as f32); 6]).unwrap();
                    let outputs = denoiser.step(&[("sample", &sample)], &[flag == 'b']).unwrap();
                    held.push(denoiser.held_bytes());
                    outputs[0].1.as_slice::<f32>().unwrap()[0]
                })
                .collect();
            assert_eq!(all, some, "{pattern}, order {order}");
            let last = pattern.rfind('b').unwrap();
            assert!(held[last..].iter().all(|bytes| *bytes == 0), "{pattern}: {held:?}");
            let first = pattern.find('b').unwrap();
            let before = first.saturating_sub(order + 1);
            assert!(held[..before].iter().all(|bytes| *bytes == 0), "{pattern}: {held:?}");
            assert_eq!(held[first - 1], (order + 1) * 6 * 4, "{pattern}: {held:?}");
        }
    }
}

#[test]
fn the_commands_run_forecasts() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.yaml");
    let rules = "version: 1\nrules:\n  - { name: spatial, match: { kind: spatial }, forecast: { order: 2, range: 3 } }\n  \
                 - { name: rest, match: { kind: [temporal, cross] }, broadcast: { range: 2 } }\n";
    std::fs::write(&file, rules).unwrap();
    let path = |name: &str| folder.path().join(name);
    let model = shipped_model();
    let compared = json([
        "compare".as_ref(),
        model.as_os_str(),
        "--rules".as_ref(),
        file.as_os_str(),
        "--cache-dtype".as_ref(),
        "f16".as_ref(),
        "--rounds".as_ref(),
        "1".as_ref(),
        "--clips".as_ref(),
        "1".as_ref(),
        "--steps".as_ref(),
        "6".as_ref(),
        "-o".as_ref(),
        path("comparison").as_os_str(),
    ]);
    let caches = compared["caches"]["rules"].as_array().unwrap();
    assert_eq!(caches.len(), 2, "{caches:?}");
    let patched = PathBuf::from(compared["patched_file"].as_str().unwrap());
    let ran = json([
        "run".as_ref(),
        patched.as_os_str(),
        "--steps".as_ref(),
        "6".as_ref(),
        "-o".as_ref(),
        path("clip").as_os_str(),
    ]);
    assert_eq!(ran["broadcast"][0]["rule"], "spatial");
    let benched = json([
        "bench".as_ref(),
        model.as_os_str(),
        "--rules".as_ref(),
        file.as_os_str(),
        "--rounds".as_ref(),
        "1".as_ref(),
        "--size".as_ref(),
        "text=4".as_ref(),
    ]);
    assert!(benched["removed"]["median"].as_f64().is_some(), "{benched}");
}
