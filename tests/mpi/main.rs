//! Ranks as processes under a real `mpirun`: what they compute, and how they end when one of them does not.
//!
//! ```sh
//! cargo test --features mpi --test mpi
//! ```
//!
//! Each test launches this very binary, whose test [`rank`] then plays one rank of a scenario.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test that cannot go on has failed.

mod arithmetic;
mod run;
mod session;

use pab_patch::collective::{
    CollectiveError, Communicator, Element, Group, Identity, Mesh, Operation, Processes, handshake, operation::Call,
};
use std::{
    path::Path,
    process::{Command, Output},
    ptr::NonNull,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

const SCENARIO: &str = "PAB_TEST_SCENARIO";

/// Plays a rank; does nothing unless launched by a test.
#[test]
#[ignore = "played under mpirun by the other tests"]
fn rank() {
    let Ok(scenario) = std::env::var(SCENARIO) else { return };
    println!("process {}", std::process::id());
    match scenario.as_str() {
        "arithmetic" => arithmetic::check(&start(30, |size| Mesh::new(1, size, 1))),
        "mesh" => arithmetic::check(&start(30, |_| Mesh::new(1, 2, 2))),
        "session" => session::check(&start(30, |size| Mesh::new(1, size, 1))),
        "mismatch" => {
            let error = Processes::start(Duration::from_secs(30), |_| Mesh::new(1, 3, 1)).unwrap_err();
            println!("{error}");
            std::process::exit(3);
        }
        fault => {
            let seconds = if fault == "stopped" { 2 } else { 60 };
            let processes = start(seconds, |size| Mesh::new(1, size, 1));
            let result = faulty(fault, &processes);
            println!("rank {} ends: {}", processes.rank(), result.unwrap_err());
            drop(processes);
            std::process::exit(3);
        }
    }
}

fn start(seconds: u64, mesh: impl FnOnce(usize) -> Result<Mesh, CollectiveError>) -> Arc<Processes> {
    Processes::start(Duration::from_secs(seconds), mesh).unwrap()
}

/// Exchanges until something goes wrong on the last rank.
fn faulty(fault: &str, processes: &Processes) -> Result<(), CollectiveError> {
    let last = processes.rank() + 1 == processes.mesh().ranks();
    let model = if last && fault == "model" { "another" } else { "model" };
    let mut identity = Identity::new(model, "plan");
    if last && fault == "version" {
        identity.version = "0.0.0".to_owned();
    }
    handshake(processes, &identity)?;
    for round in 0.. {
        if last && round == 3 {
            match fault {
                "killed" => signal("KILL"),
                "stopped" => signal("STOP"),
                "fails" => {
                    let error = CollectiveError::Failed {
                        rank: processes.rank(),
                        reason: "the disk is full".to_owned(),
                    };
                    processes.fail(&error);
                    return Err(error);
                }
                "leaves" => std::process::exit(0),
                _ => panic!("{fault}"),
            }
        }
        gather(processes, 1000)?;
    }
    Ok(())
}

/// Sends a signal to this process, and waits for it.
fn signal(name: &str) {
    let process = std::process::id().to_string();
    Command::new("kill")
        .arg(format!("-{name}"))
        .arg(process)
        .status()
        .unwrap();
    std::thread::sleep(Duration::from_secs(3600));
}

fn gather(communicator: &dyn Communicator, entries: usize) -> Result<Vec<u8>, CollectiveError> {
    let call = Call {
        operation: Operation::AllGather,
        node: "gather".to_owned(),
        group: Group::Sequence,
        cut: None,
        gathered: Some(0),
    };
    run(&call, communicator, Element::Bool, &[entries], &vec![1; entries]).map(|(_, bytes)| bytes)
}

/// Runs a call; gives the result's shape and bytes.
fn run(
    call: &Call,
    communicator: &dyn Communicator,
    element: Element,
    shape: &[usize],
    data: &[u8],
) -> Result<(Vec<usize>, Vec<u8>), CollectiveError> {
    let mut result = (Vec::new(), Vec::new());
    let mut allocate = |shape: &[usize]| {
        result = (
            shape.to_vec(),
            vec![0xAA; shape.iter().product::<usize>() * element.bytes()],
        );
        Ok(NonNull::from(result.1.as_mut_slice()).cast())
    };
    // SAFETY: the result's memory is not touched before `run` returns.
    unsafe { call.run(communicator, element, shape, data, &mut allocate) }?;
    Ok(result)
}

/// Only one launch at a time: the machine may have few cores.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Launches a scenario.
fn launch(scenario: &str, ranks: usize) -> (Output, Duration) {
    let _turn = turn();
    let start = Instant::now();
    let output = on_any_machine(Command::new("mpirun"))
        .args(["-n", &ranks.to_string()])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "rank", "--ignored", "--nocapture"])
        .env(SCENARIO, scenario)
        .output()
        .expect("mpirun is not installed; see the README");
    (output, start.elapsed())
}

/// The command with Open MPI's ways of saying --allow-run-as-root and --oversubscribe; others have no such limits.
fn on_any_machine(mut command: Command) -> Command {
    command
        .envs([("OMPI_ALLOW_RUN_AS_ROOT", "1"), ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")])
        .envs([
            ("OMPI_MCA_rmaps_base_oversubscribe", "1"),
            ("PRTE_MCA_rmaps_default_mapping_policy", ":oversubscribe"),
        ]);
    command
}

fn text(output: &Output) -> String {
    format!(
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// No process of the scenario is left.
fn assert_no_orphans(text: &str, ranks: usize) {
    let processes: Vec<&str> = text.lines().filter_map(|line| line.split("process ").nth(1)).collect();
    let processes: Vec<u32> = processes
        .iter()
        .filter_map(|number| number.trim().parse().ok())
        .collect();
    assert_eq!(processes.len(), ranks, "{text}");
    let deadline = Instant::now() + Duration::from_secs(5);
    for process in processes {
        while Path::new(&format!("/proc/{process}")).exists() {
            assert!(Instant::now() < deadline, "process {process} is still there: {text}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn assert_works(scenario: &str, ranks: usize) {
    let (output, _) = launch(scenario, ranks);
    let text = text(&output);
    assert!(output.status.success(), "{text}");
    assert_eq!(text.matches("all is well").count(), ranks, "{text}");
}

#[test]
fn two_processes_compute_what_arrays_do() {
    assert_works("arithmetic", 2);
}

#[test]
fn three_processes_with_uneven_parts_do_as_well() {
    assert_works("arithmetic", 3);
}

#[test]
fn four_processes_as_a_mesh_do_as_well() {
    assert_works("mesh", 4);
}

#[test]
fn sessions_of_two_and_four_processes_meet() {
    assert_works("session", 2);
    assert_works("session", 4);
}

/// Launches a scenario that fails, and gives what was said.
fn assert_fails(scenario: &str, ranks: usize, within: u64) -> String {
    let (output, took) = launch(scenario, ranks);
    let text = text(&output);
    assert!(!output.status.success(), "{text}");
    assert!(took < Duration::from_secs(within), "{took:?}: {text}");
    assert_no_orphans(&text, ranks);
    text
}

#[test]
fn a_killed_process_ends_all() {
    assert_fails("killed", 2, 20);
    assert_fails("killed", 4, 20);
}

#[test]
fn a_stopped_process_ends_all_when_the_time_is_over() {
    let text = assert_fails("stopped", 3, 30);
    assert!(
        text.contains("(sequence group) for rank 2, which did not come"),
        "{text}"
    );
}

#[test]
fn a_process_that_fails_tells_all() {
    let text = assert_fails("fails", 4, 20);
    for rank in 0..4 {
        assert!(
            text.contains(&format!("rank {rank} ends: rank 3 failed: the disk is full")),
            "{text}"
        );
    }
}

#[test]
fn a_process_that_leaves_ends_all() {
    assert_fails("leaves", 2, 20);
}

#[test]
fn processes_with_different_things_do_not_start() {
    for what in ["model", "version"] {
        let text = assert_fails(what, 2, 20);
        for rank in 0..2 {
            assert!(text.contains(&format!("rank {rank} ends: ")), "{text}");
        }
        assert!(text.contains(&format!("has {what} ")), "{text}");
    }
}

#[test]
fn another_number_of_processes_than_the_mesh_has_is_refused() {
    let text = assert_fails("mismatch", 2, 20);
    assert!(text.contains("mpirun started 2 processes"), "{text}");
}
