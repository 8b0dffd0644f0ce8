//! Every operator and group, with parts of different sizes, empty ones and large ones.

use super::*;
use pab_patch::collective::part;

const GROUPS: [Group; 2] = [Group::Sequence, Group::Tensor];

pub fn check(processes: &Processes) {
    let mesh = processes.mesh();
    for group in GROUPS.into_iter().filter(|group| mesh.size(*group) > 1) {
        let (ranks, place) = (mesh.size(group), mesh.place(group, processes.rank()));
        let call = |operation, cut, gathered| Call {
            operation,
            node: "node".to_owned(),
            group,
            cut,
            gathered,
        };
        for entries in [0, 1, 5, 8] {
            // A whole tensor of [entries, 7, 3], the same on all ranks.
            let whole: Vec<f32> = (0..entries * 21).map(|number| number as f32 - 50.0).collect();
            let bytes = |numbers: &[f32]| {
                numbers
                    .iter()
                    .flat_map(|number| number.to_ne_bytes())
                    .collect::<Vec<_>>()
            };
            let rows = part(entries, ranks, place);
            let own = bytes(&whole[rows.start * 21..rows.end * 21]);
            let run = |call: &Call, shape: &[usize], data: &[u8]| {
                run(call, processes, Element::Float32, shape, data).unwrap()
            };

            let slice = run(
                &call(Operation::ShardSlice, Some(0), None),
                &[entries, 7, 3],
                &bytes(&whole),
            );
            assert_eq!(slice, (vec![rows.len(), 7, 3], own.clone()));

            let gathered = run(&call(Operation::AllGather, None, Some(0)), &[rows.len(), 7, 3], &own);
            assert_eq!(gathered, (vec![entries, 7, 3], bytes(&whole)));

            let columns = part(7, ranks, place);
            let of_columns: Vec<f32> = (0..entries)
                .flat_map(|row| whole[row * 21 + columns.start * 3..row * 21 + columns.end * 3].to_vec())
                .collect();
            let before = processes.traffic().sent().bytes(group);
            let exchanged = run(&call(Operation::AllToAll, Some(1), Some(0)), &[rows.len(), 7, 3], &own);
            assert_eq!(exchanged, (vec![entries, columns.len(), 3], bytes(&of_columns)));
            let sent = processes.traffic().sent().bytes(group) - before;
            assert_eq!(sent as usize, rows.len() * (7 - columns.len()) * 3 * 4);
            let back = run(
                &call(Operation::AllToAll, Some(0), Some(1)),
                &[entries, columns.len(), 3],
                &bytes(&of_columns),
            );
            assert_eq!(back, (vec![rows.len(), 7, 3], own.clone()));

            let times: Vec<f32> = whole.iter().map(|number| number * (place + 1) as f32).collect();
            let sum: Vec<f32> = whole
                .iter()
                .map(|number| number * (ranks * (ranks + 1) / 2) as f32)
                .collect();
            let reduced = run(
                &call(Operation::AllReduce, None, None),
                &[entries, 7, 3],
                &bytes(&times),
            );
            assert_eq!(reduced, (vec![entries, 7, 3], bytes(&sum)));
            let scattered = run(
                &call(Operation::ReduceScatter, Some(0), None),
                &[entries, 7, 3],
                &bytes(&times),
            );
            assert_eq!(
                scattered,
                (vec![rows.len(), 7, 3], bytes(&sum[rows.start * 21..rows.end * 21]))
            );
        }
        // More than goes in one message.
        let large = vec![place as u8 % 2; 70 << 20];
        let (_, all) = run(
            &call(Operation::AllGather, None, Some(0)),
            processes,
            Element::Bool,
            &[large.len()],
            &large,
        )
        .unwrap();
        assert!((0..ranks).all(|rank| {
            all[rank * large.len()..][..large.len()]
                .iter()
                .all(|byte| usize::from(*byte) == rank % 2)
        }));
    }
    println!("all is well");
}
