mod videosys;

use super::*;
use crate::rules::{Broadcast, Range, Timing, Window};
use proptest::prelude::*;

/// Where attention modules really ran (1: computed, 0: broadcast) under Pyramid Attention Broadcast of diffusers 0.42.1
/// (`apply_pyramid_attention_broadcast`), recorded in runs of 10 DDIM steps: Latte and CogVideoX transformers with the
/// default window [100, 800], and an Open-Sora STDiT3 with VideoSys' window [450, 930].
mod recorded {
    pub const TIMESTEPS: [f64; 10] = [901.0, 801.0, 701.0, 601.0, 501.0, 401.0, 301.0, 201.0, 101.0, 1.0];
    /// Model and kind, range, window, pattern.
    pub const PATTERNS: [(&str, u32, [f64; 2], &str); 7] = [
        ("Latte spatial", 2, [100.0, 800.0], "1110101011"),
        ("Latte temporal", 4, [100.0, 800.0], "1100100011"),
        ("Latte cross", 6, [100.0, 800.0], "1100001001"),
        ("CogVideoX joint", 2, [100.0, 800.0], "1110101011"),
        ("STDiT3 spatial", 2, [450.0, 930.0], "1010111111"),
        ("STDiT3 temporal", 4, [450.0, 930.0], "1000111111"),
        ("STDiT3 cross", 6, [450.0, 930.0], "1000011111"),
    ];
}

fn broadcast(range: u32, window: Window) -> Timing {
    Broadcast::new(range, window).unwrap().into()
}

#[test]
fn decides_as_diffusers_did() {
    for (model, range, [low, high], pattern) in recorded::PATTERNS {
        let rule = broadcast(range, Window::timesteps(low, high).unwrap());
        assert_eq!(
            Schedule::new(&[rule], &recorded::TIMESTEPS).pattern(0),
            pattern,
            "{model}"
        );
    }
}

#[test]
fn the_papers_default_over_fifty_steps() {
    let middle = Window::fraction(0.15, 0.85).unwrap();
    let timesteps: Vec<f64> = (0..50).map(|step| f64::from(980 - 20 * step)).collect();
    let schedule = Schedule::new(&[2, 4, 6].map(|range| broadcast(range, middle)), &timesteps);
    // Steps 8 to 42 are inside: 17 of them odd, 26 not divisible by 4, 29 not divisible by 6.
    let broadcasts = |rule| (schedule.share(rule) * 50.0).round();
    assert_eq!([0, 1, 2].map(broadcasts), [17.0, 26.0, 29.0]);
    assert_eq!(
        schedule.pattern(0),
        format!("{}{}{}", "1".repeat(8), "10".repeat(17), "1".repeat(8))
    );
}

#[test]
fn ranges_two_three_six_make_four_sets() {
    let window = Window::timesteps(100.0, 800.0).unwrap();
    let timesteps: Vec<f64> = (0..50).map(|step| f64::from(980 - 20 * step)).collect();
    let schedule = Schedule::new(&[2, 3, 6].map(|range| broadcast(range, window)), &timesteps);
    let sets = schedule.distinct_sets();
    let flags: Vec<&[bool]> = sets.iter().map(|set| set.flags.as_slice()).collect();
    assert_eq!(
        flags,
        [
            [false, false, false],
            [false, true, true],
            [true, true, true],
            [true, false, true]
        ]
    );
    assert_eq!(sets.iter().map(|set| set.steps).sum::<usize>(), 50);
    assert_eq!(sets[0].first, 0);
}

#[test]
fn without_a_window_only_the_first_step_and_every_range_compute() {
    let schedule = Schedule::new(&[broadcast(3, Window::Whole)], &[0.0; 8]);
    assert_eq!(schedule.pattern(0), "10010010");
}

fn within(timesteps: f64, window: Window) -> Timing {
    Broadcast::of(Range::timesteps(timesteps).unwrap(), window)
        .unwrap()
        .into()
}

#[test]
fn a_range_in_timesteps_reaches_equally_far_with_any_steps() {
    let pattern = |timesteps: &[f64]| Schedule::new(&[within(60.0, Window::Whole)], timesteps).pattern(0);
    let leading = |steps: usize| -> Vec<f64> { (0..steps).rev().map(|step| (step * 1000 / steps) as f64).collect() };
    assert_eq!(pattern(&leading(50)[..9]), "100100100");
    assert_eq!(pattern(&leading(25)[..9]), "101010101");
    assert_eq!(pattern(&leading(16)[..9]), "111111111");
    assert_eq!(pattern(&leading(100)[..9]), "100000100");
    // Steps that lie close where a shifted flow begins, and steps that go up.
    assert_eq!(
        pattern(&[1000.0, 990.0, 975.0, 950.0, 930.0, 900.0, 700.0, 650.0, 0.0]),
        "100010101"
    );
    assert_eq!(pattern(&[0.0, 20.0, 59.0, 60.0, 119.0, 120.0]), "100101");
    // A scheduler that evaluates a timestep twice does not move.
    assert_eq!(pattern(&[900.0, 900.0, 840.0, 840.0]), "1010");
}

#[test]
fn windows_and_other_ranges_are_counted_with() {
    let steps: Vec<f64> = (0..12).map(|step| f64::from(1100 - 100 * step)).collect();
    let window = |first, last| Window::Steps { first, last };
    // From the step before the window on; `range: 3` computes steps 3 and 6.
    assert_eq!(
        Schedule::new(&[within(300.0, window(3, 8))], &steps).pattern(0),
        "111001001111"
    );
    assert_eq!(
        Schedule::new(&[broadcast(3, window(3, 8))], &steps).pattern(0),
        "111100100111"
    );
    // What the first window computed last, the second goes on from.
    let both = Timing::windows(vec![
        Broadcast::new(2, window(1, 4)).unwrap(),
        Broadcast::of(Range::timesteps(250.0).unwrap(), window(5, 11)).unwrap(),
    ]);
    assert_eq!(Schedule::new(&[both.unwrap()], &steps).pattern(0), "101010010010");
}

#[test]
fn empty_runs_and_places_outside() {
    let rule = broadcast(2, Window::Whole);
    let empty = Schedule::new(std::slice::from_ref(&rule), &[]);
    assert_eq!((empty.steps(), empty.rules(), empty.share(0)), (0, 1, 0.0));
    assert!(empty.distinct_sets().is_empty());
    let schedule = Schedule::new(&[rule], &[1.0, 0.0]);
    assert!(schedule.broadcasts(1, 0) && !schedule.broadcasts(3, 0) && !schedule.broadcasts(1, 1));
    assert!(schedule.flags(2).is_empty() && schedule.flags(usize::MAX).is_empty());
    let ruleless = Schedule::new(&[], &[1.0, 0.0]);
    assert_eq!(ruleless.distinct_sets().len(), 1);
    assert!(ruleless.flags(1).is_empty());
}

/// A window, and timesteps of which some lie inside.
fn windows() -> impl Strategy<Value = Window> {
    prop_oneof![
        Just(Window::Whole),
        (0i32..900, 1i32..900).prop_map(|(low, width)| Window::Timesteps {
            low: f64::from(low),
            high: f64::from(low + width)
        }),
        (0u32..100, 1u32..100).prop_map(|(start, width)| Window::Fraction {
            start: f64::from(start) / 200.0,
            end: f64::from(start + width) / 200.0
        }),
    ]
}

fn timesteps() -> impl Strategy<Value = Vec<f64>> {
    prop_oneof![
        // A scheduler's descending timesteps.
        (1usize..80).prop_map(|steps| (0..steps).rev().map(|step| (step * 1000 / steps) as f64).collect()),
        proptest::collection::vec(prop_oneof![0.0..1000.0f64, Just(f64::NAN)], 1..60),
    ]
}

proptest! {
    #[test]
    fn first_step_and_outside_never_broadcast(range in 2u32..12, window in windows(), timesteps in timesteps()) {
        let schedule = Schedule::new(&[broadcast(range, window)], &timesteps);
        prop_assert!(!schedule.broadcasts(0, 0));
        for (step, &timestep) in timesteps.iter().enumerate() {
            prop_assert!(window.contains(step, timesteps.len(), timestep) || !schedule.broadcasts(step, 0));
        }
    }

    #[test]
    fn no_more_than_range_less_one_in_a_row(range in 2u32..12, window in windows(), timesteps in timesteps()) {
        let schedule = Schedule::new(&[broadcast(range, window)], &timesteps);
        let longest = schedule.pattern(0).split('1').map(str::len).max().unwrap();
        prop_assert!(longest < range as usize);
    }

    /// Doubling a range only adds broadcasts; a larger range that the smaller does not divide may lose single steps, but
    /// over the whole run it never broadcasts less.
    #[test]
    fn share_grows_with_the_range(range in 2u32..9, factor in 2u32..4, steps in 1usize..80, window in windows()) {
        let timesteps: Vec<f64> = (0..steps).rev().map(|step| (step * 1000 / steps) as f64).collect();
        let schedule = Schedule::new(&[range, range * factor].map(|range| broadcast(range, window)), &timesteps);
        for step in 0..steps {
            prop_assert!(!schedule.broadcasts(step, 0) || schedule.broadcasts(step, 1));
        }
        let whole = Schedule::new(&[range, range + 1].map(|range| broadcast(range, Window::Whole)), &timesteps);
        prop_assert!(whole.share(0) <= whole.share(1));
    }

    /// Counted from the step that computed last, and not from the first of the run as a range in steps.
    #[test]
    fn timesteps_of_equal_steps_are_a_range_in_steps(
        range in 2u32..12, apart in 1u32..60, steps in 1usize..80, first in 1usize..30, length in 1usize..40,
        up in any::<bool>(),
    ) {
        let place = |step: usize| if up { step } else { steps - step };
        let timesteps: Vec<f64> = (0..steps).map(|step| f64::from(apart) * place(step) as f64).collect();
        let far = f64::from(range * apart);
        let whole = Schedule::new(&[broadcast(range, Window::Whole), within(far, Window::Whole)], &timesteps);
        prop_assert_eq!(whole.pattern(0), whole.pattern(1));
        let window = Window::Steps { first, last: first + length };
        let schedule = Schedule::new(&[within(far, window)], &timesteps);
        for step in 0..steps {
            let inside = (first..=first + length).contains(&step);
            let from_computed = (step + 1).wrapping_sub(first) % range as usize;
            prop_assert_eq!(schedule.broadcasts(step, 0), inside && from_computed != 0, "step {}", step);
        }
    }

    /// A step broadcasts if and only if it is in the window and in reach of the step that computed last.
    #[test]
    fn a_range_in_timesteps_is_kept(far in 1u32..400, window in windows(), timesteps in timesteps()) {
        let schedule = Schedule::new(&[within(f64::from(far), window)], &timesteps);
        let mut computed = None;
        for (step, &timestep) in timesteps.iter().enumerate() {
            let near = computed.is_some_and(|computed: f64| (timestep - computed).abs() < f64::from(far));
            let inside = window.contains(step, timesteps.len(), timestep);
            prop_assert_eq!(schedule.broadcasts(step, 0), near && inside);
            if !schedule.broadcasts(step, 0) {
                computed = Some(timestep);
            }
        }
    }

    #[test]
    fn parts_agree(ranges in proptest::collection::vec(2u32..8, 0..4), window in windows(), timesteps in timesteps()) {
        let rules: Vec<Timing> = ranges.iter().map(|&range| broadcast(range, window)).collect();
        let schedule = Schedule::new(&rules, &timesteps);
        prop_assert_eq!((schedule.steps(), schedule.rules()), (timesteps.len(), rules.len()));
        let sets = schedule.distinct_sets();
        prop_assert_eq!(sets.iter().map(|set| set.steps).sum::<usize>(), timesteps.len());
        for set in &sets {
            prop_assert_eq!(schedule.flags(set.first), set.flags.as_slice());
        }
        for (rule, alone) in rules.iter().enumerate() {
            // Rules do not touch one another.
            prop_assert_eq!(schedule.pattern(rule), Schedule::new(std::slice::from_ref(alone), &timesteps).pattern(0));
            let broadcast = schedule.pattern(rule).matches('0').count();
            prop_assert_eq!(schedule.share(rule), broadcast as f64 / timesteps.len() as f64);
        }
    }
}
