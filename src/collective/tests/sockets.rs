//! Ranks that meet over TCP, or by a name.

use std::net::TcpListener;
use std::time::Instant;

use super::*;
use crate::collective::{Identity, Sockets, groups, handshake, part};

const SOON: Duration = Duration::from_millis(400);

/// An address that nobody listens at.
fn address() -> String {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string()
}

fn on_ranks<T: Send>(meshes: &[Mesh], timeout: Duration, work: impl Fn(usize, Arc<Sockets>) -> T + Sync) -> Vec<T> {
    let (address, work) = (address(), &work);
    std::thread::scope(|scope| {
        let threads: Vec<_> = meshes
            .iter()
            .enumerate()
            .map(|(rank, mesh)| {
                let sockets = Sockets::new(*mesh, rank, &address, "test", timeout).unwrap();
                scope.spawn(move || work(rank, sockets))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn bytes(numbers: impl IntoIterator<Item = usize>) -> Vec<u8> {
    numbers
        .into_iter()
        .flat_map(|number| (number as f32).to_ne_bytes())
        .collect()
}

fn gather(rank: &dyn Communicator, entries: usize) -> Result<(Vec<usize>, Vec<u8>), CollectiveError> {
    let call = call(Operation::AllGather, None, Some(0));
    run(&call, rank, Element::Bool, &[entries], &vec![1; entries])
}

#[test]
fn every_operator_over_tcp() {
    let mesh = Mesh::new(2, 3, 1).unwrap();
    on_ranks(&[mesh; 6], PATIENT, |rank, sockets| {
        handshake(&*sockets, &Identity::new("model", "plan")).unwrap();
        let place = mesh.place(Group::Sequence, rank);
        // Larger than what connections hold, so that all must read while they write.
        for rows in [1, 4, 90_001] {
            let own = part(rows, 3, place);
            let whole = bytes(0..rows * 5);
            let rows_of = |range: std::ops::Range<usize>| bytes(range.start * 5..range.end * 5);
            let columns = part(5, 3, place);
            let of_columns = bytes((0..rows).flat_map(|row| columns.clone().map(move |column| row * 5 + column)));
            let run = |call: Call, shape: &[usize], data: &[u8]| {
                run(&call, &*sockets, Element::Float32, shape, data).unwrap()
            };
            let gathered = run(
                call(Operation::AllGather, None, Some(0)),
                &[own.len(), 5],
                &rows_of(own.clone()),
            );
            assert_eq!(gathered, (vec![rows, 5], whole.clone()));
            let before = sockets.traffic().sent().bytes(Group::Sequence);
            let exchange = call(Operation::AllToAll, Some(1), Some(0));
            let exchanged = run(exchange, &[own.len(), 5], &rows_of(own.clone()));
            assert_eq!(exchanged, (vec![rows, columns.len()], of_columns.clone()));
            let sent = sockets.traffic().sent().bytes(Group::Sequence) - before;
            assert_eq!(sent as usize, own.len() * (5 - columns.len()) * 4);
            let reduced = run(call(Operation::AllReduce, None, None), &[rows, 5], &whole);
            assert_eq!(reduced, (vec![rows, 5], bytes((0..rows * 5).map(|number| number * 3))));
            let summed = run(call(Operation::ReduceScatter, Some(0), None), &[rows, 5], &whole);
            assert_eq!(
                summed,
                (
                    vec![own.len(), 5],
                    bytes((own.start * 5..own.end * 5).map(|number| number * 3))
                )
            );
        }
    });
}

#[test]
fn a_rank_that_never_comes_is_named() {
    let start = Instant::now();
    let mesh = Mesh::new(1, 3, 1).unwrap();
    let errors = on_ranks(&[mesh; 2], SOON, |_, sockets| {
        gather(&*sockets, 2).unwrap_err().to_string()
    });
    assert!(start.elapsed() < SOON + Duration::from_secs(5));
    assert!(errors[0].contains("for rank 2, which did not come"), "{errors:?}");
    let alone = Sockets::new(mesh, 2, &address(), "test", SOON).unwrap();
    let error = gather(&*alone, 2).unwrap_err();
    assert!(
        matches!(&error, CollectiveError::TimedOut { missing, .. } if missing == &[0]),
        "{error}"
    );
}

#[test]
fn ranks_of_other_meshes_and_strangers_are_refused() {
    let meshes = [Mesh::new(1, 2, 1).unwrap(), Mesh::new(1, 1, 2).unwrap()];
    let errors = on_ranks(&meshes, PATIENT, |_, sockets| {
        gather(&*sockets, 2).unwrap_err().to_string()
    });
    assert!(
        errors.iter().all(|error| error.contains("give all ranks the same")),
        "{errors:?}"
    );

    let address = address();
    let mesh = meshes[0];
    std::thread::scope(|scope| {
        let rank = |rank, group: &'static str| {
            let address = &address;
            scope.spawn(move || {
                let sockets = Sockets::new(mesh, rank, address, group, PATIENT).unwrap();
                gather(&*sockets, 2)
            })
        };
        let first = rank(0, "one");
        let stranger = rank(1, "other").join().unwrap().unwrap_err().to_string();
        assert!(stranger.contains("another group"), "{stranger}");
        let second = rank(1, "one");
        assert!(first.join().unwrap().is_ok() && second.join().unwrap().is_ok());
    });
}

#[test]
fn the_error_of_a_rank_reaches_all_and_the_gone_are_not_waited_for() {
    let mesh = Mesh::new(1, 3, 1).unwrap();
    let start = Instant::now();
    let errors = on_ranks(&[mesh; 3], PATIENT, |rank, sockets| {
        gather(&*sockets, 2).unwrap();
        if rank == 1 {
            sockets.fail(&CollectiveError::Mesh {
                reason: "the disk is full".to_owned(),
            });
        }
        gather(&*sockets, 2).unwrap_err().to_string()
    });
    assert!(
        errors.iter().all(|error| error.contains("the disk is full")),
        "{errors:?}"
    );
    let errors = on_ranks(&[mesh; 3], PATIENT, |rank, sockets| {
        gather(&*sockets, 2).unwrap();
        match rank {
            2 => String::new(),
            _ => gather(&*sockets, 2).unwrap_err().to_string(),
        }
    });
    assert!(errors[0].contains("rank 2") && errors[1].contains("rank"), "{errors:?}");
    assert!(start.elapsed() < PATIENT / 2);
}

#[test]
fn sessions_of_a_rank_share_it_and_a_group_starts_anew_after_a_failure() {
    let mesh = Mesh::new(1, 2, 1).unwrap();
    let first = groups::join("shared", mesh, 0, SOON).unwrap();
    let again = groups::join("shared", mesh, 0, SOON).unwrap();
    assert!(Arc::ptr_eq(&first, &again));
    let other = groups::join("shared", Mesh::new(2, 1, 1).unwrap(), 1, SOON).unwrap_err();
    assert!(other.to_string().contains("give all the same"), "{other}");
    assert!(groups::join("shared", mesh, 2, SOON).is_err());
    let second = groups::join("shared", mesh, 1, SOON).unwrap();
    std::thread::scope(|scope| {
        let gathering = scope.spawn(|| gather(&*second, 2));
        gather(&*first, 2).unwrap();
        gathering.join().unwrap().unwrap();
    });
    first.fail(&CollectiveError::Mesh {
        reason: "enough".to_owned(),
    });
    let anew = groups::join("shared", mesh, 0, SOON).unwrap();
    assert!(!Arc::ptr_eq(&first, &anew) && anew.failure().is_none());
}

#[test]
fn two_threads_of_one_rank_are_refused() {
    let world = sequence(2, PATIENT);
    let rank = world.join(0).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| gather(&*rank, 2).unwrap_err().to_string());
        // Whoever comes second is refused, which ends both.
        let error = gather(&*rank, 2).unwrap_err().to_string();
        let errors = [error, waiting.join().unwrap()];
        assert!(errors.iter().any(|error| error.contains("two threads")), "{errors:?}");
    });
}
