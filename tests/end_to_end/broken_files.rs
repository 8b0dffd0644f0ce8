//! Files that are torn, hostile or not models, and places that cannot be written: each gives a clear error with its
//! exit code and leaves no partial output.

use crate::program::{corpus, fail, failure, files_below, root, succeed};
use pab_patch::onnx::Model;
use pab_patch::onnx::messages::{GraphProto, ModelProto, NodeProto, StringStringEntryProto, TensorProto};
use prost::Message;
use std::path::{Path, PathBuf};

const MODEL: i32 = 3;
const OUTPUT: i32 = 6;

/// A folder with a file, and where output would go.
struct Case {
    folder: tempfile::TempDir,
    model: PathBuf,
}

impl Case {
    fn new(bytes: &[u8]) -> Case {
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("model.onnx");
        std::fs::write(&model, bytes).unwrap();
        Case { folder, model }
    }

    /// The program must fail with `code`, say `said`, and leave the folder as it was.
    #[track_caller]
    fn refused(&self, code: i32, said: &[&str]) {
        let before = files_below(self.folder.path());
        let bytes = std::fs::read(&self.model).unwrap();
        let errors = fail(code, [self.model.as_os_str()]);
        for part in said {
            assert!(errors.contains(part), "`{part}` is not in: {errors}");
        }
        assert_eq!(files_below(self.folder.path()), before, "output was left behind");
        assert_eq!(std::fs::read(&self.model).unwrap(), bytes, "the input was changed");
    }

    /// As [`Case::refused`], also by what only reads the graph.
    #[track_caller]
    fn unreadable(&self, said: &[&str]) {
        self.refused(MODEL, said);
        fail(MODEL, ["inspect".as_ref(), self.model.as_os_str()]);
    }
}

fn valid() -> Vec<u8> {
    std::fs::read(static_model()).unwrap()
}

/// A small export whose weights stand in the file.
fn static_model() -> PathBuf {
    let wanted = |path: &&PathBuf| path.to_string_lossy().ends_with("ts17.static.onnx");
    corpus().iter().find(wanted).expect("a TorchScript export").clone()
}

fn changed(change: impl FnOnce(&mut GraphProto)) -> Vec<u8> {
    let mut proto = ModelProto::decode(valid().as_slice()).unwrap();
    change(proto.graph.as_mut().unwrap());
    proto.encode_to_vec()
}

#[test]
fn a_file_that_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let errors = fail(MODEL, [folder.path().join("nowhere.onnx")]);
    assert!(errors.contains("nowhere.onnx"), "{errors}");
    fail(MODEL, [folder.path()]);
}

#[test]
fn an_empty_file() {
    Case::new(b"").unreadable(&["is empty"]);
}

#[test]
fn files_of_other_formats() {
    Case::new(b"<!DOCTYPE html><html></html>").unreadable(&["not an ONNX model"]);
    Case::new(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n").unreadable(&["not an ONNX model"]);
    Case::new(b"PK\x03\x04 and the rest of an archive").unreadable(&["not an ONNX model"]);
    Case::new(&[0xff; 64]).refused(MODEL, &["model.onnx"]);
}

#[test]
fn a_truncated_file() {
    let bytes = valid();
    for length in [bytes.len() / 4, bytes.len() / 2, bytes.len() - 1] {
        Case::new(&bytes[..length]).unreadable(&["cut off"]);
    }
}

#[test]
fn a_torn_file() {
    // The second half is of another place of the same file, as after an interrupted download.
    let mut bytes = valid();
    let half = bytes.len() / 2;
    bytes.copy_within(..half / 2, half);
    let case = Case::new(&bytes);
    let errors = fail(MODEL, [case.model.as_os_str()]);
    assert!(errors.contains("model.onnx"), "{errors}");
    assert_eq!(files_below(case.folder.path()), std::slice::from_ref(&case.model));
}

#[test]
fn a_cyclic_graph() {
    let bytes = changed(|graph| {
        let last = graph.node.last().unwrap().output[0].clone();
        let input = graph
            .node
            .iter_mut()
            .find(|node| node.op_type.as_deref() == Some("Conv"))
            .unwrap();
        input.input[0] = last;
    });
    Case::new(&bytes).unreadable(&["circle"]);
}

#[test]
fn names_that_are_defined_twice() {
    let bytes = changed(|graph| {
        let first = graph.node[0].output[0].clone();
        graph.node[1].output[0] = first;
    });
    Case::new(&bytes).unreadable(&["defined twice"]);
}

#[test]
fn a_value_that_nothing_defines() {
    let bytes = changed(|graph| graph.node[3].input[0] = "nowhere".into());
    Case::new(&bytes).unreadable(&["`nowhere`"]);
}

/// The model with its largest weight in another file.
fn external(location: &str, length: Option<usize>) -> Vec<u8> {
    changed(|graph| {
        let size = |tensor: &TensorProto| tensor.raw_data.as_ref().map_or(0, |bytes| bytes.len());
        let largest = graph.initializer.iter_mut().max_by_key(|tensor| size(tensor)).unwrap();
        let length = length.unwrap_or_else(|| size(largest));
        largest.raw_data = None;
        largest.data_location = Some(1);
        let entry = |key: &str, value: String| StringStringEntryProto {
            key: Some(key.into()),
            value: Some(value),
        };
        largest.external_data = vec![entry("location", location.into()), entry("length", length.to_string())];
    })
}

#[test]
fn external_data_that_is_missing() {
    Case::new(&external("weights.bin", None)).refused(MODEL, &["weights.bin"]);
}

#[test]
fn external_data_that_is_too_short() {
    let case = Case::new(&external("weights.bin", None));
    std::fs::write(case.model.with_file_name("weights.bin"), b"short").unwrap();
    case.refused(MODEL, &["weights.bin"]);
}

#[test]
fn external_data_outside_the_folder() {
    for hostile in [
        "/etc/passwd",
        "../secret",
        "sub/../../secret",
        "..\\secret",
        "C:\\secret",
    ] {
        Case::new(&external(hostile, Some(4))).refused(MODEL, &["external data"]);
    }
}

#[cfg(unix)]
#[test]
fn external_data_through_a_link_that_leads_out() {
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("secret");
    std::fs::write(&secret, [0_u8; 1 << 20]).unwrap();
    let case = Case::new(&external("weights.bin", None));
    std::os::unix::fs::symlink(&secret, case.model.with_file_name("weights.bin")).unwrap();
    case.refused(MODEL, &["weights.bin"]);
}

#[test]
fn deeply_nested_messages() {
    // A thousand graphs, each in an attribute of a node of the one around it.
    let mut graph = GraphProto::default();
    for _ in 0..1000 {
        let attribute = pab_patch::onnx::messages::AttributeProto {
            name: Some("body".into()),
            r#type: Some(5),
            g: Some(Box::new(graph)),
            ..Default::default()
        };
        graph = GraphProto {
            node: vec![NodeProto {
                op_type: Some("Loop".into()),
                attribute: vec![attribute],
                ..Default::default()
            }],
            ..Default::default()
        };
    }
    let model = ModelProto {
        ir_version: Some(8),
        graph: Some(graph),
        ..Default::default()
    };
    let bytes = model.encode_to_vec();
    // Dropping such a message recurses; the test's own stack would not hold it.
    std::mem::forget(model);
    Case::new(&bytes).refused(MODEL, &["model.onnx"]);
}

#[test]
fn a_folder_that_cannot_be_made_or_written() {
    let folder = tempfile::tempdir().unwrap();
    let taken = folder.path().join("taken");
    std::fs::write(&taken, "a file").unwrap();
    let model = static_model();
    for output in [taken.clone(), taken.join("below"), PathBuf::from("/proc/pab-patch")] {
        let errors = fail(OUTPUT, [model.as_os_str(), "-o".as_ref(), output.as_os_str()]);
        assert!(errors.contains(&*output.to_string_lossy()), "{errors}");
    }
    assert_eq!(files_below(folder.path()), [taken]);
}

#[cfg(unix)]
#[test]
fn a_folder_without_permission() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let closed = folder.path().join("closed");
    std::fs::create_dir(&closed).unwrap();
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o555)).unwrap();
    if std::fs::write(closed.join("probe"), "").is_ok() {
        eprintln!("skipped: this account may write everywhere");
        return;
    }
    fail(OUTPUT, [static_model().as_os_str(), "-o".as_ref(), closed.as_os_str()]);
    assert!(files_below(&closed).is_empty());
}

/// A disk that is full after 64 KiB: the process may write no larger file.
#[cfg(unix)]
#[test]
fn a_full_disk() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out");
    let mut shell = std::process::Command::new("sh");
    // Ignored, the signal becomes an error of the write, as on a full disk.
    shell.args([
        "-c",
        "trap '' XFSZ; ulimit -f 64; exec \"$@\"",
        "sh",
        env!("CARGO_BIN_EXE_pab-patch"),
    ]);
    shell.arg(static_model()).arg("-o").arg(&output).current_dir(root());
    let errors = failure(OUTPUT, &mut shell);
    assert!(errors.contains("cannot write"), "{errors}");
    assert!(
        files_below(folder.path()).is_empty(),
        "{:?}",
        files_below(folder.path())
    );
}

#[cfg(unix)]
#[test]
fn a_full_disk_keeps_an_older_output() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out");
    let model = static_model();
    succeed([model.as_os_str(), "-o".as_ref(), output.as_os_str()]);
    let older: Vec<_> = files_below(&output)
        .into_iter()
        .map(|path| (std::fs::read(&path).unwrap(), path))
        .collect();
    let mut shell = std::process::Command::new("sh");
    shell.args([
        "-c",
        "trap '' XFSZ; ulimit -f 64; exec \"$@\"",
        "sh",
        env!("CARGO_BIN_EXE_pab-patch"),
    ]);
    shell.arg(&model).arg("-o").arg(&output).current_dir(root());
    failure(OUTPUT, &mut shell);
    let after: Vec<_> = files_below(&output)
        .into_iter()
        .map(|path| (std::fs::read(&path).unwrap(), path))
        .collect();
    assert!(older == after, "the older output was changed");
}

#[test]
fn the_input_is_never_overwritten() {
    let case = Case::new(&valid());
    let errors = fail(
        OUTPUT,
        [case.model.as_os_str(), "-o".as_ref(), case.folder.path().as_os_str()],
    );
    assert!(errors.contains("never modified"), "{errors}");
    assert_eq!(std::fs::read(&case.model).unwrap(), valid());
}

#[test]
fn a_patched_model_is_not_patched_again() {
    let folder = tempfile::tempdir().unwrap();
    let model = static_model();
    let written = succeed([model.as_os_str(), "-o".as_ref(), folder.path().as_os_str()]);
    let errors = fail(MODEL, [Path::new(written.trim())]);
    assert!(errors.contains("patched already"), "{errors}");
}

#[test]
fn a_model_without_attention_has_nothing_to_patch() {
    // The latent goes through one operator.
    let bytes = changed(|graph| {
        let (input, output) = (
            graph.input[0].name.clone().unwrap(),
            graph.output[0].name.clone().unwrap(),
        );
        graph.node = vec![NodeProto {
            op_type: Some("Relu".into()),
            input: vec![input],
            output: vec![output],
            ..Default::default()
        }];
        graph.initializer.clear();
    });
    Case::new(&bytes).refused(5, &["inspect"]);
}

#[test]
fn a_small_change_anywhere_never_panics() {
    let bytes = valid();
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model.onnx");
    for index in 0..40 {
        let mut torn = bytes.clone();
        let place = (index * 7919 + 13) % torn.len().min(40_000);
        torn[place] ^= 1 << (index % 8);
        std::fs::write(&model, &torn).unwrap();
        // Loading must end in a value or an error; most changes hit a name or a number and stay loadable.
        let _ =
            Model::load(&model).map(|model| pab_patch::graph::ModelGraph::new(model).map(|graph| graph.into_model()));
    }
}
