//! The field tables of `onnx.proto`: number, name and wire form of every field that [`super::messages`] knows.
//!
//! prost drops what it does not know, so a file is compared with these tables before it is decoded.

use super::wire::{Field, Form, Message};

/// Fields of [`AttributeProto`](super::messages::AttributeProto).
pub static ATTRIBUTE_PROTO: Message = Message {
    name: "AttributeProto",
    fields: &[
        Field {
            number: 1,
            name: "name",
            form: Form::Text,
            repeated: false,
        },
        Field {
            number: 2,
            name: "f",
            form: Form::Fixed32,
            repeated: false,
        },
        Field {
            number: 3,
            name: "i",
            form: Form::Varint,
            repeated: false,
        },
        Field {
            number: 4,
            name: "s",
            form: Form::Bytes,
            repeated: false,
        },
        Field {
            number: 5,
            name: "t",
            form: Form::Message(&TENSOR_PROTO),
            repeated: false,
        },
        Field {
            number: 6,
            name: "g",
            form: Form::Message(&GRAPH_PROTO),
            repeated: false,
        },
        Field {
            number: 7,
            name: "floats",
            form: Form::Fixed32,
            repeated: true,
        },
        Field {
            number: 8,
            name: "ints",
            form: Form::Varint,
            repeated: true,
        },
        Field {
            number: 9,
            name: "strings",
            form: Form::Bytes,
            repeated: true,
        },
        Field {
            number: 10,
            name: "tensors",
            form: Form::Message(&TENSOR_PROTO),
            repeated: true,
        },
        Field {
            number: 11,
            name: "graphs",
            form: Form::Message(&GRAPH_PROTO),
            repeated: true,
        },
        Field {
            number: 13,
            name: "doc_string",
            form: Form::Text,
            repeated: false,
        },
        Field {
            number: 14,
            name: "tp",
            form: Form::Message(&TYPE_PROTO),
            repeated: false,
        },
        Field {
            number: 15,
            name: "type_protos",
            form: Form::Message(&TYPE_PROTO),
            repeated: true,
        },
        Field {
            number: 20,
            name: "type",
            form: Form::Varint,
            repeated: false,
        },
        Field {
            number: 21,
            name: "ref_attr_name",
            form: Form::Text,
            repeated: false,
        },
        Field {
            number: 22,
            name: "sparse_tensor",
            form: Form::Message(&SPARSE_TENSOR_PROTO),
            repeated: false,
        },
        Field {
            number: 23,
            name: "sparse_tensors",
            form: Form::Message(&SPARSE_TENSOR_PROTO),
            repeated: true,
        },
    ],
};

/// Fields of [`ValueInfoProto`](super::messages::ValueInfoProto).
pub static VALUE_INFO_PROTO: Message = Message {
    name: "ValueInfoProto",
    fields: &[
        Field {
            number: 1,
            name: "name",
            form: Form::Text,
            repeated: false,
        },
        Field {
            number: 2,
            name: "type",
            form: Form::Message(&TYPE_PROTO),
            repeated: false,
        },
        Field {
            number: 3,
            name: "doc_string",
            form: Form::Text,
            repeated: false,
        },
        Field {
            number: 4,
            name: "metadata_props",
            form: Form::Message(&STRING_STRING_ENTRY_PROTO),
            repeated: true,
        },
    ],
};

/// Fields of [`NodeProto`](super::messages::NodeProto).
pub static NODE_PROTO: Message = Message {
    name: "NodeProto",
    fields: &[
        Field {
            number: 1,
            name: "input",
            form: Form::Text,
            repeated: true,
        },
        Field {
            number: 2,
            name: "output",
            form: Form::Text,
            repeated: true,
        },
        Field {
            number: 3,
            name: "name",
            form: Form::Text,
            repeated: false,
        },
        Field {
            number: 4,
            name: "op_type",
            form: Form::Text,
            repeated: false,
        },
        Field {
            number: 5,
            name: "attribute",
            form: Form::Message(&ATTRIBUTE_PROTO),
            repeated: true,
        },
        Field {
            number: 6,
            name: "doc_string",
            form: Form::Text,
            repeated: false,
        },
        Field {
            number: 7,
            name: "domain",
            form: Form::Text,
            repeated: false,
        },
        Field {
            number: 8,
            name: "overload",
            form: Form::Text,
            repeated: false,
        },
        Field {
            number: 9,
            name: "metadata_props",
            form: Form::Message(&STRING_STRING_ENTRY_PROTO),
            repeated: true,
        },
        Field {
            number: 10,
            name: "device_configurations",
            form: Form::Message(&NODE_DEVICE_CONFIGURATION_PROTO),
            repeated: true,
        },
    ],
};

/// Fields of [`IntIntListEntryProto`](super::messages::IntIntListEntryProto).
pub static INT_INT_LIST_ENTRY_PROTO: Message = Message {
    name: "IntIntListEntryProto",
    fields: &[
        Field {
            number: 1,
            name: "key",
            form: Form::Varint,
            repeated: false,
        },
        Field {
            number: 2,
            name: "value",
            form: Form::Varint,
            repeated: true,
        },
    ],
};

/// Fields of [`NodeDeviceConfigurationProto`](super::messages::NodeDeviceConfigurationProto).
pub static NODE_DEVICE_CONFIGURATION_PROTO: Message = Message {
    name: "NodeDeviceConfigurationProto",
    fields: &[
        Field {
            number: 1,
            name: "configuration_id",
            form: Form::Text,
            repeated: false,
        },
        Field {
            number: 2,
            name: "sharding_spec",
            form: Form::Message(&SHARDING_SPEC_PROTO),
            repeated: true,
        },
        Field {
            number: 3,
            name: "pipeline_stage",
            form: Form::Varint,
            repeated: false,
        },
    ],
};

/// Fields of [`ShardingSpecProto`](super::messages::ShardingSpecProto).
pub static SHARDING_SPEC_PROTO: Message = Message {
    name: "ShardingSpecProto",
    fields: &[
        Field {
            number: 1,
            name: "tensor_name",
            form: Form::Text,
            repeated: false,
        },
        Field {
            number: 2,
            name: "device",
            form: Form::Varint,
            repeated: true,
        },
        Field {
            number: 3,
            name: "index_to_device_group_map",
            form: Form::Message(&INT_INT_LIST_ENTRY_PROTO),
            repeated: true,
        },
        Field {
            number: 4,
            name: "sharded_dim",
            form: Form::Message(&SHARDED_DIM_PROTO),
            repeated: true,
        },
    ],
};

/// Fields of [`ShardedDimProto`](super::messages::ShardedDimProto).
pub static SHARDED_DIM_PROTO: Message = Message {
    name: "ShardedDimProto",
    fields: &[
        Field {
            number: 1,
            name: "axis",
            form: Form::Varint,
            repeated: false,
        },
        Field {
            number: 2,
            name: "simple_sharding",
            form: Form::Message(&SIMPLE_SHARDED_DIM_PROTO),
            repeated: true,
        },
    ],
};

/// Fields of [`SimpleShardedDimProto`](super::messages::SimpleShardedDimProto).
pub static SIMPLE_SHARDED_DIM_PROTO: Message = Message {
    name: "SimpleShardedDimProto",
    fields: &[
        Field {
            number: 1,
            name: "dim_value",
            form: Form::Varint,
            repeated: false,
        },
        Field {
            number: 2,
            name: "dim_param",
            form: Form::Text,
            repeated: false,
        },
        Field {
            number: 3,
            name: "num_shards",
            form: Form::Varint,
            repeated: false,
        },
    ],
};

/// Fields of [`TrainingInfoProto`](super::messages::TrainingInfoProto).
pub static TRAINING_INFO_PROTO: Message = Message {
    name: "TrainingInfoProto",
    fields: &[
        Field {
            number: 1,
            name: "initialization",
            form: Form::Message(&GRAPH_PROTO),
            repeated: false,
        },
        Field {
            number: 2,
            name: "algorithm",
            form: Form::Message(&GRAPH_PROTO),
            repeated: false,
        },
        Field {
            number: 3,
            name: "initialization_binding",
            form: Form::Message(&STRING_STRING_ENTRY_PROTO),
            repeated: true,
        },
        Field {
            number: 4,
            name: "update_binding",
            form: Form::Message(&STRING_STRING_ENTRY_PROTO),
            repeated: true,
        },
    ],
};

/// Fields of [`ModelProto`](super::messages::ModelProto).
pub static MODEL_PROTO: Message = Message {
    name: "ModelProto",
    fields: &[
        Field {
            number: 1,
            name: "ir_version",
            form: Form::Varint,
            repeated: false,
        },
        Field {
            number: 2,
            name: "producer_name",
            form: Form::Text,
            repeated: false,
        },
        Field {
            number: 3,
            name: "producer_version",
            form: Form::Text,
            repeated: false,
        },
        Field {
            number: 4,
            name: "domain",
            form: Form::Text,
            repeated: false,
        },
        Field {
            number: 5,
            name: "model_version",
            form: Form::Varint,
            repeated: false,
        },
        Field {
            number: 6,
            name: "doc_string",
            form: Form::Text,
            repeated: false,
        },
        Field {
            number: 7,
            name: "graph",
            form: Form::Message(&GRAPH_PROTO),
            repeated: false,
        },
        Field {
            number: 8,
            name: "opset_import",
            form: Form::Message(&OPERATOR_SET_ID_PROTO),
            repeated: true,
        },
        Field {
            number: 14,
            name: "metadata_props",
            form: Form::Message(&STRING_STRING_ENTRY_PROTO),
            repeated: true,
        },
        Field {
            number: 20,
            name: "training_info",
            form: Form::Message(&TRAINING_INFO_PROTO),
            repeated: true,
        },
        Field {
            number: 25,
            name: "functions",
            form: Form::Message(&FUNCTION_PROTO),
            repeated: true,
        },
        Field {
            number: 26,
            name: "configuration",
            form: Form::Message(&DEVICE_CONFIGURATION_PROTO),
            repeated: true,
        },
    ],
};

/// Fields of [`DeviceConfigurationProto`](super::messages::DeviceConfigurationProto).
pub static DEVICE_CONFIGURATION_PROTO: Message = Message {
    name: "DeviceConfigurationProto",
    fields: &[
        Field {
            number: 1,
            name: "name",
            form: Form::Text,
            repeated: false,
        },
        Field {
            number: 2,
            name: "num_devices",
            form: Form::Varint,
            repeated: false,
        },
        Field {
            number: 3,
            name: "device",
            form: Form::Text,
            repeated: true,
        },
    ],
};

/// Fields of [`StringStringEntryProto`](super::messages::StringStringEntryProto).
pub static STRING_STRING_ENTRY_PROTO: Message = Message {
    name: "StringStringEntryProto",
    fields: &[
        Field {
            number: 1,
            name: "key",
            form: Form::Text,
            repeated: false,
        },
        Field {
            number: 2,
            name: "value",
            form: Form::Text,
            repeated: false,
        },
    ],
};

/// Fields of [`TensorAnnotation`](super::messages::TensorAnnotation).
pub static TENSOR_ANNOTATION: Message = Message {
    name: "TensorAnnotation",
    fields: &[
        Field {
            number: 1,
            name: "tensor_name",
            form: Form::Text,
            repeated: false,
        },
        Field {
            number: 2,
            name: "quant_parameter_tensor_names",
            form: Form::Message(&STRING_STRING_ENTRY_PROTO),
            repeated: true,
        },
    ],
};

/// Fields of [`GraphProto`](super::messages::GraphProto).
pub static GRAPH_PROTO: Message = Message {
    name: "GraphProto",
    fields: &[
        Field {
            number: 1,
            name: "node",
            form: Form::Message(&NODE_PROTO),
            repeated: true,
        },
        Field {
            number: 2,
            name: "name",
            form: Form::Text,
            repeated: false,
        },
        Field {
            number: 5,
            name: "initializer",
            form: Form::Message(&TENSOR_PROTO),
            repeated: true,
        },
        Field {
            number: 10,
            name: "doc_string",
            form: Form::Text,
            repeated: false,
        },
        Field {
            number: 11,
            name: "input",
            form: Form::Message(&VALUE_INFO_PROTO),
            repeated: true,
        },
        Field {
            number: 12,
            name: "output",
            form: Form::Message(&VALUE_INFO_PROTO),
            repeated: true,
        },
        Field {
            number: 13,
            name: "value_info",
            form: Form::Message(&VALUE_INFO_PROTO),
            repeated: true,
        },
        Field {
            number: 14,
            name: "quantization_annotation",
            form: Form::Message(&TENSOR_ANNOTATION),
            repeated: true,
        },
        Field {
            number: 15,
            name: "sparse_initializer",
            form: Form::Message(&SPARSE_TENSOR_PROTO),
            repeated: true,
        },
        Field {
            number: 16,
            name: "metadata_props",
            form: Form::Message(&STRING_STRING_ENTRY_PROTO),
            repeated: true,
        },
    ],
};

/// Fields of [`TensorProto`](super::messages::TensorProto).
pub static TENSOR_PROTO: Message = Message {
    name: "TensorProto",
    fields: &[
        Field {
            number: 1,
            name: "dims",
            form: Form::Varint,
            repeated: true,
        },
        Field {
            number: 2,
            name: "data_type",
            form: Form::Varint,
            repeated: false,
        },
        Field {
            number: 3,
            name: "segment",
            form: Form::Message(&TENSOR_SEGMENT),
            repeated: false,
        },
        Field {
            number: 4,
            name: "float_data",
            form: Form::PackedFixed32,
            repeated: true,
        },
        Field {
            number: 5,
            name: "int32_data",
            form: Form::PackedVarint,
            repeated: true,
        },
        Field {
            number: 6,
            name: "string_data",
            form: Form::Bytes,
            repeated: true,
        },
        Field {
            number: 7,
            name: "int64_data",
            form: Form::PackedVarint,
            repeated: true,
        },
        Field {
            number: 8,
            name: "name",
            form: Form::Text,
            repeated: false,
        },
        Field {
            number: 9,
            name: "raw_data",
            form: Form::Bytes,
            repeated: false,
        },
        Field {
            number: 10,
            name: "double_data",
            form: Form::PackedFixed64,
            repeated: true,
        },
        Field {
            number: 11,
            name: "uint64_data",
            form: Form::PackedVarint,
            repeated: true,
        },
        Field {
            number: 12,
            name: "doc_string",
            form: Form::Text,
            repeated: false,
        },
        Field {
            number: 13,
            name: "external_data",
            form: Form::Message(&STRING_STRING_ENTRY_PROTO),
            repeated: true,
        },
        Field {
            number: 14,
            name: "data_location",
            form: Form::Varint,
            repeated: false,
        },
        Field {
            number: 16,
            name: "metadata_props",
            form: Form::Message(&STRING_STRING_ENTRY_PROTO),
            repeated: true,
        },
    ],
};

/// Fields of [`TensorSegment`](super::messages::TensorSegment).
pub static TENSOR_SEGMENT: Message = Message {
    name: "TensorSegment",
    fields: &[
        Field {
            number: 1,
            name: "begin",
            form: Form::Varint,
            repeated: false,
        },
        Field {
            number: 2,
            name: "end",
            form: Form::Varint,
            repeated: false,
        },
    ],
};

/// Fields of [`SparseTensorProto`](super::messages::SparseTensorProto).
pub static SPARSE_TENSOR_PROTO: Message = Message {
    name: "SparseTensorProto",
    fields: &[
        Field {
            number: 1,
            name: "values",
            form: Form::Message(&TENSOR_PROTO),
            repeated: false,
        },
        Field {
            number: 2,
            name: "indices",
            form: Form::Message(&TENSOR_PROTO),
            repeated: false,
        },
        Field {
            number: 3,
            name: "dims",
            form: Form::Varint,
            repeated: true,
        },
    ],
};

/// Fields of [`TensorShapeProto`](super::messages::TensorShapeProto).
pub static TENSOR_SHAPE_PROTO: Message = Message {
    name: "TensorShapeProto",
    fields: &[Field {
        number: 1,
        name: "dim",
        form: Form::Message(&DIMENSION),
        repeated: true,
    }],
};

/// Fields of [`Dimension`](super::messages::Dimension).
pub static DIMENSION: Message = Message {
    name: "Dimension",
    fields: &[
        Field {
            number: 1,
            name: "dim_value",
            form: Form::Varint,
            repeated: false,
        },
        Field {
            number: 2,
            name: "dim_param",
            form: Form::Text,
            repeated: false,
        },
        Field {
            number: 3,
            name: "denotation",
            form: Form::Text,
            repeated: false,
        },
    ],
};

/// Fields of [`TypeProto`](super::messages::TypeProto).
pub static TYPE_PROTO: Message = Message {
    name: "TypeProto",
    fields: &[
        Field {
            number: 1,
            name: "tensor_type",
            form: Form::Message(&TENSOR_TYPE),
            repeated: false,
        },
        Field {
            number: 4,
            name: "sequence_type",
            form: Form::Message(&SEQUENCE_TYPE),
            repeated: false,
        },
        Field {
            number: 5,
            name: "map_type",
            form: Form::Message(&MAP_TYPE),
            repeated: false,
        },
        Field {
            number: 6,
            name: "denotation",
            form: Form::Text,
            repeated: false,
        },
        Field {
            number: 7,
            name: "opaque_type",
            form: Form::Message(&OPAQUE_TYPE),
            repeated: false,
        },
        Field {
            number: 8,
            name: "sparse_tensor_type",
            form: Form::Message(&SPARSE_TENSOR_TYPE),
            repeated: false,
        },
        Field {
            number: 9,
            name: "optional_type",
            form: Form::Message(&OPTIONAL_TYPE),
            repeated: false,
        },
    ],
};

/// Fields of [`TensorType`](super::messages::TensorType).
pub static TENSOR_TYPE: Message = Message {
    name: "TensorType",
    fields: &[
        Field {
            number: 1,
            name: "elem_type",
            form: Form::Varint,
            repeated: false,
        },
        Field {
            number: 2,
            name: "shape",
            form: Form::Message(&TENSOR_SHAPE_PROTO),
            repeated: false,
        },
    ],
};

/// Fields of [`SequenceType`](super::messages::SequenceType).
pub static SEQUENCE_TYPE: Message = Message {
    name: "SequenceType",
    fields: &[Field {
        number: 1,
        name: "elem_type",
        form: Form::Message(&TYPE_PROTO),
        repeated: false,
    }],
};

/// Fields of [`MapType`](super::messages::MapType).
pub static MAP_TYPE: Message = Message {
    name: "MapType",
    fields: &[
        Field {
            number: 1,
            name: "key_type",
            form: Form::Varint,
            repeated: false,
        },
        Field {
            number: 2,
            name: "value_type",
            form: Form::Message(&TYPE_PROTO),
            repeated: false,
        },
    ],
};

/// Fields of [`OptionalType`](super::messages::OptionalType).
pub static OPTIONAL_TYPE: Message = Message {
    name: "OptionalType",
    fields: &[Field {
        number: 1,
        name: "elem_type",
        form: Form::Message(&TYPE_PROTO),
        repeated: false,
    }],
};

/// Fields of [`SparseTensorType`](super::messages::SparseTensorType).
pub static SPARSE_TENSOR_TYPE: Message = Message {
    name: "SparseTensorType",
    fields: &[
        Field {
            number: 1,
            name: "elem_type",
            form: Form::Varint,
            repeated: false,
        },
        Field {
            number: 2,
            name: "shape",
            form: Form::Message(&TENSOR_SHAPE_PROTO),
            repeated: false,
        },
    ],
};

/// Fields of [`OpaqueType`](super::messages::OpaqueType).
pub static OPAQUE_TYPE: Message = Message {
    name: "OpaqueType",
    fields: &[
        Field {
            number: 1,
            name: "domain",
            form: Form::Text,
            repeated: false,
        },
        Field {
            number: 2,
            name: "name",
            form: Form::Text,
            repeated: false,
        },
    ],
};

/// Fields of [`OperatorSetIdProto`](super::messages::OperatorSetIdProto).
pub static OPERATOR_SET_ID_PROTO: Message = Message {
    name: "OperatorSetIdProto",
    fields: &[
        Field {
            number: 1,
            name: "domain",
            form: Form::Text,
            repeated: false,
        },
        Field {
            number: 2,
            name: "version",
            form: Form::Varint,
            repeated: false,
        },
    ],
};

/// Fields of [`FunctionProto`](super::messages::FunctionProto).
pub static FUNCTION_PROTO: Message = Message {
    name: "FunctionProto",
    fields: &[
        Field {
            number: 1,
            name: "name",
            form: Form::Text,
            repeated: false,
        },
        Field {
            number: 4,
            name: "input",
            form: Form::Text,
            repeated: true,
        },
        Field {
            number: 5,
            name: "output",
            form: Form::Text,
            repeated: true,
        },
        Field {
            number: 6,
            name: "attribute",
            form: Form::Text,
            repeated: true,
        },
        Field {
            number: 7,
            name: "node",
            form: Form::Message(&NODE_PROTO),
            repeated: true,
        },
        Field {
            number: 8,
            name: "doc_string",
            form: Form::Text,
            repeated: false,
        },
        Field {
            number: 9,
            name: "opset_import",
            form: Form::Message(&OPERATOR_SET_ID_PROTO),
            repeated: true,
        },
        Field {
            number: 10,
            name: "domain",
            form: Form::Text,
            repeated: false,
        },
        Field {
            number: 11,
            name: "attribute_proto",
            form: Form::Message(&ATTRIBUTE_PROTO),
            repeated: true,
        },
        Field {
            number: 12,
            name: "value_info",
            form: Form::Message(&VALUE_INFO_PROTO),
            repeated: true,
        },
        Field {
            number: 13,
            name: "overload",
            form: Form::Text,
            repeated: false,
        },
        Field {
            number: 14,
            name: "metadata_props",
            form: Form::Message(&STRING_STRING_ENTRY_PROTO),
            repeated: true,
        },
    ],
};
