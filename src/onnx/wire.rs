//! The protobuf wire format, read without decoding: finds fields that we do not know before prost drops them.

/// How a field's value is written.
#[derive(Debug)]
pub enum Form {
    /// A base-128 integer (wire type 0).
    Varint,
    /// Four bytes (wire type 5).
    Fixed32,
    /// Eight bytes (wire type 1).
    Fixed64,
    /// UTF-8 text (wire type 2).
    Text,
    /// Bytes (wire type 2).
    Bytes,
    /// Base-128 integers, one after another (wire type 2).
    PackedVarint,
    /// Four-byte numbers, one after another (wire type 2).
    PackedFixed32,
    /// Eight-byte numbers, one after another (wire type 2).
    PackedFixed64,
    /// A nested message (wire type 2).
    Message(&'static Message),
}

/// One field of a message.
#[derive(Debug)]
pub struct Field {
    /// Field number.
    pub number: u32,
    /// Field name in `onnx.proto`.
    pub name: &'static str,
    /// How its value is written.
    pub form: Form,
    /// Whether it may stand more than once.
    pub repeated: bool,
}

/// One message and its fields, sorted by number.
#[derive(Debug)]
pub struct Message {
    /// Name in `onnx.proto`.
    pub name: &'static str,
    /// Fields, sorted by number.
    pub fields: &'static [Field],
}
