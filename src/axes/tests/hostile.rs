//! Shapes and attributes that no exporter writes, from damaged or hostile files.

use super::super::test_graph::{At, input, integers, model, weight};
use super::super::*;
use super::{analysed, latent, shape, text};
use proptest::prelude::*;

#[test]
fn hostile_shapes_end_without_panic() {
    let most = i64::MAX;
    let model = model(
        vec![latent(), text()],
        vec![
            integers("huge", &[most, most, most]),
            integers("none", &[0, 0, 0]),
            integers("far", &[most, -most]),
            integers("few", &[7]),
        ],
        &[
            "Reshape latent huge -> a",
            "Expand words huge -> b",
            "Tile words huge -> c",
            "Reshape words none -> d",
            "Gather words far -> e axis=99",
            "Transpose words -> f perm=9,-1,0",
            "Squeeze words far -> g",
            "Unsqueeze words far -> h",
            "ConstantOfShape huge -> i",
            "Slice latent far far far far -> j",
            "Split words few -> k,l axis=1",
            "Conv latent words -> m strides=0,0,0",
            "MaxPool latent -> n strides=0,0,0 kernel_shape=0,0,0",
            "Einsum latent words -> o equation=abcde,...->a",
            "Pad latent huge -> p",
            "Mul huge huge -> q",
            "Mul q q -> r",
            "Reshape words r -> s",
            "Gemm latent words -> t",
            "Concat -> u axis=0",
            "Attention latent -> v",
            "Range huge -> w",
            "OneHot huge huge -> x",
        ],
    );
    let axes = analysed(&model);
    for (id, _) in model.graph.nodes() {
        axes.flops(
            &model,
            id,
            &Bindings {
                otherwise: Some(i64::MAX),
                ..Bindings::default()
            },
        );
    }
    assert!(!axes.opaque().is_empty());
}

#[test]
fn what_more_is_cut_from_than_it_has_is_empty() {
    let latent = input("latent", &[2, 4, 3, 8, 8].map(At::Number), DataType::Float);
    let model = model(
        vec![latent],
        vec![
            integers("five", &[5]),
            integers("two", &[2]),
            integers("last", &[4]),
            integers("cut", &[0, 0, 0, -5, -5, 0, 0, 0, -5, -5]),
            integers("high", &[9]),
            integers("low", &[3]),
            integers("one", &[1]),
            integers("spread", &[5, 7]),
            weight("large", &[16, 4, 9, 9, 9]),
        ],
        &[
            "Slice latent five two last -> empty",
            "Slice empty two five last -> again",
            "Slice latent five two last two -> strided",
            "Pad latent cut -> padded",
            "Slice padded two five last -> cropped",
            "Conv latent large -> windows",
            "Slice windows two five last -> window",
            "Range high low one -> counted",
            "Split latent spread -> left,right axis=4",
            "Slice right two five last -> rest",
        ],
    );
    let axes = analysed(&model);
    for (value, expected) in [
        ("empty", [2, 4, 3, 8, 0]),
        ("again", [2, 4, 3, 8, 0]),
        ("strided", [2, 4, 3, 8, 0]),
        ("padded", [2, 4, 3, 0, 0]),
        ("cropped", [2, 4, 3, 0, 0]),
        ("windows", [2, 16, 0, 0, 0]),
        ("window", [2, 16, 0, 0, 0]),
        ("rest", [2, 4, 3, 8, 3]),
    ] {
        let sizes = axes.sizes(model.graph.find(value).unwrap()).unwrap();
        assert_eq!(sizes, expected.map(Size::number), "{value}");
    }
    let counted = axes.sizes(model.graph.find("counted").unwrap()).unwrap();
    assert_eq!(counted, [Size::number(0)]);
}

#[test]
fn negative_declared_sizes_are_unknown() {
    let mut model = model(
        vec![input("latent", &[-1, 4, 3, -7, 8].map(At::Number), DataType::Float)],
        vec![integers("zero", &[0]), integers("two", &[2]), integers("last", &[3])],
        &["Slice latent zero two last -> part", "Mystery latent -> odd"],
    );
    let value = model.graph.find("odd").unwrap();
    let declared = input("odd", &[-3, 4].map(At::Number), DataType::Float);
    model.graph.add_output(value, declared);
    let axes = analysed(&model);
    assert_eq!(
        shape(&model, &axes, "latent"),
        "[batch, channels, frames, height, width]"
    );
    let part = axes.sizes(model.graph.find("part").unwrap()).unwrap();
    assert!(part.iter().all(|size| size.as_number().is_none_or(|size| size >= 0)));
    let odd = axes.sizes(value).unwrap();
    assert!(odd[0].has_unknown(), "{odd:?}");
    assert_eq!(odd[1], Size::number(4));
}

/// Operators with the inputs and attributes that break rules most easily: `@` stands for any value there is.
static ODD_NODES: &[&str] = &[
    "Slice @ # # # #",
    "Slice @ # # #",
    "Slice @ # #",
    "Pad @ #",
    "Split @ # axis=$",
    "Concat @ @ axis=$",
    "Reshape @ #",
    "Expand @ #",
    "Tile @ #",
    "Conv @ @ strides=$,$ pads=$,$,$,$",
    "Conv @ @ strides=$,$,$ dilations=$,$,$",
    "MaxPool @ kernel_shape=$,$ strides=$,$",
    "Transpose @ perm=$,$,$",
    "Transpose @",
    "MatMul @ @",
    "Gemm @ @ transB=$",
    "Add @ @",
    "Where @ @ @",
    "Gather @ # axis=$",
    "GatherElements @ @ axis=$",
    "Unsqueeze @ #",
    "Squeeze @ #",
    "Flatten @ axis=$",
    "ReduceMean @ # keepdims=$",
    "Shape @ start=$ end=$",
    "Range # # #",
    "OneHot # # # axis=$",
    "ConstantOfShape #",
    "Softmax @ axis=$",
    "Attention @ @ @",
    "com.microsoft:MultiHeadAttention @ @ @ num_heads=$",
    "com.microsoft:Attention @ @ qkv_hidden_sizes=$,$,$",
    "Mul # #",
    "Sub # #",
    "Div # #",
    "Einsum @ @ equation=abc,bcd->ad",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn random_graphs_with_odd_attributes_end_without_panic(
        picks in prop::collection::vec((0..ODD_NODES.len(), prop::collection::vec(0usize..1000, 12)), 1..16),
        sizes in prop::collection::vec(-2i64..6, 5),
        numbers in prop::collection::vec(prop::collection::vec(-9i64..9, 0..6), 6),
    ) {
        let dims: Vec<At> = sizes
            .iter()
            .map(|size| if *size == 5 { At::Name("batch") } else { At::Number(*size) })
            .collect();
        let mut lists: Vec<_> = numbers
            .iter()
            .enumerate()
            .map(|(index, values)| integers(&format!("n{index}"), values))
            .collect();
        lists.push(integers("far", &[i64::MAX, i64::MIN]));
        lists.push(integers("most", &[i64::MAX]));
        let mut constants: Vec<String> = lists.iter().map(|list| list.name.clone().unwrap()).collect();
        lists.push(weight("kernel", &[3, 4, 2, 2]));
        let mut values = vec!["latent".to_owned(), "words".to_owned(), "kernel".to_owned()];
        let mut lines = Vec::new();
        for (at, (pick, choices)) in picks.iter().enumerate() {
            let mut choices = choices.iter().cycle();
            let mut line = String::new();
            let (operator, attributes) = {
                let mut parts: Vec<&str> = ODD_NODES[*pick].split(' ').collect();
                let split = parts.iter().position(|part| part.contains('=')).unwrap_or(parts.len());
                let attributes = parts.split_off(split);
                (parts.join(" "), attributes.join(" "))
            };
            for letter in operator.chars() {
                let choice = *choices.next().unwrap();
                match letter {
                    '@' => line.push_str(&values[choice % values.len()]),
                    '#' => line.push_str(&constants[choice % constants.len()]),
                    letter => line.push(letter),
                }
            }
            line.push_str(&format!(" -> v{at},w{at} "));
            for letter in attributes.chars() {
                match letter {
                    '$' => line.push_str(&(*choices.next().unwrap() as i64 % 11 - 5).to_string()),
                    letter => line.push(letter),
                }
            }
            lines.push(line.trim_end().to_owned());
            values.extend([format!("v{at}"), format!("w{at}")]);
            constants.push(format!("v{at}"));
        }
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let words = input("words", &[At::Name("batch"), At::Number(-1), At::Number(3)], DataType::Float);
        let model = model(vec![input("latent", &dims, DataType::Float), words], lists, &lines);
        let axes = analysed(&model);
        crate::attention::Sites::find(&model, &axes).unwrap();
        for (value, _) in model.graph.values() {
            for size in axes.sizes(value).unwrap_or_default() {
                prop_assert!(size.as_number().is_none_or(|size| size >= 0), "{} {size}", model.graph.value(value).name());
            }
        }
    }
}

#[test]
fn joints_that_share_their_parts_come_to_an_end() {
    // Each line doubles what it joins, and a product between them keeps the joints apart.
    let mut lines = vec!["Concat words words -> j0 axis=1".to_owned()];
    for at in 1..40 {
        lines.push(format!("Concat j{} latent1 -> k{at} axis=1", at - 1));
        lines.push(format!("Concat k{at} k{at} -> j{at} axis=1"));
    }
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let flat = input(
        "latent1",
        &[At::Number(2), At::Number(7), At::Number(12)],
        DataType::Float,
    );
    let model = model(vec![latent(), text(), flat], vec![], &lines);
    let shown = shape(&model, &analysed(&model), "j39");
    assert!(shown.len() < 200, "{shown}");
}
