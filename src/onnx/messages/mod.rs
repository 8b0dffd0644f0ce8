//! The messages of `onnx.proto` (ONNX IR version 14), one struct a message, one field a field.
//!
//! Every singular field is an `Option`: proto2 tells "absent" from "set to the default", and files that were
//! loaded have to be saved byte for byte. For the same reason a `oneof` is written as its optional fields, which
//! keeps the order of the field numbers. Field meanings are those of the [ONNX IR specification][spec].
//! The tables in [`super::schema`] describe the same fields to the check that runs before decoding.
//!
//! [spec]: https://github.com/onnx/onnx/blob/main/docs/IR.md
#![allow(missing_docs)] // Fields carry the specification's names.

mod devices;
mod model;
mod tensor;
mod types;

pub use devices::{
    DeviceConfigurationProto, IntIntListEntryProto, NodeDeviceConfigurationProto, ShardedDimProto, ShardingSpecProto,
    SimpleShardedDimProto,
};
pub use model::{
    AttributeProto, AttributeType, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    StringStringEntryProto, TensorAnnotation, TrainingInfoProto,
};
pub use tensor::{DataLocation, DataType, SparseTensorProto, TensorProto, TensorSegment};
pub use types::{
    Dimension, MapType, OpaqueType, OptionalType, SequenceType, SparseTensorType, TensorShapeProto, TensorType,
    TypeProto, ValueInfoProto,
};
