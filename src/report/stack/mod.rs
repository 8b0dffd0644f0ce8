//! A model as a stack of blocks, for people: as a graph for Graphviz and as a page for a browser.
//!
//! The stack is plain data: whoever has a model fills it in.

mod dot;
mod html;

#[cfg(test)]
mod tests;

/// A model as the blocks that work on its residual stream, in the order in which they are computed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stack {
    /// The model's name.
    pub title: String,
    /// What else is to say of the model, as name and value.
    pub facts: Vec<(String, String)>,
    /// The blocks.
    pub blocks: Vec<StackBlock>,
    /// What was seen and not understood.
    pub notes: Vec<StackNote>,
    /// Operators that are not understood, and how many nodes have each.
    pub opaque: Vec<(String, usize)>,
}

/// Branches that belong together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StackBlock {
    /// What the exporter calls the block.
    pub module: Option<String>,
    /// Its branches, in the order in which they are computed.
    pub branches: Vec<Branch>,
}

/// A residual branch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Branch {
    /// Its name, unique in the model.
    pub name: String,
    /// What it mixes, in the word used in rules.
    pub kind: &'static str,
    /// What the exporter calls its module.
    pub module: Option<String>,
    /// What the dimensions of its output count, such as `[batch·frames, height·width, channels]`.
    pub axes: Option<String>,
    /// Number of heads of an attention.
    pub heads: Option<i64>,
    /// Operations that a broadcast saves.
    pub flops: f64,
    /// The same as a share of a step, 0 to 1.
    pub share: f64,
    /// Bytes of its cache.
    pub cache_bytes: Option<u64>,
    /// The rule that has it.
    pub rule: Option<String>,
    /// Where it can be cut, the first in the graph first.
    pub cuts: Vec<BranchCut>,
    /// Its nodes, in the order in which they are computed.
    pub nodes: Vec<BranchNode>,
}

/// A value that can be cached.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BranchCut {
    /// The word for it in rules.
    pub point: &'static str,
    /// The part of the result that it is, where the branch has several.
    pub part: Option<String>,
    /// The value's name in the file.
    pub value: String,
    /// Its element type.
    pub element_type: String,
    /// Its sizes, such as `[16*batch, 64, 128]`.
    pub shape: String,
    /// Its bytes.
    pub bytes: Option<u64>,
}

/// A node of a branch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BranchNode {
    /// Its name in the file, or where it has none that of its first output.
    pub name: String,
    /// Its operator, with the domain where that is not ONNX' own.
    pub operator: String,
    /// Whether it is part of the attention itself: of the products and the softmax.
    pub core: bool,
}

/// Something that was not understood.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StackNote {
    /// What it is about.
    pub subject: String,
    /// Why it was not understood.
    pub reason: String,
    /// What to do.
    pub advice: String,
}

/// The colour of each kind of branch on a light background; `html/base.css` has the same.
const COLOURS: [(&str, &str); 8] = [
    ("spatial", "#2a6fdb"),
    ("temporal", "#b45309"),
    ("cross", "#27793f"),
    ("full", "#7a4fd0"),
    ("joint", "#c2387f"),
    ("text", "#0c7476"),
    ("mlp", "#616875"),
    ("other", "#8a6d3b"),
];

/// The colour of a kind; that of `other` where it is none of them.
fn colour(kind: &str) -> &'static str {
    let [.., (_, other)] = COLOURS;
    let found = COLOURS.iter().find(|(known, _)| *known == kind);
    found.map_or(other, |(_, colour)| colour)
}

/// The class of a kind on pages; that of `other` where it is none of them.
pub(super) fn class_of(kind: &str) -> &'static str {
    let found = COLOURS.iter().find(|(known, _)| *known == kind);
    found.map_or("other", |(class, _)| class)
}
