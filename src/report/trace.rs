//! The course of a run as a trace that Chrome (`about:tracing`) and Perfetto show.

use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{ReportError, write_json};

/// What happened when, on tracks with names.
#[derive(Clone, Debug)]
pub struct Trace {
    origin: Instant,
    tracks: Vec<String>,
    events: Vec<Event>,
}

/// A complete event of Chrome's trace format.
#[derive(Clone, Debug, Serialize)]
struct Event {
    name: String,
    cat: &'static str,
    ph: &'static str,
    /// Microseconds since the trace began.
    ts: f64,
    /// Microseconds.
    dur: f64,
    pid: u32,
    tid: usize,
    args: Map<String, Value>,
}

impl Default for Trace {
    fn default() -> Trace {
        Trace {
            origin: Instant::now(),
            tracks: Vec::new(),
            events: Vec::new(),
        }
    }
}

impl Trace {
    /// A trace that begins now.
    #[must_use]
    pub fn begin() -> Trace {
        Trace::default()
    }

    /// Adds what happened on a track from `begun` for a time, with what else is to be known of it.
    pub fn add(
        &mut self,
        track: &str,
        name: impl Into<String>,
        begun: Instant,
        lasted: Duration,
        args: Map<String, Value>,
    ) {
        let place = self.tracks.iter().position(|known| known == track);
        let place = place.unwrap_or_else(|| {
            self.tracks.push(track.to_owned());
            self.tracks.len() - 1
        });
        self.events.push(Event {
            name: name.into(),
            cat: "pab-patch",
            ph: "X",
            ts: begun.saturating_duration_since(self.origin).as_secs_f64() * 1e6,
            dur: lasted.as_secs_f64() * 1e6,
            pid: 1,
            tid: place + 1,
            args,
        });
    }

    /// Writes it as JSON trace events, atomically.
    ///
    /// # Errors
    /// [`ReportError::Write`] where the operating system refuses.
    pub fn write(&self, path: &Path) -> Result<(), ReportError> {
        let names = self.tracks.iter().enumerate().map(|(place, name)| {
            json!({"name": "thread_name", "ph": "M", "pid": 1, "tid": place + 1, "args": {"name": name}})
        });
        let events = self
            .events
            .iter()
            .map(|event| serde_json::to_value(event).unwrap_or_default());
        let events: Vec<Value> = names.chain(events).collect();
        write_json(path, &json!({"traceEvents": events, "displayTimeUnit": "ms"}))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tracks_have_names_and_events_their_times() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace.json");
        let mut trace = Trace::begin();
        let later = trace.origin + Duration::from_millis(5);
        trace.add("steps", "step 0", trace.origin, Duration::from_millis(2), Map::new());
        let args = Map::from_iter([("timestep".to_owned(), json!(801.0))]);
        trace.add("rule spatial", "broadcast", later, Duration::from_millis(3), args);
        trace.add("steps", "step 1", later, Duration::from_millis(3), Map::new());
        trace.write(&path).unwrap();
        let read: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let events = read["traceEvents"].as_array().unwrap();
        assert_eq!(events.len(), 2 + 3);
        assert_eq!(events[1]["args"]["name"], "rule spatial");
        assert_eq!((&events[3]["ts"], &events[3]["dur"]), (&json!(5000.0), &json!(3000.0)));
        assert_eq!(
            (&events[3]["tid"], &events[3]["args"]["timestep"]),
            (&json!(2), &json!(801.0))
        );
    }
}
