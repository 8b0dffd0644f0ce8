//! How exporters write attention: the operators that may stand in each place, as data.
//!
//! A core is a product of queries and keys, a softmax, and a product with the values; or one fused operator. Between
//! them stand scales, masks and casts, and behind them the output projection and the way to the residual addition.

use crate::graph::Node;

const MS: &str = "com.microsoft";

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
type Name = (&'static str, &'static str);

fn is(node: &Node, name: &Name) -> bool {
    (node.domain(), node.operator()) == *name
}

/// Between the product of queries and keys and the softmax: scale, mask, upcast, soft cap, regrouped heads.
static SCORE_STEPS: &[(Name, Carrier)] = &[
    (("", "Mul"), Carrier::Either),
    (("", "Div"), Carrier::First),
    (("", "Add"), Carrier::Either),
    (("", "Sub"), Carrier::First),
    (("", "Where"), Carrier::Chosen),
    (("", "Cast"), Carrier::First),
    (("", "Identity"), Carrier::First),
    (("", "Reshape"), Carrier::First),
    (("", "Tanh"), Carrier::First),
    (("", "Clip"), Carrier::First),
    (("", "Max"), Carrier::Either),
];

/// Between the softmax and the product with the values: downcast, dropout, rows that are masked throughout.
static PROBABILITY_STEPS: &[(Name, Carrier)] = &[
    (("", "Cast"), Carrier::First),
    (("", "Dropout"), Carrier::First),
    (("", "Identity"), Carrier::First),
    (("", "Where"), Carrier::Chosen),
    (("", "Mul"), Carrier::Either),
    (("", "Reshape"), Carrier::First),
];

/// Products of two tensors.
static PRODUCTS: &[Name] = &[("", "MatMul"), (MS, "FusedMatMul"), ("", "Einsum")];

/// The inputs of a fused attention operator.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fused {
    name: Name,
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
static NOT_YET: &[Name] = &[
    (MS, "Attention"),
    (MS, "PackedAttention"),
    (MS, "PackedMultiHeadAttention"),
    (MS, "QAttention"),
    (MS, "DecoderMaskedMultiHeadAttention"),
    (MS, "LongformerAttention"),
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
}

/// The way from the core to the residual addition.
static BRANCH_STEPS: &[(Name, Step)] = &[
    (("", "Transpose"), Step::Regroup),
    (("", "Reshape"), Step::Regroup),
    (("", "Squeeze"), Step::Regroup),
    (("", "Unsqueeze"), Step::Regroup),
    (("", "Flatten"), Step::Regroup),
    (("", "Cast"), Step::Keep),
    (("", "Identity"), Step::Keep),
    (("", "Dropout"), Step::Keep),
    (("", "QuantizeLinear"), Step::Keep),
    (("", "DequantizeLinear"), Step::Keep),
    (("", "MatMul"), Step::Project),
    (("", "Gemm"), Step::Project),
    (("", "Conv"), Step::Project),
    (("", "MatMulInteger"), Step::Project),
    (("", "QLinearMatMul"), Step::Project),
    ((MS, "FusedMatMul"), Step::Project),
    ((MS, "FusedGemm"), Step::Project),
    ((MS, "FusedConv"), Step::Project),
    ((MS, "MatMulNBits"), Step::Project),
    ((MS, "MatMulIntegerToFloat"), Step::Project),
    ((MS, "DynamicQuantizeMatMul"), Step::Project),
    (("", "Add"), Step::Sum),
    (("", "Sum"), Step::Sum),
    (("", "Mul"), Step::Scale),
    (("", "Div"), Step::Scale),
    (("", "LayerNormalization"), Step::Normalize),
    (("", "RMSNormalization"), Step::Normalize),
    (("", "SimplifiedLayerNormalization"), Step::Normalize),
    ((MS, "SimplifiedLayerNormalization"), Step::Normalize),
    ((MS, "SkipLayerNormalization"), Step::SkipNormalize),
    ((MS, "SkipSimplifiedLayerNormalization"), Step::SkipNormalize),
    (("", "Split"), Step::Part),
    (("", "Slice"), Step::Part),
    (("", "Gather"), Step::Part),
    (("", "Concat"), Step::Concatenate),
];

/// What an activation function is made of. GELU is written with `Erf`, with `Tanh`, with `Sigmoid` or as one operator.
static NONLINEAR: &[Name] = &[
    ("", "Erf"),
    ("", "Tanh"),
    ("", "Sigmoid"),
    ("", "Exp"),
    ("", "Gelu"),
    ("", "Relu"),
    ("", "LeakyRelu"),
    ("", "PRelu"),
    ("", "Elu"),
    ("", "Selu"),
    ("", "Celu"),
    ("", "Swish"),
    ("", "HardSwish"),
    ("", "HardSigmoid"),
    ("", "Mish"),
    ("", "Softplus"),
    ("", "Softsign"),
    ("", "ThresholdedRelu"),
    (MS, "Gelu"),
    (MS, "FastGelu"),
    (MS, "QuickGelu"),
    (MS, "BiasGelu"),
];

/// Operators that sum over axes: over tokens, they mix them.
static REDUCTIONS: &[Name] = &[
    ("", "ReduceMean"),
    ("", "ReduceSum"),
    ("", "ReduceMax"),
    ("", "ReduceMin"),
    ("", "ReduceL1"),
    ("", "ReduceL2"),
    ("", "ReduceSumSquare"),
    ("", "ReduceLogSumExp"),
    ("", "ReduceProd"),
    ("", "GlobalAveragePool"),
    ("", "GlobalMaxPool"),
];

/// Operators that mix neighbours along some axis whatever their weights.
static MIXERS: &[Name] = &[
    ("", "AveragePool"),
    ("", "MaxPool"),
    ("", "CumSum"),
    ("", "ConvTranspose"),
    ("", "LSTM"),
    ("", "GRU"),
    ("", "RNN"),
    ("", "Loop"),
    ("", "Scan"),
];

fn carrier(steps: &[(Name, Carrier)], node: &Node) -> Option<Carrier> {
    steps
        .iter()
        .find(|(name, _)| is(node, name))
        .map(|(_, carrier)| *carrier)
}

/// Whether the node may stand between the first product and the softmax, and what carries the scores.
pub(super) fn score_step(node: &Node) -> Option<Carrier> {
    carrier(SCORE_STEPS, node)
}

/// Whether the node may stand between the softmax and the second product, and what carries the probabilities.
pub(super) fn probability_step(node: &Node) -> Option<Carrier> {
    carrier(PROBABILITY_STEPS, node)
}

/// Whether the node is a product of two tensors.
pub(super) fn is_product(node: &Node) -> bool {
    PRODUCTS.iter().any(|name| is(node, name))
}

/// The fused operator that the node is.
pub(super) fn fused(node: &Node) -> Option<Fused> {
    FUSED.iter().find(|fused| is(node, &fused.name)).copied()
}

/// Whether the node is a fused attention that is not understood yet.
pub(super) fn is_not_yet_understood(node: &Node) -> bool {
    NOT_YET.iter().any(|name| is(node, name))
}

/// What the node does on the way from the core to the residual addition.
pub(super) fn branch_step(node: &Node) -> Option<Step> {
    BRANCH_STEPS
        .iter()
        .find(|(name, _)| is(node, name))
        .map(|(_, step)| *step)
}

/// Whether the node is a whole attention.
pub(super) fn is_fused_attention(node: &Node) -> bool {
    fused(node).is_some() || is_not_yet_understood(node)
}

/// Whether the node is a nonlinear function of each element, or has one fused in.
pub(super) fn is_nonlinear(node: &Node) -> bool {
    NONLINEAR.iter().any(|name| is(node, name))
}

/// Whether the node is a projection with its activation function fused in.
pub(super) fn is_activated(node: &Node) -> bool {
    node.domain() == MS && node.text("activation").is_some_and(|activation| !activation.is_empty())
}

/// Whether the node sums over axes.
pub(super) fn is_reduction(node: &Node) -> bool {
    REDUCTIONS.iter().any(|name| is(node, name))
}

/// Whether the node mixes neighbours along an axis.
pub(super) fn is_mixer(node: &Node) -> bool {
    MIXERS.iter().any(|name| is(node, name))
}

/// Whether an operator is a softmax or a fused attention: what a core is found from.
pub(super) fn is_attention(domain: &str, operator: &str) -> bool {
    let name = (domain, operator);
    name == ("", "Softmax") || FUSED.iter().any(|fused| fused.name == name) || NOT_YET.contains(&name)
}
