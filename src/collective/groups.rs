//! Ranks of one process that find each other by a name, where nobody hands them their communicators.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use super::{CollectiveError, Communicator, Mesh, Rank, Sockets, World};

/// Groups of threads by their name.
static GROUPS: Mutex<BTreeMap<String, Group>> = Mutex::new(BTreeMap::new());

/// This process's ranks that meet others over TCP, by address, group and rank.
static SOCKETS: Mutex<BTreeMap<(String, String, usize), Weak<Sockets>>> = Mutex::new(BTreeMap::new());

/// It lasts as long as one of its ranks.
#[derive(Default)]
struct Group {
    world: Weak<World>,
    ranks: Vec<Weak<Rank>>,
}

/// How often a rank that is just being given back is asked for again, a millisecond apart.
const TRIES: usize = 100;

/// Rank `rank` of the group of this name, whose ranks are threads of this process. All sessions of a rank share it. After a
/// failure, the first rank that joins again starts the group anew.
///
/// # Errors
/// [`CollectiveError::Mesh`] where the group has another mesh, or no such rank.
pub fn join(name: &str, mesh: Mesh, rank: usize, timeout: Duration) -> Result<Arc<Rank>, CollectiveError> {
    let mut groups = GROUPS.lock().unwrap_or_else(PoisonError::into_inner);
    groups.retain(|_, group| group.world.strong_count() > 0);
    let group = groups.entry(name.to_owned()).or_default();
    let world = group.world.upgrade().filter(|world| world.failure().is_none());
    let world = world.unwrap_or_else(|| {
        let world = World::new(mesh, timeout);
        *group = Group {
            world: Arc::downgrade(&world),
            ranks: (0..mesh.ranks()).map(|_| Weak::new()).collect(),
        };
        world
    });
    if world.mesh() != mesh {
        return Err(CollectiveError::Mesh {
            reason: format!(
                "rank {rank} of group `{name}` has the mesh {mesh}, and the others have {}: give all the same",
                world.mesh()
            ),
        });
    }
    let mut tries = 0;
    loop {
        tries += 1;
        if let Some(joined) = group.ranks.get(rank).and_then(Weak::upgrade) {
            return Ok(joined);
        }
        match world.join(rank) {
            Ok(joined) => {
                group.ranks[rank] = Arc::downgrade(&joined);
                return Ok(joined);
            }
            Err(error) if tries == TRIES || rank >= mesh.ranks() => return Err(error),
            // Another thread drops it at this moment.
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// Rank `rank` of those that meet at `address`; all sessions of a rank share it.
///
/// # Errors
/// As [`Sockets::new`], and [`CollectiveError::Mesh`] where a session of this rank has another mesh.
pub fn meet(
    address: &str,
    name: &str,
    mesh: Mesh,
    rank: usize,
    timeout: Duration,
) -> Result<Arc<Sockets>, CollectiveError> {
    let mut sockets = SOCKETS.lock().unwrap_or_else(PoisonError::into_inner);
    sockets.retain(|_, sockets| sockets.strong_count() > 0);
    let key = (address.to_owned(), name.to_owned(), rank);
    let known = sockets.get(&key).and_then(Weak::upgrade);
    if let Some(known) = known.filter(|known| known.failure().is_none()) {
        if known.mesh() == mesh {
            return Ok(known);
        }
        return Err(CollectiveError::Mesh {
            reason: format!(
                "rank {rank} has the meshes {mesh} and {}: give all the same",
                known.mesh()
            ),
        });
    }
    let made = Sockets::new(mesh, rank, address, name, timeout)?;
    sockets.insert(key, Arc::downgrade(&made));
    Ok(made)
}
