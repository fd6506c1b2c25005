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

/// The Markdown pages that people read.
fn pages() -> Vec<std::path::PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = vec![root.join("README.md"), root.join("CONTRIBUTING.md")];
    for folder in ["docs", "k8s"] {
        let entries = std::fs::read_dir(root.join(folder)).unwrap().map(|entry| entry.unwrap().path());
        pages.extend(entries.filter(|path| path.extension().is_some_and(|extension| extension == "md")));
    }
    let crates = std::fs::read_dir(root.join("crates")).unwrap().map(|entry| entry.unwrap().path().join("README.md"));
    pages.extend(crates.filter(|page| page.exists()));
    pages
}

#[test]
fn the_sources_that_pages_name_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let places = [root.to_owned(), root.join("src"), root.join("crates")];
    let mut missing = Vec::new();
    for page in pages() {
        let text = std::fs::read_to_string(&page).unwrap();
        let quoted = text.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
        let sources =
            quoted.filter(|name| name.contains('/') && [".rs", ".js", ".lua"].iter().any(|end| name.ends_with(end)));
        let absent = sources.filter(|name| {
            !name.starts_with('/')
                && !name.contains("://")
                && !places.iter().chain([&page.parent().unwrap().to_owned()]).any(|place| place.join(name).exists())
        });
        missing.extend(absent.map(|name| format!("{}: {name}", page.display())));
    }
    assert!(missing.is_empty(), "renamed or gone:\n{}", missing.join("\n"));
}

#[test]
fn the_links_of_pages_lead_somewhere() {
    let mut broken = Vec::new();
    for page in pages() {
        let text = std::fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            if file.contains("://") {
                continue;
            }
            let target = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            let found = std::fs::read_to_string(&target).map_or(target.exists() && heading.is_empty(), |text| {
                heading.is_empty() || text.lines().any(|line| line.starts_with('#') && anchor(line) == heading)
            });
            if !found {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// As GitHub makes it of a heading.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}
