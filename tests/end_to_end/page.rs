//! `report`: the page, in a real browser where there is one.

use crate::program::{command, fail, failure, files_below, json, root, run, shipped_model, succeed};
use ndarray::Array4;
use pab_patch::quality::compare;
use pab_patch::report::{
    Comparison, Facts, FramesPerSecond, Measured, MeasuredClip, RuleFigures, RunFacts, RuntimeFacts, write_apng,
    write_json,
};
use pab_patch::rules::{Broadcast, Strategy, Window};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// What a hostile model, prompt or file would be called.
const HOSTILE: &str =
    "</title></script><script>window.hacked = 1</script><img src=http://example.org/x onerror='window.hacked=2'>";

/// A clip in which a square moves; `off` is how much brighter it is.
fn clip(off: f32) -> Array4<f32> {
    Array4::from_shape_fn((3, 8, 32, 32), |(channel, frame, y, x)| {
        let inside = (3 * frame..3 * frame + 8).contains(&x) && (10..20).contains(&y);
        let level = if inside { 0.8 } else { 0.15 + 0.02 * channel as f32 };
        (level + off * ((x + y + frame) % 5) as f32).min(1.0)
    })
}

/// What `compare` writes for some rules, as far as it does not need a model.
fn compared(folder: &Path, rules_from: &str, faster: f64, clips: usize) {
    let rule = |name: &str, range| RuleFigures {
        name: name.to_owned(),
        kind: name.to_owned(),
        strategy: Strategy::Reuse,
        timing: Broadcast::new(range, Window::timesteps(100.0, 800.0).unwrap())
            .unwrap()
            .into(),
        adaptive: None,
        sites: 6,
        steps_broadcast: 0.4,
        step_share: Some(0.15),
    };
    let facts = Facts {
        model: format!("models/{HOSTILE}.onnx"),
        patched_model: "out/model.onnx".to_owned(),
        rules_from: rules_from.to_owned(),
        runtime: RuntimeFacts {
            version: "1.31.1".to_owned(),
            library: "/a/rather/long/path/to/the/library/libonnxruntime.so.1.31.1".to_owned(),
            provider: "CPUExecutionProvider".to_owned(),
            threads: 2,
        },
        run: RunFacts {
            scheduler: "DDIMScheduler".to_owned(),
            steps: 50,
            guidance: 2.0,
            clip_shape: [3, 8, 32, 32],
        },
        rules: vec![rule("spatial", 2), rule("temporal", 3), rule("cross", 6)],
    };
    let measured = |milliseconds: f64| Measured {
        step_milliseconds: vec![milliseconds / 50.0; 50],
        clip_milliseconds: milliseconds,
    };
    let rate = FramesPerSecond::new(8).unwrap();
    let made = (0..clips).map(|number| {
        let off = 0.01 * (number + 1) as f32 * faster as f32;
        for (name, clip) in [("original", clip(0.0)), ("patched", clip(off))] {
            let place = folder.join("clips").join(name);
            std::fs::create_dir_all(&place).unwrap();
            write_apng(&place.join(format!("clip_{number:03}.apng")), clip.view(), rate, 1).unwrap();
        }
        MeasuredClip {
            seed: number as u64,
            prompt: Some(if number == 0 {
                HOSTILE.to_owned()
            } else {
                format!("red circle {number}")
            }),
            original: measured(2400.0 + 10.0 * number as f64),
            patched: measured(2400.0 / faster - 20.0 * number as f64),
            quality: Some(compare(clip(0.0).view(), clip(off).view()).unwrap()),
        }
    });
    let comparison = Comparison::new(facts, made.collect(), Some(faster * 1.1)).unwrap();
    write_json(&folder.join("figures.json"), &comparison).unwrap();
}

/// What `calibrate` writes: changes that fall and rise again.
fn calibration() -> serde_json::Value {
    let changes = |least: f64| -> Vec<f64> {
        (1..30)
            .map(|step| least + 0.004 * f64::from(step - 15).powi(2) / 10.0)
            .collect()
    };
    let kinds = [("spatial", 0.09), ("temporal", 0.05), ("cross", 0.02)];
    let quality = |ssim: f64| {
        let spread = |mean: f64| serde_json::json!({"mean": mean, "min": mean * 0.98, "median": mean});
        serde_json::json!({"clips": 8, "equal": 0, "psnr": spread(33.0), "ssim": spread(ssim)})
    };
    let rules = [
        ("rules.yaml", true, 1.9, 0.962),
        ("2/4/6", false, 1.3, 0.97),
        ("5/7/9", false, 1.6, 0.94),
    ];
    serde_json::json!({
        "format": 1,
        "generator": "pab-patch 0.1.0",
        "command": ["pab-patch", "calibrate", HOSTILE],
        "run": {"scheduler": "DDIMScheduler", "steps": 30, "timesteps": [], "guidance": 2.0},
        "stable_below": 0.1,
        "kinds": kinds.map(|(kind, least)| serde_json::json!({"kind": kind, "relative_l2": changes(least), "stable_share": 0.6})),
        "drift": kinds.map(|(kind, least)| {
            let steps: Vec<_> = changes(least).into_iter().map(|change| serde_json::json!({"relative_l2": change})).collect();
            serde_json::json!({"site": format!("{kind}.0"), "kind": kind, "block": 0, "steps": steps})
        }),
        "judged": [{
            "run": {"scheduler": "DDIMScheduler", "steps": 30},
            "rules": rules.map(|(rules, fitted, speed_up, ssim)| serde_json::json!({
                "rules": rules, "fitted": fitted, "speed_up": speed_up, "quartiles": [speed_up - 0.1, speed_up + 0.1],
                "quality": quality(ssim),
            })),
        }],
    })
}

/// The page of results of every kind, made once for all tests.
fn page() -> &'static Path {
    static PAGE: OnceLock<PathBuf> = OnceLock::new();
    PAGE.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("results");
        if folder.exists() {
            std::fs::remove_dir_all(&folder).unwrap();
        }
        std::fs::create_dir_all(&folder).unwrap();
        made(&folder)
    })
}

/// Fills a folder with results of every kind, and makes the page of them.
fn made(folder: &Path) -> PathBuf {
    compared(&folder.join("a"), "preset latte", 1.25, 4);
    compared(&folder.join("b"), HOSTILE, 1.6, 2);
    let model = shipped_model();
    let rules = ["--rules", "latte"];
    let output = folder.join("patched");
    let patch = [
        model.as_os_str(),
        rules[0].as_ref(),
        rules[1].as_ref(),
        "-o".as_ref(),
        output.as_os_str(),
    ];
    succeed(patch);
    let inspect = succeed([
        "inspect".as_ref(),
        model.as_os_str(),
        "--size".as_ref(),
        "batch=2".as_ref(),
        "--json".as_ref(),
    ]);
    std::fs::write(folder.join("inspect.json"), inspect).unwrap();
    let quality = folder.join("quality.json");
    let clips = folder.join("a/clips");
    succeed([
        "quality".as_ref(),
        clips.join("original").as_os_str(),
        clips.join("patched").as_os_str(),
        "-o".as_ref(),
        quality.as_os_str(),
    ]);
    std::fs::write(folder.join("calibration.json"), calibration().to_string()).unwrap();
    std::fs::write(folder.join("other.json"), "{\"something\": 1}").unwrap();
    let page = folder.join("report.html");
    let written = json(["report".as_ref(), folder.as_os_str(), "-o".as_ref(), page.as_os_str()]);
    let parts: Vec<&str> = written["parts"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|part| part.as_str())
        .collect();
    for part in [
        "What was found in the model",
        "Rules",
        "Schedule",
        "Speed",
        "Quality",
        "Clips",
        "To make it again",
    ] {
        assert!(parts.contains(&part), "{part} is not in {parts:?}");
    }
    assert_eq!(written["warnings"].as_array().unwrap().len(), 0, "{written}");
    page
}

#[test]
fn a_page_is_one_file_of_texts() {
    let page = page();
    let html = std::fs::read_to_string(page).unwrap();
    assert_eq!(html.matches("<script").count(), 1, "a name has become a script");
    assert!(!html.contains("<img src=http"), "a name has become an element");
    let addresses = html.matches("http").count() - html.matches("http-equiv").count();
    assert_eq!(addresses, html.matches("&lt;img src=http").count());
    // Six pairs of clips, each with its difference; the judgement is about clips that are there already.
    assert_eq!(html.matches("<img ").count(), 6 * 3);
    assert!(html.contains("3rd step while the timestep is between 800 and 100"));
    assert!(html.contains("<code>pab-patch quality "), "the command is not there");
}

#[test]
fn results_that_are_missing_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let error = fail(5, ["report".as_ref(), folder.path().as_os_str()]);
    assert!(error.contains("pab-patch compare"), "{error}");
    let error = fail(2, ["report".as_ref(), folder.path().join("none").as_os_str()]);
    assert!(error.contains("none: cannot read"), "{error}");
    let file = folder.path().join("x.json");
    std::fs::write(&file, "{}").unwrap();
    assert!(fail(5, ["report".as_ref(), file.as_os_str()]).contains("x.json"));
    std::fs::write(&file, "{\"speed_up\": 1, \"patched_model\": 1, \"clips\": []}").unwrap();
    let error = fail(5, ["report".as_ref(), folder.path().as_os_str()]);
    assert!(error.contains("another version"), "{error}");
    // A broken file beside a good one is told of, and the page is made; without clips there is no part for them.
    compared(folder.path(), "preset pab", 1.2, 1);
    std::fs::remove_dir_all(folder.path().join("clips")).unwrap();
    let page = folder.path().join("page/report.html");
    let arguments = [
        "report".as_ref(),
        folder.path().as_os_str(),
        "-o".as_ref(),
        page.as_os_str(),
    ];
    let error = fail(6, arguments);
    assert!(error.contains("folder exists"), "{error}");
    std::fs::create_dir(folder.path().join("page")).unwrap();
    let output = run(arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.contains("x.json") && said.contains("left out: Clips"),
        "{said}"
    );
    let html = std::fs::read_to_string(&page).unwrap();
    assert!(html.contains("Not on this page") && !html.contains("id=\"clips\"") && html.contains("x.json"));
    assert_eq!(
        files_below(&folder.path().join("page")).len(),
        1,
        "temporary files are left"
    );
}

#[test]
fn clips_are_judged_by_every_measure() {
    let folder = tempfile::tempdir().unwrap();
    compared(folder.path(), "preset pab", 1.2, 2);
    let clips = folder.path().join("clips");
    let (original, patched) = (clips.join("original"), clips.join("patched"));
    let network = root().join("tests/data/quality/alex.onnx");
    let arguments = |more: &[&str]| -> Vec<std::ffi::OsString> {
        let own = ["quality".as_ref(), original.as_os_str(), patched.as_os_str()];
        own.into_iter()
            .map(Into::into)
            .chain(more.iter().map(Into::into))
            .collect()
    };
    let judged = json(arguments(&["--lpips", network.to_str().unwrap()]));
    assert_eq!(judged["clips"].as_array().unwrap().len(), 2);
    for clip in judged["clips"].as_array().unwrap() {
        assert_eq!(clip["frames"].as_array().unwrap().len(), 8);
        assert!(
            clip["lpips"].as_f64().unwrap() > 0.0 && clip["flicker"]["excess"].as_f64().unwrap() > 0.0,
            "{clip}"
        );
    }
    let worst = judged["summary"]["ssim"]["min"].as_f64().unwrap();
    let table = succeed(arguments(&["--frames"]));
    assert!(
        table.contains("clip_001") && table.contains("frame") && table.contains("worst clip"),
        "{table}"
    );
    // The limits are for the worst clip.
    succeed(arguments(&[
        "--min-ssim",
        &(worst - 1e-6).to_string(),
        "--min-psnr",
        "5",
    ]));
    let error = fail(
        9,
        arguments(&["--min-ssim", &(worst + 1e-4).to_string(), "--min-psnr", "99"]),
    );
    assert!(
        error.contains("clip_001: SSIM") && error.contains("clip_000: PSNR"),
        "{error}"
    );
    assert!(fail(9, arguments(&["--min-ms-ssim", "0.5"])).contains("too small for MS-SSIM"));
    // What does not go together.
    assert!(fail(2, arguments(&["--max-lpips", "0.1"])).contains("--lpips"));
    assert!(fail(2, arguments(&["--lpips", shipped_model().to_str().unwrap()])).contains("export.py"));
    let heads = root().join("tests/data/quality/squeeze.safetensors");
    let error = fail(
        3,
        arguments(&[
            "--lpips",
            network.to_str().unwrap(),
            "--lpips-heads",
            heads.to_str().unwrap(),
        ]),
    );
    assert!(error.contains("5 feature maps") && error.contains("7 heads"), "{error}");
    std::fs::remove_file(patched.join("clip_001.apng")).unwrap();
    let output = run(arguments(&[]));
    assert!(String::from_utf8_lossy(&output.stderr).contains("has no clip_001"));
    // A film without ffmpeg.
    std::fs::write(folder.path().join("a.mp4"), "no film").unwrap();
    let film = folder.path().join("a.mp4");
    let mut judge = command(["quality".as_ref(), film.as_os_str(), film.as_os_str()]);
    let error = failure(2, judge.env("PATH", folder.path()));
    assert!(
        error.contains("a.mp4") && error.contains("needs the program ffmpeg") && error.contains("install it"),
        "{error}"
    );
}

#[cfg(unix)]
#[test]
fn films_are_read_through_ffmpeg() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::create_dir(at("bin")).unwrap();
    std::fs::write(at("one.mp4"), "").unwrap();
    let path = std::env::join_paths([at("bin"), "/usr/bin".into(), "/bin".into()]).unwrap();
    let write = |text: &str| {
        std::fs::write(at("bin/ffmpeg"), text).unwrap();
        std::fs::set_permissions(at("bin/ffmpeg"), PermissionsExt::from_mode(0o755)).unwrap();
    };
    let frame = "printf 'P6\\n11 11\\n255\\n'; head -c 363 /dev/zero | tr '\\000' x\n";
    write(&format!("#!/bin/sh\n{frame}{frame}{frame}"));
    let film = at("one.mp4");
    let judge = || {
        let mut judge = command([
            "quality".as_ref(),
            film.as_os_str(),
            film.as_os_str(),
            "--json".as_ref(),
        ]);
        judge.env("PATH", &path);
        judge
    };
    let output = judge().output().unwrap();
    let judged: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(judged["clips"][0]["frames"].as_array().unwrap().len(), 3);
    write("#!/bin/sh\necho 'moov atom not found' >&2\nexit 1\n");
    let error = failure(2, &mut judge());
    assert!(
        error.contains("one.mp4") && error.contains("moov atom not found"),
        "{error}"
    );
}

#[cfg(unix)]
#[test]
fn a_page_in_a_browser() {
    use crate::browser::{Browser, chromium};
    use serde_json::json;

    let Some(program) = chromium("page::a_page_in_a_browser") else {
        return;
    };
    let page = page();
    let pictures = Path::new(env!("CARGO_TARGET_TMPDIR")).join("page");
    std::fs::create_dir_all(&pictures).unwrap();
    let mut browser = Browser::start(&program);
    let keep = |browser: &mut Browser, name: &str| {
        let shot = browser.screenshot();
        std::fs::write(pictures.join(name), &shot).unwrap();
        image::load_from_memory(&shot).unwrap().into_rgb8()
    };

    browser.resize(1000, 800);
    browser.prefer("light", "no-preference");
    browser.open(page);
    assert_eq!(browser.evaluate("typeof window.hacked"), "undefined");
    let broken = "[...document.images].filter((image) => !image.complete || image.naturalWidth === 0).length";
    assert_eq!(browser.evaluate(broken), 0);
    let light = keep(&mut browser, "light.png");
    browser.prefer("dark", "no-preference");
    let dark = keep(&mut browser, "dark.png");
    assert!(
        light.get_pixel(2, 2).0.iter().all(|level| *level > 200)
            && dark.get_pixel(2, 2).0.iter().all(|level| *level < 60)
    );

    // No wider than a phone, folded and unfolded.
    browser.prefer("light", "no-preference");
    browser.resize(360, 740);
    for open in ["false", "true"] {
        browser.evaluate(&format!(
            "for (const part of document.querySelectorAll('details')) part.open = {open}"
        ));
        assert_eq!(
            browser.evaluate("document.documentElement.scrollWidth"),
            360,
            "open: {open}"
        );
    }
    keep(&mut browser, "phone.png");
    browser.evaluate("for (const part of document.querySelectorAll('details')) part.open = false");

    // Clips play, the panes of each together.
    let running = "[...document.querySelectorAll('.clip')].map((clip) => clip.getAnimations()[0].playState)";
    let states = browser.evaluate(running);
    let states = states.as_array().unwrap();
    assert!(
        states.len() == 6 && states.iter().all(|state| state == "running"),
        "{states:?}"
    );
    let frames = "JSON.stringify([...document.querySelectorAll('.clip')].map((clip) => \
                  [...new Set([...clip.querySelectorAll('img')].map((image) => \
                  getComputedStyle(image).getPropertyValue('--step')))]))";
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..8 {
        let shown = browser.evaluate(frames);
        let clips: Vec<Vec<String>> = serde_json::from_str(shown.as_str().unwrap()).unwrap();
        assert!(
            clips.iter().all(|panes| panes.len() == 1),
            "panes of a clip show different frames: {shown}"
        );
        seen.insert(clips[0][0].clone());
        std::thread::sleep(std::time::Duration::from_millis(120));
    }
    assert!(seen.len() > 2, "nothing moves: {seen:?}");

    // With the keyboard alone: everything is reached, in the order in which it stands.
    browser.resize(1000, 800);
    browser.evaluate("scrollTo(0, 0); document.activeElement.blur()");
    let mut reached = Vec::new();
    for _ in 0..80 {
        browser.press("Tab", 9, "");
        let at = browser.evaluate("document.activeElement.id || document.activeElement.getAttribute('href') || document.activeElement.tagName");
        reached.push(at.as_str().unwrap().to_owned());
        if at == "play" {
            break;
        }
    }
    assert_eq!(reached[..2], ["#main", "#found"], "{reached:?}");
    assert!(
        reached.iter().any(|at| at == "SUMMARY") && reached.last().unwrap() == "play",
        "{reached:?}"
    );
    browser.press(" ", 32, " ");
    assert_eq!(browser.evaluate("document.getElementById('play').checked"), false);
    let states = browser.evaluate(running);
    assert!(
        states.as_array().unwrap().iter().all(|state| state == "paused"),
        "{states}"
    );
    browser.press("Tab", 9, "");
    let place = "getComputedStyle(document.querySelector('.frame img')).transform";
    for expected in 1..=3 {
        browser.press("ArrowRight", 39, "");
        assert_eq!(
            browser.evaluate("document.getElementById('frame-number').value"),
            expected.to_string()
        );
        let height = browser
            .evaluate("document.querySelector('.frame').getBoundingClientRect().height")
            .as_f64()
            .unwrap();
        let moved = browser.evaluate(place);
        let moved: f64 = moved
            .as_str()
            .unwrap()
            .trim_end_matches(')')
            .rsplit(", ")
            .next()
            .unwrap()
            .parse()
            .unwrap();
        assert!(
            (moved + height * f64::from(expected)).abs() < 1.0,
            "frame {expected}: {moved} of {height}"
        );
    }
    browser.press("Tab", 9, "");
    assert_eq!(browser.evaluate("document.activeElement.id"), "speed");

    // Printed, in light colours and without what is only for the screen.
    browser.prefer("dark", "no-preference");
    let printed = browser.print();
    std::fs::write(pictures.join("print.pdf"), &printed).unwrap();
    assert!(printed.starts_with(b"%PDF") && printed.len() > 20_000);

    // Who wants less motion has it; who wants no script can still play and stop.
    browser.prefer("light", "reduce");
    browser.open(page);
    assert_eq!(browser.evaluate("document.getElementById('play').checked"), false);
    browser.prefer("light", "no-preference");
    browser.call("Emulation.setScriptExecutionDisabled", json!({"value": true}));
    browser.open(page);
    assert_eq!(
        browser.evaluate("document.querySelectorAll('.needs-script[hidden]').length"),
        2
    );
    let paused = "getComputedStyle(document.querySelector('.clip')).animationPlayState";
    assert_eq!(browser.evaluate(paused), "running");
    browser.evaluate("document.getElementById('play').click()");
    assert_eq!(browser.evaluate(paused), "paused");

    assert_eq!(browser.errors(), Vec::<String>::new());
    for address in browser.requests() {
        assert!(
            address.starts_with("file:///") && address.ends_with("report.html"),
            "{address} was asked for"
        );
    }
}
