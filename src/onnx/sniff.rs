//! Tells what a file is that turned out not to be ONNX.

/// How a kind of file is recognised, and what to do with it.
struct Kind {
    /// Offset of the mark.
    at: usize,
    /// Bytes that mark the kind.
    mark: &'static [u8],
    /// What it is, and the next step.
    says: &'static str,
}

const fn kind(at: usize, mark: &'static [u8], says: &'static str) -> Kind {
    Kind { at, mark, says }
}

/// In order: the first mark that fits decides.
static KINDS: &[Kind] = &[
    kind(
        0,
        b"version https://git-lfs",
        "a Git LFS pointer, not the file itself; run `git lfs pull` in its repository",
    ),
    kind(
        0,
        b"PK\x03\x04",
        "a ZIP archive, as PyTorch's .pt and .pth files are; export the model with torch.onnx.export, or unpack it",
    ),
    kind(0, b"\x1f\x8b", "gzip data; unpack it first"),
    kind(0, b"\x28\xb5\x2f\xfd", "Zstandard data; unpack it first"),
    kind(0, b"\xfd7zXZ\x00", "xz data; unpack it first"),
    kind(
        257,
        b"ustar",
        "a tar archive; unpack it and name the .onnx file within it",
    ),
    kind(
        4,
        b"ORTM",
        "ONNX Runtime's own format (.ort); use the .onnx file that it was made from",
    ),
    kind(4, b"TFL3", "a TensorFlow Lite model; export the model to ONNX"),
    kind(0, b"GGUF", "a GGUF model; export the original model to ONNX"),
    kind(0, b"\x89HDF", "an HDF5 file (Keras); export the model to ONNX"),
    kind(0, b"\x93NUMPY", "a NumPy array; name the model's .onnx file"),
    kind(0, b"\x89PNG", "a PNG picture; name the model's .onnx file"),
    kind(
        0,
        b"<?xml",
        "XML, as OpenVINO's models are; use the .onnx file that it was made from",
    ),
    kind(
        0,
        b"<!DOCTYPE",
        "a web page; the download went wrong (a login or an error page?), fetch it again",
    ),
    kind(
        0,
        b"<!doctype",
        "a web page; the download went wrong (a login or an error page?), fetch it again",
    ),
    kind(
        0,
        b"<html",
        "a web page; the download went wrong (a login or an error page?), fetch it again",
    ),
    kind(
        0,
        b"ir_version",
        "ONNX as protobuf text; convert it with onnx.save(onnx.load(\"in.textproto\"), \"out.onnx\")",
    ),
    kind(
        0,
        b"<\n",
        "ONNX as text, perhaps; convert it with onnx.save(onnx.load(\"in.onnxtxt\"), \"out.onnx\")",
    ),
];

/// What `bytes` look like, and what to do; `None` where they may be protobuf.
pub fn looks_like(bytes: &[u8]) -> Option<&'static str> {
    let marked = KINDS
        .iter()
        .find(|kind| bytes.get(kind.at..).is_some_and(|rest| rest.starts_with(kind.mark)));
    if let Some(kind) = marked {
        return Some(kind.says);
    }
    let head = bytes.get(..bytes.len().min(1024)).unwrap_or_default();
    if is_safetensors(bytes) {
        Some("a safetensors file, which holds weights without a graph; export the model to ONNX")
    } else if matches!(head, [0x80, 2..=5, ..]) {
        Some("a Python pickle, as older .pt and .ckpt files are; export the model with torch.onnx.export")
    } else if head.iter().all(|byte| *byte == 0) {
        Some("zero bytes; a download or a copy was not finished, fetch it again")
    } else if head.starts_with(b"{") || head.starts_with(b"[") {
        Some("JSON; name the model's .onnx file")
    } else if is_text(head) {
        Some("text; name the model's .onnx file")
    } else {
        None
    }
}

/// Eight bytes of header length, then a JSON object.
fn is_safetensors(bytes: &[u8]) -> bool {
    match bytes.split_first_chunk::<8>() {
        Some((length, rest)) => rest.starts_with(b"{\"") && u64::from_le_bytes(*length) <= rest.len() as u64,
        None => false,
    }
}

/// Printable characters and line breaks only. A cut at the end may tear one character.
fn is_text(head: &[u8]) -> bool {
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(head.get(..error.valid_up_to()).unwrap_or_default()).unwrap_or_default()
        }
        Err(_) => return false,
    };
    text.len() > 3
        && text
            .chars()
            .all(|character| !character.is_control() || "\n\r\t".contains(character))
}

#[cfg(test)]
mod tests {
    use super::looks_like;

    #[test]
    fn names_what_people_pass_by_mistake() {
        let cases: &[(&[u8], &str)] = &[
            (
                b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
                "git lfs pull",
            ),
            (b"PK\x03\x04rest", "ZIP"),
            (b"<!DOCTYPE html><html>", "web page"),
            (b"\x10\0\0\0\0\0\0\0{\"a\":{\"x\":1234}}", "safetensors"),
            (b"\x80\x02}q\x00", "pickle"),
            (b"ir_version: 8\n", "protobuf text"),
            (b"\0\0\0\0\0\0\0\0", "zero bytes"),
            (b"{\"a\": 1}", "JSON"),
            (b"Gr\xc3\xbc\xc3\x9fe aus Dresden\n", "text"),
        ];
        for (bytes, expected) in cases {
            let says = looks_like(bytes).unwrap_or("nothing");
            assert!(says.contains(expected), "{bytes:?}: {says}");
        }
        assert_eq!(looks_like(b"\x08\x08\x12\x07pytorch"), None);
    }
}
