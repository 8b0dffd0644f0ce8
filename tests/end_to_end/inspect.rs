//! `inspect`: the table, the JSON and its schema, the graph, the page, and what rules say of inputs.

use crate::program::{corpus, fail, json, root, run, shipped_model, succeed};
use crate::schema;
use serde_json::Value;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::Path;

#[test]
fn the_json_follows_its_schema() {
    let text = std::fs::read_to_string(root().join("docs/inspect.schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&text).unwrap();
    for model in corpus().into_iter().chain([shipped_model()]) {
        let printed = json(["inspect".as_ref(), model.as_os_str()]);
        let faults = schema::faults(&schema, &printed);
        assert!(faults.is_empty(), "{}:\n{}", model.display(), faults.join("\n"));
        assert!(!printed["sites"].as_array().unwrap().is_empty());
        let known: BTreeSet<&String> = schema["$defs"]["site"]["properties"]
            .as_object()
            .unwrap()
            .keys()
            .collect();
        for site in printed["sites"].as_array().unwrap() {
            for key in site.as_object().unwrap().keys() {
                assert!(known.contains(key), "`{key}` of a site is not in the schema");
            }
        }
    }
}

#[test]
fn the_preset_that_fits_is_proposed_and_can_be_used() {
    for model in corpus() {
        let printed = json(["inspect".as_ref(), model.as_os_str()]);
        assert_eq!(printed["preset"]["name"], "latte", "{}", model.display());
    }
    let folder = tempfile::tempdir().unwrap();
    let model = corpus().remove(0);
    let said = |rules: Option<&str>| {
        let mut arguments = vec![model.as_os_str(), "-o".as_ref(), folder.path().as_os_str()];
        if let Some(rules) = rules {
            arguments.extend(["--rules".as_ref(), OsStr::new(rules)]);
        }
        let output = run(arguments);
        assert!(output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(said(None).contains("--rules latte (spatial blocks"), "{}", said(None));
    assert!(!said(Some("latte")).contains("fits this model better"));
    let help = succeed(["--help"]);
    for preset in ["pab", "latte", "open-sora-1.2", "cogvideox", "full", "image"] {
        assert!(help.contains(preset), "{preset}");
    }
}

#[test]
fn the_table_is_by_block_and_fits_a_terminal() {
    let model = root().join("tests/data/corpus/latte.ts17.static.onnx");
    let printed = succeed(["inspect".as_ref(), model.as_os_str()]);
    let place = |text: &str| printed.find(text).unwrap_or_else(|| panic!("no {text} in:\n{printed}"));
    let order = [
        "block 0  transformer_blocks.0\n",
        "  spatial.0 ",
        "  cross.0 ",
        "block 1  temporal_transformer_blocks.0\n",
        "  temporal.0 ",
        "block 2  transformer_blocks.1\n",
        "  spatial.1 ",
        "preset that fits: latte",
    ];
    assert!(order.map(place).is_sorted(), "{printed}");
    for model in corpus().into_iter().chain([shipped_model()]) {
        let printed = succeed(["inspect".as_ref(), model.as_os_str()]);
        for line in printed.lines().filter(|line| !line.starts_with("open dimensions")) {
            assert!(line.chars().count() <= 110, "{line}");
        }
        let table = printed.lines().take_while(|line| !line.is_empty());
        for line in table {
            assert!(line.chars().count() <= 100, "{line}");
        }
    }
}

#[test]
fn the_page_and_the_graph_have_every_site() {
    let folder = tempfile::tempdir().unwrap();
    let (page, graph) = (folder.path().join("model.html"), folder.path().join("model.dot"));
    let printed = json([
        "inspect".as_ref(),
        shipped_model().as_os_str(),
        "--html".as_ref(),
        page.as_os_str(),
        "--dot".as_ref(),
        graph.as_os_str(),
    ]);
    let (page, graph) = (read(&page), read(&graph));
    let sites = printed["sites"].as_array().unwrap();
    assert_eq!(page.matches("<details class=\"branch ").count(), sites.len());
    assert_eq!(graph.matches("shape=box").count(), sites.len());
    for site in sites {
        let name = site["name"].as_str().unwrap();
        assert!(page.contains(&format!("id=\"site-{name}\"")), "{name}");
        assert!(graph.contains(&format!("label=\"{name}\\n")), "{name}");
        assert!(page.contains(site["module"].as_str().unwrap()), "{name}");
    }
    assert!(page.contains("<span>Softmax</span>"));
    assert!(!page.contains("://"), "the page loads nothing");
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        2,
        "no temporary file is left"
    );
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn standard_output_has_one_thing() {
    let model = shipped_model();
    let with = |options: &[&str]| {
        let mut arguments = vec!["inspect".into(), model.clone().into_os_string()];
        arguments.extend(options.iter().map(Into::into));
        arguments
    };
    assert!(succeed(with(&["--dot", "-"])).starts_with("digraph "));
    let page = succeed(with(&["--html", "-"]));
    assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
    fail(2, with(&["--html", "-", "--dot", "-"]));
    fail(2, with(&["--html", "-", "--json"]));
    fail(6, with(&["--html", "/no/such/folder/page.html"]));
}

#[test]
fn the_model_is_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model.onnx");
    std::fs::copy(corpus().remove(0), &model).unwrap();
    let before = std::fs::read(&model).unwrap();
    let arguments = [
        "inspect".as_ref(),
        model.as_os_str(),
        "--html".as_ref(),
        model.as_os_str(),
    ];
    assert!(fail(2, arguments).contains("is the model itself"));
    assert_eq!(std::fs::read(&model).unwrap(), before);
}

#[test]
fn rules_say_what_the_axes_of_an_input_count() {
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("rules.yaml");
    let model = root().join("tests/data/corpus/latte.ts17.static.onnx");
    let write = |inputs: &str| {
        let rule = "rules:\n  - { name: r, match: { kind: [spatial, temporal] }, broadcast: { range: 2 } }\n";
        std::fs::write(&rules, format!("version: 1\n{inputs}\n{rule}")).unwrap();
    };
    let arguments = |more: &'static [&'static str]| {
        let mut arguments = vec!["inspect".into(), model.clone().into_os_string()];
        arguments.extend(["--rules".into(), rules.clone().into_os_string()]);
        arguments.extend(more.iter().map(Into::into));
        arguments
    };
    let kinds = |more| -> BTreeSet<String> {
        let printed = json(arguments(more));
        let sites = printed["sites"].as_array().unwrap();
        sites
            .iter()
            .map(|site| site["kind"].as_str().unwrap().to_owned())
            .collect()
    };
    // With frames and rows exchanged, attention within a frame seems to be one over frames and columns.
    write("inputs: { hidden_states: [batch, channels, height, frames, width] }");
    let exchanged = kinds(&[]);
    assert!(
        exchanged.contains("full") && !exchanged.contains("temporal"),
        "{exchanged:?}"
    );
    // The command line wins.
    let right = kinds(&["--axes", "hidden_states=batch,channels,frames,height,width"]);
    assert!(!right.contains("full") && right.contains("temporal"), "{right:?}");

    write("inputs: { hidden_state: [batch], timestep: [batch, text] }");
    let said = fail(4, arguments(&[]));
    for text in [
        "rules.yaml:2:11",
        "the model has no input `hidden_state`",
        "did you mean `hidden_states`?",
        "rules.yaml:2:44",
        "input `timestep` has 1 axes in the model, but 2 are named here",
    ] {
        assert!(said.contains(text), "{text} is not in:\n{said}");
    }
}
