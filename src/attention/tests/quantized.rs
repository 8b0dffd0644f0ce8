//! Projections of integers and of packed weights, in graphs made by hand.

use super::spellings::{MERGE, PLAIN, PROJECTIONS, RESIDUAL, build, expect_site};
use crate::onnx::messages::DataType;

#[test]
fn output_projections_are_found_in_every_spelling() {
    let spellings: &[(&str, &[&str])] = &[
        (
            "weights of four bits",
            &["com.microsoft:MatMulNBits merged codes scale -> out N=8 K=8"],
        ),
        (
            "quantized while the model runs",
            &[
                "DynamicQuantizeLinear merged -> bytes,each,zero0",
                "MatMulInteger bytes codes zero0 -> whole",
                "Cast whole -> real to=1",
                "Mul each scale -> scales",
                "Mul real scales -> product",
                "Add product bias -> out",
            ],
        ),
        (
            "the same, fused",
            &[
                "com.microsoft:DynamicQuantizeMatMul merged codes scale -> product",
                "Add product bias -> out",
            ],
        ),
        (
            "quantized and back on the way",
            &[
                "QuantizeLinear merged scale -> bytes",
                "DequantizeLinear bytes scale -> real",
                "MatMul real square -> product",
                "Add product bias -> sum",
                "QuantizeLinear sum scale -> sums",
                "DequantizeLinear sums scale -> out",
            ],
        ),
    ];
    for (spelling, linear) in spellings {
        expect_site(spelling, &[PROJECTIONS, PLAIN, MERGE, linear, RESIDUAL]);
        let (_, sites) = build(&[PROJECTIONS, PLAIN, MERGE, linear, RESIDUAL]);
        let site = &sites.sites[0];
        assert_eq!(site.output.first().element_type, DataType::Float, "{spelling}");
        assert_eq!(site.gated, None, "{spelling}");
    }
}

#[test]
fn quantized_scores_and_probabilities_are_followed() {
    let core: &[&str] = &[
        "MatMul qh kt -> s",
        "QuantizeLinear s scale -> sq",
        "DequantizeLinear sq scale -> sd",
        "Softmax sd -> p",
        "QuantizeLinear p scale -> pq",
        "DequantizeLinear pq scale -> pd",
        "MatMul pd vh -> mixed",
    ];
    let linear: &[&str] = &["MatMul merged square -> projected", "Add projected bias -> out"];
    expect_site("scores", &[PROJECTIONS, core, MERGE, linear, RESIDUAL]);
}

#[test]
fn a_whole_attention_with_its_weights_is_a_core() {
    for operator in ["Attention", "QAttention"] {
        let lines = [
            PROJECTIONS[0].to_owned(),
            PROJECTIONS[1].to_owned(),
            format!("com.microsoft:{operator} stream triple bias -> merged num_heads=2"),
            "MatMul merged square -> projected".to_owned(),
            "Add projected bias -> out".to_owned(),
            "Add out stream -> next".to_owned(),
        ];
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        expect_site(operator, &[&lines]);
    }
}
