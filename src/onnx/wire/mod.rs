//! The protobuf wire format, read without decoding: finds fields that we do not know before prost drops them,
//! and tells whether saving will give back the same bytes.
//!
//! Follows the [encoding specification][spec]. Nothing is copied, recursion is bounded, and every fault carries
//! the offset and the field's path.
//!
//! [spec]: https://protobuf.dev/programming-guides/encoding/

mod locate;

use thiserror::Error;

use self::locate::locate;

/// How a field's value is written by the official writers.
#[derive(Debug)]
pub enum Form {
    /// A 32-bit integer or an enumeration: base-128, sign-extended to 64 bits (wire type 0).
    Int32,
    /// A 64-bit integer: base-128 (wire type 0).
    Int64,
    /// Four bytes (wire type 5).
    Float,
    /// Eight bytes (wire type 1).
    Double,
    /// UTF-8 text (wire type 2).
    Text,
    /// Bytes (wire type 2).
    Bytes,
    /// 32-bit integers, one after another (wire type 2).
    PackedInt32,
    /// 64-bit integers, one after another (wire type 2).
    PackedInt64,
    /// Four-byte numbers, one after another (wire type 2).
    PackedFloat,
    /// Eight-byte numbers, one after another (wire type 2).
    PackedDouble,
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

/// Messages within messages that are followed, as in the official implementations (and in prost).
pub const NESTING_LIMIT: usize = 100;

/// Why bytes are not a message of the schema.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Fault {
    /// The file ends within a value.
    #[error("the file ends here, {missing} byte(s) or more too early")]
    Truncated {
        /// Bytes that are missing at least.
        missing: u64,
    },
    /// A value is longer than the message it stands in.
    #[error("a value is longer than the message that holds it")]
    Overrun,
    /// An integer has more than 64 bits.
    #[error("an integer has more than 64 bits")]
    LongInteger,
    /// A field number or a wire type that protobuf does not have.
    #[error("no protobuf field starts here (tag {tag:#x})")]
    BadTag {
        /// The tag as it was read.
        tag: u64,
    },
    /// A field that the schema does not have.
    #[error("a field that this version does not know; saving would lose it")]
    UnknownField,
    /// A field of the schema with another wire type.
    #[error("wire type {found} where the field has wire type {expected}")]
    WireType {
        /// Wire type in `onnx.proto`.
        expected: u8,
        /// Wire type that was read.
        found: u8,
    },
    /// Text that is not UTF-8.
    #[error("text that is not UTF-8")]
    NotUtf8,
    /// Packed numbers whose length is not a multiple of the number's size.
    #[error("packed numbers of {length} bytes, which is not a whole count of numbers")]
    TornPacked {
        /// Bytes of the packed field.
        length: u64,
    },
    /// More than [`NESTING_LIMIT`] messages within each other.
    #[error("more than {NESTING_LIMIT} messages within each other")]
    TooDeep,
}

/// A [`Fault`] and where it is.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{path}, byte {offset}: {fault}")]
pub struct WireError {
    /// Offset in the bytes, from 0.
    pub offset: usize,
    /// Path of the field, e.g. `ModelProto.graph.node[12].attribute[0].field 99`.
    pub path: String,
    /// What is wrong.
    pub fault: Fault,
}

/// What a writer did that prost, and the official writers, do otherwise. The meaning is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Oddity {
    /// Fields are not in the order of their numbers.
    #[error("fields are not in the order of their numbers")]
    Order,
    /// A field that can have one value has several.
    #[error("a field that stands once is written several times")]
    Repeated,
    /// An integer is written with more bytes than it needs.
    #[error("an integer is written in an unusual length")]
    Integer,
    /// Numbers are packed where `onnx.proto` says unpacked, or the other way round, or in several pieces.
    #[error("numbers are packed otherwise than onnx.proto says")]
    Packing,
}

/// The first [`Oddity`] of a file: saving gives an equal model, yet other bytes.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{path}, byte {offset}: {oddity}")]
pub struct Deviation {
    /// Offset in the bytes, from 0.
    pub offset: usize,
    /// Path of the field.
    pub path: String,
    /// What was met.
    pub oddity: Oddity,
}

const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const LENGTH: u8 = 2;
const FIXED32: u8 = 5;

impl Form {
    /// Wire type of a single value.
    fn element_wire_type(&self) -> u8 {
        match self {
            Form::Int32 | Form::Int64 | Form::PackedInt32 | Form::PackedInt64 => VARINT,
            Form::Float | Form::PackedFloat => FIXED32,
            Form::Double | Form::PackedDouble => FIXED64,
            Form::Text | Form::Bytes | Form::Message(_) => LENGTH,
        }
    }

    /// Whether the official writers pack the numbers.
    fn packed(&self) -> bool {
        matches!(
            self,
            Form::PackedInt32 | Form::PackedInt64 | Form::PackedFloat | Form::PackedDouble
        )
    }
}

/// Reads `bytes` against `message`. Linear time; nothing is copied.
///
/// Gives the first [`Deviation`], or `None` where encoding the decoded message gives the same bytes.
///
/// # Errors
/// [`WireError`] where the bytes are torn, or hold what the schema does not know.
pub fn scan(bytes: &[u8], message: &'static Message) -> Result<Option<Deviation>, WireError> {
    let mut scanner = Scanner { bytes, odd: None };
    match scanner.message(0, bytes.len(), message, 0) {
        Ok(()) => Ok(scanner.odd.map(|(offset, oddity)| Deviation {
            offset,
            path: locate(bytes, message, offset),
            oddity,
        })),
        Err((offset, fault)) => Err(WireError {
            offset,
            path: locate(bytes, message, offset),
            fault,
        }),
    }
}

/// A fault and its offset; the path is found afterwards, so that sound files do not pay for it.
type Located<T> = Result<T, (usize, Fault)>;

struct Scanner<'a> {
    bytes: &'a [u8],
    odd: Option<(usize, Oddity)>,
}

impl Scanner<'_> {
    fn note(&mut self, offset: usize, oddity: Oddity) {
        self.odd.get_or_insert((offset, oddity));
    }

    fn message(&mut self, start: usize, end: usize, message: &'static Message, depth: usize) -> Located<()> {
        let mut at = start;
        let mut previous = 0;
        // Official writers keep the order of the fields, so the next field is found where the last one was.
        let mut cursor = 0;
        while at < end {
            let tag_at = at;
            let tag = self.varint(&mut at, end, tag_at)?;
            let (number, wire_type) = split_tag(tag).ok_or((tag_at, Fault::BadTag { tag }))?;
            let field = find(message.fields, number, &mut cursor).ok_or((tag_at, Fault::UnknownField))?;
            let packed = field.repeated && wire_type == LENGTH && field.form.element_wire_type() != LENGTH;
            if !packed && wire_type != field.form.element_wire_type() {
                let expected = field.form.element_wire_type();
                let found = wire_type;
                return Err((tag_at, Fault::WireType { expected, found }));
            }
            if number < previous {
                self.note(tag_at, Oddity::Order);
            } else if number == previous && !field.repeated {
                self.note(tag_at, Oddity::Repeated);
            }
            if packed != field.form.packed() || (packed && number == previous) {
                self.note(tag_at, Oddity::Packing);
            }
            previous = number;
            if wire_type == LENGTH {
                self.delimited(&mut at, end, field, packed, tag_at, depth)?;
            } else {
                self.number(&mut at, end, &field.form, tag_at)?;
            }
        }
        Ok(())
    }

    /// A value with its length before it.
    fn delimited(
        &mut self,
        at: &mut usize,
        end: usize,
        field: &'static Field,
        packed: bool,
        tag_at: usize,
        depth: usize,
    ) -> Located<()> {
        let length = self.varint(at, end, tag_at)?;
        let start = *at;
        let stop = self.advance(at, end, length, tag_at)?;
        match &field.form {
            Form::Message(_) if depth == NESTING_LIMIT => Err((tag_at, Fault::TooDeep)),
            Form::Message(inner) => self.message(start, stop, inner, depth + 1).map_err(within),
            Form::Text => {
                let text = self.bytes.get(start..stop).unwrap_or_default();
                std::str::from_utf8(text).map_err(|error| (start + error.valid_up_to(), Fault::NotUtf8))?;
                Ok(())
            }
            form if packed => {
                if length == 0 {
                    self.note(tag_at, Oddity::Packing);
                }
                let size = match form.element_wire_type() {
                    FIXED32 => 4,
                    FIXED64 => 8,
                    _ => 1,
                };
                if length % size != 0 {
                    return Err((tag_at, Fault::TornPacked { length }));
                }
                if size == 1 {
                    let mut at = start;
                    while at < stop {
                        self.number(&mut at, stop, form, tag_at).map_err(within)?;
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// One number of any form.
    fn number(&mut self, at: &mut usize, end: usize, form: &Form, tag_at: usize) -> Located<()> {
        match form.element_wire_type() {
            FIXED32 => self.advance(at, end, 4, tag_at).map(|_| ()),
            FIXED64 => self.advance(at, end, 8, tag_at).map(|_| ()),
            _ => {
                let value = self.varint(at, end, tag_at)?;
                // Writers extend the sign of 32-bit integers to 64 bits; prost reads the low half only.
                if matches!(form, Form::Int32 | Form::PackedInt32) && i64::from(value as i32) as u64 != value {
                    self.note(tag_at, Oddity::Integer);
                }
                Ok(())
            }
        }
    }

    /// Steps over `length` bytes; gives the offset behind them.
    fn advance(&self, at: &mut usize, end: usize, length: u64, tag_at: usize) -> Located<usize> {
        let left = (end - *at) as u64;
        if length > left {
            return Err((tag_at, self.short(*at, length)));
        }
        *at += length as usize;
        Ok(*at)
    }

    /// The fault of a value that has `length` bytes from `at` on, and does not fit.
    fn short(&self, at: usize, length: u64) -> Fault {
        match length.saturating_sub((self.bytes.len() - at) as u64) {
            0 => Fault::Overrun,
            missing => Fault::Truncated { missing },
        }
    }

    fn varint(&mut self, at: &mut usize, end: usize, tag_at: usize) -> Located<u64> {
        let mut value = 0u64;
        for count in 0..10 {
            let byte = match self.bytes.get(*at) {
                Some(byte) if *at < end => *byte,
                _ => return Err((tag_at, self.short(*at, 1))),
            };
            *at += 1;
            if count == 9 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << (7 * count);
            if byte & 0x80 == 0 {
                if byte == 0 && count > 0 {
                    self.note(tag_at, Oddity::Integer);
                }
                return Ok(value);
            }
        }
        Err((tag_at, Fault::LongInteger))
    }
}

/// A value whose length was checked is whole, so that what does not fit into it is no matter of the file's end.
fn within((offset, fault): (usize, Fault)) -> (usize, Fault) {
    match fault {
        Fault::Truncated { .. } => (offset, Fault::Overrun),
        other => (offset, other),
    }
}

/// Field number and wire type of a tag.
fn split_tag(tag: u64) -> Option<(u32, u8)> {
    let wire_type = (tag & 7) as u8;
    let number = u32::try_from(tag >> 3).ok()?;
    // Wire types 3 and 4 (groups) exist, though no field of ONNX has them.
    ((1..1 << 29).contains(&number) && wire_type <= FIXED32).then_some((number, wire_type))
}

/// The field of that number, looked for from the last one on.
fn find(fields: &'static [Field], number: u32, cursor: &mut usize) -> Option<&'static Field> {
    let (before, after) = fields.split_at_checked(*cursor)?;
    let index = match after.iter().position(|field| field.number == number) {
        Some(index) => *cursor + index,
        None => before.iter().position(|field| field.number == number)?,
    };
    *cursor = index;
    fields.get(index)
}
