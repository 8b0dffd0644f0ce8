//! Collectives of threads: against plain array arithmetic, through ONNX Runtime, and with ranks that fail.

mod arithmetic;
mod faults;
mod sessions;
mod sockets;

use std::{ptr::NonNull, sync::Arc, time::Duration};

use super::{CollectiveError, Communicator, Element, Group, Mesh, Operation, Rank, World, operation::Call};

/// A world of sequence ranks only.
fn sequence(ranks: usize, timeout: Duration) -> Arc<World> {
    World::new(Mesh::new(1, ranks, 1).unwrap(), timeout)
}

const PATIENT: Duration = Duration::from_secs(60);

fn call(operation: Operation, cut: Option<i64>, gathered: Option<i64>) -> Call {
    Call {
        operation,
        node: "node".to_owned(),
        group: Group::Sequence,
        cut,
        gathered,
    }
}

/// Runs a call with a tensor of these bytes; gives the result's shape and bytes.
fn run(
    call: &Call,
    rank: &dyn Communicator,
    element: Element,
    shape: &[usize],
    data: &[u8],
) -> Result<(Vec<usize>, Vec<u8>), CollectiveError> {
    let mut result = (Vec::new(), Vec::new());
    let mut allocate = |shape: &[usize]| {
        // What is not written stays 0xAA, which no test expects.
        let bytes = shape.iter().product::<usize>() * element.bytes();
        result = (shape.to_vec(), vec![0xAA; bytes]);
        Ok(NonNull::from(result.1.as_mut_slice()).cast())
    };
    // SAFETY: the result's memory is not touched before `run` returns.
    unsafe { call.run(rank, element, shape, data, &mut allocate) }?;
    Ok(result)
}

/// Every rank of a world in a thread of its own.
fn on_every_rank<T: Send>(world: &Arc<World>, work: impl Fn(usize, Arc<Rank>) -> T + Sync) -> Vec<T> {
    let ranks: Vec<_> = (0..world.mesh().ranks())
        .map(|rank| world.join(rank).unwrap())
        .collect();
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = ranks
            .into_iter()
            .enumerate()
            .map(|(number, rank)| scope.spawn(move || work(number, rank)))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}
