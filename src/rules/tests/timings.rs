//! Any timing is read as it is written, and decides without panics.

use crate::rules::{
    Action, Adaptive, AfterTable, Broadcast, ForecastOrder, IndexRange, Range, Rules, StepSet, Strategy as Does,
    Timing, Window,
};
use proptest::prelude::*;

fn window() -> impl Strategy<Value = Window> {
    prop_oneof![
        Just(Window::Whole),
        (-100i32..1000, 1i32..1000).prop_map(|(low, width)| Window::Timesteps {
            low: f64::from(low) / 8.0,
            high: f64::from(low + width) / 8.0
        }),
        (0u32..100, 1u32..100).prop_map(|(start, width)| Window::Fraction {
            start: f64::from(start) / 200.0,
            end: f64::from(start + width) / 200.0
        }),
        (0usize..50, 1usize..50).prop_map(|(first, width)| Window::Steps {
            first,
            last: first + width
        }),
    ]
}

pub fn timing() -> impl Strategy<Value = Timing> {
    let range = prop_oneof![
        (2u32..20).prop_map(|steps| Range::steps(steps).unwrap()),
        (1u32..8000).prop_map(|eighths| Range::timesteps(f64::from(eighths) / 8.0).unwrap()),
    ];
    let ranged = (range, window()).prop_map(|(range, window)| Broadcast::of(range, window).unwrap());
    let windows = proptest::collection::vec((1usize..9, 1usize..9, 2u32..9), 1..5).prop_map(|parts| {
        let mut start = 0;
        let windows = parts.into_iter().map(|(gap, width, range)| {
            let first = start + gap;
            start = first + width;
            Broadcast::new(range, Window::Steps { first, last: start }).unwrap()
        });
        Timing::windows(windows.collect()).unwrap()
    });
    let steps = proptest::collection::vec((1usize..5, 1usize..5), 1..6).prop_map(|parts| {
        let mut end = 0;
        let ranges = parts.into_iter().map(|(gap, width)| {
            let start = end + gap;
            end = start + width;
            IndexRange { start, end: Some(end) }
        });
        Timing::Steps(StepSet::new(&ranges.collect::<Vec<_>>()).unwrap())
    });
    let after = (proptest::collection::hash_set(0u32..1000, 1..20), 1u32..9)
        .prop_map(|(timesteps, skip)| Timing::After(AfterTable::new(timesteps.into_iter().collect(), skip).unwrap()));
    prop_oneof![ranged.prop_map(Timing::from), windows, steps, after]
}

fn strategy() -> impl Strategy<Value = Does> {
    prop_oneof![
        Just(Does::Reuse),
        Just(Does::Residual),
        Just(Does::Guidance),
        Just(ForecastOrder::First).prop_map(|order| Does::Forecast { order }),
        Just(ForecastOrder::Second).prop_map(|order| Does::Forecast { order }),
    ]
}

fn timesteps() -> impl Strategy<Value = Vec<f64>> {
    let odd = prop_oneof![Just(f64::NAN), Just(f64::INFINITY), Just(-1.0), Just(1e300)];
    proptest::collection::vec(
        prop_oneof![9 => 0.0..1000.0f64, 9 => (0u32..1000).prop_map(f64::from), 1 => odd],
        0..60,
    )
}

proptest! {
    #[test]
    fn json_round_trip(timing in timing()) {
        let text = serde_json::to_string(&timing).unwrap();
        prop_assert_eq!(serde_json::from_str::<Timing>(&text).unwrap(), timing);
    }

    /// What an action is written as in a plan and in rules is read as the same.
    #[test]
    fn written_form_reads_back(
        timing in timing(), strategy in strategy(),
        threshold in proptest::option::of((any::<u16>(), proptest::collection::vec(any::<i8>(), 0..4))),
    ) {
        let adaptive = threshold
            .filter(|_| matches!(strategy, Does::Reuse | Does::Residual))
            .map(|(threshold, rescale)| Adaptive::new(f64::from(threshold) / 64.0, rescale.into_iter().map(f64::from).collect()).unwrap());
        let action = Action { strategy, timing, adaptive };
        let mut form = serde_json::to_value(&action.timing).unwrap();
        if let Does::Forecast { order } = strategy {
            form["order"] = serde_json::to_value(order).unwrap();
        }
        if let Some(adaptive) = &action.adaptive {
            form["adaptive"] = serde_json::to_value(adaptive).unwrap();
        }
        let select = match strategy {
            Does::Guidance => "",
            _ => r#""match": {"kind": "mlp", "blocks": "1..-1"},"#,
        };
        let text = format!(r#"{{"version": 1, "rules": [{{"name": "r", {select} "{}": {form}}}]}}"#, strategy.key());
        let rules = Rules::parse("r", &text).unwrap();
        prop_assert_eq!(rules.rules[0].action.as_ref(), Some(&action));
        let written = format!(r#"{{"version": 1, "rules": {}}}"#, serde_json::to_string(&rules.rules).unwrap());
        prop_assert_eq!(&Rules::parse("r", &written).unwrap().rules[0].action, &rules.rules[0].action);
        let described = serde_json::to_value(strategy).unwrap();
        prop_assert_eq!(serde_json::from_value::<Does>(described).unwrap(), strategy);
    }

    #[test]
    fn one_step_and_all_steps_agree(timing in timing(), timesteps in timesteps()) {
        let over = timing.over(&timesteps);
        prop_assert_eq!(over.len(), timesteps.len());
        for (step, allowed) in over.iter().enumerate() {
            prop_assert_eq!(timing.allows(step, &timesteps), *allowed);
        }
        prop_assert!(!timing.allows(timesteps.len(), &timesteps) && !timing.allows(usize::MAX, &timesteps));
        prop_assert!(!timing.to_string().is_empty());
    }

    /// Whatever stands in a plan, it is a timing or an error.
    #[test]
    fn any_json_is_a_timing_or_an_error(
        range in proptest::option::of(any::<u32>()), far in proptest::option::of(any::<f64>()), skip in proptest::option::of(any::<u32>()),
        after in proptest::option::of(proptest::collection::vec(any::<u32>(), 0..4)),
        steps in proptest::option::of(proptest::collection::vec("[0-9]{0,3}(\\.\\.)?=?[0-9]{0,3}", 0..4)),
        timesteps in timesteps(),
    ) {
        let form = serde_json::json!({ "range": range, "skip": skip, "after": after, "steps": steps });
        for form in [form, serde_json::json!({ "range": { "timesteps": far } })] {
            if let Ok(timing) = serde_json::from_value::<Timing>(form) {
                let _ = timing.over(&timesteps);
            }
        }
    }
}
