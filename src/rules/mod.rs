//! YAML rules, strictly checked.
