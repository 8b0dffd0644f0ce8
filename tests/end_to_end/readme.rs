//! The README's examples do what they say.
//!
//! Every line of a block marked `sh` that begins with `pab-patch` is run, in order, in a folder that has the
//! repository's `models` and `rules`. Lines that begin with `cargo` are the two commands of a fresh machine: the tests
//! run one, and the other is the `compare` line with its arguments.

use crate::program::{failure, lay_out_pipeline, root};
use std::process::Command;

fn lines() -> Vec<String> {
    let text = std::fs::read_to_string(root().join("README.md")).unwrap();
    let mut lines = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        match line.trim() {
            "```sh" => inside = true,
            "```" => inside = false,
            line if inside && !line.is_empty() && !line.starts_with('#') => lines.push(line.to_owned()),
            _ => {}
        }
    }
    lines
}

#[cfg(unix)]
#[test]
fn every_command_works() {
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(root().join("rules"), folder.path().join("rules")).unwrap();
    // A copy, since `pab-patch MODEL` writes beside its model.
    let model = folder.path().join("models/latte-shapes");
    std::fs::create_dir_all(model.join("scheduler")).unwrap();
    for name in [
        "model.onnx",
        "prompt_table.npy",
        "prompt_words.json",
        "scheduler/scheduler_config.json",
    ] {
        std::fs::copy(root().join("models/latte-shapes").join(name), model.join(name)).unwrap();
    }
    lay_out_pipeline("latte", &folder.path().join("pipeline"));
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_pab-patch"));
    let path = std::env::join_paths(
        [program.parent().unwrap().to_path_buf()]
            .into_iter()
            .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
    )
    .unwrap();
    let mut count = 0;
    for line in lines() {
        let line = match line.strip_prefix("cargo run --release -- ") {
            Some(arguments) => format!("pab-patch {arguments} --steps 6 --clips 1 --rounds 1"),
            None if line.starts_with("pab-patch") => line,
            None => continue,
        };
        let output = Command::new("sh")
            .args(["-c", &line])
            .env("PATH", &path)
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{line}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        count += 1;
    }
    assert!(count >= 6, "the README shows {count} commands");
}

#[test]
fn both_commands_of_a_fresh_machine_are_there() {
    let lines = lines();
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with("cargo run --release -- compare ")),
        "{lines:?}"
    );
    assert!(lines.iter().any(|line| line == "cargo test"), "{lines:?}");
    let ci = std::fs::read_to_string(root().join(".ci/run")).unwrap();
    assert!(
        ci.lines().any(|line| line.starts_with("cargo test")),
        "CI runs the README's test command"
    );
}

#[test]
fn the_rules_of_the_readme_are_valid() {
    let text = std::fs::read_to_string(root().join("README.md")).unwrap();
    let blocks: Vec<&str> = text
        .split("```yaml\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    assert!(!blocks.is_empty());
    let folder = tempfile::tempdir().unwrap();
    for block in blocks {
        pab_patch::rules::Rules::parse("README.md", block).unwrap_or_else(|error| panic!("{error}"));
        // And a key that is not in the language is refused by the program.
        let wrong = folder.path().join("wrong.yaml");
        std::fs::write(&wrong, block.replace("broadcast:", "broadcst:")).unwrap();
        let model = root().join("models/latte-shapes/model.onnx");
        let errors = failure(
            4,
            &mut crate::program::command([model.as_os_str(), "--rules".as_ref(), wrong.as_os_str()]),
        );
        assert!(errors.contains("broadcst"), "{errors}");
    }
}
