//! `pab-patch MODEL.onnx`, as pipelines call it.

use crate::program::{corpus, fail, json, root, run, shipped_model, succeed};
use onnx_protobuf::ModelProto;
use protobuf::Message;
use std::collections::BTreeSet;
use std::path::Path;

#[test]
fn the_short_form_writes_beside_the_model() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("latte.onnx");
    std::fs::copy(&corpus()[0], &model).unwrap();
    let output = run([&model]);
    assert!(output.status.success());
    let written = folder.path().join("patched/latte.onnx");
    assert_eq!(
        String::from_utf8(output.stdout).unwrap().trim(),
        written.display().to_string()
    );
    assert!(written.is_file() && written.with_extension("pab.json").is_file());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("preset `pab`"), "the default rules are named: {said}");
    assert!(
        said.contains("rule spatial") && said.contains("rule temporal") && said.contains("rule cross"),
        "{said}"
    );
}

#[test]
fn quiet_prints_the_path_alone() {
    let folder = tempfile::tempdir().unwrap();
    let output = run([
        corpus()[0].as_os_str(),
        "-q".as_ref(),
        "-o".as_ref(),
        folder.path().as_os_str(),
    ]);
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(!output.stdout.is_empty());
}

#[test]
fn the_plan_stands_in_the_model_and_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let printed = json([
        shipped_model().as_os_str(),
        "--rules".as_ref(),
        "latte".as_ref(),
        "-o".as_ref(),
        folder.path().as_os_str(),
    ]);
    let plan = &printed["plan"];
    let beside: serde_json::Value =
        serde_json::from_slice(&std::fs::read(printed["plan_file"].as_str().unwrap()).unwrap()).unwrap();
    assert_eq!(&beside, plan);

    // An independent decoder reads the file: metadata, inputs and outputs agree with the plan.
    let bytes = std::fs::read(printed["model"].as_str().unwrap()).unwrap();
    let model = ModelProto::parse_from_bytes(&bytes).unwrap();
    let metadata = model
        .metadata_props
        .iter()
        .find(|entry| entry.key == "pab.plan")
        .expect("a plan in the metadata");
    assert_eq!(
        &serde_json::from_str::<serde_json::Value>(&metadata.value).unwrap(),
        plan
    );
    let names =
        |infos: &[onnx_protobuf::ValueInfoProto]| infos.iter().map(|info| info.name.clone()).collect::<BTreeSet<_>>();
    let (inputs, outputs) = (names(&model.graph.input), names(&model.graph.output));
    let rules = plan["rules"].as_array().unwrap();
    let sites = plan["sites"].as_array().unwrap();
    assert_eq!(rules.len(), 3);
    assert_eq!(sites.len(), 18, "6 spatial, 6 cross, 6 temporal");
    for rule in rules {
        assert!(inputs.contains(rule["flag"].as_str().unwrap()));
    }
    for site in sites {
        assert!(inputs.contains(site["caches"][0]["input"].as_str().unwrap()));
        assert!(outputs.contains(site["caches"][0]["output"].as_str().unwrap()));
    }
    assert_eq!(inputs.len(), 3 + 3 + 18);
    // The scheduler stands beside the model, so the plan says which steps broadcast.
    let schedule = &plan["schedule"];
    assert_eq!(schedule["timesteps"].as_array().unwrap().len(), 50);
    let broadcast = |rule: usize| {
        schedule["broadcast"][rule]
            .as_array()
            .unwrap()
            .iter()
            .filter(|step| step.as_bool().unwrap())
            .count()
    };
    // Timesteps 781 to 101 are inside (100, 800): steps 10 to 44.
    let expected = |range: usize| (10..=44).filter(|step| step % range != 0).count();
    for (rule, range) in [(0, 2), (1, 3), (2, 6)] {
        assert_eq!(rules[rule]["timing"]["range"], range);
        assert_eq!(broadcast(rule), expected(range), "range {range}");
    }
}

#[test]
fn patching_is_deterministic() {
    let folder = tempfile::tempdir().unwrap();
    let outputs = ["a", "b"].map(|name| {
        let output = folder.path().join(name);
        let written = succeed([corpus()[0].as_os_str(), "-o".as_ref(), output.as_os_str()]);
        std::fs::read(written.trim()).unwrap()
    });
    assert!(outputs[0] == outputs[1]);
}

#[test]
fn only_what_a_rule_matches_is_patched() {
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("rules.yaml");
    std::fs::write(
        &rules,
        "version: 1\nrules:\n  - name: first-temporal\n    match: { kind: temporal, blocks: 0..2 }\n    broadcast: { range: 3 }\n",
    )
    .unwrap();
    let printed = json([
        shipped_model().as_os_str(),
        "--rules".as_ref(),
        rules.as_os_str(),
        "-o".as_ref(),
        folder.path().join("out").as_os_str(),
    ]);
    let sites: Vec<_> = printed["plan"]["sites"]
        .as_array()
        .unwrap()
        .iter()
        .map(|site| site["name"].as_str().unwrap())
        .collect();
    assert_eq!(sites, ["temporal.0", "temporal.1"]);
}

#[test]
fn wrong_rules_are_shown_in_their_line() {
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("rules.yaml");
    std::fs::write(
        &rules,
        "version: 1\nrules:\n  - name: s\n    match: { kind: spacial }\n    broadcast: { range: 2 }\n",
    )
    .unwrap();
    let model = &corpus()[0];
    let errors = fail(4, [model.as_os_str(), "--rules".as_ref(), rules.as_os_str()]);
    assert!(
        errors.contains("rules.yaml:4:") && errors.contains("spacial") && errors.contains("spatial"),
        "{errors}"
    );
    let errors = fail(4, [model.as_os_str(), "--rules".as_ref(), "nowhere.yaml".as_ref()]);
    assert!(errors.contains("nowhere.yaml"), "{errors}");
}

#[test]
fn rules_that_match_nothing_are_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("rules.yaml");
    std::fs::write(
        &rules,
        "version: 1\nrules:\n  - name: j\n    match: { kind: joint }\n    broadcast: { range: 2 }\n",
    )
    .unwrap();
    let errors = fail(5, [corpus()[0].as_os_str(), "--rules".as_ref(), rules.as_os_str()]);
    assert!(errors.contains("cross, mlp, spatial, temporal"), "{errors}");
}

#[test]
fn the_presets_are_the_files_in_the_repository() {
    for preset in ["pab", "latte"] {
        let file = root().join("rules").join(preset).with_extension("yaml");
        assert!(Path::new(&file).is_file());
        let folder = tempfile::tempdir().unwrap();
        let plan = |rules: &std::ffi::OsStr| {
            json([
                corpus()[0].as_os_str(),
                "--rules".as_ref(),
                rules,
                "-o".as_ref(),
                folder.path().as_os_str(),
            ])["plan"]["rules"]
                .clone()
        };
        assert_eq!(plan(preset.as_ref()), plan(file.as_os_str()));
    }
}

/// Every strategy takes them; the plan has what the timesteps of each run make of them.
#[test]
fn ranges_in_timesteps_go_by_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let (rules, flow) = (folder.path().join("rules.yaml"), folder.path().join("flow.json"));
    let class = "FlowMatchEulerDiscreteScheduler";
    std::fs::write(
        &flow,
        format!("{{\"_class_name\": \"{class}\", \"num_train_timesteps\": 1000, \"shift\": 3.0}}"),
    )
    .unwrap();
    let model = root().join("tests/data/corpus/latte.dyn18.dynamic.onnx");
    let ddim = root().join("models/latte-shapes/scheduler/scheduler_config.json");
    let far = "range: { timesteps: 60 }, window: { fraction: [0.1, 0.9] }";
    let by_site = format!(
        "  - {{ name: cross, match: {{ kind: cross }}, broadcast: {{ {far} }} }}\n  \
         - {{ name: temporal, match: {{ kind: temporal }}, forecast: {{ order: 1, {far} }} }}\n"
    );
    let wide = format!(
        "  - {{ name: span, match: {{ blocks: 1.. }}, residual: {{ {far} }} }}\n  - {{ name: cfg, guidance: {{ {far} }} }}\n"
    );
    let mut patterns = BTreeSet::new();
    for (listed, scheduler, steps) in [
        (&by_site, &ddim, "50"),
        (&by_site, &flow, "30"),
        (&wide, &ddim, "25"),
        (&wide, &flow, "30"),
    ] {
        std::fs::write(&rules, format!("version: 1\nrules:\n{listed}")).unwrap();
        let printed = json([
            model.as_os_str(),
            "--rules".as_ref(),
            rules.as_os_str(),
            "--scheduler".as_ref(),
            scheduler.as_os_str(),
            "--steps".as_ref(),
            steps.as_ref(),
            "-o".as_ref(),
            folder.path().join("patched").as_os_str(),
        ]);
        let plan = &printed["plan"];
        let schedule = &plan["schedule"];
        let timesteps: Vec<f64> = serde_json::from_value(schedule["timesteps"].clone()).unwrap();
        let broadcast: Vec<Vec<bool>> = serde_json::from_value(schedule["broadcast"].clone()).unwrap();
        assert_eq!((timesteps.len(), broadcast.len()), (steps.parse().unwrap(), 2));
        assert_eq!(plan["rules"][0]["timing"]["range"]["timesteps"], 60.0);
        let mut computed = timesteps[0];
        for (step, timestep) in timesteps.iter().enumerate() {
            let share = step as f64 / timesteps.len() as f64;
            let expected = step > 0 && 0.1 < share && share < 0.9 && (computed - timestep).abs() < 60.0;
            assert!(
                broadcast.iter().all(|rule| rule[step] == expected),
                "{listed} step {step}"
            );
            if !expected {
                computed = *timestep;
            }
        }
        patterns.insert(broadcast[0].clone());
    }
    assert_eq!(patterns.len(), 3, "each run has a pattern of its own");
    // Without a scheduler there are no timesteps to go by.
    let error = fail(
        2,
        [
            model.as_os_str(),
            "--rules".as_ref(),
            rules.as_os_str(),
            "--drive".as_ref(),
            "step".as_ref(),
            "--steps".as_ref(),
            "30".as_ref(),
            "-o".as_ref(),
            folder.path().join("patched").as_os_str(),
        ],
    );
    assert!(error.contains("--scheduler"), "{error}");
}
