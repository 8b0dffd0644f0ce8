//! Every field of every message: the tables and the structs say the same.

use bytes::Bytes;

use super::drawn::{delimited, varint};
use crate::onnx::messages::*;
use crate::onnx::schema::*;
use crate::onnx::wire::{Form, Message, scan};

/// A message with all its fields, repeated ones twice; messages within it are empty.
fn full(message: &Message) -> Vec<u8> {
    let mut out = Vec::new();
    for field in message.fields {
        let count = if field.repeated { 2 } else { 1 };
        let mut put = |wire_type: u64, value: &[u8]| {
            varint(u64::from(field.number) << 3 | wire_type, &mut out);
            out.extend(value);
        };
        let minus_one = [&[0xff; 9][..], &[1]].concat();
        match field.form {
            Form::Int32 | Form::Int64 => (0..count).for_each(|_| put(0, &minus_one)),
            Form::Float => (0..count).for_each(|_| put(5, &[0, 0, 0x80, 0x3f])),
            Form::Double => (0..count).for_each(|_| put(1, &[0, 0, 0, 0, 0, 0, 0xf0, 0x3f])),
            Form::Text | Form::Bytes => (0..count).for_each(|_| put(2, b"\x02ab")),
            Form::Message(_) => (0..count).for_each(|_| put(2, b"\0")),
            Form::PackedInt32 | Form::PackedInt64 | Form::PackedFloat | Form::PackedDouble => {
                let mut packed = Vec::new();
                delimited(&[1; 16], &mut packed);
                put(2, &packed);
            }
        }
    }
    out
}

fn check<T: prost::Message + Default>(message: &'static Message) {
    let bytes = full(message);
    assert_eq!(scan(&bytes, message), Ok(None), "{}", message.name);
    let decoded = T::decode(Bytes::from(bytes.clone())).unwrap();
    assert_eq!(decoded.encode_to_vec(), bytes, "{}", message.name);
    assert!(
        message.fields.is_sorted_by_key(|field| field.number),
        "{}",
        message.name
    );
}

#[test]
fn tables_and_structs_agree() {
    check::<AttributeProto>(&ATTRIBUTE_PROTO);
    check::<ValueInfoProto>(&VALUE_INFO_PROTO);
    check::<NodeProto>(&NODE_PROTO);
    check::<IntIntListEntryProto>(&INT_INT_LIST_ENTRY_PROTO);
    check::<NodeDeviceConfigurationProto>(&NODE_DEVICE_CONFIGURATION_PROTO);
    check::<ShardingSpecProto>(&SHARDING_SPEC_PROTO);
    check::<ShardedDimProto>(&SHARDED_DIM_PROTO);
    check::<SimpleShardedDimProto>(&SIMPLE_SHARDED_DIM_PROTO);
    check::<TrainingInfoProto>(&TRAINING_INFO_PROTO);
    check::<ModelProto>(&MODEL_PROTO);
    check::<DeviceConfigurationProto>(&DEVICE_CONFIGURATION_PROTO);
    check::<StringStringEntryProto>(&STRING_STRING_ENTRY_PROTO);
    check::<TensorAnnotation>(&TENSOR_ANNOTATION);
    check::<GraphProto>(&GRAPH_PROTO);
    check::<TensorProto>(&TENSOR_PROTO);
    check::<TensorSegment>(&TENSOR_SEGMENT);
    check::<SparseTensorProto>(&SPARSE_TENSOR_PROTO);
    check::<TensorShapeProto>(&TENSOR_SHAPE_PROTO);
    check::<Dimension>(&DIMENSION);
    check::<TypeProto>(&TYPE_PROTO);
    check::<TensorType>(&TENSOR_TYPE);
    check::<SequenceType>(&SEQUENCE_TYPE);
    check::<MapType>(&MAP_TYPE);
    check::<OptionalType>(&OPTIONAL_TYPE);
    check::<SparseTensorType>(&SPARSE_TENSOR_TYPE);
    check::<OpaqueType>(&OPAQUE_TYPE);
    check::<OperatorSetIdProto>(&OPERATOR_SET_ID_PROTO);
    check::<FunctionProto>(&FUNCTION_PROTO);
}
