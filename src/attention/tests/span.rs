//! Spans in the exports of the corpus.

use super::*;
use crate::graph::ValueId;
use std::fmt::Write;

/// Files with the layers of their sites, and for each span of blocks its streams or why it is none.
fn shown(file: &str) -> String {
    let found = find(file);
    let graph = &found.model.graph;
    let layers = found.sites.layers(graph);
    let count = layers.last().unwrap() + 1;
    let mut text = String::new();
    for (layer, site) in layers.iter().zip(&found.sites.sites) {
        writeln!(text, "{layer} {}", site.name).unwrap();
    }
    for first in 0..count {
        for last in first..count {
            match found.sites.span(&found.model, &found.axes, first..=last) {
                Ok(span) => {
                    writeln!(
                        text,
                        "{first}..={last}: {} nodes, {} sites",
                        span.nodes.len(),
                        span.sites.len()
                    )
                    .unwrap();
                    for stream in &span.streams {
                        let name = |value: &ValueId| graph.value(*value).name().to_owned();
                        let entry: Vec<_> = stream.entry.values().iter().map(name).collect();
                        let shape = found.axes.dimensions(stream.exit.value).map(display_shape).unwrap();
                        let exit = name(&stream.exit.value);
                        writeln!(text, "  {}: {} -> {exit} {shape}", stream.exit.part, entry.join(" + ")).unwrap();
                    }
                }
                Err(error) => writeln!(text, "{first}..={last}: {error}").unwrap(),
            }
        }
    }
    text
}

#[test]
fn spans_of_every_architecture() {
    for file in [
        "latte.ts17.dynamic.onnx",
        "latte.dyn23.static.onnx",
        "cogvideox/cogvideox.ts17.static.onnx",
        "dit/dit.ts17.static.onnx",
        "flux/flux.dyn23.dynamic.onnx",
        "flux/flux.ts17.static.onnx",
        "pixart/pixart.ts17.static.onnx",
        "sd3/sd3.ts17.static.onnx",
        "latte.dyn18.static.ortext.onnx",
        "hunyuandit/hunyuandit.ts17.static.onnx",
        "kandinsky5/kandinsky5.dyn23.static.onnx",
        "sana/sana.ts17.static.onnx",
    ] {
        insta::assert_snapshot!(file.replace(['/', '.'], "_"), shown(file));
    }
}
