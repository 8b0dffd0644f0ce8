//! A headless Chromium, driven over a pipe by Chrome's own protocol.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What Chromium is called.
const NAMES: [&str; 5] = [
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
];
/// After this long a browser that says nothing is ended, and the test fails.
const PATIENCE: Duration = Duration::from_secs(180);

/// Where a Chromium is: in the variable `CHROMIUM`, or on the path. Without one, says on the terminal, past the capture of tests,
/// that `test` was skipped; where `PAB_REQUIRE_CHROMIUM` is set, fails.
pub fn chromium(test: &str) -> Option<PathBuf> {
    let named = std::env::var_os("CHROMIUM").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = || {
        let folders = std::env::split_paths(&path);
        let places = folders.flat_map(|folder| NAMES.map(|name| folder.join(name)));
        places.into_iter().find(|place| place.is_file())
    };
    let found = named.or_else(on_path);
    if found.is_none() {
        let message = format!("SKIPPED {test}: no Chromium on the path, and CHROMIUM does not name one\n");
        assert!(std::env::var_os("PAB_REQUIRE_CHROMIUM").is_none(), "{message}");
        // Not by a macro: tests that pass have what those print thrown away.
        std::io::stderr().write_all(message.as_bytes()).unwrap();
    }
    found
}

/// A browser with one page.
pub struct Browser {
    process: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    session: Option<String>,
    number: u64,
    /// What the browser told without being asked.
    pub events: Vec<Value>,
    done: Arc<AtomicBool>,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts one.
    pub fn start(program: &Path) -> Browser {
        let profile = tempfile::tempdir().unwrap();
        // The protocol wants to read from descriptor 3 and to write to 4.
        let mut command = Command::new("sh");
        command.args(["-c", "exec \"$0\" \"$@\" 3<&0 4>&1 >/dev/null 2>/dev/null"]);
        command.arg(program);
        command.args([
            "--headless=new",
            "--disable-gpu",
            "--no-first-run",
            "--remote-debugging-pipe",
            "--no-sandbox",
        ]);
        command.arg(format!("--user-data-dir={}", profile.path().display()));
        command.arg("about:blank");
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let done = Arc::new(AtomicBool::new(false));
        watch(process.id(), Arc::clone(&done));
        let mut browser = Browser {
            to: process.stdin.take().unwrap(),
            from: BufReader::new(process.stdout.take().unwrap()),
            process,
            session: None,
            number: 0,
            events: Vec::new(),
            done,
            _profile: profile,
        };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}));
        let attached = json!({"targetId": target["targetId"], "flatten": true});
        let session = browser.call("Target.attachToTarget", attached);
        browser.session = Some(session["sessionId"].as_str().unwrap().to_owned());
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// Calls a method of the protocol, which must succeed.
    pub fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.number += 1;
        let mut message = json!({"id": self.number, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        self.to.write_all(format!("{message}\0").as_bytes()).unwrap();
        self.to.flush().unwrap();
        loop {
            let mut answer = Vec::new();
            self.from.read_until(0, &mut answer).unwrap();
            assert_eq!(answer.pop(), Some(0), "the browser ended during {method}");
            let mut answer: Value = serde_json::from_slice(&answer).unwrap();
            if answer["id"] != self.number {
                self.events.push(answer);
                continue;
            }
            assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
            return answer["result"].take();
        }
    }

    /// Opens a file and waits until it is there.
    pub fn open(&mut self, page: &Path) {
        self.call("Page.navigate", json!({"url": format!("file://{}", page.display())}));
        let begun = Instant::now();
        while self.evaluate("location.protocol + document.readyState") != "file:complete" {
            assert!(
                begun.elapsed() < Duration::from_secs(30),
                "{} is not loaded",
                page.display()
            );
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    /// The value of an expression on the page.
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let mut result = self.call(
            "Runtime.evaluate",
            json!({"expression": expression, "returnByValue": true}),
        );
        assert!(result["exceptionDetails"].is_null(), "{expression}: {result}");
        result["result"]["value"].take()
    }

    /// Gives the page a size in pixels.
    pub fn resize(&mut self, width: u32, height: u32) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500});
        self.call("Emulation.setDeviceMetricsOverride", size);
    }

    /// Presses a key and lets it go; `text` is what it types.
    pub fn press(&mut self, key: &str, code: u32, text: &str) {
        let mut down = json!({"type": "keyDown", "key": key, "code": key, "windowsVirtualKeyCode": code});
        if !text.is_empty() {
            down["text"] = text.into();
        }
        self.call("Input.dispatchKeyEvent", down);
        let up = json!({"type": "keyUp", "key": key, "code": key, "windowsVirtualKeyCode": code});
        self.call("Input.dispatchKeyEvent", up);
    }

    /// Which colours the user prefers, and whether motion is to be reduced.
    pub fn prefer(&mut self, scheme: &str, motion: &str) {
        let features = json!([
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": motion},
        ]);
        self.call("Emulation.setEmulatedMedia", json!({"media": "", "features": features}));
    }

    /// A picture of the whole page as PNG.
    pub fn screenshot(&mut self) -> Vec<u8> {
        let shot = self.call(
            "Page.captureScreenshot",
            json!({"format": "png", "captureBeyondViewport": true}),
        );
        decoded(&shot["data"])
    }

    /// The page as it would be printed, as PDF.
    pub fn print(&mut self) -> Vec<u8> {
        let printed = self.call("Page.printToPDF", json!({"printBackground": false}));
        decoded(&printed["data"])
    }

    /// What went wrong on the page: errors on the console, refused by the policy, or thrown.
    pub fn errors(&self) -> Vec<String> {
        let wrong = |event: &&Value| match event["method"].as_str() {
            Some("Runtime.exceptionThrown" | "Log.entryAdded") => true,
            Some("Runtime.consoleAPICalled") => event["params"]["type"] == "error",
            _ => false,
        };
        self.events.iter().filter(wrong).map(Value::to_string).collect()
    }

    /// Every address that was asked for, without what pictures hold.
    pub fn requests(&self) -> Vec<String> {
        let asked = self
            .events
            .iter()
            .filter(|event| event["method"] == "Network.requestWillBeSent");
        let addresses = asked.filter_map(|event| event["params"]["request"]["url"].as_str());
        addresses
            .filter(|address| !address.starts_with("data:"))
            .map(str::to_owned)
            .collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        self.done.store(true, Ordering::SeqCst);
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Ends a browser that hangs.
fn watch(process: u32, done: Arc<AtomicBool>) {
    std::thread::spawn(move || {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if done.load(Ordering::SeqCst) {
                return;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        let _ = Command::new("kill").arg(process.to_string()).status();
    });
}

/// Bytes from base 64.
fn decoded(data: &Value) -> Vec<u8> {
    use base64::Engine;
    let text = data.as_str().unwrap();
    base64::engine::general_purpose::STANDARD.decode(text).unwrap()
}
