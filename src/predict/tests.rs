//! Cases that can be computed by hand.

use super::*;
use crate::attention::{Kind, Sites};
use crate::axes::test_graph::{At, input, model, weight};
use crate::axes::{Axes, Bindings, InputLabels, Label};
use crate::onnx::messages::DataType;
use crate::rewrite::{SwitchOptions, select};
use crate::rules::Rules;
use std::path::Path;

/// 10 operations and 10 bytes a second, kernels without a minimum, scores in memory.
fn device() -> Device {
    Device {
        name: "slow".to_owned(),
        source: "made up".to_owned(),
        products: Rates { f32: 10.0, f16: 20.0 },
        product_efficiency: 0.5,
        bandwidth: 10.0,
        bandwidth_efficiency: 1.0,
        functions: Some(2.0),
        attention: None,
        kernel: 0.25,
        memory: 1e9,
    }
}

fn split(sequence: usize, axis: ShardedAxis, method: Method) -> Split {
    Split {
        guidance: 1,
        sequence,
        axis,
        method,
    }
}

#[test]
fn a_product_reads_its_weights_whole_and_its_tokens_in_part() {
    let latent = [
        At::Number(2),
        At::Number(4),
        At::Number(3),
        At::Number(6),
        At::Number(5),
    ];
    let graph = model(
        vec![input("x", &latent, DataType::Float)],
        vec![weight("w", &[5, 7])],
        &["MatMul x w -> y", "Reshape y y -> z"],
    );
    let labels = [
        Label::Batch,
        Label::Channels,
        Label::Frames,
        Label::Height,
        Label::Width,
    ];
    let labels = InputLabels {
        inputs: [("x".to_owned(), labels.to_vec())].into(),
    };
    let axes = Axes::analyse(&graph, &labels).unwrap();
    let works = Works::of(&graph, &axes, &Sites::default(), &Bindings::default(), true).unwrap();
    let product = &works.works[0];
    // 2·4·3·6 rows of 5 elements by 5 × 7 weights.
    assert_eq!(product.flops, 2.0 * 144.0 * 5.0 * 7.0);
    assert_eq!(product.weight_bytes, 4.0 * 35.0);
    assert_eq!(product.bytes, 4.0 * (144.0 * 5.0 + 144.0 * 7.0));
    assert_eq!((product.class, works.weight_bytes), (Class::Product, 140.0));
    assert_eq!(product.extents.frames, 3);
    // Three frames over two ranks: the larger part is two thirds.
    let share = split(2, ShardedAxis::Frames, Method::Dsp).share(product);
    assert!((share - 2.0 / 3.0).abs() < 1e-12);
    // 10080 operations at 5 a second take longer than 7052 bytes at 10.
    assert_eq!(device().seconds(product, 1.0), 0.25 + 10080.0 / 5.0);
}

#[test]
fn exchanges_follow_the_closed_formulas() {
    let extents = Extents {
        batch: 2,
        frames: 16,
        places: 64,
    };
    let dsp = split(4, ShardedAxis::Frames, Method::Dsp);
    let ulysses = split(4, ShardedAxis::Frames, Method::Ulysses);
    // Two and four times M/N · (N-1)/N with M = 1600 and N = 4.
    assert_eq!(
        dsp.exchange(Kind::Temporal, 1600.0, extents),
        Exchange {
            count: 2.0,
            bytes: 600.0
        }
    );
    assert_eq!(
        ulysses.exchange(Kind::Temporal, 1600.0, extents),
        Exchange {
            count: 4.0,
            bytes: 1200.0
        }
    );
    assert_eq!(
        dsp.exchange(Kind::Full, 1600.0, extents),
        Exchange {
            count: 4.0,
            bytes: 1200.0
        }
    );
    for kind in [Kind::Spatial, Kind::Cross, Kind::Text, Kind::Mlp] {
        assert_eq!(dsp.exchange(kind, 1600.0, extents), Exchange::default());
    }
    let halves = Split { guidance: 2, ..dsp };
    assert_eq!(halves.exchange(Kind::Temporal, 1600.0, extents).bytes, 300.0);
    assert_eq!(
        halves.guidance_exchange(80.0),
        Exchange {
            count: 1.0,
            bytes: 10.0
        }
    );
    assert_eq!(
        Split::NONE.exchange(Kind::Temporal, 1600.0, extents),
        Exchange::default()
    );
}

#[test]
fn a_link_is_slower_between_nodes() {
    let link = Link {
        bandwidth: 100.0,
        between: 10.0,
        efficiency: 0.5,
        latency: 1.0,
        node: 2,
    };
    // Within the node 50 bytes a second.
    assert_eq!(link.seconds(2.0, 100.0, 2, 1), 4.0);
    // Of three peers two are in the other node, at 5 bytes a second.
    assert_eq!(link.seconds(1.0, 30.0, 4, 1), 1.0 + 20.0 / 5.0);
    assert_eq!(link.seconds(1.0, 30.0, 1, 1), 0.0);
}

#[test]
fn short_attentions_fill_their_tiles() {
    let work = Work {
        nodes: Vec::new(),
        class: Class::Attention,
        flops: 60.0,
        weight_bytes: 0.0,
        bytes: 0.0,
        elements: 0.0,
        bits: 32,
        scores: Some((32.0, 64.0)),
        extents: Extents::NONE,
        core: None,
    };
    let device = Device {
        attention: Some(Attention {
            efficiency: 0.5,
            queries: 128.0,
            keys: 64.0,
        }),
        ..device()
    };
    assert_eq!(device.seconds(&work, 1.0), 0.25 + 4.0 * 60.0 / 5.0);
}

fn run_of(name: &str, flags: &[Vec<bool>]) -> Run {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/corpus")
        .join(name);
    let model = crate::graph::ModelGraph::new(crate::onnx::Model::load(&path).unwrap()).unwrap();
    let axes = Axes::analyse(&model, &InputLabels::default()).unwrap();
    let sites = Sites::find(&model, &axes).unwrap();
    let rules =
        "{ version: 1, rules: [{ name: all, match: { kind: [spatial, temporal, cross] }, broadcast: { range: 2 } }] }";
    let rules = Rules::parse("test.yaml", rules).unwrap();
    let choices = select(&sites, &rules, None).unwrap();
    let (bindings, options) = (Bindings::of([("batch", 2), ("text", 5)]), SwitchOptions::default());
    Run::new(
        &model, &axes, &sites, &bindings, &choices, &rules, &options, flags, true,
    )
    .unwrap()
}

#[test]
fn a_step_that_broadcasts_all_attention_sends_nothing() {
    let link = Link::new(1e9);
    let split = split(3, ShardedAxis::Frames, Method::Dsp);
    for name in [
        "latte.ts17.static.onnx",
        "latte.dyn23.static.onnx",
        "latte_eager.ts17.static.onnx",
    ] {
        let run = run_of(name, &[vec![false], vec![true]]);
        let forecast = run.predict(split, &device(), &link);
        // Two temporal attentions over [2, 3·2·2, 16] float32; in the second step none.
        let sent = 2.0 * 2.0 * (2.0 * 12.0 * 16.0 * 4.0) / 3.0 * 2.0 / 3.0;
        assert!(
            (forecast.broadcast.sent - sent).abs() < 1e-9,
            "{name}: {}",
            forecast.broadcast.sent
        );
        assert!((forecast.original.sent - 2.0 * sent).abs() < 1e-9);
        assert!(forecast.broadcast.clip < forecast.original.clip);
        assert_eq!(forecast.original.memory.caches, 0.0);
        // Six modules of [2, 12, 16] float32, a third of each.
        assert!((forecast.broadcast.memory.caches - 6.0 * 512.0).abs() < 1e-9);
    }
}

#[test]
fn exports_of_one_model_have_the_same_products() {
    let flops = |name: &str| {
        let run = run_of(name, &[vec![false]]);
        let works = run.works().works.iter();
        let counted = works.filter(|work| matches!(work.class, Class::Product | Class::Attention));
        counted.map(|work| work.flops).sum::<f64>()
    };
    let first = flops("latte.ts17.static.onnx");
    for name in [
        "latte.dyn23.static.onnx",
        "latte_eager.ts17.static.onnx",
        "latte.ts17.dynamic.onnx",
    ] {
        assert!(
            (flops(name) / first - 1.0).abs() < 0.01,
            "{name}: {} and {first}",
            flops(name)
        );
    }
}

#[test]
fn devices_are_found_by_name_or_file() {
    assert_eq!(Device::find("h100").unwrap().products.f16, 989.4e12);
    assert!(matches!(Device::find("h99"), Err(DeviceError::Unknown { .. })));
    assert!(matches!(Device::find("no.json"), Err(DeviceError::Read { .. })));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("device.json");
    for (kernel, right) in [(0.25, true), (-1.0, false)] {
        let device = Device { kernel, ..device() };
        std::fs::write(&path, serde_json::to_string(&device).unwrap()).unwrap();
        assert_eq!(Device::find(path.to_str().unwrap()).is_ok(), right);
    }
}
