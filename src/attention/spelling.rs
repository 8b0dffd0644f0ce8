//! How exporters write attention: the operators that may stand in each place, as data.
//!
//! A core is a product of queries and keys, a softmax, and a product with the values; or one fused operator. Between
//! them stand scales, masks and casts, and behind them the output projection and the way to the residual addition.

use crate::graph::{Graph, Node};

const MS: &str = "com.microsoft";
const NCHWC: &str = "com.microsoft.nchwc";

/// Which inputs carry what is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carrier {
    /// Input 0 only.
    First,
    /// Input 0 or 1.
    Either,
    /// Input 1 or 2: what `Where` chooses between.
    Chosen,
}

impl Carrier {
    /// The input slots.
    pub fn slots(self) -> &'static [usize] {
        match self {
            Carrier::First => &[0],
            Carrier::Either => &[0, 1],
            Carrier::Chosen => &[1, 2],
        }
    }
}

/// A domain and an operator.
type Name<'n> = (&'n str, &'n str);

fn name(node: &Node) -> Name<'_> {
    (node.domain(), node.operator())
}

/// The entry of `name` in a table that is sorted by names: every node is looked up in several of them.
fn entry<'t, T>(table: &'t [(Name<'static>, T)], name: Name<'_>) -> Option<&'t T> {
    let place = table.binary_search_by(|(other, _)| other.cmp(&name)).ok()?;
    table.get(place).map(|(_, entry)| entry)
}

fn contains(table: &[Name<'static>], name: Name<'_>) -> bool {
    table.binary_search_by(|other| (*other).cmp(&name)).is_ok()
}

/// Between the product of queries and keys and the softmax: scale, mask, upcast, soft cap, regrouped heads.
static SCORE_STEPS: &[(Name<'static>, Carrier)] = &[
    (("", "Add"), Carrier::Either),
    (("", "Cast"), Carrier::First),
    (("", "Clip"), Carrier::First),
    (("", "DequantizeLinear"), Carrier::First),
    (("", "Div"), Carrier::First),
    (("", "Identity"), Carrier::First),
    (("", "Max"), Carrier::Either),
    (("", "Mul"), Carrier::Either),
    (("", "QuantizeLinear"), Carrier::First),
    (("", "Reshape"), Carrier::First),
    (("", "Sub"), Carrier::First),
    (("", "Tanh"), Carrier::First),
    (("", "Where"), Carrier::Chosen),
];

/// Between the softmax and the product with the values: downcast, dropout, rows that are masked throughout.
static PROBABILITY_STEPS: &[(Name<'static>, Carrier)] = &[
    (("", "Cast"), Carrier::First),
    (("", "DequantizeLinear"), Carrier::First),
    (("", "Dropout"), Carrier::First),
    (("", "Identity"), Carrier::First),
    (("", "Mul"), Carrier::Either),
    (("", "QuantizeLinear"), Carrier::First),
    (("", "Reshape"), Carrier::First),
    (("", "Where"), Carrier::Chosen),
];

/// Products of two tensors.
static PRODUCTS: &[Name<'static>] = &[("", "Einsum"), ("", "MatMul"), (MS, "FusedMatMul")];

/// The inputs of a fused attention operator.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fused {
    name: Name<'static>,
    /// Input of the queries.
    pub query: usize,
    /// Input of the keys; where it is left out, keys and values are packed into the queries.
    pub key: usize,
    /// Attribute with the number of heads, of tensors that do not have them as an axis.
    pub heads: &'static str,
}

/// Operators that are a whole core.
static FUSED: &[Fused] = &[
    Fused {
        name: ("", "Attention"),
        query: 0,
        key: 1,
        heads: "q_num_heads",
    },
    // Input 0 is what queries, keys and values are projected from.
    Fused {
        name: (MS, "Attention"),
        query: 0,
        key: 0,
        heads: "num_heads",
    },
    Fused {
        name: (MS, "QAttention"),
        query: 0,
        key: 0,
        heads: "num_heads",
    },
    Fused {
        name: (MS, "MultiHeadAttention"),
        query: 0,
        key: 1,
        heads: "num_heads",
    },
    Fused {
        name: (MS, "GroupQueryAttention"),
        query: 0,
        key: 1,
        heads: "num_heads",
    },
];

/// Fused operators that are known and not understood yet.
static NOT_YET: &[Name<'static>] = &[
    (MS, "DecoderMaskedMultiHeadAttention"),
    (MS, "LongformerAttention"),
    (MS, "PackedAttention"),
    (MS, "PackedMultiHeadAttention"),
    (MS, "SparseAttention"),
];

/// What a node behind a module's core does to the branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Another layout of the same elements.
    Regroup,
    /// Another element type, or nothing.
    Keep,
    /// A product with a weight.
    Project,
    /// A sum: with a constant the bias, with a variable the residual addition.
    Sum,
    /// A product: with a constant a scale, with a variable the gate.
    Scale,
    /// A normalization.
    Normalize,
    /// A residual addition with the next normalization fused in.
    SkipNormalize,
    /// Some of the tokens.
    Part,
    /// Another value put beside it.
    Concatenate,
    /// Zeros put behind it.
    Pad,
}

/// The way from the core to the residual addition.
static BRANCH_STEPS: &[(Name<'static>, Step)] = &[
    (("", "Add"), Step::Sum),
    (("", "Cast"), Step::Keep),
    (("", "Concat"), Step::Concatenate),
    (("", "Conv"), Step::Project),
    (("", "ConvInteger"), Step::Project),
    (("", "DequantizeLinear"), Step::Keep),
    (("", "Div"), Step::Scale),
    (("", "Dropout"), Step::Keep),
    (("", "DynamicQuantizeLinear"), Step::Keep),
    (("", "Flatten"), Step::Regroup),
    (("", "Gather"), Step::Part),
    (("", "Gemm"), Step::Project),
    (("", "Identity"), Step::Keep),
    (("", "LayerNormalization"), Step::Normalize),
    (("", "MatMul"), Step::Project),
    (("", "MatMulInteger"), Step::Project),
    (("", "Mul"), Step::Scale),
    (("", "Pad"), Step::Pad),
    (("", "QLinearConv"), Step::Project),
    (("", "QLinearMatMul"), Step::Project),
    (("", "QuantizeLinear"), Step::Keep),
    (("", "RMSNormalization"), Step::Normalize),
    (("", "Reshape"), Step::Regroup),
    (("", "SimplifiedLayerNormalization"), Step::Normalize),
    (("", "Slice"), Step::Part),
    (("", "Split"), Step::Part),
    (("", "Squeeze"), Step::Regroup),
    (("", "Sum"), Step::Sum),
    (("", "Transpose"), Step::Regroup),
    (("", "Unsqueeze"), Step::Regroup),
    ((MS, "BiasAdd"), Step::Sum),
    ((MS, "DynamicQuantizeMatMul"), Step::Project),
    ((MS, "FusedConv"), Step::Project),
    ((MS, "FusedGemm"), Step::Project),
    ((MS, "FusedMatMul"), Step::Project),
    ((MS, "MatMulIntegerToFloat"), Step::Project),
    ((MS, "MatMulNBits"), Step::Project),
    ((MS, "SimplifiedLayerNormalization"), Step::Normalize),
    ((MS, "SkipLayerNormalization"), Step::SkipNormalize),
    ((MS, "SkipSimplifiedLayerNormalization"), Step::SkipNormalize),
    ((NCHWC, "Conv"), Step::Project),
    ((NCHWC, "ReorderInput"), Step::Regroup),
    ((NCHWC, "ReorderOutput"), Step::Regroup),
];

/// What an activation function is made of. GELU is written with `Erf`, with `Tanh`, with `Sigmoid` or as one operator.
static NONLINEAR: &[Name<'static>] = &[
    ("", "Celu"),
    ("", "Elu"),
    ("", "Erf"),
    ("", "Exp"),
    ("", "Gelu"),
    ("", "HardSigmoid"),
    ("", "HardSwish"),
    ("", "LeakyRelu"),
    ("", "Mish"),
    ("", "PRelu"),
    ("", "Relu"),
    ("", "Selu"),
    ("", "Sigmoid"),
    ("", "Softplus"),
    ("", "Softsign"),
    ("", "Swish"),
    ("", "Tanh"),
    ("", "ThresholdedRelu"),
    (MS, "BiasGelu"),
    (MS, "BiasSplitGelu"),
    (MS, "FastGelu"),
    (MS, "Gelu"),
    (MS, "QuickGelu"),
];

/// Operators that sum over axes: over tokens, they mix them.
static REDUCTIONS: &[Name<'static>] = &[
    ("", "GlobalAveragePool"),
    ("", "GlobalMaxPool"),
    ("", "ReduceL1"),
    ("", "ReduceL2"),
    ("", "ReduceLogSumExp"),
    ("", "ReduceMax"),
    ("", "ReduceMean"),
    ("", "ReduceMin"),
    ("", "ReduceProd"),
    ("", "ReduceSum"),
    ("", "ReduceSumSquare"),
];

/// Operators that mix neighbours along some axis whatever their weights.
static MIXERS: &[Name<'static>] = &[
    ("", "AveragePool"),
    ("", "ConvTranspose"),
    ("", "CumSum"),
    ("", "GRU"),
    ("", "LSTM"),
    ("", "Loop"),
    ("", "MaxPool"),
    ("", "RNN"),
    ("", "Scan"),
];

/// Whether the node may stand between the first product and the softmax, and what carries the scores.
pub(super) fn score_step(node: &Node) -> Option<Carrier> {
    entry(SCORE_STEPS, name(node)).copied()
}

/// Whether the node may stand between the softmax and the second product, and what carries the probabilities.
pub(super) fn probability_step(node: &Node) -> Option<Carrier> {
    entry(PROBABILITY_STEPS, name(node)).copied()
}

/// Whether the node is a product of two tensors.
pub(super) fn is_product(node: &Node) -> bool {
    contains(PRODUCTS, name(node))
}

/// The fused operator that the node is.
pub(super) fn fused(node: &Node) -> Option<Fused> {
    FUSED.iter().find(|fused| name(node) == fused.name).copied()
}

/// Whether the node is a fused attention that is not understood yet.
pub(super) fn is_not_yet_understood(node: &Node) -> bool {
    contains(NOT_YET, name(node))
}

/// What the node does on the way from the core to the residual addition.
pub(super) fn branch_step(node: &Node) -> Option<Step> {
    entry(BRANCH_STEPS, name(node)).copied()
}

/// The input of a projection that has its weights.
pub(super) fn weights_of(node: &Node) -> usize {
    match (node.domain(), node.operator()) {
        ("", "QLinearMatMul" | "QLinearConv") => 3,
        _ => 1,
    }
}

/// The inputs that a sum adds: the second and third of `BiasAdd` are a bias and what is added with it.
pub(super) fn addends(node: &Node) -> (usize, usize) {
    match (node.domain(), node.operator()) {
        (MS, "BiasAdd") if node.input(2).is_some() => (0, 2),
        _ => (0, 1),
    }
}

/// Whether the node is a whole attention.
pub(super) fn is_fused_attention(node: &Node) -> bool {
    fused(node).is_some() || is_not_yet_understood(node)
}

/// Whether the node is a nonlinear function of each element, or has one fused in.
pub(super) fn is_nonlinear(node: &Node) -> bool {
    contains(NONLINEAR, name(node))
}

/// Whether the node is a projection with its activation function fused in.
pub(super) fn is_activated(node: &Node) -> bool {
    node.domain() == MS && node.text("activation").is_some_and(|activation| !activation.is_empty())
}

/// Whether the node sums over axes.
pub(super) fn is_reduction(node: &Node) -> bool {
    contains(REDUCTIONS, name(node))
}

/// Whether the node mixes neighbours along an axis.
pub(super) fn is_mixer(node: &Node) -> bool {
    contains(MIXERS, name(node))
}

/// Whether no node of a nested graph projects or mixes anything.
pub(super) fn is_local(graph: &Graph) -> bool {
    graph.nodes().all(|(_, node)| {
        let projects = is_product(node) || branch_step(node) == Some(Step::Project);
        let mixes = is_mixer(node) || is_reduction(node) || is_attention(node.domain(), node.operator());
        !projects && !mixes && node.bodies().iter().all(|body| is_local(body.graph()))
    })
}

/// Whether an operator is a softmax or a fused attention: what a core is found from.
pub(super) fn is_attention(domain: &str, operator: &str) -> bool {
    let name = (domain, operator);
    name == ("", "Softmax") || FUSED.iter().any(|fused| fused.name == name) || contains(NOT_YET, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_sorted_for_their_binary_searches() {
        for table in [SCORE_STEPS, PROBABILITY_STEPS] {
            assert!(table.is_sorted_by(|a, b| a.0 < b.0));
        }
        assert!(BRANCH_STEPS.is_sorted_by(|a, b| a.0 < b.0));
        for table in [PRODUCTS, NOT_YET, NONLINEAR, REDUCTIONS, MIXERS] {
            assert!(table.is_sorted_by(|a, b| a < b));
        }
    }
}
