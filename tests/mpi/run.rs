//! `pab-patch run` under `mpirun`: what it makes, and how it ends when a rank does not.

use super::{on_any_machine, text, turn};
use ndarray::ArrayD;
use ndarray_npy::NpzReader;
use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const PROGRAM: &str = env!("CARGO_BIN_EXE_pab-patch");

fn shipped_model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/latte-shapes/model.onnx")
}

struct Clips {
    folder: tempfile::TempDir,
}

impl Clips {
    fn new() -> Clips {
        Clips {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn arguments(&self, name: &str, options: &[&str]) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec![PROGRAM.into(), "run".into(), shipped_model().into()];
        arguments.extend(["--device", "cpu", "--threads", "1", "-o"].map(OsString::from));
        arguments.push(self.path(name).into());
        arguments.extend(options.iter().map(OsString::from));
        arguments
    }
}

fn sample(folder: &Path) -> ArrayD<f32> {
    let mut archive = NpzReader::new(File::open(folder.join("clip.npz")).unwrap()).unwrap();
    archive.by_name("sample").unwrap()
}

/// `mpirun` of programs with so many processes each.
fn mpirun(programs: &[(usize, Vec<OsString>)]) -> Command {
    let mut command = on_any_machine(Command::new("mpirun"));
    for (place, (processes, arguments)) in programs.iter().enumerate() {
        if place > 0 {
            command.arg(":");
        }
        command.args(["-n", &processes.to_string()]).args(arguments);
    }
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The processes of ranks whose arguments have this path, by rank.
fn processes(path: &Path) -> Vec<(usize, u32)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(process) = entry.file_name().to_string_lossy().parse::<u32>() else {
            continue;
        };
        let read = |file: &str| std::fs::read(entry.path().join(file)).unwrap_or_default();
        let arguments = read("cmdline");
        let arguments: Vec<&[u8]> = arguments.split(|byte| *byte == 0).collect();
        let is_rank =
            arguments.first() == Some(&PROGRAM.as_bytes()) && arguments.contains(&path.as_os_str().as_encoded_bytes());
        let environment = String::from_utf8_lossy(&read("environ")).into_owned();
        let rank = environment
            .split('\0')
            .find_map(|variable| variable.strip_prefix("OMPI_COMM_WORLD_RANK="));
        if let Some(rank) = rank.filter(|_| is_rank) {
            found.push((rank.parse().unwrap(), process));
        }
    }
    found.sort_unstable();
    found
}

#[test]
fn processes_run_static_graphs() {
    let _turn = turn();
    let clips = Clips::new();
    let rules = clips.path("rules.yaml");
    let list = "{ name: attention, match: { kind: [spatial, temporal, cross] }, broadcast: { range: 2 } }";
    std::fs::write(&rules, format!("{{ version: 1, rules: [{list}] }}")).unwrap();
    let made = |name: &str, form: &str| {
        let options = [
            "--steps",
            "4",
            "--json",
            "--rules",
            rules.to_str().unwrap(),
            "--form",
            form,
        ];
        let output = mpirun(&[(2, clips.arguments(name, &options))]).output().unwrap();
        let text = text(&output);
        assert!(output.status.success(), "{text}");
        let printed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{text}"));
        let bytes: Vec<u64> = serde_json::from_value(printed["ranks"]["step_bytes"].clone()).unwrap();
        assert!(bytes[1] < bytes[0], "{bytes:?}");
        sample(&clips.path(name))
    };
    let (switch, variants) = (made("switch", "switch"), made("variants", "variants"));
    let largest = switch.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    let differences = switch.iter().zip(&variants).map(|(one, other)| (one - other).abs());
    let difference = differences.fold(0.0, f32::max) / largest;
    assert!(difference <= 1e-5, "the forms differ by {difference}");
}

/// Starts a long run, does something to it once it is at work, and gives what came of it.
fn disturbed(
    clips: &Clips,
    ranks: usize,
    timeout: &str,
    disturb: impl FnOnce(&[(usize, u32)], &Child),
) -> (Output, String) {
    let output = clips.path("clip");
    let arguments = clips.arguments("clip", &["--steps", "900", "--timeout", timeout]);
    let child = mpirun(&[(ranks, arguments)]).spawn().unwrap();
    let begun = Instant::now();
    while !output.exists() {
        assert!(begun.elapsed() < Duration::from_secs(120), "it never came so far");
        std::thread::sleep(Duration::from_millis(10));
    }
    // Well into the steps.
    std::thread::sleep(Duration::from_secs(4));
    let found = processes(&output);
    assert_eq!(found.len(), ranks);
    disturb(&found, &child);
    let sent = Instant::now();
    let ended = child.wait_with_output().unwrap();
    let text = text(&ended);
    assert!(sent.elapsed() < Duration::from_secs(25), "{:?}: {text}", sent.elapsed());
    assert!(!ended.status.success(), "{text}");
    // No orphans, and nothing is written.
    let deadline = Instant::now() + Duration::from_secs(5);
    while !processes(&output).is_empty() {
        assert!(Instant::now() < deadline, "{:?} are left: {text}", processes(&output));
        std::thread::sleep(Duration::from_millis(50));
    }
    let left: Vec<_> = std::fs::read_dir(&output).into_iter().flatten().flatten().collect();
    assert!(left.is_empty(), "{left:?}: {text}");
    (ended, text)
}

fn send(signal: &str, process: u32) {
    let status = Command::new("kill").args(["-s", signal, &process.to_string()]).status();
    assert!(status.unwrap().success());
}

#[test]
fn processes_make_the_clip_of_one() {
    let _turn = turn();
    let clips = Clips::new();
    let steps = ["--steps", "3"];
    let plain = clips.arguments("plain", &steps);
    assert!(Command::new(&plain[0]).args(&plain[1..]).status().unwrap().success());
    let expected = sample(&clips.path("plain"));
    let largest = expected.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    let meshes = [
        (2, &["--json"][..]),
        (4, &["--json", "--guidance-ranks", "2"]),
        (4, &["--json", "--guidance-ranks", "2", "--keep-latents"]),
    ];
    for (ranks, options) in meshes {
        let arguments = clips.arguments("ranks", &[&steps[..], options].concat());
        let output = mpirun(&[(ranks, arguments)]).output().unwrap();
        let text = text(&output);
        assert!(output.status.success(), "{text}");
        // Rank 0 alone prints.
        let printed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{text}"));
        assert_eq!(printed["ranks"]["kind"], "processes");
        assert_eq!(printed["ranks"]["rank_bytes"].as_array().unwrap().len(), ranks);
        let is_gathered = printed["ranks"]["gathered_bytes"]
            .as_u64()
            .is_some_and(|bytes| bytes > 0);
        assert_eq!(is_gathered, options.contains(&"--keep-latents"), "{printed}");
        let found = sample(&clips.path("ranks"));
        let differences = found.iter().zip(&expected).map(|(one, other)| (one - other).abs());
        let difference = differences.fold(0.0, f32::max) / largest;
        assert!(difference <= 1e-5, "{ranks} ranks differ by {difference}");
    }
}

#[test]
fn a_killed_rank_ends_all() {
    let _turn = turn();
    let clips = Clips::new();
    let (_, text) = disturbed(&clips, 3, "30", |ranks, _| send("KILL", ranks[1].1));
    // What mpirun says of it.
    assert!(text.contains("rank 1") && text.contains("signal 9"), "{text}");
}

#[test]
fn a_stopped_rank_ends_all_when_the_time_is_over() {
    let _turn = turn();
    let clips = Clips::new();
    let (ended, text) = disturbed(&clips, 3, "8", |ranks, _| send("STOP", ranks[2].1));
    assert!(
        text.contains("waited 8 s") && text.contains("for rank 2, which did not come"),
        "{text}"
    );
    assert_eq!(text.matches("error: ").count(), 1, "{text}");
    assert_eq!(ended.status.code(), Some(10), "{text}");
}

#[test]
fn an_interrupt_of_mpirun_ends_all() {
    let _turn = turn();
    let clips = Clips::new();
    let (ended, text) = disturbed(&clips, 2, "30", |_, mpirun| send("INT", mpirun.id()));
    // Its own code, whatever ranks return.
    assert_eq!(ended.status.code(), Some(1), "{text}");
    assert!(!text.contains("panicked"), "{text}");
}

#[test]
fn a_signal_that_mpirun_passes_on_ends_all_with_the_code_of_an_interrupt() {
    let _turn = turn();
    let clips = Clips::new();
    let (ended, text) = disturbed(&clips, 2, "30", |_, mpirun| send("USR1", mpirun.id()));
    assert_eq!(ended.status.code(), Some(130), "{text}");
    assert!(text.contains("error: interrupted"), "{text}");
}

#[test]
fn a_rank_that_runs_out_of_memory_ends_all() {
    let _turn = turn();
    let clips = Clips::new();
    let arguments = clips.arguments("clip", &["--steps", "3"]);
    let mut limited: Vec<OsString> = ["sh", "-c", "ulimit -v 300000; exec \"$0\" \"$@\""]
        .map(OsString::from)
        .into();
    limited.extend(arguments.iter().cloned());
    let begun = Instant::now();
    let output = mpirun(&[(1, arguments), (1, limited)]).output().unwrap();
    let text = text(&output);
    eprintln!("{:?} {text}", output.status);
    assert!(!output.status.success() && text.contains("rank 1"), "{text}");
    assert!(
        begun.elapsed() < Duration::from_secs(40),
        "{:?}: {text}",
        begun.elapsed()
    );
    assert!(processes(&clips.path("clip")).is_empty());
    assert!(!clips.path("clip").exists());
}

#[test]
fn ranks_that_were_started_with_different_things_do_not_run() {
    let _turn = turn();
    let clips = Clips::new();
    let with = |options: &[&str]| clips.arguments("clip", options);
    let output = mpirun(&[(1, with(&["--steps", "3"])), (1, with(&["--steps", "4"]))])
        .output()
        .unwrap();
    let text = text(&output);
    assert!(text.contains("has plan ") && text.contains("rank 1"), "{text}");
    assert_eq!(output.status.code(), Some(10), "{text}");
    assert!(!clips.path("clip").exists());
    // A mistake of all is shown once.
    let output = mpirun(&[(2, with(&["--steps", "0"]))]).output().unwrap();
    let text = super::text(&output);
    assert_eq!(text.matches("error: ").count(), 1, "{text}");
    let output = mpirun(&[(2, with(&["--ranks", "3"]))]).output().unwrap();
    let text = super::text(&output);
    assert!(
        text.matches("error: ").count() == 1 && text.contains("mpirun started 2 processes"),
        "{text}"
    );
}
