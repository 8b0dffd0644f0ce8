//! What an operator's time goes by, one line for each that is not plain arithmetic.

use serde::{Deserialize, Serialize};

/// What an operator's time goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Matrix products and convolutions: operations, or the bytes of all operands.
    Product,
    /// The core of an attention as one kernel: operations, or the bytes of queries, keys, values and result.
    Attention,
    /// Functions, norms and softmax: elements of the result, or bytes read and written.
    Function,
    /// Sums, products and the like, element by element: bytes read and written.
    Arithmetic,
    /// Copies in another order or of a part: the bytes of the result, read and written.
    Movement,
    /// Nothing: another view of the same bytes, or sizes.
    View,
}

impl Class {
    /// Every class, in the order in which they are shown.
    pub const ALL: [Class; 6] = [
        Class::Product,
        Class::Attention,
        Class::Function,
        Class::Arithmetic,
        Class::Movement,
        Class::View,
    ];

    /// The word used in tables.
    pub fn word(self) -> &'static str {
        match self {
            Class::Product => "products",
            Class::Attention => "attention",
            Class::Function => "functions and norms",
            Class::Arithmetic => "arithmetic",
            Class::Movement => "movement",
            Class::View => "views",
        }
    }

    /// The class of an operator, whatever its domain: those of ONNX Runtime are named as they are in the standard.
    pub(super) fn of(operator: &str) -> Class {
        let place = CLASSES.binary_search_by_key(&operator, |(name, _)| name);
        place
            .ok()
            .and_then(|place| CLASSES.get(place))
            .map_or(Class::Arithmetic, |(_, class)| *class)
    }
}

use Class::{Attention, Function, Movement, Product, View};

/// Sorted by name; what is not here is arithmetic.
#[rustfmt::skip]
static CLASSES: &[(&str, Class)] = &[
    ("Attention", Attention),
    ("BatchNormalization", Function),
    ("BiasGelu", Function),
    ("BiasSplitGelu", Function),
    ("Celu", Function),
    ("Concat", Movement),
    ("Constant", View),
    ("ConstantOfShape", View),
    ("Conv", Product),
    ("ConvInteger", Product),
    ("Cos", Function),
    ("DepthToSpace", Movement),
    ("Dropout", View),
    ("DynamicQuantizeMatMul", Product),
    ("Einsum", Product),
    ("Elu", Function),
    ("Erf", Function),
    ("Exp", Function),
    ("Expand", Movement),
    ("EyeLike", View),
    ("FastGelu", Function),
    ("Flatten", View),
    ("FusedConv", Product),
    ("FusedGemm", Product),
    ("FusedMatMul", Product),
    ("Gather", Movement),
    ("GatherElements", Movement),
    ("GatherND", Movement),
    ("Gelu", Function),
    ("Gemm", Product),
    ("GroupNorm", Function),
    ("GroupNormalization", Function),
    ("GroupQueryAttention", Attention),
    ("Identity", View),
    ("InstanceNormalization", Function),
    ("LayerNormalization", Function),
    ("Log", Function),
    ("LogSoftmax", Function),
    ("LpNormalization", Function),
    ("MatMul", Product),
    ("MatMulInteger", Product),
    ("MatMulIntegerToFloat", Product),
    ("MatMulNBits", Product),
    ("Mish", Function),
    ("MultiHeadAttention", Attention),
    ("Pad", Movement),
    ("Pow", Function),
    ("QAttention", Attention),
    ("QLinearConv", Product),
    ("QLinearMatMul", Product),
    ("QuickGelu", Function),
    ("RMSNormalization", Function),
    ("Range", View),
    ("ReorderInput", Movement),
    ("ReorderOutput", Movement),
    ("Reshape", View),
    ("RotaryEmbedding", Function),
    ("ScatterElements", Movement),
    ("ScatterND", Movement),
    ("Shape", View),
    ("Sigmoid", Function),
    ("SimplifiedLayerNormalization", Function),
    ("Sin", Function),
    ("Size", View),
    ("SkipLayerNormalization", Function),
    ("SkipSimplifiedLayerNormalization", Function),
    ("Slice", Movement),
    ("Softmax", Function),
    ("Softplus", Function),
    ("SpaceToDepth", Movement),
    ("Split", Movement),
    ("Sqrt", Function),
    ("Squeeze", View),
    ("Swish", Function),
    ("Tanh", Function),
    ("Tile", Movement),
    ("Transpose", Movement),
    ("Trilu", Movement),
    ("Unsqueeze", View),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_what_is_not_in_it_is_arithmetic() {
        assert!(CLASSES.is_sorted_by(|one, other| one.0 < other.0));
        assert_eq!(Class::of("MatMul"), Product);
        assert_eq!(Class::of("Reshape"), View);
        assert_eq!(Class::of("Add"), Class::Arithmetic);
    }
}
