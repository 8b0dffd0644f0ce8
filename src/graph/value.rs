//! Values: what they are, where they come from, who reads them.

use super::{NodeId, ValueId};
use crate::onnx::messages::{SparseTensorProto, TensorProto};

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Given by the caller of the graph. May have an initializer as its default (IR version 3).
    Input,
    /// A constant that is stored with the graph.
    Initializer,
    /// Output number `slot` of `node`.
    Node {
        /// The producer.
        node: NodeId,
        /// Which of its outputs.
        slot: usize,
    },
    /// A value of the graph around this one, captured by name.
    Outer(ValueId),
    /// Named in the file (in `value_info`) or left behind by an edit, but produced by nothing.
    Nothing,
}

/// One place where a value is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Use {
    /// The reader.
    pub node: NodeId,
    /// Which of its inputs.
    pub slot: Slot,
}

/// A place of a node that reads a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Slot {
    /// A listed input.
    Input(usize),
    /// Captured by one of the node's nested graphs.
    Capture(usize),
}

/// A value and everything that is known of it.
#[derive(Clone, Debug)]
pub struct Value {
    pub(super) name: String,
    pub(super) origin: Origin,
    pub(super) uses: Vec<Use>,
    pub(super) outputs: u32,
    pub(super) initializer: Option<Box<TensorProto>>,
    pub(super) sparse: Option<Box<SparseTensorProto>>,
    pub(super) info: Option<InfoPlace>,
}

impl Value {
    /// Its name, unique in the graph.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it comes from.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// Everybody who reads it, in no particular order. Graph outputs are not counted: see [`Value::is_output`].
    pub fn uses(&self) -> &[Use] {
        &self.uses
    }

    /// Whether it is an output of the graph.
    pub fn is_output(&self) -> bool {
        self.outputs > 0
    }

    /// Whether nobody reads it and it is no output.
    pub fn is_unused(&self) -> bool {
        self.uses.is_empty() && self.outputs == 0
    }

    /// The stored constant, if it has one.
    pub fn initializer(&self) -> Option<&TensorProto> {
        self.initializer.as_deref()
    }
}

/// Which list of the graph holds a value's type.
#[derive(Clone, Copy, Debug)]
pub(super) enum InfoPlace {
    Input(usize),
    Output(usize),
    Info(usize),
}
