//! The documentation's tables follow from the code. `UPDATE_DOCS=1 cargo test --test docs` writes them anew.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

/// The part of the page between `<!-- name -->` and `<!-- /name -->` is what the code says.
fn holds(page: &str, name: &str, table: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
    let text = std::fs::read_to_string(&path).unwrap();
    let (open, close) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
    let start = text.find(&open).unwrap_or_else(|| panic!("{page} has no {open}")) + open.len();
    let end = start + text[start..].find(&close).unwrap_or_else(|| panic!("{page} has no {close}"));
    if text[start..end] == *table {
        return;
    }
    if std::env::vars().any(|(name, _)| name == "UPDATE_DOCS") {
        std::fs::write(&path, format!("{}{table}{}", &text[..start], &text[end..])).unwrap();
        return;
    }
    panic!("the table `{name}` of {page} is not what the code says: run UPDATE_DOCS=1 cargo test --test docs");
}

#[test]
fn the_table_of_settings_is_the_one_in_the_code() {
    holds("docs/OPERATIONS.md", "settings", &tandem::config::settings::markdown());
}

#[test]
fn the_table_of_metrics_is_the_one_in_the_code() {
    holds("docs/OPERATIONS.md", "metrics", &tandem::telemetry::markdown());
}
