//! The set-up against a server of our own, over plain HTTP, with wheels of a few hundred bytes.

use std::{
    collections::{HashMap, VecDeque},
    io::{BufRead, BufReader, Cursor},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    time::Duration,
};

use zip::write::SimpleFileOptions;

use super::*;

/// What the server does with a request.
#[derive(Clone)]
enum Reply {
    Body(Vec<u8>),
    /// Announces the whole and breaks off after so many bytes.
    CutOff(Vec<u8>, usize),
    Status(u16),
}

/// Answers each path with its replies in turn; the last one stays.
struct Server {
    address: String,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start(replies: Vec<(&str, Vec<Reply>)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let replies: HashMap<String, VecDeque<Reply>> = replies
            .into_iter()
            .map(|(path, replies)| (path.to_owned(), replies.into()))
            .collect();
        let state = Arc::new(Mutex::new(replies));
        let log = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (state, log) = (Arc::clone(&state), Arc::clone(&log));
                std::thread::spawn(move || answer(stream, &state, &log));
            }
        });
        Self { address, seen }
    }

    fn requests(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

fn answer(
    mut stream: TcpStream,
    state: &Mutex<HashMap<String, VecDeque<Reply>>>,
    log: &Mutex<Vec<String>>,
) -> Option<()> {
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
    let path = lines.next()?.ok()?.split(' ').nth(1)?.to_owned();
    while !lines.next()?.ok()?.is_empty() {}
    log.lock().unwrap().push(path.clone());
    let reply = {
        let mut state = state.lock().unwrap();
        let replies = state.get_mut(&path);
        replies.and_then(|replies| {
            if replies.len() > 1 {
                replies.pop_front()
            } else {
                replies.front().cloned()
            }
        })
    };
    let (status, announced, body) = match reply.unwrap_or(Reply::Status(404)) {
        Reply::Body(body) => (200, body.len(), body),
        Reply::CutOff(body, kept) => (200, body.len(), body[..kept].to_vec()),
        Reply::Status(status) => (status, 0, Vec::new()),
    };
    write!(
        stream,
        "HTTP/1.1 {status} Status\r\nContent-Length: {announced}\r\nConnection: close\r\n\r\n"
    )
    .ok()?;
    stream.write_all(&body).ok()
}

const LIBRARY: &[u8] = b"not really a library, but the set-up does not look inside";

fn wheel_bytes(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in members {
        zip.start_file(*name, SimpleFileOptions::default()).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn whole_wheel() -> Vec<u8> {
    wheel_bytes(&[
        ("onnxruntime/capi/library.so", LIBRARY),
        ("onnxruntime/capi/onnxruntime_pybind11_state.so", b"left where it is"),
        ("onnxruntime/LICENSE", b"MIT"),
        ("onnxruntime/ThirdPartyNotices.txt", b"many"),
    ])
}

struct Case {
    server: Server,
    root: tempfile::TempDir,
    url: String,
    sha256: String,
    size: u64,
}

impl Case {
    /// A wheel pinned to be `bytes`, at `/wheel/onnxruntime.whl` of a server with these replies.
    fn new(bytes: &[u8], mut replies: Vec<(&str, Vec<Reply>)>, at_wheel: Vec<Reply>) -> Self {
        replies.push(("/wheel/onnxruntime.whl", at_wheel));
        let server = Server::start(replies);
        let url = format!("{}/wheel/onnxruntime.whl", server.address);
        let sha256 = hexadecimal(&Sha256::digest(bytes));
        Self {
            server,
            root: tempfile::tempdir().unwrap(),
            url,
            sha256,
            size: bytes.len() as u64,
        }
    }

    fn cache(&self) -> Cache {
        Cache::new(self.root.path())
    }

    fn fetch(&self, indexes: &[String]) -> Result<PathBuf, RuntimeError> {
        let wheel = Wheel {
            system: "linux",
            architecture: "x86_64",
            url: &self.url,
            sha256: &self.sha256,
            size: self.size,
            library: "library.so",
        };
        let client = Client::with_pauses(vec![Duration::from_millis(1); 2]);
        fetch(&self.cache(), &wheel, indexes, &client, &|done, total| {
            assert!(done <= total)
        })
    }

    /// A set-up that fails leaves nothing behind.
    fn failure(&self) -> String {
        let error = self.fetch(&[]).unwrap_err();
        assert_eq!(
            std::fs::read_dir(self.root.path()).unwrap().count(),
            0,
            "something was left behind"
        );
        error.to_string()
    }
}

#[test]
fn a_wheel_is_fetched_unpacked_and_recorded() {
    let case = Case::new(&whole_wheel(), vec![], vec![Reply::Body(whole_wheel())]);
    let library = case.fetch(&[]).unwrap();
    assert_eq!(std::fs::read(&library).unwrap(), LIBRARY);
    assert_eq!(case.cache().verify().unwrap(), Some(library));
    let folder = std::fs::read_dir(case.cache().folder()).unwrap();
    let mut names: Vec<_> = folder
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(
        names,
        ["LICENSE", "ThirdPartyNotices.txt", "library.so", "manifest.json"]
    );
    assert_eq!(std::fs::read_dir(case.root.path()).unwrap().count(), 1);
}

#[test]
fn another_content_is_refused_and_not_tried_again() {
    let mut other = whole_wheel();
    other[40] ^= 1;
    let case = Case::new(&whole_wheel(), vec![], vec![Reply::Body(other)]);
    let message = case.failure();
    assert!(
        message.contains("is not the pinned file: expected SHA-256"),
        "{message}"
    );
    assert_eq!(case.server.requests().len(), 1);

    let case = Case::new(
        &whole_wheel(),
        vec![],
        vec![Reply::Body(b"<html>please log in</html>".to_vec())],
    );
    let message = case.failure();
    assert!(message.contains("got 26 bytes"), "{message}");
}

#[test]
fn a_connection_that_breaks_off_is_tried_again() {
    let cut_off = Reply::CutOff(whole_wheel(), 100);
    let case = Case::new(
        &whole_wheel(),
        vec![],
        vec![cut_off.clone(), Reply::Status(503), Reply::Body(whole_wheel())],
    );
    case.fetch(&[]).unwrap();
    assert_eq!(case.server.requests().len(), 3);

    let case = Case::new(&whole_wheel(), vec![], vec![cut_off]);
    let message = case.failure();
    assert!(message.contains("failed after 3 attempt(s)"), "{message}");
    assert!(message.contains("pip install onnxruntime"), "{message}");
}

#[test]
fn a_missing_wheel_is_not_tried_again() {
    let case = Case::new(&whole_wheel(), vec![], vec![Reply::Status(404)]);
    let message = case.failure();
    assert!(message.contains("HTTP status 404"), "{message}");
    assert_eq!(case.server.requests().len(), 1);
}

#[test]
fn nobody_listening_is_a_network_error_with_advice() {
    let mut case = Case::new(&whole_wheel(), vec![], vec![]);
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    case.url = format!("http://{free}/onnxruntime.whl");
    let message = case.failure();
    assert!(
        message.contains("failed after 3 attempt(s)") && message.contains("--ort-lib"),
        "{message}"
    );
}

#[test]
fn a_mirror_is_asked_first_and_pypi_when_it_does_not_help() {
    let page = br#"<a href="../../files/onnxruntime.whl#sha256=0">onnxruntime.whl</a>"#.to_vec();
    let pages = vec![
        ("/simple/onnxruntime/", vec![Reply::Body(page)]),
        ("/files/onnxruntime.whl", vec![Reply::Body(whole_wheel())]),
        ("/other/onnxruntime/", vec![Reply::Body(b"nothing".to_vec())]),
    ];
    let case = Case::new(&whole_wheel(), pages, vec![Reply::Body(whole_wheel())]);
    let index = |path: &str| format!("{}/{path}", case.server.address);
    case.fetch(&[index("simple/")]).unwrap();
    assert_eq!(
        case.server.requests(),
        ["/simple/onnxruntime/", "/files/onnxruntime.whl"]
    );

    std::fs::remove_dir_all(case.cache().folder()).unwrap();
    case.fetch(&[index("other"), index("missing")]).unwrap();
    let requests = case.server.requests();
    assert_eq!(
        requests[2..],
        ["/other/onnxruntime/", "/missing/onnxruntime/", "/wheel/onnxruntime.whl"]
    );
}

#[test]
fn a_wheel_that_is_no_archive_or_lacks_the_library_says_so() {
    let text = b"a text file".to_vec();
    let message = Case::new(&text, vec![], vec![Reply::Body(text.clone())]).failure();
    assert!(message.contains("onnxruntime.whl cannot be unpacked"), "{message}");

    let empty = wheel_bytes(&[("onnxruntime/LICENSE", b"MIT")]);
    let message = Case::new(&empty, vec![], vec![Reply::Body(empty.clone())]).failure();
    assert!(message.contains("onnxruntime/capi/library.so"), "{message}");
}

#[test]
fn a_cache_that_cannot_be_made_is_named() {
    let case = Case::new(&whole_wheel(), vec![], vec![Reply::Body(whole_wheel())]);
    let file = case.root.path().join("a file");
    std::fs::write(&file, "").unwrap();
    let wheel = wheels::WHEELS.first().unwrap();
    let error = fetch(&Cache::new(&file.join("cache")), wheel, &[], &Client::new(), &|_, _| {}).unwrap_err();
    assert!(
        matches!(&error, RuntimeError::Cache { action: "creating", .. }),
        "{error}"
    );
    assert!(error.to_string().contains("PAB_PATCH_CACHE"), "{error}");
}

#[test]
fn set_ups_side_by_side_both_succeed() {
    let case = Case::new(&whole_wheel(), vec![], vec![Reply::Body(whole_wheel())]);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| case.fetch(&[]))).collect();
        for thread in threads {
            assert_eq!(std::fs::read(thread.join().unwrap().unwrap()).unwrap(), LIBRARY);
        }
    });
    assert_eq!(std::fs::read_dir(case.root.path()).unwrap().count(), 1);
}
