//! Finds ONNX Runtime, makes sessions, keeps caches.
