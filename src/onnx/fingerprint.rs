//! Which model a file holds, as a hash.

use std::convert::Infallible;
use std::fmt::Write as _;

use prost::Message;
use sha2::{Digest, Sha256};

use super::error::OnnxError;
use super::load::Model;
use super::messages::{ModelProto, TensorProto};
use super::tensor;
use super::tensors::{try_each_tensor, try_each_tensor_mut};

/// Tensors of more bytes are weights: what they hold is no part of the graph. Exporters and
/// [`SaveOptions`](super::SaveOptions) leave smaller ones in the model's file.
const WEIGHTS: u64 = 1024;
/// Bytes of each weight that tell it from others of its size.
const SAMPLE: usize = 4096;

impl Model {
    /// SHA-256 of the graph, in hexadecimal digits: nodes, names, types, sizes, small constants. What weights hold and where
    /// they lie does not count, nor who made the file and its metadata, so that no data file is opened, and a model keeps its
    /// hash when its weights move to a data file or are trained further.
    #[must_use]
    pub fn graph_sha256(&self) -> String {
        hexadecimal(graph(&self.proto))
    }

    /// SHA-256 of the graph and of the first 4 KiB of each weight: what a copy of the model has too, and no other model.
    ///
    /// # Errors
    /// [`OnnxError`] where weights are missing or damaged.
    pub fn sampled_sha256(&self) -> Result<String, OnnxError> {
        let mut hash = graph(&self.proto);
        try_each_tensor(&self.proto, &mut |tensor| {
            if is_weight(tensor) && tensor.string_data.is_empty() {
                let bytes = self.weights().bytes(tensor)?;
                hash.update(bytes.get(..SAMPLE).unwrap_or(&bytes));
            }
            Ok::<_, OnnxError>(())
        })?;
        Ok(hexadecimal(hash))
    }
}

/// Whether a tensor is a weight rather than a part of the graph.
fn is_weight(tensor: &TensorProto) -> bool {
    let external = tensor::is_external(tensor).unwrap_or(true);
    external || tensor::byte_length(tensor).map_or(true, |length| length > WEIGHTS)
}

/// The hash of the graph alone.
fn graph(proto: &ModelProto) -> Sha256 {
    let mut graph = ModelProto {
        // Shallow: the bytes of weights are slices of the memory map.
        graph: proto.graph.clone(),
        functions: proto.functions.clone(),
        opset_import: proto.opset_import.clone(),
        ..ModelProto::default()
    };
    let Ok(()) = try_each_tensor_mut(&mut graph, &mut |tensor| {
        if is_weight(tensor) {
            *tensor = TensorProto {
                name: tensor.name.take(),
                dims: std::mem::take(&mut tensor.dims),
                data_type: tensor.data_type,
                ..TensorProto::default()
            };
        }
        Ok::<_, Infallible>(())
    });
    Sha256::new_with_prefix(graph.encode_to_vec())
}

fn hexadecimal(hash: Sha256) -> String {
    let mut text = String::with_capacity(64);
    for byte in hash.finalize() {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::onnx::SaveOptions;

    fn corpus(name: &str) -> Model {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/corpus");
        Model::load(&folder.join(name)).unwrap()
    }

    #[test]
    fn weights_and_metadata_are_no_part_of_the_graph() {
        let model = corpus("latte.ts17.static.onnx");
        let (graph, sampled) = (model.graph_sha256(), model.sampled_sha256().unwrap());
        assert_ne!(graph, sampled);
        assert_ne!(graph, corpus("latte.ts17.dynamic.onnx").graph_sha256());

        let folder = tempfile::tempdir().unwrap();
        let moved = folder.path().join("moved.onnx");
        let options = SaveOptions {
            move_weights: true,
            ..SaveOptions::default()
        };
        model.save(&moved, &options).unwrap();
        let mut moved = Model::load(&moved).unwrap();
        moved.proto.producer_name = Some("another".to_owned());
        assert_eq!(moved.graph_sha256(), graph);
        assert_eq!(moved.sampled_sha256().unwrap(), sampled);

        let mut weights = moved.proto.graph.as_mut().unwrap().initializer.iter_mut();
        let weight = weights.rfind(|tensor| is_weight(tensor)).unwrap();
        let length = tensor::byte_length(weight).unwrap() as usize;
        weight.data_location = None;
        weight.external_data.clear();
        weight.raw_data = Some(vec![7; length].into());
        assert_eq!(moved.graph_sha256(), graph);
        assert_ne!(moved.sampled_sha256().unwrap(), sampled);
        moved.proto.graph.as_mut().unwrap().node[0].op_type = Some("Other".to_owned());
        assert_ne!(moved.graph_sha256(), graph);
    }
}
