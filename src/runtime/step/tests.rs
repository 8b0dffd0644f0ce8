//! Steps of `tests/data/runtime/switch.onnx`; what it computes stands in `make_switch.py` beside it.

use std::path::Path;

use super::*;
use crate::runtime::{Options, Provider, ensure};

fn session() -> Session {
    ensure().unwrap();
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/runtime/switch.onnx");
    let options = Options {
        threads: Some(1),
        provider: Provider::Cpu,
        ..Options::default()
    };
    Session::open(&model, &options).unwrap()
}

fn feedback() -> Feedback {
    let cache = |site: &str, rule| CachePort {
        input: format!("pab.cache.{site}"),
        output: format!("pab.cache.{site}.next"),
        rule,
        element_type: ElementType::Float32,
        shape: vec![Extent::Formula("batch".to_owned()), Extent::Number(4)],
        difference: 0,
        in_place: true,
        halved_by: None,
        adaptive: false,
    };
    Feedback {
        flags: vec!["pab.broadcast.a".to_owned(), "pab.broadcast.b".to_owned()],
        steps: None,
        caches: vec![cache("first", 0), cache("second", 1)],
        states: Vec::new(),
    }
}

fn patched() -> Denoiser {
    Denoiser::patched(session(), feedback()).unwrap()
}

fn sample(batch: usize, element: f32) -> Tensor {
    Tensor::new(&[batch, 4], vec![element; batch * 4]).unwrap()
}

/// One step; the single number that every element of `out` has.
fn out(denoiser: &mut Denoiser, sample: &Tensor, flags: [bool; 2]) -> Result<f32, RuntimeError> {
    let timestep = Tensor::scalar(100_i64);
    let outputs = denoiser.step(&[("sample", sample), ("timestep", &timestep)], &flags)?;
    let [(name, out)] = &outputs[..] else {
        panic!("{} outputs", outputs.len())
    };
    assert_eq!((name.as_str(), out.shape()), ("out", sample.shape()));
    let elements = out.as_slice::<f32>().unwrap();
    assert!(elements.iter().all(|element| *element == elements[0]), "{elements:?}");
    Ok(elements[0])
}

/// The steps of a clip, on whatever device the denoiser has.
fn check_clip(denoiser: &mut Denoiser) {
    // All computed: first = 2x, second = 3(x + 2x), out = x + 9x + 100.
    assert_eq!(out(denoiser, &sample(2, 1.0), [false, false]).unwrap(), 110.0);
    // Both from the caches of x = 1: second = 9.
    assert_eq!(out(denoiser, &sample(2, 10.0), [true, true]).unwrap(), 119.0);
    // `first` from its cache (2), passed on by the step before; second = 3(10 + 2).
    assert_eq!(out(denoiser, &sample(2, 10.0), [true, false]).unwrap(), 146.0);
    // `second` from the cache of the step before (36), `first` anew (8).
    assert_eq!(out(denoiser, &sample(2, 4.0), [false, true]).unwrap(), 140.0);
    // `first` from the step before (8): second = 3(0 + 8).
    assert_eq!(out(denoiser, &sample(2, 0.0), [true, false]).unwrap(), 124.0);
}

#[test]
fn caches_are_handed_from_step_to_step() {
    let mut denoiser = patched();
    check_clip(&mut denoiser);
    denoiser.reset().unwrap();
    check_clip(&mut denoiser);
}

#[test]
fn a_cache_stays_where_it_is() {
    let mut denoiser = patched();
    let places = |denoiser: &Denoiser| denoiser.held.places();
    out(&mut denoiser, &sample(2, 1.0), [false, false]).unwrap();
    let first = places(&denoiser);
    for flags in [[true, true], [false, true], [true, false], [false, false]] {
        out(&mut denoiser, &sample(2, 3.0), flags).unwrap();
        assert_eq!(places(&denoiser), first);
    }
    denoiser.reset().unwrap();
    out(&mut denoiser, &sample(2, 3.0), [false, false]).unwrap();
    assert_eq!(places(&denoiser), first);
}

/// Twelve steps of two rules: what each step gives, and the bytes held behind it.
fn clip(denoiser: &mut Denoiser, schedule: &Schedule) -> Vec<(f32, usize)> {
    let steps = 0..schedule.steps();
    let step = |step: usize| {
        let flags = schedule.flags(step);
        let given = out(denoiser, &sample(2, step as f32), [flags[0], flags[1]]).unwrap();
        (given, denoiser.held_bytes())
    };
    steps.map(step).collect()
}

#[test]
fn memory_is_held_in_the_window_alone() {
    /// Two rows of four floats.
    const CACHE: usize = 32;
    let [first, second] = ["cccbcbcccccc", "cccccbbbcccc"];
    let flags: Vec<Vec<bool>> = first
        .chars()
        .zip(second.chars())
        .map(|(a, b)| vec![a == 'b', b == 'b'])
        .collect();
    let schedule = Schedule::from_flags(2, &flags);
    let mut denoiser = patched();
    let all = clip(&mut denoiser, &schedule);
    assert!(all.iter().all(|(_, bytes)| *bytes == 2 * CACHE));
    // Twice, and then with everything held again.
    for _ in 0..2 {
        denoiser.begin(&schedule).unwrap();
        assert_eq!(denoiser.held_bytes(), 0);
        let some = clip(&mut denoiser, &schedule);
        let outputs = |clip: &[(f32, usize)]| clip.iter().map(|(out, _)| out.to_bits()).collect::<Vec<_>>();
        assert_eq!(outputs(&some), outputs(&all));
        let held: Vec<usize> = some.iter().map(|(_, bytes)| bytes / CACHE).collect();
        assert_eq!(held, [0, 0, 1, 1, 2, 1, 1, 0, 0, 0, 0, 0]);
    }
    denoiser.reset().unwrap();
    assert_eq!(clip(&mut denoiser, &schedule), all);
}

#[test]
fn in_a_window_a_cache_stays_where_it_is() {
    let flags: Vec<Vec<bool>> = "cbcbbc".chars().map(|flag| vec![flag == 'b', false]).collect();
    let mut denoiser = patched();
    denoiser.begin(&Schedule::from_flags(2, &flags)).unwrap();
    let mut places = Vec::new();
    for flags in &flags {
        out(&mut denoiser, &sample(2, 1.0), [flags[0], flags[1]]).unwrap();
        places.push(denoiser.held.places()[0]);
    }
    let first = places[0];
    assert!(first.is_some());
    assert_eq!(places, [first, first, first, first, None, None]);
}

/// What is counted are copies that happened: a step whose inputs have other sizes than the one before puts its caches out
/// elsewhere, and ONNX Runtime copies what it passes on.
#[test]
fn copies_of_caches_are_counted_where_they_happen() {
    let mut denoiser = patched();
    check_clip(&mut denoiser);
    assert_eq!(denoiser.host_copies(), 0);
    let (one, timestep) = (sample(1, 1.0), Tensor::scalar(100_i64));
    let inputs = [("sample", &one), ("timestep", &timestep)];
    denoiser.step(&inputs, &[true, true]).unwrap();
    // Two caches of two rows of four floats.
    assert_eq!(denoiser.host_copies(), 64);
    denoiser.step(&inputs, &[true, true]).unwrap();
    assert_eq!(denoiser.host_copies(), 64);
}

#[test]
fn a_step_that_leaves_the_schedule_holds_everything() {
    let flags = vec![vec![false, false]; 6];
    let mut denoiser = patched();
    denoiser.begin(&Schedule::from_flags(2, &flags)).unwrap();
    out(&mut denoiser, &sample(2, 1.0), [false, false]).unwrap();
    assert_eq!(denoiser.held_bytes(), 0);
    // What was not kept cannot be broadcast.
    let error = out(&mut denoiser, &sample(2, 1.0), [true, false]).unwrap_err();
    assert!(matches!(error, RuntimeError::CacheEmpty { .. }), "{error}");
    denoiser
        .begin(&Schedule::from_flags(
            2,
            &[vec![false, false], vec![false, true], vec![false, true]],
        ))
        .unwrap();
    out(&mut denoiser, &sample(2, 1.0), [false, false]).unwrap();
    out(&mut denoiser, &sample(2, 1.0), [false, false]).unwrap();
    assert_eq!(out(&mut denoiser, &sample(2, 10.0), [true, true]).unwrap(), 119.0);
}

#[test]
fn another_clip_may_have_another_batch() {
    let mut denoiser = patched();
    for batch in [3, 1, 2] {
        denoiser.reset().unwrap();
        assert_eq!(out(&mut denoiser, &sample(batch, 1.0), [false, false]).unwrap(), 110.0);
        assert_eq!(out(&mut denoiser, &sample(batch, 1.0), [true, true]).unwrap(), 110.0);
    }
}

#[test]
fn an_empty_cache_is_not_broadcast() {
    let mut denoiser = patched();
    let error = out(&mut denoiser, &sample(1, 1.0), [false, true]).unwrap_err();
    let RuntimeError::CacheEmpty { flag, cache, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!((flag.as_str(), cache.as_str()), ("pab.broadcast.b", "pab.cache.second"));
    out(&mut denoiser, &sample(1, 1.0), [false, false]).unwrap();
    out(&mut denoiser, &sample(1, 1.0), [false, true]).unwrap();
    denoiser.reset().unwrap();
    assert!(out(&mut denoiser, &sample(1, 1.0), [true, false]).is_err());
}

#[test]
fn a_failed_step_leaves_the_caches_as_they_were() {
    let mut denoiser = patched();
    out(&mut denoiser, &sample(2, 1.0), [false, false]).unwrap();
    // A batch of 3 meets a cache of batch 2 in an addition.
    let error = out(&mut denoiser, &sample(3, 1.0), [true, false]).unwrap_err();
    assert!(matches!(error, RuntimeError::Run { .. }), "{error}");
    assert_eq!(out(&mut denoiser, &sample(2, 10.0), [true, true]).unwrap(), 119.0);
}

#[test]
fn wrong_inputs_are_named() {
    let mut denoiser = patched();
    let (sample, timestep) = (sample(1, 1.0), Tensor::scalar(1_i64));
    let wide = Tensor::zeros(ElementType::Float32, &[1, 5]);
    let float = Tensor::scalar(1.0_f32);
    let mut message =
        |inputs: &[(&str, &Tensor)], flags: &[bool]| denoiser.step(inputs, flags).unwrap_err().to_string();
    let both = [false, false];
    for (found, part) in [
        (
            message(&[("sample", &sample)], &both),
            "input `timestep` is missing; the inputs are `sample`, `timestep`",
        ),
        (
            message(&[("latent", &sample)], &both),
            "there is no input `latent`; the inputs are `sample`, `timestep`",
        ),
        (
            message(&[("pab.cache.first", &sample)], &both),
            "there is no input `pab.cache.first`",
        ),
        (
            message(&[("sample", &sample), ("sample", &sample)], &both),
            "input `sample` is given twice",
        ),
        (
            message(&[("sample", &wide), ("timestep", &timestep)], &both),
            "given as float32 of shape [1, 5]",
        ),
        (
            message(&[("sample", &sample), ("timestep", &float)], &both),
            "given as float32 of shape []",
        ),
        (
            message(&[("sample", &sample), ("timestep", &timestep)], &[false]),
            "1 flags were given, and the model has 2",
        ),
    ] {
        assert!(found.contains(part), "{found}");
        assert!(found.contains("switch.onnx"), "{found}");
    }
}

#[test]
fn a_description_of_another_model_is_refused() {
    let message = |change: &dyn Fn(&mut Feedback)| {
        let mut feedback = feedback();
        change(&mut feedback);
        Denoiser::patched(session(), feedback).unwrap_err().to_string()
    };
    assert!(message(&|feedback| feedback.flags[0] = "x".to_owned()).contains("has no input `x`"));
    assert!(message(&|feedback| feedback.flags[0] = "sample".to_owned()).contains("instead of a bool scalar"));
    assert!(message(&|feedback| feedback.caches[1].output = "y".to_owned()).contains("has no output `y`"));
    assert!(
        message(&|feedback| feedback.caches[1].shape = vec![Extent::Number(4)])
            .contains("float32 of rank 1 in its plan")
    );
    assert!(message(&|feedback| feedback.caches[1].rule = 2).contains("belongs to rule 2, and there are 2"));
}

#[test]
fn a_plain_model_takes_all_its_inputs_and_gives_all_its_outputs() {
    let mut denoiser = Denoiser::plain(session());
    let (sample, timestep, no) = (sample(1, 1.0), Tensor::scalar(0_i64), Tensor::scalar(false));
    let inputs = [
        ("sample", &sample),
        ("timestep", &timestep),
        ("pab.broadcast.a", &no),
        ("pab.broadcast.b", &no),
        ("pab.cache.first", &sample),
        ("pab.cache.second", &sample),
    ];
    let outputs = denoiser.step(&inputs, &[]).unwrap();
    let firsts: Vec<_> = outputs
        .iter()
        .map(|(name, tensor)| (name.as_str(), tensor.as_slice::<f32>().unwrap()[0]))
        .collect();
    assert_eq!(
        firsts,
        [
            ("out", 10.0),
            ("pab.cache.first.next", 2.0),
            ("pab.cache.second.next", 9.0)
        ]
    );
}
