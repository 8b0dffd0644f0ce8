//! The field tables of `onnx.proto`: number, name and wire form of every field that [`super::messages`] knows.
//!
//! prost drops what it does not know, so a file is compared with these tables before it is decoded. A test
//! draws random messages from the tables and sees that the structs give them back byte for byte.

use super::wire::Form::{Bytes, Float, Int32, Int64, Message as Of, PackedDouble, PackedFloat, Text};
use super::wire::Form::{PackedInt32, PackedInt64};
use super::wire::{Field, Form, Message};

/// A field that stands at most once.
const fn one(number: u32, name: &'static str, form: Form) -> Field {
    Field {
        number,
        name,
        form,
        repeated: false,
    }
}

/// A field that may stand any number of times.
const fn many(number: u32, name: &'static str, form: Form) -> Field {
    Field {
        number,
        name,
        form,
        repeated: true,
    }
}

/// Fields of [`AttributeProto`](super::messages::AttributeProto).
pub static ATTRIBUTE_PROTO: Message = Message {
    name: "AttributeProto",
    fields: &[
        one(1, "name", Text),
        one(2, "f", Float),
        one(3, "i", Int64),
        one(4, "s", Bytes),
        one(5, "t", Of(&TENSOR_PROTO)),
        one(6, "g", Of(&GRAPH_PROTO)),
        many(7, "floats", Float),
        many(8, "ints", Int64),
        many(9, "strings", Bytes),
        many(10, "tensors", Of(&TENSOR_PROTO)),
        many(11, "graphs", Of(&GRAPH_PROTO)),
        one(13, "doc_string", Text),
        one(14, "tp", Of(&TYPE_PROTO)),
        many(15, "type_protos", Of(&TYPE_PROTO)),
        one(20, "type", Int32),
        one(21, "ref_attr_name", Text),
        one(22, "sparse_tensor", Of(&SPARSE_TENSOR_PROTO)),
        many(23, "sparse_tensors", Of(&SPARSE_TENSOR_PROTO)),
    ],
};

/// Fields of [`ValueInfoProto`](super::messages::ValueInfoProto).
pub static VALUE_INFO_PROTO: Message = Message {
    name: "ValueInfoProto",
    fields: &[
        one(1, "name", Text),
        one(2, "type", Of(&TYPE_PROTO)),
        one(3, "doc_string", Text),
        many(4, "metadata_props", Of(&STRING_STRING_ENTRY_PROTO)),
    ],
};

/// Fields of [`NodeProto`](super::messages::NodeProto).
pub static NODE_PROTO: Message = Message {
    name: "NodeProto",
    fields: &[
        many(1, "input", Text),
        many(2, "output", Text),
        one(3, "name", Text),
        one(4, "op_type", Text),
        many(5, "attribute", Of(&ATTRIBUTE_PROTO)),
        one(6, "doc_string", Text),
        one(7, "domain", Text),
        one(8, "overload", Text),
        many(9, "metadata_props", Of(&STRING_STRING_ENTRY_PROTO)),
        many(10, "device_configurations", Of(&NODE_DEVICE_CONFIGURATION_PROTO)),
    ],
};

/// Fields of [`IntIntListEntryProto`](super::messages::IntIntListEntryProto).
pub static INT_INT_LIST_ENTRY_PROTO: Message = Message {
    name: "IntIntListEntryProto",
    fields: &[one(1, "key", Int64), many(2, "value", Int64)],
};

/// Fields of [`NodeDeviceConfigurationProto`](super::messages::NodeDeviceConfigurationProto).
pub static NODE_DEVICE_CONFIGURATION_PROTO: Message = Message {
    name: "NodeDeviceConfigurationProto",
    fields: &[
        one(1, "configuration_id", Text),
        many(2, "sharding_spec", Of(&SHARDING_SPEC_PROTO)),
        one(3, "pipeline_stage", Int32),
    ],
};

/// Fields of [`ShardingSpecProto`](super::messages::ShardingSpecProto).
pub static SHARDING_SPEC_PROTO: Message = Message {
    name: "ShardingSpecProto",
    fields: &[
        one(1, "tensor_name", Text),
        many(2, "device", Int64),
        many(3, "index_to_device_group_map", Of(&INT_INT_LIST_ENTRY_PROTO)),
        many(4, "sharded_dim", Of(&SHARDED_DIM_PROTO)),
    ],
};

/// Fields of [`ShardedDimProto`](super::messages::ShardedDimProto).
pub static SHARDED_DIM_PROTO: Message = Message {
    name: "ShardedDimProto",
    fields: &[
        one(1, "axis", Int64),
        many(2, "simple_sharding", Of(&SIMPLE_SHARDED_DIM_PROTO)),
    ],
};

/// Fields of [`SimpleShardedDimProto`](super::messages::SimpleShardedDimProto).
pub static SIMPLE_SHARDED_DIM_PROTO: Message = Message {
    name: "SimpleShardedDimProto",
    fields: &[
        one(1, "dim_value", Int64),
        one(2, "dim_param", Text),
        one(3, "num_shards", Int64),
    ],
};

/// Fields of [`TrainingInfoProto`](super::messages::TrainingInfoProto).
pub static TRAINING_INFO_PROTO: Message = Message {
    name: "TrainingInfoProto",
    fields: &[
        one(1, "initialization", Of(&GRAPH_PROTO)),
        one(2, "algorithm", Of(&GRAPH_PROTO)),
        many(3, "initialization_binding", Of(&STRING_STRING_ENTRY_PROTO)),
        many(4, "update_binding", Of(&STRING_STRING_ENTRY_PROTO)),
    ],
};

/// Fields of [`ModelProto`](super::messages::ModelProto).
pub static MODEL_PROTO: Message = Message {
    name: "ModelProto",
    fields: &[
        one(1, "ir_version", Int64),
        one(2, "producer_name", Text),
        one(3, "producer_version", Text),
        one(4, "domain", Text),
        one(5, "model_version", Int64),
        one(6, "doc_string", Text),
        one(7, "graph", Of(&GRAPH_PROTO)),
        many(8, "opset_import", Of(&OPERATOR_SET_ID_PROTO)),
        many(14, "metadata_props", Of(&STRING_STRING_ENTRY_PROTO)),
        many(20, "training_info", Of(&TRAINING_INFO_PROTO)),
        many(25, "functions", Of(&FUNCTION_PROTO)),
        many(26, "configuration", Of(&DEVICE_CONFIGURATION_PROTO)),
    ],
};

/// Fields of [`DeviceConfigurationProto`](super::messages::DeviceConfigurationProto).
pub static DEVICE_CONFIGURATION_PROTO: Message = Message {
    name: "DeviceConfigurationProto",
    fields: &[
        one(1, "name", Text),
        one(2, "num_devices", Int32),
        many(3, "device", Text),
    ],
};

/// Fields of [`StringStringEntryProto`](super::messages::StringStringEntryProto).
pub static STRING_STRING_ENTRY_PROTO: Message = Message {
    name: "StringStringEntryProto",
    fields: &[one(1, "key", Text), one(2, "value", Text)],
};

/// Fields of [`TensorAnnotation`](super::messages::TensorAnnotation).
pub static TENSOR_ANNOTATION: Message = Message {
    name: "TensorAnnotation",
    fields: &[
        one(1, "tensor_name", Text),
        many(2, "quant_parameter_tensor_names", Of(&STRING_STRING_ENTRY_PROTO)),
    ],
};

/// Fields of [`GraphProto`](super::messages::GraphProto).
pub static GRAPH_PROTO: Message = Message {
    name: "GraphProto",
    fields: &[
        many(1, "node", Of(&NODE_PROTO)),
        one(2, "name", Text),
        many(5, "initializer", Of(&TENSOR_PROTO)),
        one(10, "doc_string", Text),
        many(11, "input", Of(&VALUE_INFO_PROTO)),
        many(12, "output", Of(&VALUE_INFO_PROTO)),
        many(13, "value_info", Of(&VALUE_INFO_PROTO)),
        many(14, "quantization_annotation", Of(&TENSOR_ANNOTATION)),
        many(15, "sparse_initializer", Of(&SPARSE_TENSOR_PROTO)),
        many(16, "metadata_props", Of(&STRING_STRING_ENTRY_PROTO)),
    ],
};

/// Fields of [`TensorProto`](super::messages::TensorProto).
pub static TENSOR_PROTO: Message = Message {
    name: "TensorProto",
    fields: &[
        many(1, "dims", Int64),
        one(2, "data_type", Int32),
        one(3, "segment", Of(&TENSOR_SEGMENT)),
        many(4, "float_data", PackedFloat),
        many(5, "int32_data", PackedInt32),
        many(6, "string_data", Bytes),
        many(7, "int64_data", PackedInt64),
        one(8, "name", Text),
        one(9, "raw_data", Bytes),
        many(10, "double_data", PackedDouble),
        many(11, "uint64_data", PackedInt64),
        one(12, "doc_string", Text),
        many(13, "external_data", Of(&STRING_STRING_ENTRY_PROTO)),
        one(14, "data_location", Int32),
        many(16, "metadata_props", Of(&STRING_STRING_ENTRY_PROTO)),
    ],
};

/// Fields of [`TensorSegment`](super::messages::TensorSegment).
pub static TENSOR_SEGMENT: Message = Message {
    name: "TensorSegment",
    fields: &[one(1, "begin", Int64), one(2, "end", Int64)],
};

/// Fields of [`SparseTensorProto`](super::messages::SparseTensorProto).
pub static SPARSE_TENSOR_PROTO: Message = Message {
    name: "SparseTensorProto",
    fields: &[
        one(1, "values", Of(&TENSOR_PROTO)),
        one(2, "indices", Of(&TENSOR_PROTO)),
        many(3, "dims", Int64),
    ],
};

/// Fields of [`TensorShapeProto`](super::messages::TensorShapeProto).
pub static TENSOR_SHAPE_PROTO: Message = Message {
    name: "TensorShapeProto",
    fields: &[many(1, "dim", Of(&DIMENSION))],
};

/// Fields of [`Dimension`](super::messages::Dimension).
pub static DIMENSION: Message = Message {
    name: "Dimension",
    fields: &[
        one(1, "dim_value", Int64),
        one(2, "dim_param", Text),
        one(3, "denotation", Text),
    ],
};

/// Fields of [`TypeProto`](super::messages::TypeProto).
pub static TYPE_PROTO: Message = Message {
    name: "TypeProto",
    fields: &[
        one(1, "tensor_type", Of(&TENSOR_TYPE)),
        one(4, "sequence_type", Of(&SEQUENCE_TYPE)),
        one(5, "map_type", Of(&MAP_TYPE)),
        one(6, "denotation", Text),
        one(7, "opaque_type", Of(&OPAQUE_TYPE)),
        one(8, "sparse_tensor_type", Of(&SPARSE_TENSOR_TYPE)),
        one(9, "optional_type", Of(&OPTIONAL_TYPE)),
    ],
};

/// Fields of [`TensorType`](super::messages::TensorType).
pub static TENSOR_TYPE: Message = Message {
    name: "TensorType",
    fields: &[one(1, "elem_type", Int32), one(2, "shape", Of(&TENSOR_SHAPE_PROTO))],
};

/// Fields of [`SequenceType`](super::messages::SequenceType).
pub static SEQUENCE_TYPE: Message = Message {
    name: "SequenceType",
    fields: &[one(1, "elem_type", Of(&TYPE_PROTO))],
};

/// Fields of [`MapType`](super::messages::MapType).
pub static MAP_TYPE: Message = Message {
    name: "MapType",
    fields: &[one(1, "key_type", Int32), one(2, "value_type", Of(&TYPE_PROTO))],
};

/// Fields of [`OptionalType`](super::messages::OptionalType).
pub static OPTIONAL_TYPE: Message = Message {
    name: "OptionalType",
    fields: &[one(1, "elem_type", Of(&TYPE_PROTO))],
};

/// Fields of [`SparseTensorType`](super::messages::SparseTensorType).
pub static SPARSE_TENSOR_TYPE: Message = Message {
    name: "SparseTensorType",
    fields: &[one(1, "elem_type", Int32), one(2, "shape", Of(&TENSOR_SHAPE_PROTO))],
};

/// Fields of [`OpaqueType`](super::messages::OpaqueType).
pub static OPAQUE_TYPE: Message = Message {
    name: "OpaqueType",
    fields: &[one(1, "domain", Text), one(2, "name", Text)],
};

/// Fields of [`OperatorSetIdProto`](super::messages::OperatorSetIdProto).
pub static OPERATOR_SET_ID_PROTO: Message = Message {
    name: "OperatorSetIdProto",
    fields: &[one(1, "domain", Text), one(2, "version", Int64)],
};

/// Fields of [`FunctionProto`](super::messages::FunctionProto).
pub static FUNCTION_PROTO: Message = Message {
    name: "FunctionProto",
    fields: &[
        one(1, "name", Text),
        many(4, "input", Text),
        many(5, "output", Text),
        many(6, "attribute", Text),
        many(7, "node", Of(&NODE_PROTO)),
        one(8, "doc_string", Text),
        many(9, "opset_import", Of(&OPERATOR_SET_ID_PROTO)),
        one(10, "domain", Text),
        many(11, "attribute_proto", Of(&ATTRIBUTE_PROTO)),
        many(12, "value_info", Of(&VALUE_INFO_PROTO)),
        one(13, "overload", Text),
        many(14, "metadata_props", Of(&STRING_STRING_ENTRY_PROTO)),
    ],
};
