//! Ranks compare what they were started with before they run.

use std::ptr::NonNull;

use super::{Announcement, CollectiveError, Communicator, Element, Group, Incoming, Operation, Outgoing, Region};

/// What all ranks must have the same of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The version of this program.
    pub version: String,
    /// A hash of the model that was split.
    pub model: String,
    /// A hash of the plan: rules, schedule, sizes, seeds; whatever decides what a step computes.
    pub plan: String,
}

impl Identity {
    /// The identity of a run by this version.
    #[must_use]
    pub fn new(model: &str, plan: &str) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            model: model.to_owned(),
            plan: plan.to_owned(),
        }
    }

    fn fields(&self) -> [(&'static str, &str); 3] {
        [("version", &self.version), ("model", &self.model), ("plan", &self.plan)]
    }
}

/// Bytes of one field on its way; longer ones are cut.
const FIELD: usize = 96;
const BYTES: usize = 3 * FIELD;

/// Meets all other ranks, and compares identities with those of each group; as every rank does, all of the mesh have the
/// same afterwards. It is also a barrier along each axis.
///
/// # Errors
/// [`CollectiveError::Different`] on the ranks that see a difference, and what they tell the others on those; otherwise
/// the errors of [`Communicator::exchange`].
pub fn handshake(communicator: &dyn Communicator, identity: &Identity) -> Result<(), CollectiveError> {
    let result = Group::ALL
        .into_iter()
        .try_for_each(|group| meet(communicator, identity, group));
    if let Err(error) = &result {
        communicator.fail(error);
    }
    result
}

fn meet(communicator: &dyn Communicator, identity: &Identity, group: Group) -> Result<(), CollectiveError> {
    let rank = communicator.rank();
    let members = communicator.mesh().members(group, rank);
    let own = encode(identity);
    let all = tell_all(communicator, group, "start", &own)?;
    for (other, theirs) in members.iter().zip(all.chunks_exact(BYTES)) {
        let fields = own.chunks_exact(FIELD).zip(theirs.chunks_exact(FIELD));
        for ((what, _), (here, there)) in identity.fields().into_iter().zip(fields) {
            if here != there {
                return Err(CollectiveError::Different {
                    rank,
                    other: *other,
                    what,
                    here: decode(here),
                    there: decode(there),
                });
            }
        }
    }
    Ok(())
}

/// Tells the group `own`, which is equally long on all ranks, and gives what all told, in order of places.
pub(super) fn tell_all(
    communicator: &dyn Communicator,
    group: Group,
    what: &str,
    own: &[u8],
) -> Result<Vec<u8>, CollectiveError> {
    let rank = communicator.rank();
    let members = communicator.mesh().members(group, rank);
    let bytes = own.len();
    let mut all = vec![0; bytes * members.len()];
    let memory = NonNull::from(all.as_mut_slice()).cast();
    let outgoing = Outgoing {
        node: what,
        announcement: Announcement::new(Operation::Handshake, Element::Bool, [bytes, 1, 1, 1, 1], what),
        data: own,
        regions: &vec![Region::bytes_at(0, bytes); members.len()],
    };
    communicator.exchange(group, &outgoing, &mut |announcements| {
        for (other, announcement) in members.iter().zip(announcements) {
            if *announcement != outgoing.announcement {
                return Err(CollectiveError::Disagree {
                    rank,
                    other: *other,
                    here: "the handshake".to_owned(),
                    there: announcement.operation.to_string(),
                });
            }
        }
        let targets = (0..members.len())
            .map(|member| Region::bytes_at(member * bytes, bytes))
            .collect();
        // SAFETY: `all` is not touched before the exchange has returned.
        let incoming = unsafe { Incoming::new(memory, bytes * members.len(), targets) };
        incoming.ok_or_else(|| CollectiveError::Mesh {
            reason: "the group has no ranks".to_owned(),
        })
    })?;
    Ok(all)
}

fn encode(identity: &Identity) -> Vec<u8> {
    let mut bytes = vec![0; BYTES];
    for ((_, text), field) in identity.fields().into_iter().zip(bytes.chunks_exact_mut(FIELD)) {
        let length = text.len().min(FIELD);
        field[..length].copy_from_slice(&text.as_bytes()[..length]);
    }
    bytes
}

fn decode(field: &[u8]) -> String {
    let text = String::from_utf8_lossy(field);
    text.trim_end_matches('\0').to_owned()
}
