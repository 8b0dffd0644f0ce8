//! Steps of `tests/data/runtime/switch.onnx`; what it computes stands in `make_switch.py` beside it.

use std::path::Path;

use super::*;
use crate::runtime::{Options, ensure};

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
        shape: vec![None, Some(4)],
    };
    Feedback {
        flags: vec!["pab.broadcast.a".to_owned(), "pab.broadcast.b".to_owned()],
        caches: vec![cache("first", 0), cache("second", 1)],
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
    denoiser.reset();
    check_clip(&mut denoiser);
}

#[test]
fn a_cache_stays_where_it_is() {
    let mut denoiser = patched();
    let places = |denoiser: &Denoiser| -> Vec<usize> {
        let place = |slot: &Slot| slot.value.try_extract_tensor::<f32>().unwrap().1.as_ptr() as usize;
        denoiser.caches.iter().map(place).collect()
    };
    out(&mut denoiser, &sample(2, 1.0), [false, false]).unwrap();
    let first = places(&denoiser);
    for flags in [[true, true], [false, true], [true, false], [false, false]] {
        out(&mut denoiser, &sample(2, 3.0), flags).unwrap();
        assert_eq!(places(&denoiser), first);
    }
    denoiser.reset();
    out(&mut denoiser, &sample(2, 3.0), [false, false]).unwrap();
    assert_eq!(places(&denoiser), first);
}

#[test]
fn another_clip_may_have_another_batch() {
    let mut denoiser = patched();
    for batch in [3, 1, 2] {
        denoiser.reset();
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
    denoiser.reset();
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
    assert!(message(&|feedback| feedback.caches[1].shape = vec![None]).contains("float32 of rank 1 in its plan"));
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
