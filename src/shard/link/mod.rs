//! Which dimensions of an operator's inputs and outputs go together: the table that placements follow.
//!
//! A [`Link`] is one index that the operator runs over, with every dimension that it stands in. Divided among ranks, each
//! rank runs over its part, and has of the linked dimensions the same part; everything else it needs whole. Operators
//! that regroup dimensions, or set them one behind the other, are followed by `step.rs` itself.

mod attention;
mod moved;
mod pointwise;
mod product;
mod reduced;

use super::facts::Operation;
use attention::{attention, tokens_of_queries};
use moved::{exchange, expand, gather, pad, tile, transpose};
use pointwise::{elementwise, unary};
pub(super) use product::window;
use product::{convolution, einsum, matmul};
use reduced::{batch_only, cumulative, each_channel, normalization, reduce, rows, skip_normalization, softmax};

/// One index of an operator. Its dimensions all have one size, which is not 1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Link {
    /// Slot and dimension of each input that has it. Where an input has size 1 instead, it is needed whole.
    pub inputs: Vec<(usize, usize)>,
    /// Slot and dimension of each output that has it. None where the operator sums over it.
    pub outputs: Vec<(usize, usize)>,
    /// Whether a sum over parts of it gives the whole result when the ranks' results are added.
    pub adds_up: bool,
}

/// How an operator is followed.
#[derive(Clone, Copy)]
pub(super) enum Spelling {
    /// By its links.
    Linked(fn(&Operation<'_>) -> Option<Vec<Link>>),
    /// It regroups the dimensions of its first input.
    Regroup,
    /// It sets its inputs one behind the other.
    Concat,
    /// It takes a part of its first input.
    Slice,
    /// It takes its first input apart.
    Split,
    /// It asks for sizes, and takes no look at the data.
    Sizes,
}

/// The line of an operator; `None` where nothing is known of it.
pub(super) fn spelling(domain: &str, name: &str) -> Option<Spelling> {
    let place = TABLE
        .binary_search_by_key(&(domain, name), |(domain, name, _)| (*domain, *name))
        .ok()?;
    TABLE.get(place).map(|(_, _, spelling)| *spelling)
}

use Spelling::{Concat, Linked, Regroup, Sizes, Slice, Split};

const MS: &str = "com.microsoft";
/// The domain of the collectives.
pub(crate) const PAB: &str = "ai.pab";

#[rustfmt::skip]
static TABLE: &[(&str, &str, Spelling)] = &[
    ("", "Abs", Linked(unary)),
    ("", "Add", Linked(elementwise)),
    ("", "And", Linked(elementwise)),
    ("", "Attention", Linked(attention)),
    ("", "Cast", Linked(unary)),
    ("", "Ceil", Linked(unary)),
    ("", "Clip", Linked(unary)),
    ("", "Concat", Concat),
    ("", "Conv", Linked(convolution)),
    ("", "Cos", Linked(unary)),
    ("", "CumSum", Linked(cumulative)),
    ("", "Div", Linked(elementwise)),
    ("", "Dropout", Linked(unary)),
    ("", "Einsum", Linked(einsum)),
    ("", "Elu", Linked(unary)),
    ("", "Equal", Linked(elementwise)),
    ("", "Erf", Linked(unary)),
    ("", "Exp", Linked(unary)),
    ("", "Expand", Linked(expand)),
    ("", "Flatten", Regroup),
    ("", "Floor", Linked(unary)),
    ("", "Gather", Linked(gather)),
    ("", "Gelu", Linked(unary)),
    ("", "Gemm", Linked(matmul)),
    ("", "GlobalAveragePool", Linked(each_channel)),
    ("", "Greater", Linked(elementwise)),
    ("", "GreaterOrEqual", Linked(elementwise)),
    ("", "GroupNormalization", Linked(batch_only)),
    ("", "HardSigmoid", Linked(unary)),
    ("", "HardSwish", Linked(unary)),
    ("", "Identity", Linked(unary)),
    ("", "InstanceNormalization", Linked(each_channel)),
    ("", "IsInf", Linked(unary)),
    ("", "IsNaN", Linked(unary)),
    ("", "LayerNormalization", Linked(normalization)),
    ("", "LeakyRelu", Linked(unary)),
    ("", "Less", Linked(elementwise)),
    ("", "LessOrEqual", Linked(elementwise)),
    ("", "Log", Linked(unary)),
    ("", "LpNormalization", Linked(softmax)),
    ("", "MatMul", Linked(matmul)),
    ("", "Max", Linked(elementwise)),
    ("", "MaxPool", Linked(each_channel)),
    ("", "Mean", Linked(elementwise)),
    ("", "Min", Linked(elementwise)),
    ("", "Mish", Linked(unary)),
    ("", "Mod", Linked(elementwise)),
    ("", "Mul", Linked(elementwise)),
    ("", "Neg", Linked(unary)),
    ("", "Not", Linked(unary)),
    ("", "Or", Linked(elementwise)),
    ("", "PRelu", Linked(elementwise)),
    ("", "Pad", Linked(pad)),
    ("", "Pow", Linked(elementwise)),
    ("", "RMSNormalization", Linked(normalization)),
    ("", "Reciprocal", Linked(unary)),
    ("", "ReduceL2", Linked(reduce)),
    ("", "ReduceMax", Linked(reduce)),
    ("", "ReduceMean", Linked(reduce)),
    ("", "ReduceMin", Linked(reduce)),
    ("", "ReduceProd", Linked(reduce)),
    ("", "ReduceSum", Linked(reduce)),
    ("", "ReduceSumSquare", Linked(reduce)),
    ("", "Relu", Linked(unary)),
    ("", "Reshape", Regroup),
    ("", "Round", Linked(unary)),
    ("", "Selu", Linked(unary)),
    ("", "Shape", Sizes),
    ("", "Sigmoid", Linked(unary)),
    ("", "Sign", Linked(unary)),
    ("", "SimplifiedLayerNormalization", Linked(normalization)),
    ("", "Sin", Linked(unary)),
    ("", "Size", Sizes),
    ("", "Slice", Slice),
    ("", "Softmax", Linked(softmax)),
    ("", "Softplus", Linked(unary)),
    ("", "Split", Split),
    ("", "Sqrt", Linked(unary)),
    ("", "Squeeze", Regroup),
    ("", "Sub", Linked(elementwise)),
    ("", "Sum", Linked(elementwise)),
    ("", "Swish", Linked(unary)),
    ("", "Tanh", Linked(unary)),
    ("", "Tile", Linked(tile)),
    ("", "Transpose", Linked(transpose)),
    ("", "Unsqueeze", Regroup),
    ("", "Where", Linked(elementwise)),
    ("", "Xor", Linked(elementwise)),
    (PAB, "AllGather", Linked(exchange)),
    (PAB, "AllReduce", Linked(exchange)),
    (PAB, "AllToAll", Linked(exchange)),
    (PAB, "ReduceScatter", Linked(exchange)),
    (PAB, "ShardSlice", Linked(exchange)),
    (MS, "BiasAdd", Linked(elementwise)),
    (MS, "BiasGelu", Linked(elementwise)),
    (MS, "FastGelu", Linked(elementwise)),
    (MS, "FusedMatMul", Linked(matmul)),
    (MS, "Gelu", Linked(unary)),
    (MS, "MatMulNBits", Linked(rows)),
    (MS, "MultiHeadAttention", Linked(tokens_of_queries)),
    (MS, "QuickGelu", Linked(unary)),
    (MS, "SimplifiedLayerNormalization", Linked(normalization)),
    (MS, "SkipLayerNormalization", Linked(skip_normalization)),
    (MS, "SkipSimplifiedLayerNormalization", Linked(skip_normalization)),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_names_every_operator_once() {
        assert!(TABLE.is_sorted_by(|a, b| (a.0, a.1) < (b.0, b.1)));
    }

    #[test]
    fn operators_are_found_by_domain_and_name() {
        assert!(spelling("", "MatMul").is_some());
        assert!(spelling("com.microsoft", "MatMul").is_none());
        assert!(spelling("", "TopK").is_none());
    }
}
