//! Floating-point operations of a node, from the sizes of its dimensions.
//!
//! A multiply-add counts as two operations, everything elementwise as one for each element of the result, and moving
//! data as none. Nested graphs are not counted.

use super::dimension::Dimension;
use super::product::einsum_dimensions;
use super::size::Bindings;
use super::{Axes, table};
use crate::graph::ModelGraph;
use crate::graph::{Node, NodeId};

/// How the operations of an operator are counted.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cost {
    /// None: data is moved at most.
    Free,
    /// One for each element of the first output.
    Element,
    /// Two for each element of the first output and each contracted element: `MatMul`, `Gemm`, `Conv`.
    Contraction,
    /// One for each element of the result and of the window.
    Window,
    /// Two for every combination of an `Einsum`'s letters.
    Einsum,
    /// Two matrix products and a softmax.
    Attention,
}

impl Axes {
    /// Floating-point operations of `node` where symbols have the values in `bindings`; `None` where a size is not
    /// known. Operators without a rule count as none: they are listed in [`Axes::opaque`].
    pub fn flops(&self, model: &ModelGraph, node: NodeId, bindings: &Bindings) -> Option<f64> {
        let node = model.graph.node(node);
        let Some(operator) = table::find(node.domain(), node.operator()) else {
            return Some(0.0);
        };
        let count = Count {
            axes: self,
            node,
            bindings,
        };
        match operator.cost {
            Cost::Free => Some(0.0),
            Cost::Element => count.elements(node.output(0).map(|value| self.dimensions(value))??),
            Cost::Contraction => {
                let result = count.output()?;
                Some(2.0 * result * count.contracted()?)
            }
            Cost::Window => {
                let window = node
                    .ints("kernel_shape")?
                    .iter()
                    .map(|size| *size as f64)
                    .product::<f64>();
                Some(count.output()? * window)
            }
            Cost::Einsum => {
                let shape = |slot: usize| Some(count.input(slot)?.to_vec());
                let (dims, _) = einsum_dimensions(node.text("equation")?, shape)?;
                let combinations = count.elements(&dims.into_values().collect::<Vec<_>>())?;
                // One operand is only moved.
                Some(if node.inputs().len() < 2 {
                    0.0
                } else {
                    2.0 * combinations
                })
            }
            Cost::Attention => count.attention(),
        }
    }
}

struct Count<'c> {
    axes: &'c Axes,
    node: &'c Node,
    bindings: &'c Bindings,
}

impl Count<'_> {
    fn elements(&self, dims: &[Dimension]) -> Option<f64> {
        dims.iter()
            .map(|dim| dim.size().evaluate(self.bindings).map(|size| size as f64))
            .product()
    }

    fn input(&self, slot: usize) -> Option<&[Dimension]> {
        self.axes.dimensions(self.node.input(slot)?)
    }

    fn output(&self) -> Option<f64> {
        self.elements(self.axes.dimensions(self.node.output(0)?)?)
    }

    /// Elements summed up for each element of the result.
    fn contracted(&self) -> Option<f64> {
        let shape = match self.node.operator() {
            "Conv" | "FusedConv" => self.input(1)?.get(1..)?,
            _ => {
                let shape = self.input(0)?;
                let place = if self.node.int("transA", 0) != 0 {
                    shape.len().checked_sub(2)?
                } else {
                    shape.len().checked_sub(1)?
                };
                shape.get(place..place + 1)?
            }
        };
        self.elements(shape)
    }

    /// Scores and weighted sum (four operations for each query, key and channel) and the softmax over the scores.
    fn attention(&self) -> Option<f64> {
        let query = self.input(0)?;
        let number = |dim: &Dimension| dim.size().evaluate(self.bindings).map(|size| size as f64);
        let (batch, tokens, channels) = match query {
            [batch, heads, tokens, head] => (number(batch)?, number(tokens)?, number(heads)? * number(head)?),
            [batch, tokens, channels] => (number(batch)?, number(tokens)?, number(channels)?),
            [batch, tokens, heads, _, head] => (number(batch)?, number(tokens)?, number(heads)? * number(head)?),
            _ => return None,
        };
        let own_weights =
            self.node.domain() == "com.microsoft" && matches!(self.node.operator(), "Attention" | "QAttention");
        let keys = match self.input(1) {
            Some([_, keys, _]) => number(keys)?,
            Some([_, _, keys, _]) => number(keys)?,
            Some([_, keys, _, _, _]) => number(keys)?,
            _ => tokens,
        };
        let projections = if own_weights {
            2.0 * batch * tokens * self.elements(self.input(1)?)?
        } else {
            0.0
        };
        Some(projections + 4.0 * batch * tokens * keys * channels)
    }
}
