//! Element type and memory of caches.

use crate::equality::{BY_KIND, inputs, open, patch_as, same, step};
use crate::program::{corpus, fail, json, root, run, shipped_model};
use pab_patch::runtime::{Denoiser, ElementType};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The three kinds of attention of Latte.
const ATTENTION: &str = "version: 1
rules:
  - { name: spatial, match: { kind: spatial }, broadcast: { range: 2 } }
  - { name: temporal, match: { kind: temporal }, broadcast: { range: 3 } }
  - { name: cross, match: { kind: cross }, broadcast: { range: 6 } }
";

/// These rules as a file.
fn attention(folder: &tempfile::TempDir) -> PathBuf {
    let file = folder.path().join("attention.yaml");
    std::fs::write(&file, ATTENTION).unwrap();
    file
}

fn export(name: &str) -> PathBuf {
    root().join("tests/data/corpus").join(name)
}

/// Exports in float32 with static and open sizes, one in float16, and one whose modules have several exits.
fn exports() -> [PathBuf; 4] {
    [
        "latte.ts17.static.onnx",
        "latte.dyn18.dynamic.onnx",
        "latte_fp16.ts17.static.onnx",
        "flux/flux.dyn23.dynamic.onnx",
    ]
    .map(export)
}

#[test]
fn narrowed_caches_change_only_what_is_broadcast() {
    for model in exports() {
        let half = crate::rounded::is_half(&model);
        for (word, element_type) in [("f16", ElementType::Float16), ("bf16", ElementType::Bfloat16)] {
            let what = format!("{} {word}", model.display());
            let patched = patch_as(&model, BY_KIND, &["--cache-dtype", word]);
            let rules = patched.plan.rules.len();
            let mut original = Denoiser::plain(open(&model));
            let mut switched = patched.open();
            for seed in [1, 2] {
                let inputs = inputs(original.session(), seed);
                let expected = step(&mut original, &inputs, &[]);
                let found = step(&mut switched, &inputs, &vec![false; rules]);
                same(&expected, &found, &what);
            }
            let caches = switched.caches().unwrap();
            // What is float16 already stays so.
            let held = if half { ElementType::Float16 } else { element_type };
            assert!(caches.iter().all(|(_, cache)| cache.element_type() == held), "{what}");
            // Broadcast, it equals the static graph with the same caches; twice, since they are handed on unchanged.
            let mut variant = patched.variant(&vec![true; rules], open);
            for seed in [3, 4] {
                let own = inputs(switched.session(), seed);
                let broadcast = step(&mut switched, &own, &vec![true; rules]);
                let wanted = |name: &str| variant.session().inputs().iter().any(|port| port.name == name);
                let given = caches.iter().filter(|(name, _)| wanted(name)).cloned();
                let given: Vec<_> = own.iter().cloned().chain(given).collect();
                let expected = step(&mut variant, &given, &[]);
                same(&expected, &broadcast, &what);
                assert_eq!(switched.caches().unwrap(), caches, "{what}");
            }
        }
    }
}

#[test]
fn a_narrowed_cache_holds_the_rounded_value() {
    let model = export("latte.ts17.static.onnx");
    let [wide, narrow] = [vec![], vec!["--cache-dtype", "f16"]].map(|options| {
        let patched = patch_as(&model, BY_KIND, &options);
        let mut denoiser = patched.open();
        let own = inputs(denoiser.session(), 1);
        step(&mut denoiser, &own, &vec![false; patched.plan.rules.len()]);
        denoiser.caches().unwrap()
    });
    for ((name, wide), (_, narrow)) in wide.into_iter().zip(narrow) {
        assert_eq!(wide.cast(ElementType::Float16), narrow, "{name}");
    }
}

#[test]
fn outside_their_window_caches_hold_no_memory_and_the_outputs_are_the_same() {
    const RULES: &str = "
version: 1
rules:
  - { name: spatial, match: { kind: spatial }, broadcast: { range: 2, window: { fraction: [0.3, 0.7] } } }
  - { name: temporal, match: { kind: temporal }, forecast: { order: 2, range: 3, window: { fraction: [0.4, 0.8] } } }
  - { name: cross, match: { kind: cross }, cut: output, broadcast: { range: 4, window: { fraction: [0.1, 0.5] } } }
";
    const STEPS: usize = 14;
    for (model, options) in [
        (shipped_model(), &["--cache-dtype", "f16"][..]),
        (export("latte.ts17.dynamic.onnx"), &[]),
    ] {
        let patched = patch_as(&model, RULES, options);
        let schedule = patched.plan.schedule(&[500.0; STEPS]);
        let mut denoiser = patched.open();
        let run = |denoiser: &mut Denoiser| {
            let steps = 0..STEPS;
            let steps = steps.map(|number| {
                let inputs = inputs(denoiser.session(), number as u64);
                let outputs = step(denoiser, &inputs, schedule.flags(number));
                (outputs, denoiser.held_bytes())
            });
            steps.collect::<Vec<_>>()
        };
        let all = run(&mut denoiser);
        let everything = all[0].1;
        assert!(everything > 0 && all.iter().all(|(_, bytes)| *bytes == everything));
        denoiser.begin(&schedule).unwrap();
        let some = run(&mut denoiser);
        for (number, ((expected, _), (found, bytes))) in all.iter().zip(&some).enumerate() {
            same(expected, found, &format!("{}, step {number}", model.display()));
            assert!(
                *bytes < everything,
                "cross and temporal are never held together: {bytes}"
            );
        }
        let last = (0..STEPS)
            .rev()
            .find(|number| schedule.flags(*number).contains(&true))
            .unwrap();
        assert!(last + 1 < STEPS, "some steps stand behind the window");
        assert!(some[last..].iter().all(|(_, bytes)| *bytes == 0));
        assert!(some[last - 1].1 > 0);
    }
}

#[test]
fn a_type_that_is_no_narrower_is_ignored_with_a_note() {
    let folder = tempfile::tempdir().unwrap();
    let rules = attention(&folder);
    let patch = |model: &PathBuf, word: &str| {
        let output = run([
            model.as_os_str(),
            "--cache-dtype".as_ref(),
            word.as_ref(),
            "--rules".as_ref(),
            rules.as_os_str(),
            "-o".as_ref(),
            folder.path().as_os_str(),
        ]);
        assert!(output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let said = patch(&export("latte_fp16.ts17.static.onnx"), "f32");
    assert!(said.contains("--cache-dtype f32: 6 caches keep the type"), "{said}");
    let said = patch(&export("latte.ts17.static.onnx"), "f16");
    assert!(!said.contains("keep the type"), "{said}");
}

#[test]
fn the_memory_of_caches_is_reported_and_a_narrower_type_takes_half() {
    let folder = tempfile::tempdir().unwrap();
    let rules = attention(&folder);
    let patch = |model: &PathBuf, options: &[&str]| {
        let fixed: [&std::ffi::OsStr; 5] = [
            model.as_ref(),
            "--rules".as_ref(),
            rules.as_os_str(),
            "-o".as_ref(),
            folder.path().as_ref(),
        ];
        json(fixed.into_iter().chain(options.iter().map(std::ffi::OsStr::new)))
    };
    let model = export("latte.ts17.static.onnx");
    let wide = patch(&model, &[])["caches"].clone();
    let narrow = patch(&model, &["--cache-dtype", "bf16"]);
    // Of that operator set `If` gives no bfloat16.
    assert_eq!(wide["bytes"], 2 * narrow["caches"]["bytes"].as_u64().unwrap());
    // Two blocks of 6·4·16 and 8·3·16 floats, spatial and cross alike.
    assert_eq!(wide["bytes"], 2 * 4 * (6 * 4 * 16 + 8 * 3 * 16 + 6 * 4 * 16));
    assert_eq!(wide["rules"][0]["rule"], "spatial");
    assert_eq!(wide["rules"][0]["bytes"], 2 * 4 * 6 * 4 * 16);

    let model = export("latte.ts17.dynamic.onnx");
    let open = patch(&model, &[])["caches"].clone();
    assert!(open["bytes"].is_null(), "{open}");
    let formula = open["formula"].as_str().unwrap().to_owned();
    assert!(formula.contains("*batch"), "{formula}");
    let given = patch(&model, &["--size", "batch=2"])["caches"].clone();
    assert!(given["bytes"].as_u64().is_some(), "{given}");
    assert_eq!(given["formula"], formula.as_str());
    let errors = fail(2, [model.as_os_str(), "--size".as_ref(), "depth=3".as_ref()]);
    assert!(errors.contains("open dimensions of the model are"), "{errors}");
}

#[test]
fn a_ceiling_gives_up_the_sites_that_save_least_for_a_byte() {
    let folder = tempfile::tempdir().unwrap();
    let rules = attention(&folder);
    let arguments_of = |rules: &Path, memory: &[&str]| {
        let model = shipped_model();
        let fixed = ["--size", "batch=2", "--rules"].map(OsString::from);
        let memory = memory.iter().map(OsString::from);
        let output = [
            rules.into(),
            "-o".into(),
            folder.path().join("out").into(),
            model.into(),
        ];
        fixed.into_iter().chain(output).chain(memory).collect::<Vec<_>>()
    };
    let arguments = |memory: &str| arguments_of(&rules, &["--memory", memory]);
    let all = json(arguments("1GiB"));
    assert!(all["caches"]["dropped"].as_array().unwrap().is_empty());
    assert!(all["plan"].get("dropped").is_none());
    let bytes = all["caches"]["bytes"].as_u64().unwrap();
    let site = bytes / 18;

    let some = json(arguments("1MiB"));
    let dropped = some["caches"]["dropped"].as_array().unwrap();
    assert_eq!(&some["plan"]["dropped"], &some["caches"]["dropped"]);
    let sites = some["plan"]["sites"].as_array().unwrap().len();
    assert_eq!(sites + dropped.len(), 18);
    assert_eq!(
        sites as u64,
        (1 << 20) / site,
        "as many as fit, since all take the same"
    );
    // Cross attention to a few words saves least.
    assert!(dropped.iter().all(|site| site["bytes"].as_u64().is_some()));
    assert_eq!(dropped[0]["rule"], "cross", "{dropped:?}");
    let shares: Vec<f64> = dropped.iter().map(|site| site["share"].as_f64().unwrap()).collect();
    assert!(shares.is_sorted(), "{shares:?}");

    // Written in the rules it does the same, and the command line goes before it.
    let file = folder.path().join("ceiling.yaml");
    std::fs::write(&file, ATTENTION.replacen("rules:", "memory: 1MiB\nrules:", 1)).unwrap();
    assert_eq!(json(arguments_of(&file, &[]))["caches"], some["caches"]);
    assert_eq!(
        json(arguments_of(&file, &["--memory", "1GiB"]))["caches"]["dropped"],
        all["caches"]["dropped"]
    );

    let errors = fail(5, arguments("1KiB"));
    assert!(errors.contains("raise --memory"), "{errors}");
    let open = corpus()
        .into_iter()
        .find(|path| path.ends_with("latte.ts17.dynamic.onnx"))
        .unwrap();
    let errors = fail(2, [open.as_os_str(), "--memory".as_ref(), "1MiB".as_ref()]);
    assert!(errors.contains("--size batch=N"), "{errors}");
}

#[test]
fn spans_and_guidance_are_counted_and_narrowed() {
    let model = shipped_model();
    let folder = tempfile::tempdir().unwrap();
    for action in ["residual", "guidance"] {
        let rules = format!("{{ version: 1, rules: [{{ name: wide, {action}: {{ range: 2 }} }}] }}");
        let file = folder.path().join("wide.yaml");
        std::fs::write(&file, &rules).unwrap();
        let bytes = |further: &[&str]| {
            let mut arguments: Vec<OsString> = vec![model.clone().into(), "--rules".into(), file.clone().into()];
            arguments.extend(["--size", "batch=2", "-o"].map(OsString::from));
            arguments.push(folder.path().join("out").into());
            arguments.extend(further.iter().map(OsString::from));
            let caches = json(arguments)["caches"].take();
            assert_eq!(caches["rules"][0]["bytes"], caches["bytes"], "{action}");
            caches["bytes"].as_u64().unwrap()
        };
        let (full, half) = (bytes(&[]), bytes(&["--cache-dtype", "f16"]));
        assert!(full > 0 && full == 2 * half, "{action}: {full} and {half} bytes");
        bytes(&["--memory", &full.to_string()]);
        let mut arguments: Vec<OsString> = vec![model.clone().into(), "--rules".into(), file.clone().into()];
        arguments.extend(["--size", "batch=2", "--memory"].map(OsString::from));
        arguments.push((full - 1).to_string().into());
        let errors = fail(5, arguments);
        assert!(errors.contains(&full.to_string()) || errors.contains("KiB"), "{errors}");

        let patched = patch_as(&model, &rules, &["--cache-dtype", "f16"]);
        let mut original = Denoiser::plain(open(&model));
        let mut switched = patched.open();
        let own = inputs(original.session(), 1);
        let expected = step(&mut original, &own, &[]);
        assert_eq!(expected.len(), step(&mut switched, &own, &[false]).len());
        let caches = switched.caches().unwrap();
        assert!(
            caches
                .iter()
                .all(|(_, cache)| cache.element_type() == ElementType::Float16)
        );
        let broadcast = step(&mut switched, &own, &[true]);
        for ((name, expected), (_, found)) in expected.into_iter().zip(broadcast) {
            let (expected, found) = (expected.into_f32(), found.into_f32());
            let largest = expected.iter().fold(1.0_f32, |largest, value| largest.max(value.abs()));
            let differences = expected.iter().zip(&found).map(|(one, other)| (one - other).abs());
            let most = differences.fold(0.0, f32::max);
            // What is reused was rounded to 11 bits, and only to these.
            assert!(
                most > 0.0 && most < 4e-3 * largest,
                "{action} `{name}`: {most} of {largest}"
            );
        }
    }
}
