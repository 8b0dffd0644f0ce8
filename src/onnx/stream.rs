//! Encodes a model into a writer piece by piece, so that large weights go from the memory map to the disk without
//! a copy of the whole model in memory. The bytes are those of prost's own encoder.

use std::io::{self, Write};

use prost::{Message, encode_length_delimiter, length_delimiter_len};

use super::messages::{GraphProto, ModelProto, TensorProto};

/// Raw bytes above this length are written straight from where they lie.
const DIRECT: usize = 64 << 10;

/// Bytes are handed to the writer in pieces of at most this size, so that progress can be shown.
pub(super) const PIECE: usize = 8 << 20;

/// Writes `proto` to `out`.
///
/// # Errors
/// The writer's errors.
pub fn encode(proto: &ModelProto, out: &mut impl Write) -> io::Result<()> {
    let before = ModelProto {
        ir_version: proto.ir_version,
        producer_name: proto.producer_name.clone(),
        producer_version: proto.producer_version.clone(),
        domain: proto.domain.clone(),
        model_version: proto.model_version,
        doc_string: proto.doc_string.clone(),
        ..ModelProto::default()
    };
    let after = ModelProto {
        opset_import: proto.opset_import.clone(),
        metadata_props: proto.metadata_props.clone(),
        training_info: proto.training_info.clone(),
        functions: proto.functions.clone(),
        configuration: proto.configuration.clone(),
        ..ModelProto::default()
    };
    out.write_all(&before.encode_to_vec())?;
    if let Some(graph) = &proto.graph {
        let mut writer = Writer {
            out,
            buffer: Vec::new(),
        };
        writer.key(7, graph.encoded_len())?;
        writer.graph(graph)?;
    }
    out.write_all(&after.encode_to_vec())
}

/// A writer and the memory that small messages are encoded in.
struct Writer<'a, W: Write> {
    out: &'a mut W,
    buffer: Vec<u8>,
}

impl<W: Write> Writer<'_, W> {
    fn graph(&mut self, graph: &GraphProto) -> io::Result<()> {
        for node in &graph.node {
            self.message(1, node)?;
        }
        self.fields(&GraphProto {
            name: graph.name.clone(),
            ..GraphProto::default()
        })?;
        for tensor in &graph.initializer {
            self.tensor(5, tensor)?;
        }
        self.fields(&GraphProto {
            doc_string: graph.doc_string.clone(),
            ..GraphProto::default()
        })?;
        for input in &graph.input {
            self.message(11, input)?;
        }
        for output in &graph.output {
            self.message(12, output)?;
        }
        for value in &graph.value_info {
            self.message(13, value)?;
        }
        for annotation in &graph.quantization_annotation {
            self.message(14, annotation)?;
        }
        for tensor in &graph.sparse_initializer {
            self.message(15, tensor)?;
        }
        for entry in &graph.metadata_props {
            self.message(16, entry)?;
        }
        Ok(())
    }

    /// A tensor in a field; large raw bytes are not copied.
    fn tensor(&mut self, number: usize, tensor: &TensorProto) -> io::Result<()> {
        let Some(raw) = tensor.raw_data.as_ref().filter(|raw| raw.len() > DIRECT) else {
            return self.message(number, tensor);
        };
        // Fields 1 to 8 stand before the raw bytes (9), fields 10 to 16 behind them.
        let before = TensorProto {
            dims: tensor.dims.clone(),
            data_type: tensor.data_type,
            segment: tensor.segment.clone(),
            float_data: tensor.float_data.clone(),
            int32_data: tensor.int32_data.clone(),
            string_data: tensor.string_data.clone(),
            int64_data: tensor.int64_data.clone(),
            name: tensor.name.clone(),
            ..TensorProto::default()
        };
        let after = TensorProto {
            double_data: tensor.double_data.clone(),
            uint64_data: tensor.uint64_data.clone(),
            doc_string: tensor.doc_string.clone(),
            external_data: tensor.external_data.clone(),
            data_location: tensor.data_location,
            metadata_props: tensor.metadata_props.clone(),
            ..TensorProto::default()
        };
        self.key(number, tensor.encoded_len())?;
        self.fields(&before)?;
        self.key(9, raw.len())?;
        for piece in raw.chunks(PIECE) {
            self.out.write_all(piece)?;
        }
        self.fields(&after)
    }

    /// A message in a field.
    fn message(&mut self, number: usize, message: &impl Message) -> io::Result<()> {
        self.key(number, message.encoded_len())?;
        self.fields(message)
    }

    /// A message's fields.
    fn fields(&mut self, message: &impl Message) -> io::Result<()> {
        self.buffer.clear();
        message.encode(&mut self.buffer).map_err(io::Error::other)?;
        self.out.write_all(&self.buffer)
    }

    /// Tag and length of a field of wire type 2.
    fn key(&mut self, number: usize, length: usize) -> io::Result<()> {
        let tag = number << 3 | 2;
        self.buffer.clear();
        self.buffer
            .reserve(length_delimiter_len(tag) + length_delimiter_len(length));
        encode_length_delimiter(tag, &mut self.buffer).map_err(io::Error::other)?;
        encode_length_delimiter(length, &mut self.buffer).map_err(io::Error::other)?;
        self.out.write_all(&self.buffer)
    }
}
