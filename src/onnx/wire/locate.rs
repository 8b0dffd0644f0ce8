//! The path of a field, found from its offset. Only faults and deviations pay for it.

use super::{FIXED32, FIXED64, Fault, Form, LENGTH, Message, Scanner, VARINT, find, split_tag};

/// The path of the innermost field that covers `offset`, as far as the bytes can be followed.
pub(super) fn locate(bytes: &[u8], message: &'static Message, offset: usize) -> String {
    let mut path = message.name.to_owned();
    let mut scope = Some((0, bytes.len(), message));
    while let Some((start, end, message)) = scope {
        scope = step(bytes, start, end, message, offset, &mut path);
    }
    path
}

/// One level of [`locate`]: names the field of `message` that covers `offset`; gives its extent if it is a message.
fn step(
    bytes: &[u8],
    start: usize,
    end: usize,
    message: &'static Message,
    offset: usize,
    path: &mut String,
) -> Option<(usize, usize, &'static Message)> {
    let mut reader = Scanner { bytes, odd: None };
    let mut seen = vec![0usize; message.fields.len()];
    let (mut at, mut cursor) = (start, 0);
    while at < end {
        let tag_at = at;
        let (number, wire_type) = split_tag(reader.varint(&mut at, end, tag_at).ok()?)?;
        let field = find(message.fields, number, &mut cursor);
        let value = match wire_type {
            VARINT => reader.varint(&mut at, end, tag_at).map(|_| at),
            FIXED32 => reader.advance(&mut at, end, 4, tag_at),
            FIXED64 => reader.advance(&mut at, end, 8, tag_at),
            LENGTH => reader.varint(&mut at, end, tag_at).and_then(|length| {
                let start = at;
                reader.advance(&mut at, end, length, tag_at).map(|_| start)
            }),
            _ => Err((tag_at, Fault::UnknownField)),
        };
        let here = offset < at || value.is_err();
        let count = seen
            .get_mut(cursor)
            .map_or(0, |count| std::mem::replace(count, *count + 1));
        if here {
            match field {
                None => path.push_str(&format!(".field {number}")),
                Some(field) if field.repeated => path.push_str(&format!(".{}[{count}]", field.name)),
                Some(field) => path.push_str(&format!(".{}", field.name)),
            }
            return match (field.map(|field| &field.form), value) {
                (Some(Form::Message(inner)), Ok(start)) if start <= offset => Some((start, at, inner)),
                _ => None,
            };
        }
    }
    None
}
