//! Random messages drawn from the field tables, and random damage to them.

use bytes::Bytes;
use onnx_protobuf::Message as _;
use proptest::prelude::*;
use prost::Message as _;

use crate::onnx::messages::ModelProto;
use crate::onnx::schema::MODEL_PROTO;
use crate::onnx::stream;
use crate::onnx::wire::{Fault, Form, Message, NESTING_LIMIT, Oddity, WireError, scan};

/// Random choices, which proptest can shrink: after the last one everything is zero.
struct Tape<'a> {
    choices: std::slice::Iter<'a, u8>,
    /// Whether values that proto3 does not write (zero and empty) are left out.
    plain: bool,
}

impl Tape<'_> {
    fn next(&mut self) -> u8 {
        self.choices.next().copied().unwrap_or(0)
    }

    fn text(&mut self) -> &'static str {
        let lengths = if self.plain { [1, 3, 6, 10] } else { [0, 1, 3, 6] };
        &"aß€😀"[..lengths[usize::from(self.next() % 4)]]
    }

    fn number(&mut self) -> u64 {
        // All lengths of base-128 numbers, not only the longest.
        let kept = self.next() % 9;
        (0..kept).fold(0, |number, _| number << 8 | u64::from(self.next())) | u64::from(self.plain)
    }
}

pub(super) fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(super) fn delimited(bytes: &[u8], out: &mut Vec<u8>) {
    varint(bytes.len() as u64, out);
    out.extend(bytes);
}

fn scalar(form: &Form, tape: &mut Tape<'_>, out: &mut Vec<u8>) {
    match form {
        Form::Int32 | Form::PackedInt32 => varint(i64::from(tape.number() as i32) as u64, out),
        Form::Int64 | Form::PackedInt64 => varint(tape.number(), out),
        Form::Float | Form::PackedFloat => out.extend((tape.number() as u32 & 0xff7f_ffff).to_le_bytes()),
        Form::Double | Form::PackedDouble => out.extend((tape.number() & 0xffef_ffff_ffff_ffff).to_le_bytes()),
        _ => unreachable!("not a number"),
    }
}

/// Fields of which at most one stands (`oneof` in `onnx.proto`).
const ALTERNATIVES: &[(&str, &[u32])] = &[
    ("Dimension", &[1, 2]),
    ("SimpleShardedDimProto", &[1, 2]),
    ("TypeProto", &[1, 4, 5, 7, 8, 9]),
];

/// A message as an official writer writes it.
fn draw(message: &'static Message, tape: &mut Tape<'_>, depth: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let alternatives = ALTERNATIVES.iter().find(|(name, _)| *name == message.name);
    let mut chosen = false;
    for field in message.fields {
        let alternative = alternatives.is_some_and(|(_, numbers)| numbers.contains(&field.number));
        let count = match tape.next() {
            0..140 => 0,
            _ if alternative && std::mem::replace(&mut chosen, true) => 0,
            choice if field.repeated => usize::from(choice % 3) + 1,
            _ => 1,
        };
        let packed = matches!(
            field.form,
            Form::PackedInt32 | Form::PackedInt64 | Form::PackedFloat | Form::PackedDouble
        );
        if packed && count > 0 {
            varint(u64::from(field.number) << 3 | 2, &mut out);
            let mut values = Vec::new();
            (0..count).for_each(|_| scalar(&field.form, tape, &mut values));
            delimited(&values, &mut out);
            continue;
        }
        for _ in 0..count {
            let wire_type = match field.form {
                Form::Int32 | Form::Int64 => 0,
                Form::Double => 1,
                Form::Float => 5,
                _ => 2,
            };
            if matches!(field.form, Form::Message(_)) && depth == 0 {
                continue;
            }
            varint(u64::from(field.number) << 3 | wire_type, &mut out);
            match &field.form {
                Form::Message(inner) => delimited(&draw(inner, tape, depth - 1), &mut out),
                Form::Text => delimited(tape.text().as_bytes(), &mut out),
                Form::Bytes => {
                    let length = usize::from(tape.next() % 8) + usize::from(tape.plain);
                    delimited(&tape.number().to_le_bytes()[..length], &mut out);
                }
                form => scalar(form, tape, &mut out),
            }
        }
    }
    out
}

/// A model as an official writer writes it; `plain` without zeros and empty text.
fn any_model(plain: bool) -> impl Strategy<Value = Vec<u8>> {
    let choices = prop::collection::vec(any::<u8>(), 0..4000);
    choices.prop_map(move |choices| {
        draw(
            &MODEL_PROTO,
            &mut Tape {
                choices: choices.iter(),
                plain,
            },
            9,
        )
    })
}

fn decode(bytes: &[u8]) -> ModelProto {
    ModelProto::decode(Bytes::copy_from_slice(bytes)).unwrap()
}

proptest! {
    #[test]
    fn every_field_of_the_tables_survives(bytes in any_model(false)) {
        prop_assert_eq!(scan(&bytes, &MODEL_PROTO), Ok(None));
        prop_assert_eq!(&decode(&bytes).encode_to_vec(), &bytes);
    }

    #[test]
    fn the_streaming_encoder_writes_what_prost_writes(bytes in any_model(false)) {
        let mut out = Vec::new();
        stream::encode(&decode(&bytes), &mut out).unwrap();
        prop_assert_eq!(&out, &bytes);
    }

    #[test]
    fn an_independent_decoder_agrees(bytes in any_model(true)) {
        // It follows proto3, which does not write zeros and empty text. It knows IR version 10, and keeps what is newer
        // as unknown fields at the end of the messages.
        let theirs = onnx_protobuf::ModelProto::parse_from_bytes(&decode(&bytes).encode_to_vec()).unwrap();
        let again = theirs.write_to_bytes().unwrap();
        prop_assert!(scan(&again, &MODEL_PROTO).is_ok());
        prop_assert_eq!(decode(&again), decode(&bytes));
    }

    #[test]
    fn damage_never_panics_and_never_changes_silently(
        bytes in any_model(false), changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<Option<prop::sample::Index>>(),
    ) {
        let mut bytes = bytes;
        if bytes.is_empty() {
            return Ok(());
        }
        for (index, byte) in changes {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        bytes.truncate(cut.map_or(bytes.len(), |cut| cut.index(bytes.len() + 1)));
        match scan(&bytes, &MODEL_PROTO) {
            Ok(None) => prop_assert_eq!(&decode(&bytes).encode_to_vec(), &bytes),
            // Unusual, yet sound: the meaning must survive, and the second time the bytes too.
            Ok(Some(_)) => {
                let again = decode(&bytes).encode_to_vec();
                prop_assert_eq!(scan(&again, &MODEL_PROTO), Ok(None));
                prop_assert_eq!(decode(&again).encode_to_vec(), again);
            }
            Err(WireError { offset, path, .. }) => {
                prop_assert!(offset <= bytes.len());
                prop_assert!(path.starts_with("ModelProto"));
            }
        }
    }

    #[test]
    fn noise_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if scan(&bytes, &MODEL_PROTO).is_ok() {
            prop_assert!(ModelProto::decode(Bytes::from(bytes)).is_ok());
        }
    }
}

/// A field of wire type 2.
fn field(number: u64, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    varint(number << 3 | 2, &mut out);
    delimited(content, &mut out);
    out
}

fn fault(bytes: &[u8]) -> (String, usize, Fault) {
    let error = scan(bytes, &MODEL_PROTO).unwrap_err();
    (error.path, error.offset, error.fault)
}

#[test]
fn unknown_fields_are_named_with_their_path() {
    let attribute = [field(1, b"a"), field(99, b"new")].concat();
    let node = [field(4, b"Add"), field(5, &attribute)].concat();
    let graph = [field(1, &field(4, b"Mul")), field(1, &node)].concat();
    let (path, offset, fault) = fault(&field(7, &graph));
    assert_eq!(path, "ModelProto.graph.node[1].attribute[0].field 99");
    assert_eq!(fault, Fault::UnknownField);
    assert_eq!(offset, 2 + 7 + 2 + 5 + 2 + 3);
}

#[test]
fn torn_bytes_are_told_apart() {
    let node = field(4, b"Identity");
    let model = field(7, &field(1, &node));
    assert_eq!(
        fault(&model[..model.len() - 3]),
        ("ModelProto.graph".to_owned(), 0, Fault::Truncated { missing: 3 })
    );
    assert_eq!(fault(&model[..1]).2, Fault::Truncated { missing: 1 });
    let mut overrun = model.clone();
    overrun[3] += 1; // the node's length
    assert_eq!(
        fault(&overrun),
        ("ModelProto.graph.node[0]".to_owned(), 2, Fault::Overrun)
    );
    assert_eq!(
        fault(&[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]).2,
        Fault::LongInteger
    );
    assert_eq!(
        fault(&[0x3a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]).2,
        { Fault::Truncated { missing: u64::MAX } }
    );
    assert_eq!(fault(&[0x00, 0x00]).2, Fault::BadTag { tag: 0 });
    assert_eq!(fault(&[0x0f]).2, Fault::BadTag { tag: 15 });
    assert_eq!(fault(&field(1, b"")).2, Fault::WireType { expected: 0, found: 2 });
    assert_eq!(
        fault(&field(2, b"ab\xff")),
        ("ModelProto.producer_name".to_owned(), 4, Fault::NotUtf8)
    );
    let tensor = field(4, &[0; 6]);
    let (path, _, torn) = fault(&field(7, &field(5, &tensor)));
    assert_eq!(
        (path.as_str(), torn),
        (
            "ModelProto.graph.initializer[0].float_data[0]",
            Fault::TornPacked { length: 6 }
        )
    );
}

#[test]
fn unusual_ways_of_writing_are_read_and_noted() {
    let imports = field(8, &[0x10, 7]);
    let graph = field(7, &field(2, b"g"));
    let dims_packed = field(7, &field(5, &field(1, &[1, 2])));
    let floats_unpacked = field(7, &field(5, &[0x25, 0, 0, 0x80, 0x3f]));
    let cases: &[(Vec<u8>, Oddity, &str)] = &[
        ([imports, graph.clone()].concat(), Oddity::Order, "ModelProto.graph"),
        ([graph.clone(), graph].concat(), Oddity::Repeated, "ModelProto.graph"),
        (vec![0x08, 0x88, 0x00], Oddity::Integer, "ModelProto.ir_version"),
        (dims_packed, Oddity::Packing, "ModelProto.graph.initializer[0].dims[0]"),
        (
            floats_unpacked,
            Oddity::Packing,
            "ModelProto.graph.initializer[0].float_data[0]",
        ),
        // -1 in 32 bits where writers use 64.
        (
            field(7, &field(5, &[0x10, 0xff, 0xff, 0xff, 0xff, 0x0f])),
            Oddity::Integer,
            "ModelProto.graph.initializer[0].data_type",
        ),
    ];
    for (bytes, oddity, path) in cases {
        let deviation = scan(bytes, &MODEL_PROTO).unwrap().unwrap();
        assert_eq!((deviation.oddity, deviation.path.as_str()), (*oddity, *path));
        assert_ne!(decode(bytes).encode_to_vec(), *bytes, "{path}: not unusual at all");
    }
}

/// A model with `depth` messages within each other: graph, then attribute and graph within nodes.
fn nested(depth: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for level in (1..=depth).rev() {
        // 1: graph of the model; then node, attribute, graph again and again.
        let number = match level {
            1 => 7,
            _ => [6, 1, 5][(level - 1) % 3],
        };
        bytes = field(number, &bytes);
    }
    bytes
}

#[test]
fn nesting_is_bounded_as_in_the_decoder() {
    let deepest = nested(NESTING_LIMIT);
    assert_eq!(scan(&deepest, &MODEL_PROTO), Ok(None));
    assert_eq!(decode(&deepest).encode_to_vec(), deepest);
    assert_eq!(fault(&nested(NESTING_LIMIT + 1)).2, Fault::TooDeep);
    assert_eq!(fault(&nested(20_000)).2, Fault::TooDeep);
}
