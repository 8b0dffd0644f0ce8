//! Checks a model against the rules of the [ONNX IR](https://github.com/onnx/onnx/blob/main/docs/IR.md).
//!
//! Values are named once (static single assignment), nodes stand in topological order, nested graphs see outer values
//! that are defined before them and shadow none, types and operator sets are known, attributes hold what they say,
//! initializers fill their dimensions, calls of local functions resolve. Linear time; recursion is bounded.
//!
//! Stricter than `onnx.checker` in that inputs and initializers of nested graphs may not shadow outer values either,
//! that graph outputs have to be made in their graph (ONNX Runtime wants both), and that functions may not call
//! themselves. Operators' own signatures are not checked: that is the runtime's part.

mod attribute;
mod function;
mod graph;
mod order;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt::{self, Display, Formatter};

use thiserror::Error;

use self::function::Functions;
use super::NEWEST_IR_VERSION;
use super::external::ExternalFault;
use super::load::canonical_domain;
use super::messages::{ModelProto, NodeProto, OperatorSetIdProto};
use super::tensor::TensorFault;

/// A rule that is broken, and where.
#[derive(Debug, Error)]
#[error("{place}: {violation}")]
pub struct ValidationError {
    /// Path from the model's graph to the node, e.g. `` graph `main`, node 3 `If_7` (If), attribute `then_branch` ``.
    pub place: String,
    /// The rule.
    pub violation: Violation,
}

/// A broken rule.
#[derive(Debug, Error)]
pub enum Violation {
    /// The IR version is missing.
    #[error("the model has no IR version; export it again")]
    NoIrVersion,
    /// The IR version is newer than the messages, or below 1.
    #[error("IR version {0} is not known; this version knows 1 to {NEWEST_IR_VERSION}")]
    IrVersion(i64),
    /// The model has no graph.
    #[error("the model has no graph")]
    NoGraph,
    /// No operator set is imported.
    #[error("no operator set is imported; the file may be cut off, export it again")]
    NoOpset,
    /// An operator set is imported twice.
    #[error("operator set `{0}` is imported twice")]
    OpsetTwice(String),
    /// An operator set's version is below 1.
    #[error("operator set `{domain}` has version {version}, which does not exist")]
    OpsetVersion {
        /// Domain.
        domain: String,
        /// Version.
        version: i64,
    },
    /// A node's domain is not imported.
    #[error("operator set `{0}` is not imported; add it to `opset_import`")]
    NotImported(String),
    /// Something that needs a name has none.
    #[error("{0} has no name")]
    NoName(&'static str),
    /// A value that is defined twice in one graph.
    #[error("value `{0}` is defined twice in one graph")]
    Duplicate(String),
    /// A value of a nested graph with the name of an outer value.
    #[error("value `{0}` has the name of a value of an outer graph")]
    Shadows(String),
    /// A value that is read and defined nowhere.
    #[error("value `{0}` is read, but no node, input or initializer defines it")]
    Undefined(String),
    /// A value that is read before it is made.
    #[error("value `{name}` is read before it is made by {producer}; sort the nodes topologically")]
    NotSorted {
        /// The value.
        name: String,
        /// The node that makes it.
        producer: String,
    },
    /// Nodes that need each other's outputs.
    #[error("value `{name}` is made by {producer}, which itself needs this node: the graph has a cycle")]
    Cycle {
        /// The value.
        name: String,
        /// The node that makes it.
        producer: String,
    },
    /// An input or an output of the model without a type.
    #[error("{what} `{name}` has no type")]
    NoType {
        /// "input" or "output".
        what: &'static str,
        /// Name of the value.
        name: String,
    },
    /// An element type that is not known.
    #[error("value `{name}` has element type {number}, which is not known")]
    ElementType {
        /// Name of the value.
        name: String,
        /// Number of the type.
        number: i32,
    },
    /// Two kinds of type in one.
    #[error("value `{0}` has a type of several kinds")]
    ManyTypes(String),
    /// Types or graphs nested too deeply.
    #[error("nested more than {0} deep")]
    TooDeep(usize),
    /// A graph output that is not made in the graph.
    #[error("output `{0}` is not defined in its graph (an outer value needs an Identity node)")]
    OutputUndefined(String),
    /// An output that stands twice.
    #[error("output `{0}` stands twice")]
    OutputTwice(String),
    /// An initializer that is no input, before IR version 4.
    #[error("initializer `{0}` is not among the inputs, which IR versions below 4 require")]
    InitializerNotInput(String),
    /// A node without an operator.
    #[error("the node has no operator type")]
    NoOperator,
    /// An attribute that stands twice.
    #[error("attribute `{0}` stands twice")]
    AttributeTwice(String),
    /// An attribute of unknown type.
    #[error("attribute `{name}` has type {number}, which is not known")]
    AttributeType {
        /// Name of the attribute.
        name: String,
        /// Number of the type.
        number: i32,
    },
    /// An attribute whose value is not of its type.
    #[error("attribute `{0}` holds a value of another type than it says, or several values")]
    AttributeValue(String),
    /// An attribute that refers to one of a function, outside any.
    #[error("attribute `{name}` refers to `{reference}`, which is no attribute of a surrounding function")]
    AttributeReference {
        /// Name of the attribute.
        name: String,
        /// What it refers to.
        reference: String,
    },
    /// A tensor that is described wrongly.
    #[error("tensor `{name}`: {fault}")]
    Tensor {
        /// Name of the tensor.
        name: String,
        /// What is wrong.
        fault: TensorFault,
    },
    /// A tensor whose reference to another file is wrong.
    #[error("tensor `{name}` with external data: {fault}")]
    External {
        /// Name of the tensor.
        name: String,
        /// What is wrong.
        fault: Box<ExternalFault>,
    },
    /// A sparse tensor whose parts do not fit.
    #[error("sparse tensor `{name}` {reason}")]
    Sparse {
        /// Name of its values.
        name: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// A function that is defined twice.
    #[error("function `{0}` is defined twice")]
    FunctionTwice(String),
    /// A call of a function that does not exist.
    #[error("function `{0}` is called and not defined, though its domain holds local functions")]
    FunctionUndefined(String),
    /// A call with more inputs or outputs than the function has.
    #[error("function `{name}` has {inputs} inputs and {outputs} outputs, the call has more")]
    FunctionArity {
        /// Name of the function.
        name: String,
        /// Its inputs.
        inputs: usize,
        /// Its outputs.
        outputs: usize,
    },
    /// A function that calls itself.
    #[error("function `{0}` calls itself, directly or through others")]
    FunctionRecursive(String),
}

/// Checks a model; see the [module's documentation](self). Opens no data files.
///
/// # Errors
/// The first broken rule, with its place.
pub fn validate(proto: &ModelProto) -> Result<(), ValidationError> {
    let mut checker = Checker::new(proto);
    let checked = checker.model(proto);
    checked.map_err(|violation| ValidationError {
        place: checker.place(),
        violation,
    })
}

/// Graphs within each other that are followed; far more than any exporter writes.
const NESTING_LIMIT: usize = 64;

/// The way from the model to what is checked at the moment; made into text for errors only.
enum Step<'a> {
    Graph(&'a str),
    Function(&'a str),
    Node(usize, &'a NodeProto),
    Attribute(&'a str),
    Part(&'static str),
}

impl Display for Step<'_> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Step::Graph(name) => write!(formatter, "graph `{name}`"),
            Step::Function(name) => write!(formatter, "function `{name}`"),
            Step::Node(index, node) => formatter.write_str(&order::node_label(*index, node)),
            Step::Attribute(name) => write!(formatter, "attribute `{name}`"),
            Step::Part(name) => formatter.write_str(name),
        }
    }
}

/// What is known while a model is walked through.
struct Checker<'a> {
    ir_version: i64,
    /// Versions of the operator sets in force: the model's, or those of the function that is walked through.
    imports: HashMap<&'a str, i64>,
    functions: Functions<'a>,
    /// Attributes of the function that is walked through; `None` outside functions.
    parameters: Option<Vec<&'a str>>,
    /// Every value that can be seen, and the number of the graph that defines it.
    values: HashMap<&'a str, usize>,
    /// Graphs entered so far.
    graphs: usize,
    /// Nodes of the graphs around, and which of them is walked through, from the outside in.
    levels: Vec<(&'a [NodeProto], usize)>,
    trail: Vec<Step<'a>>,
}

impl<'a> Checker<'a> {
    fn new(proto: &ModelProto) -> Checker<'a> {
        Checker {
            ir_version: proto.ir_version.unwrap_or(0),
            imports: HashMap::new(),
            functions: Functions::default(),
            parameters: None,
            values: HashMap::new(),
            graphs: 0,
            levels: Vec::new(),
            trail: Vec::new(),
        }
    }

    fn place(&self) -> String {
        match self.trail.iter().map(Step::to_string).collect::<Vec<_>>().join(", ") {
            place if place.is_empty() => "model".to_owned(),
            place => place,
        }
    }

    /// Walks through a part with its step on the trail, which stays there on errors.
    fn within<T>(
        &mut self,
        step: Step<'a>,
        walk: impl FnOnce(&mut Self) -> Result<T, Violation>,
    ) -> Result<T, Violation> {
        self.trail.push(step);
        let value = walk(self)?;
        self.trail.pop();
        Ok(value)
    }

    fn model(&mut self, proto: &'a ModelProto) -> Result<(), Violation> {
        match proto.ir_version {
            None => return Err(Violation::NoIrVersion),
            Some(version) if !(1..=NEWEST_IR_VERSION).contains(&version) => return Err(Violation::IrVersion(version)),
            Some(_) => {}
        }
        // Before IR version 3 models had no imports and used version 1.
        self.imports = match imports(&proto.opset_import)? {
            none if none.is_empty() && self.ir_version >= 3 => return Err(Violation::NoOpset),
            none if none.is_empty() => HashMap::from([("", 1)]),
            imports => imports,
        };
        self.functions = Functions::of(proto)?;
        let graph = proto.graph.as_ref().ok_or(Violation::NoGraph)?;
        self.graph(graph, graph::Role::Model)?;
        for training in &proto.training_info {
            self.within(Step::Part("training information"), |checker| checker.training(training))?;
        }
        self.all_functions(proto)
    }
}

/// Imported versions by domain.
fn imports(imports: &[OperatorSetIdProto]) -> Result<HashMap<&str, i64>, Violation> {
    let mut versions = HashMap::with_capacity(imports.len());
    for import in imports {
        let domain = canonical_domain(import.domain.as_deref().unwrap_or_default());
        let version = import.version.unwrap_or(0);
        if version < 1 {
            return Err(Violation::OpsetVersion {
                domain: domain.to_owned(),
                version,
            });
        }
        if versions.insert(domain, version).is_some() {
            return Err(Violation::OpsetTwice(domain.to_owned()));
        }
    }
    Ok(versions)
}
