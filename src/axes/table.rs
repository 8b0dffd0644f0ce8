//! The operators that are understood, one line each: domain, name, what it does to dimensions, the element type of its
//! result, and what it costs.

use super::call::{Call, Shapes};
use super::cost::Cost::{self, Attention, Contraction, Einsum, Element, Free, Window};
use super::{join, movement, product};
use crate::onnx::messages::DataType;

/// What an operator does to dimensions; `None` where its inputs say too little.
pub(super) type Rule = fn(&Call<'_>) -> Option<Shapes>;

/// The element type of an operator's outputs.
#[derive(Clone, Copy, Debug)]
pub(super) enum Type {
    /// That of input number so and so.
    Of(usize),
    /// Always this one.
    Is(DataType),
    /// That of attribute `to`, or of input 0 where there is none.
    To,
    /// That of the tensor in attribute `value`.
    Value,
}

/// One line of the table.
#[derive(Debug)]
pub(super) struct Operator {
    pub domain: &'static str,
    pub name: &'static str,
    pub rule: Rule,
    pub element: Type,
    pub cost: Cost,
}

const fn row(domain: &'static str, name: &'static str, rule: Rule, element: Type, cost: Cost) -> Operator {
    Operator {
        domain,
        name,
        rule,
        element,
        cost,
    }
}

const BOOL: Type = Type::Is(DataType::Bool);
const INT32: Type = Type::Is(DataType::Int32);
const INT64: Type = Type::Is(DataType::Int64);
const SAME: Type = Type::Of(0);
const MS: &str = "com.microsoft";
/// Convolutions whose channels lie in memory in groups, as ONNX Runtime's CPU provider wants them.
const NCHWC: &str = "com.microsoft.nchwc";

/// The line of an operator.
pub(super) fn find(domain: &str, name: &str) -> Option<&'static Operator> {
    let place = RULES
        .binary_search_by_key(&(domain, name), |row| (row.domain, row.name))
        .ok()?;
    RULES.get(place)
}

/// Sorted by domain and name.
#[rustfmt::skip]
pub(super) static RULES: &[Operator] = &[
    row("", "Abs", movement::same, SAME, Element),
    row("", "Add", movement::elementwise, SAME, Element),
    row("", "And", movement::elementwise, BOOL, Element),
    row("", "ArgMax", movement::reduce, INT64, Element),
    row("", "ArgMin", movement::reduce, INT64, Element),
    row("", "Attention", product::attention, SAME, Attention),
    row("", "AveragePool", product::pool, SAME, Window),
    row("", "BatchNormalization", movement::same, SAME, Element),
    row("", "BitwiseAnd", movement::elementwise, SAME, Element),
    row("", "BitwiseNot", movement::same, SAME, Element),
    row("", "BitwiseOr", movement::elementwise, SAME, Element),
    row("", "Cast", movement::same, Type::To, Element),
    row("", "CastLike", movement::same, Type::Of(1), Element),
    row("", "Ceil", movement::same, SAME, Element),
    row("", "Celu", movement::same, SAME, Element),
    row("", "Clip", movement::same, SAME, Element),
    row("", "Concat", join::concat, SAME, Free),
    row("", "Constant", movement::constant, Type::Value, Free),
    row("", "ConstantOfShape", movement::constant_of_shape, Type::Value, Free),
    row("", "Conv", product::convolution, SAME, Contraction),
    row("", "ConvInteger", product::convolution, INT32, Contraction),
    row("", "Cos", movement::same, SAME, Element),
    row("", "CumSum", movement::same, SAME, Element),
    row("", "DequantizeLinear", movement::same, Type::Of(1), Element),
    row("", "Div", movement::elementwise, SAME, Element),
    row("", "Dropout", movement::same, SAME, Free),
    row("", "DynamicQuantizeLinear", movement::dynamic_quantization, Type::Is(DataType::Uint8), Element),
    row("", "Einsum", product::einsum, SAME, Einsum),
    row("", "Elu", movement::same, SAME, Element),
    row("", "Equal", movement::elementwise, BOOL, Element),
    row("", "Erf", movement::same, SAME, Element),
    row("", "Exp", movement::same, SAME, Element),
    row("", "Expand", movement::expand, SAME, Free),
    row("", "EyeLike", movement::same, SAME, Free),
    row("", "Flatten", movement::flatten, SAME, Free),
    row("", "Floor", movement::same, SAME, Element),
    row("", "Gather", join::gather, SAME, Free),
    row("", "GatherElements", join::gather_elements, SAME, Free),
    row("", "GatherND", join::gather_nd, SAME, Free),
    row("", "Gelu", movement::same, SAME, Element),
    row("", "Gemm", product::gemm, SAME, Contraction),
    row("", "GlobalAveragePool", product::global_pool, SAME, Element),
    row("", "Greater", movement::elementwise, BOOL, Element),
    row("", "GreaterOrEqual", movement::elementwise, BOOL, Element),
    row("", "GroupNormalization", movement::same, SAME, Element),
    row("", "HardSigmoid", movement::same, SAME, Element),
    row("", "HardSwish", movement::same, SAME, Element),
    row("", "Identity", movement::same, SAME, Free),
    row("", "InstanceNormalization", movement::same, SAME, Element),
    row("", "IsInf", movement::same, BOOL, Element),
    row("", "IsNaN", movement::same, BOOL, Element),
    row("", "LayerNormalization", movement::same, SAME, Element),
    row("", "LeakyRelu", movement::same, SAME, Element),
    row("", "Less", movement::elementwise, BOOL, Element),
    row("", "LessOrEqual", movement::elementwise, BOOL, Element),
    row("", "Log", movement::same, SAME, Element),
    row("", "LogSoftmax", movement::same, SAME, Element),
    row("", "LpNormalization", movement::same, SAME, Element),
    row("", "MatMul", product::matmul, SAME, Contraction),
    row("", "MatMulInteger", product::matmul, INT32, Contraction),
    row("", "Max", movement::elementwise, SAME, Element),
    row("", "MaxPool", product::pool, SAME, Window),
    row("", "Mean", movement::elementwise, SAME, Element),
    row("", "Min", movement::elementwise, SAME, Element),
    row("", "Mish", movement::same, SAME, Element),
    row("", "Mod", movement::elementwise, SAME, Element),
    row("", "Mul", movement::elementwise, SAME, Element),
    row("", "Neg", movement::same, SAME, Element),
    row("", "NonZero", movement::non_zero, INT64, Free),
    row("", "Not", movement::same, BOOL, Element),
    row("", "OneHot", movement::one_hot, Type::Of(2), Free),
    row("", "Or", movement::elementwise, BOOL, Element),
    row("", "PRelu", movement::elementwise, SAME, Element),
    row("", "Pad", movement::pad, SAME, Free),
    row("", "Pow", movement::elementwise, SAME, Element),
    row("", "QLinearConv", product::quantized_convolution, Type::Of(7), Contraction),
    row("", "QLinearMatMul", product::quantized_matmul, Type::Of(7), Contraction),
    row("", "QuantizeLinear", movement::same, Type::Of(2), Element),
    row("", "RMSNormalization", movement::same, SAME, Element),
    row("", "RandomNormalLike", movement::same, SAME, Element),
    row("", "Range", movement::range, SAME, Free),
    row("", "Reciprocal", movement::same, SAME, Element),
    row("", "ReduceL2", movement::reduce, SAME, Element),
    row("", "ReduceMax", movement::reduce, SAME, Element),
    row("", "ReduceMean", movement::reduce, SAME, Element),
    row("", "ReduceMin", movement::reduce, SAME, Element),
    row("", "ReduceProd", movement::reduce, SAME, Element),
    row("", "ReduceSum", movement::reduce, SAME, Element),
    row("", "ReduceSumSquare", movement::reduce, SAME, Element),
    row("", "Relu", movement::same, SAME, Element),
    row("", "Reshape", movement::reshape, SAME, Free),
    row("", "Resize", movement::resize, SAME, Element),
    row("", "RotaryEmbedding", movement::same, SAME, Element),
    row("", "Round", movement::same, SAME, Element),
    row("", "ScatterElements", movement::same, SAME, Free),
    row("", "ScatterND", movement::scatter, SAME, Free),
    row("", "Selu", movement::same, SAME, Element),
    row("", "Shape", movement::shape_of, INT64, Free),
    row("", "Sigmoid", movement::same, SAME, Element),
    row("", "Sign", movement::same, SAME, Element),
    row("", "SimplifiedLayerNormalization", movement::same, SAME, Element),
    row("", "Sin", movement::same, SAME, Element),
    row("", "Size", movement::scalar, INT64, Free),
    row("", "Slice", join::slice, SAME, Free),
    row("", "Softmax", movement::same, SAME, Element),
    row("", "Softplus", movement::same, SAME, Element),
    row("", "Split", join::split, SAME, Free),
    row("", "Sqrt", movement::same, SAME, Element),
    row("", "Squeeze", movement::squeeze, SAME, Free),
    row("", "Sub", movement::elementwise, SAME, Element),
    row("", "Sum", movement::elementwise, SAME, Element),
    row("", "Swish", movement::same, SAME, Element),
    row("", "Tanh", movement::same, SAME, Element),
    row("", "Tile", movement::tile, SAME, Free),
    row("", "Transpose", movement::transpose, SAME, Free),
    row("", "Trilu", movement::same, SAME, Free),
    row("", "Unsqueeze", movement::unsqueeze, SAME, Free),
    row("", "Where", movement::elementwise, Type::Of(1), Element),
    row("", "Xor", movement::elementwise, BOOL, Element),
    row(MS, "Attention", product::attention_packed_weights, SAME, Attention),
    row(MS, "BiasAdd", movement::elementwise, SAME, Element),
    row(MS, "BiasGelu", movement::elementwise, SAME, Element),
    row(MS, "BiasSplitGelu", movement::bias_split, SAME, Element),
    row(MS, "DynamicQuantizeMatMul", product::matmul, SAME, Contraction),
    row(MS, "FastGelu", movement::same, SAME, Element),
    row(MS, "FusedConv", product::convolution, SAME, Contraction),
    row(MS, "FusedGemm", product::gemm, SAME, Contraction),
    row(MS, "FusedMatMul", product::fused_matmul, SAME, Contraction),
    row(MS, "Gelu", movement::same, SAME, Element),
    row(MS, "GroupNorm", movement::same, SAME, Element),
    row(MS, "GroupQueryAttention", movement::same, SAME, Attention),
    row(MS, "LayerNormalization", movement::same, SAME, Element),
    row(MS, "MatMulIntegerToFloat", product::matmul, Type::Of(2), Contraction),
    row(MS, "MatMulNBits", product::packed_matmul, SAME, Contraction),
    row(MS, "MultiHeadAttention", product::multi_head_attention, SAME, Attention),
    row(MS, "QAttention", product::attention_packed_weights, Type::Of(2), Attention),
    row(MS, "QuickGelu", movement::same, SAME, Element),
    row(MS, "RotaryEmbedding", movement::same, SAME, Element),
    row(MS, "SimplifiedLayerNormalization", movement::same, SAME, Element),
    row(MS, "SkipLayerNormalization", movement::skip_normalization, SAME, Element),
    row(MS, "SkipSimplifiedLayerNormalization", movement::skip_normalization, SAME, Element),
    row(NCHWC, "Conv", product::convolution, SAME, Contraction),
    row(NCHWC, "ReorderInput", movement::reorder_input, SAME, Free),
    row(NCHWC, "ReorderOutput", movement::reorder_output, SAME, Free),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_names_every_operator_once() {
        assert!(RULES.is_sorted_by(|a, b| (a.domain, a.name) < (b.domain, b.name)));
    }

    #[test]
    fn operators_are_found_by_domain_and_name() {
        assert!(find("", "MatMul").is_some());
        assert!(find("com.microsoft", "MatMul").is_none());
        assert!(find("", "Unique").is_none());
    }
}
