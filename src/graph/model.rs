//! A model whose graph can be edited.

use super::{Graph, GraphError};
use crate::onnx::messages::{ModelProto, OperatorSetIdProto, StringStringEntryProto};
use crate::onnx::{Model, Weights};
use std::path::Path;

/// A model with its top-level [`Graph`], and everything else of the file as it was read.
#[derive(Clone, Debug)]
pub struct ModelGraph {
    /// The top-level graph.
    pub graph: Graph,
    /// Everything but the graph.
    header: ModelProto,
    weights: Weights,
}

impl ModelGraph {
    /// Reads the graph of a model.
    ///
    /// # Errors
    /// [`GraphError::NoGraph`] where there is none, and whatever is wrong with it.
    pub fn new(model: Model) -> Result<ModelGraph, GraphError> {
        let weights = model.weights().clone();
        let mut header = model.proto;
        let graph = Graph::from_proto(header.graph.take().ok_or(GraphError::NoGraph)?)?;
        Ok(ModelGraph { graph, header, weights })
    }

    /// Writes the graph back.
    ///
    /// # Errors
    /// [`GraphError::Cycle`] where the nodes have no order.
    pub fn into_model(self) -> Result<Model, GraphError> {
        let mut proto = self.header;
        proto.graph = Some(self.graph.into_proto()?);
        Ok(Model::with_weights(proto, self.weights))
    }

    /// Where the bytes of tensors come from.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// The file that the model was read from.
    pub fn path(&self) -> Option<&Path> {
        self.weights.path()
    }

    /// The version of operator set `domain` that the model uses; `""` is the ONNX standard.
    pub fn opset(&self, domain: &str) -> Option<i64> {
        crate::onnx::opset(&self.header, domain)
    }

    /// Declares the operator sets of ONNX Runtime that nodes use and the file does not declare: its own tools leave them
    /// out, and it takes them for version 1.
    pub fn declare_runtime_operators(&mut self) {
        for domain in ["com.microsoft", "com.microsoft.nchwc"] {
            if self.opset(domain).is_none() && uses(&self.graph, domain) {
                self.header.opset_import.push(OperatorSetIdProto {
                    domain: Some(domain.to_owned()),
                    version: Some(1),
                });
            }
        }
    }

    /// Declares operator set `domain`, where the file does not.
    pub fn declare_operators(&mut self, domain: &str, version: i64) {
        if self.opset(domain).is_none() {
            self.header.opset_import.push(OperatorSetIdProto {
                domain: Some(domain.to_owned()),
                version: Some(version),
            });
        }
    }

    /// Everything but the graph: IR version, opsets, functions, metadata.
    pub fn header(&self) -> &ModelProto {
        &self.header
    }

    /// The model's metadata entry `key`.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.header.metadata(key)
    }

    /// Removes the model's metadata entry `key`.
    pub fn remove_metadata(&mut self, key: &str) {
        self.header
            .metadata_props
            .retain(|entry| entry.key.as_deref() != Some(key));
    }

    /// Sets the model's metadata entry `key`.
    pub fn set_metadata(&mut self, key: &str, value: String) {
        self.remove_metadata(key);
        self.header.metadata_props.push(StringStringEntryProto {
            key: Some(key.to_owned()),
            value: Some(value),
        });
    }
}

/// Whether a node of the graph or of one nested in it is of operator set `domain`.
fn uses(graph: &Graph, domain: &str) -> bool {
    graph
        .nodes()
        .any(|(_, node)| node.domain() == domain || node.bodies().iter().any(|body| uses(body.graph(), domain)))
}
