//! Every operator against the same done with plain arrays.

use half::{bf16, f16};
use ndarray::{ArrayD, Axis, IxDyn, Slice, concatenate};
use proptest::prelude::*;

use super::*;
use crate::collective::part;

type Whole = ArrayD<i32>;

/// Small numbers as bytes of an element type; all sums of them are exact in each.
fn encode(element: Element, numbers: &Whole) -> Vec<u8> {
    let bytes = |number: &i32| match element {
        Element::Float32 => (*number as f32).to_ne_bytes().to_vec(),
        Element::Float64 => f64::from(*number).to_ne_bytes().to_vec(),
        Element::Float16 => f16::from_f32(*number as f32).to_ne_bytes().to_vec(),
        Element::Bfloat16 => bf16::from_f32(*number as f32).to_ne_bytes().to_vec(),
        Element::Int32 => number.to_ne_bytes().to_vec(),
        Element::Int64 => i64::from(*number).to_ne_bytes().to_vec(),
        Element::Bool => vec![u8::from(*number % 2 != 0)],
    };
    numbers.iter().flat_map(bytes).collect()
}

fn array(shape: &[usize], seed: u64) -> Whole {
    let mut state = seed;
    ArrayD::from_shape_simple_fn(IxDyn(shape), || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % 17) as i32 - 8
    })
}

fn cut(whole: &Whole, axis: usize, range: std::ops::Range<usize>) -> Whole {
    whole.slice_axis(Axis(axis), Slice::from(range)).to_owned()
}

fn put_together(axis: usize, parts: &[Whole]) -> Whole {
    let views: Vec<_> = parts.iter().map(|part| part.view()).collect();
    concatenate(Axis(axis), &views).unwrap()
}

/// A case: ranks, element type, shape, two axes, sizes of the parts, a seed.
#[derive(Clone, Debug)]
struct Case {
    ranks: usize,
    element: Element,
    shape: Vec<usize>,
    cut: usize,
    gathered: usize,
    parts: Vec<usize>,
    seed: u64,
    negative: bool,
}

fn case() -> impl Strategy<Value = Case> {
    let ranks = prop::sample::select(vec![1_usize, 2, 3, 4, 8]);
    let element = prop::sample::select(Element::ALL.to_vec());
    (
        ranks,
        element,
        prop::collection::vec(0..6_usize, 2..=5),
        any::<u64>(),
        any::<bool>(),
    )
        .prop_flat_map(|(ranks, element, shape, seed, negative)| {
            let axes = shape.len();
            (0..axes, 1..axes, prop::collection::vec(0..4_usize, ranks)).prop_map(move |(cut, further, parts)| Case {
                ranks,
                element,
                shape: shape.clone(),
                cut,
                gathered: (cut + further) % axes,
                parts,
                seed,
                negative,
            })
        })
}

impl Case {
    fn axis(&self, axis: usize) -> Option<i64> {
        let axis = axis as i64;
        Some(if self.negative {
            axis - self.shape.len() as i64
        } else {
            axis
        })
    }

    /// What each rank has: a part of `axis` of its own size.
    fn parts(&self, axis: usize) -> Vec<Whole> {
        let parts = self.parts.iter().enumerate();
        parts
            .map(|(rank, entries)| {
                let mut shape = self.shape.clone();
                shape[axis] = *entries;
                array(&shape, self.seed.wrapping_add(rank as u64))
            })
            .collect()
    }

    fn wholes(&self) -> Vec<Whole> {
        (0..self.ranks)
            .map(|rank| array(&self.shape, self.seed.wrapping_add(rank as u64)))
            .collect()
    }

    fn part_of(&self, whole: &Whole, rank: usize) -> Whole {
        cut(whole, self.cut, part(self.shape[self.cut], self.ranks, rank))
    }

    /// Every rank runs the call with its input; results and bytes sent are compared.
    fn check(&self, element: Element, call: &Call, inputs: &[Whole], expected: &[Whole], sent: &[usize]) {
        let world = sequence(self.ranks, PATIENT);
        let results = on_every_rank(&world, |number, rank| {
            let input = &inputs[number];
            // Twice: the second meeting must not see anything of the first.
            let first = run(call, &*rank, element, input.shape(), &encode(element, input)).unwrap();
            let second = run(call, &*rank, element, input.shape(), &encode(element, input)).unwrap();
            assert_eq!(first, second);
            assert_eq!(
                rank.traffic().sent().bytes(Group::Sequence) as usize,
                2 * sent[number] * element.bytes()
            );
            assert_eq!(
                rank.traffic().sent().total(),
                rank.traffic().sent().bytes(Group::Sequence)
            );
            first
        });
        for (result, expected) in results.iter().zip(expected) {
            assert_eq!(result.0, expected.shape());
            assert!(result.1 == encode(element, expected), "{self:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn shard_slice(case in case()) {
        let whole = array(&case.shape, case.seed);
        let inputs = vec![whole.clone(); case.ranks];
        let expected: Vec<_> = (0..case.ranks).map(|rank| case.part_of(&whole, rank)).collect();
        let call = call(Operation::ShardSlice, case.axis(case.cut), None);
        case.check(case.element, &call, &inputs, &expected, &vec![0; case.ranks]);
    }

    #[test]
    fn all_gather(case in case()) {
        let inputs = case.parts(case.gathered);
        let expected = vec![put_together(case.gathered, &inputs); case.ranks];
        let sent: Vec<_> = inputs.iter().map(|input| input.len() * (case.ranks - 1)).collect();
        case.check(case.element, &call(Operation::AllGather, None, case.axis(case.gathered)), &inputs, &expected, &sent);
    }

    #[test]
    fn all_to_all(case in case()) {
        let inputs = case.parts(case.gathered);
        let whole = put_together(case.gathered, &inputs);
        let expected: Vec<_> = (0..case.ranks).map(|rank| case.part_of(&whole, rank)).collect();
        let stays = |rank: usize| case.part_of(&inputs[rank], rank).len();
        let sent: Vec<_> = (0..case.ranks).map(|rank| inputs[rank].len() - stays(rank)).collect();
        let call = call(Operation::AllToAll, case.axis(case.cut), case.axis(case.gathered));
        case.check(case.element, &call, &inputs, &expected, &sent);
    }

    #[test]
    fn all_reduce(case in case(), element in prop::sample::select(vec![
        Element::Float32, Element::Float64, Element::Float16, Element::Bfloat16,
    ])) {
        let inputs = case.wholes();
        let sum = inputs.iter().skip(1).fold(inputs[0].clone(), |sum, input| sum + input);
        let own = |rank| part(sum.len(), case.ranks, rank).len();
        // The parts that others sum, and then the sum of its own to all others.
        let sent: Vec<_> = (0..case.ranks).map(|rank| sum.len() - own(rank) + own(rank) * (case.ranks - 1)).collect();
        let call = call(Operation::AllReduce, None, None);
        case.check(element, &call, &inputs, &vec![sum.clone(); case.ranks], &sent);
    }

    #[test]
    fn reduce_scatter(case in case(), element in prop::sample::select(vec![
        Element::Float32, Element::Float64, Element::Float16, Element::Bfloat16,
    ])) {
        let inputs = case.wholes();
        let sum = inputs.iter().skip(1).fold(inputs[0].clone(), |sum, input| sum + input);
        let expected: Vec<_> = (0..case.ranks).map(|rank| case.part_of(&sum, rank)).collect();
        let sent: Vec<_> = expected.iter().map(|own| sum.len() - own.len()).collect();
        let call = call(Operation::ReduceScatter, case.axis(case.cut), None);
        case.check(element, &call, &inputs, &expected, &sent);
    }
}

#[test]
fn sums_are_added_in_order_of_ranks_and_rounded_once() {
    // In float32, (1 + 1e8) - 1e8 is 0 and 1 + (1e8 - 1e8) is 1; in float16, 2048 + 1 + 1 is 2050 only if not rounded between.
    let world = sequence(3, PATIENT);
    let results = on_every_rank(&world, |number, rank| {
        let wide = [1.0_f32, 1e8, -1e8][number];
        let narrow = f16::from_f32([2048.0, 1.0, 1.0][number]);
        let call = call(Operation::AllReduce, None, None);
        let wide = run(&call, &*rank, Element::Float32, &[], &wide.to_ne_bytes()).unwrap();
        let narrow = run(&call, &*rank, Element::Float16, &[1], &narrow.to_ne_bytes()).unwrap();
        (wide, narrow)
    });
    for (wide, narrow) in results {
        assert_eq!(wide, (vec![], 0.0_f32.to_ne_bytes().to_vec()));
        assert_eq!(narrow, (vec![1], f16::from_f32(2050.0).to_ne_bytes().to_vec()));
    }
}

#[test]
fn groups_of_a_mesh_do_not_mix() {
    let mesh = Mesh::new(2, 3, 2).unwrap();
    let world = World::new(mesh, PATIENT);
    let gathered = on_every_rank(&world, |number, rank| {
        Group::ALL.map(|group| {
            let mut call = call(Operation::AllGather, None, Some(0));
            call.group = group;
            let (_, bytes) = run(&call, &*rank, Element::Int32, &[1], &(number as i32).to_ne_bytes()).unwrap();
            assert_eq!(rank.traffic().sent().bytes(group) as usize, 4 * (mesh.size(group) - 1));
            bytes
                .as_chunks::<4>()
                .0
                .iter()
                .map(|bytes| i32::from_ne_bytes(*bytes) as usize)
                .collect::<Vec<_>>()
        })
    });
    for (number, gathered) in gathered.into_iter().enumerate() {
        assert_eq!(gathered, Group::ALL.map(|group| mesh.members(group, number)));
    }
}

#[test]
fn steps_are_counted_apart() {
    let world = sequence(2, PATIENT);
    on_every_rank(&world, |_, rank| {
        let call = call(Operation::AllGather, None, Some(0));
        for entries in [3, 0, 5] {
            run(&call, &*rank, Element::Bool, &[entries], &vec![1; entries]).unwrap();
            rank.traffic().end_step();
        }
        let steps = rank.traffic().steps();
        assert_eq!(
            steps
                .iter()
                .map(|step| (step.total(), step.exchanges()))
                .collect::<Vec<_>>(),
            [(3, 1), (0, 1), (5, 1)]
        );
    });
}
