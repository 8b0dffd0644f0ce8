//! Ranks tell each other a few bytes, outside of any graph.

use std::ptr::NonNull;

use super::{CollectiveError, Communicator, Element, Group, Operation, operation::Call};

/// Bytes before each message: how long it is.
const LENGTH: usize = size_of::<u64>();

/// Gives every rank what all ranks say, in order of ranks. All come, so it is also a barrier.
///
/// # Errors
/// Those of [`Communicator::exchange`].
pub fn gather(communicator: &dyn Communicator, own: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError> {
    let mut all = (own.len() as u64).to_le_bytes().to_vec();
    all.extend_from_slice(own);
    // The fastest axis first: what is put together then stands in order of ranks.
    for group in Group::ALL.into_iter().rev() {
        let call = Call {
            operation: Operation::AllGather,
            node: "meeting".to_owned(),
            group,
            cut: None,
            gathered: Some(0),
        };
        let mut gathered = Vec::new();
        let mut allocate = |shape: &[usize]| {
            gathered = vec![0; shape.iter().product()];
            Ok(NonNull::from(gathered.as_mut_slice()).cast())
        };
        // SAFETY: the memory is not touched before the call has returned.
        unsafe { call.run(communicator, Element::Bool, &[all.len()], &all, &mut allocate) }?;
        all = gathered;
    }
    let mut messages = Vec::new();
    let mut rest = all.as_slice();
    while let Some((length, behind)) = rest.split_first_chunk::<LENGTH>() {
        let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let Some((message, behind)) = behind.split_at_checked(length) else {
            break;
        };
        messages.push(message.to_vec());
        rest = behind;
    }
    let ranks = communicator.mesh().ranks();
    match messages.len() == ranks && rest.is_empty() {
        true => Ok(messages),
        false => Err(CollectiveError::Transport {
            rank: communicator.rank(),
            transport: "a meeting of ranks",
            reason: format!("{} messages came from {ranks} ranks", messages.len()),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collective::{Mesh, World, run_ranks};
    use std::time::Duration;

    #[test]
    fn messages_of_all_ranks_come_in_their_order() {
        let mesh = Mesh::new(2, 3, 2).unwrap();
        let world = World::new(mesh, Duration::from_secs(60));
        let results = run_ranks(&world, |rank| gather(&*rank, "x".repeat(rank.rank()).as_bytes())).unwrap();
        let expected: Vec<Vec<u8>> = (0..12).map(|rank| vec![b'x'; rank]).collect();
        assert!(results.iter().all(|messages| *messages == expected), "{results:?}");
    }
}
