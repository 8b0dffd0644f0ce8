//! Ranks that die, hang, come to another place or never come: all end, and soon.

use std::time::Instant;

use super::*;
use crate::collective::{Followers, Identity, RanksError, handshake, run_ranks};

const SOON: Duration = Duration::from_millis(300);

fn gather(rank: &dyn Communicator, entries: usize) -> Result<(Vec<usize>, Vec<u8>), CollectiveError> {
    run(
        &call(Operation::AllGather, None, Some(0)),
        rank,
        Element::Bool,
        &[entries],
        &vec![1; entries],
    )
}

#[test]
fn a_rank_that_hangs_ends_all_when_the_time_is_over() {
    let world = sequence(3, SOON);
    let start = Instant::now();
    let error = run_ranks(&world, |rank| {
        if rank.rank() == 1 {
            std::thread::sleep(Duration::from_secs(3600));
        }
        gather(&*rank, 2)
    })
    .unwrap_err();
    assert!(start.elapsed() < SOON + Duration::from_secs(5));
    let RanksError::Rank { error, .. } = error else {
        panic!("{error}")
    };
    assert!(
        matches!(&error, CollectiveError::TimedOut { missing, .. } if missing == &[1]),
        "{error}"
    );
    assert!(error.to_string().contains("rank 1"), "{error}");
}

#[test]
fn who_leads_learns_of_followers_that_fail_or_hang() {
    let led = |world: &Arc<World>, hangs: bool| {
        let (first, followers) = Followers::start(world, move |rank| {
            gather(&*rank, 2).map_err(|error| error.to_string())?;
            match rank.rank() {
                2 if hangs => std::thread::sleep(Duration::from_secs(3600)),
                2 => return Err("the disk is full".to_owned()),
                _ => {}
            }
            gather(&*rank, 2).map(drop).map_err(|error| error.to_string())
        })
        .unwrap();
        let rounds = (0..2).try_for_each(|_| gather(&*first, 2).map(drop));
        followers.join(first, rounds.map_err(|error| error.to_string()))
    };
    let start = Instant::now();
    let error = led(&sequence(4, PATIENT), false).unwrap_err();
    assert_eq!(error.to_string(), "rank 2: the disk is full");
    assert!(start.elapsed() < PATIENT / 2);
    let world = sequence(4, SOON);
    led(&world, true).unwrap_err();
    assert!(start.elapsed() < PATIENT / 2 + SOON + Duration::from_secs(5));
    assert!(
        matches!(world.failure(), Some(CollectiveError::TimedOut { missing, .. }) if missing == [2]),
        "a hanging follower"
    );
}

#[test]
fn a_rank_that_fails_ends_all_at_once_and_its_error_is_the_result() {
    let world = sequence(4, PATIENT);
    let start = Instant::now();
    let error = run_ranks(&world, |rank| {
        gather(&*rank, 2).map_err(|error| error.to_string())?;
        if rank.rank() == 2 {
            return Err::<(), _>("the disk is full".to_owned());
        }
        let error = gather(&*rank, 2).unwrap_err();
        assert_eq!(rank.failure(), Some(error.clone()));
        Err(error.to_string())
    })
    .unwrap_err();
    assert!(start.elapsed() < PATIENT / 2);
    assert_eq!(error.to_string(), "rank 2: the disk is full");
    assert!(matches!(world.failure(), Some(CollectiveError::Failed { rank: 2, .. })));
}

#[test]
fn a_rank_that_panics_ends_all_at_once() {
    let world = sequence(2, PATIENT);
    let error = run_ranks(&world, |rank| {
        assert!(rank.rank() != 1, "out of luck");
        gather(&*rank, 1)
    })
    .unwrap_err();
    assert!(
        matches!(&error, RanksError::Panicked { rank: 1, reason } if reason.contains("out of luck")),
        "{error}"
    );
}

#[test]
fn a_rank_that_ends_early_is_not_waited_for() {
    let world = sequence(2, PATIENT);
    let start = Instant::now();
    let results = on_every_rank(&world, |number, rank| {
        if number == 0 {
            Ok(Default::default())
        } else {
            gather(&*rank, 1)
        }
    });
    assert!(start.elapsed() < PATIENT / 2);
    assert!(
        matches!(&results[1], Err(CollectiveError::Left { missing, .. }) if missing == &[0]),
        "{results:?}"
    );
}

#[test]
fn ranks_in_different_collectives_say_so() {
    let world = sequence(2, PATIENT);
    let results = on_every_rank(&world, |number, rank| {
        let operation = [Operation::AllGather, Operation::AllReduce][number];
        let gathered = (number == 0).then_some(0);
        run(
            &call(operation, None, gathered),
            &*rank,
            Element::Float32,
            &[1],
            &[0; 4],
        )
    });
    for result in results {
        let error = result.unwrap_err().to_string();
        assert!(
            error.contains("AllGather `node`") && error.contains("AllReduce `node`"),
            "{error}"
        );
    }
}

#[test]
fn parts_that_do_not_fit_say_so() {
    let world = sequence(2, PATIENT);
    let results = on_every_rank(&world, |number, rank| {
        let shape = [2, [3, 4][number]];
        run(
            &call(Operation::AllGather, None, Some(0)),
            &*rank,
            Element::Bool,
            &shape,
            &vec![0; shape[0] * shape[1]],
        )
    });
    assert!(
        results
            .iter()
            .any(|result| matches!(result, Err(CollectiveError::Parts { .. }))),
        "{results:?}"
    );
    assert!(results.iter().all(Result::is_err));
}

#[test]
fn nodes_that_cannot_be_are_refused_and_end_all() {
    let refused = [
        (call(Operation::AllGather, None, Some(2)), Element::Float32),
        (call(Operation::AllGather, None, Some(-3)), Element::Float32),
        (call(Operation::AllToAll, Some(1), Some(-1)), Element::Float32),
        (call(Operation::AllReduce, None, None), Element::Int32),
        (call(Operation::Handshake, None, None), Element::Float32),
    ];
    for (call, element) in refused {
        let world = sequence(2, PATIENT);
        let results = on_every_rank(&world, |_, rank| run(&call, &*rank, element, &[1, 1], &[0; 4]));
        assert!(
            results.iter().all(Result::is_err) && world.failure().is_some(),
            "{call:?}: {results:?}"
        );
    }
    // A length that is not the shape's.
    let world = sequence(1, PATIENT);
    assert!(
        run(
            &call(Operation::AllReduce, None, None),
            &*world.join(0).unwrap(),
            Element::Float32,
            &[2],
            &[0; 4]
        )
        .is_err()
    );
}

#[test]
fn memory_that_cannot_be_had_on_one_rank_ends_all() {
    let world = sequence(2, PATIENT);
    let results = on_every_rank(&world, |number, rank| {
        let call = call(Operation::AllGather, None, Some(0));
        if number == 0 {
            return run(&call, &*rank, Element::Bool, &[1], &[1]).map(|_| ());
        }
        let mut allocate = |_: &[usize]| Err("out of memory".to_owned());
        // SAFETY: nothing is allocated.
        unsafe { call.run(&*rank, Element::Bool, &[1], &[1], &mut allocate) }
    });
    assert!(
        matches!(&results[1], Err(CollectiveError::Memory { rank: 1, bytes: 2, .. })),
        "{results:?}"
    );
    assert!(
        results[0].as_ref().unwrap_err().to_string().contains("out of memory"),
        "{results:?}"
    );
}

#[test]
fn ranks_are_taken_once() {
    let world = sequence(2, PATIENT);
    let first = world.join(1).unwrap();
    assert!(world.join(1).is_err() && world.join(2).is_err());
    drop(first);
    assert!(world.join(1).is_ok());
}

#[test]
fn ranks_that_were_given_different_things_do_not_start() {
    let mesh = Mesh::new(2, 2, 1).unwrap();
    let own = Identity::new("model", "plan");
    let world = World::new(mesh, PATIENT);
    assert_eq!(
        on_every_rank(&world, |_, rank| handshake(&*rank, &own)),
        vec![Ok(()); 4]
    );

    for what in ["version", "model", "plan"] {
        let world = World::new(mesh, PATIENT);
        let results = on_every_rank(&world, |number, rank| {
            let mut identity = own.clone();
            if number == 3 {
                let field = match what {
                    "version" => &mut identity.version,
                    "model" => &mut identity.model,
                    _ => &mut identity.plan,
                };
                *field = "another".to_owned();
            }
            handshake(&*rank, &identity)
        });
        assert!(results.iter().all(Result::is_err), "{results:?}");
        let texts: Vec<_> = results
            .into_iter()
            .map(|result| result.unwrap_err().to_string())
            .collect();
        assert!(texts.iter().all(|text| text.contains(&format!("{what} "))), "{texts:?}");
        assert!(texts.iter().any(|text| text.contains("rank 3")), "{texts:?}");
    }
}

#[test]
fn ranks_that_fail_while_others_copy_leave_their_memory_in_peace() {
    // Many rounds in which one rank fails at a random place and frees its tensor at once.
    for round in 0..200_usize {
        let world = sequence(3, PATIENT);
        let results = on_every_rank(&world, |number, rank| {
            for step in 0..4 {
                if number == round % 3 && step == round % 4 {
                    rank.fail(&CollectiveError::Mesh {
                        reason: "on purpose".to_owned(),
                    });
                }
                let entries = 50_000 + number;
                let (_, bytes) = gather(&*rank, entries)?;
                assert!(bytes.iter().all(|byte| *byte == 1));
            }
            Ok::<_, CollectiveError>(())
        });
        assert!(results.iter().all(Result::is_err));
    }
}
