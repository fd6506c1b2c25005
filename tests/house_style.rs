//! The house's style: a type name has one meaning and a file name one place, comments have 120 columns and begin with
//! their subject, and the picture of the architecture shows the modules that there are.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The files below `folders` with one of these extensions, relative to the root.
fn files(folders: &[&str], extensions: &[&str]) -> Vec<PathBuf> {
    fn walk(folder: &Path, extensions: &[&str], found: &mut Vec<PathBuf>) {
        let Ok(entries) = std::fs::read_dir(folder) else { return };
        for entry in entries {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && !matches!(name.as_str(), "node_modules" | "target" | "vendor") {
                walk(&path, extensions, found);
            } else if path.extension().is_some_and(|known| extensions.iter().any(|wanted| known == *wanted)) {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    folders.iter().for_each(|folder| walk(&root().join(folder), extensions, &mut found));
    found.sort();
    found.iter().map(|path| path.strip_prefix(root()).unwrap().to_owned()).collect()
}

/// Sources of the server and of the crates, without tests and examples.
fn product() -> Vec<PathBuf> {
    let is_test = |path: &PathBuf| {
        path.ends_with("tests.rs") || path.iter().any(|part| part == "tests" || part == "examples" || part == "benches")
    };
    files(&["src", "crates"], &["rs"]).into_iter().filter(|path| !is_test(path)).collect()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

/// The name that a line declares a type by.
fn declared(line: &str) -> Option<&str> {
    let line = line.strip_prefix("pub ").unwrap_or_else(|| match line.strip_prefix("pub(") {
        Some(rest) => rest.split_once(") ").map_or("", |(_, item)| item),
        None => line,
    });
    let rest = ["struct ", "enum ", "trait ", "type "].iter().find_map(|keyword| line.strip_prefix(keyword))?;
    let end = rest.find(|letter: char| !letter.is_alphanumeric() && letter != '_').unwrap_or(rest.len());
    Some(&rest[..end])
}

#[test]
fn a_type_name_means_one_thing() {
    let mut places: BTreeMap<String, BTreeSet<PathBuf>> = BTreeMap::new();
    for path in product() {
        let text = read(&path);
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        for name in code.lines().filter_map(declared) {
            places.entry(name.to_owned()).or_default().insert(path.clone());
        }
    }
    assert!(places.len() > 300, "the types were found");
    let twice = places.iter().filter(|(_, paths)| paths.len() > 1);
    let twice: Vec<_> = twice.map(|(name, paths)| format!("{name}: {paths:?}")).collect();
    assert!(twice.is_empty(), "two types of one name:\n{}", twice.join("\n"));
}

/// Within the server, and within each crate, so that a jump by file name lands in one place. The two databases
/// implement one trait step by step and may have files of the same names; `mod.rs` is named by its folder.
#[test]
fn a_file_name_stands_in_one_place() {
    let mut places: BTreeMap<(PathBuf, String), Vec<PathBuf>> = BTreeMap::new();
    for path in product() {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let parts: Vec<_> = path.iter().collect();
        let package = if parts[0] == "crates" { PathBuf::from_iter(&parts[..2]) } else { PathBuf::from("src") };
        let twin = parts.contains(&"sqlite".as_ref()) || parts.contains(&"postgres".as_ref());
        let home = if twin { path.parent().unwrap().to_owned() } else { package };
        if name != "mod.rs" {
            places.entry((home, name)).or_default().push(path);
        }
    }
    let twice: Vec<_> = places.values().filter(|paths| paths.len() > 1).map(|paths| format!("{paths:?}")).collect();
    assert!(twice.is_empty(), "two files of one name on one road:\n{}", twice.join("\n"));
}

const SPOKEN: [&str; 6] = ["src", "crates", "tests", "benches", "fuzz", "web-demo"];

#[test]
fn a_comment_has_at_most_120_columns() {
    let mut long = Vec::new();
    for path in files(&SPOKEN, &["rs", "lua", "js", "mjs"]) {
        let marks: &[&str] = if path.extension().unwrap() == "lua" { &["--"] } else { &["//", "/*", "* "] };
        for (number, line) in read(&path).lines().enumerate() {
            let comment = marks.iter().any(|mark| line.trim_start().starts_with(mark));
            // A row of a table can't be broken.
            let row = line.trim_start().trim_start_matches(['/', '!', ' ']).starts_with('|');
            if comment && !row && line.chars().count() > 120 {
                long.push(format!("{}:{}", path.display(), number + 1));
            }
        }
    }
    assert!(long.is_empty(), "comments beyond 120 columns:\n{}", long.join("\n"));
}

/// First lines of doc comments.
fn openings(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut before = "";
    text.lines().enumerate().filter_map(move |(number, line)| {
        let line = line.trim_start();
        let first = !before.starts_with("///");
        before = line;
        line.strip_prefix("/// ").filter(|_| first).map(|opening| (number + 1, opening))
    })
}

/// A message type of the wire, such as `KICK`, and a format in backquotes say more than their one word.
fn is_one_word(opening: &str) -> bool {
    let word = opening.trim_end_matches('.');
    !word.contains([' ', '`']) && word.chars().any(char::is_lowercase)
}

#[test]
fn a_doc_comment_opens_with_its_subject() {
    const RELATIVE: [&str; 7] = ["Who", "What", "Whose", "Whom", "Whoever", "Whatever", "Which"];
    let (mut headless, mut single) = (Vec::new(), Vec::new());
    for path in files(&["src", "crates", "tests", "benches", "fuzz"], &["rs"]) {
        let text = read(&path);
        for (line, opening) in openings(&text) {
            let first = opening.split([' ', '.', ',', ':', '\'']).next().unwrap_or_default();
            let place = format!("{}:{line}: {opening}", path.display());
            if RELATIVE.contains(&first) {
                headless.push(place);
            } else if is_one_word(opening) && !text.lines().nth(line).unwrap_or_default().contains("///") {
                single.push(place);
            }
        }
    }
    assert!(single.is_empty(), "doc comments of one word:\n{}", single.join("\n"));
    assert!(headless.is_empty(), "doc comments without a subject:\n{}", headless.join("\n"));
}

/// Modules, or crates, that the picture names.
fn drawn(picture: &str, kind: &str) -> BTreeSet<String> {
    let mark = format!("data-{kind}=\"");
    picture.split(mark.as_str()).skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()).collect()
}

/// `scripts/architecture.py` draws it.
#[test]
fn the_picture_of_the_architecture_shows_every_module_and_crate() {
    let picture = read(Path::new("docs/architecture.svg"));
    let library = read(Path::new("src/lib.rs"));
    let modules = library.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    assert_eq!(drawn(&picture, "module"), modules.map(str::to_owned).collect());
    let crates = std::fs::read_dir(root().join("crates")).unwrap();
    let crates = crates.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(drawn(&picture, "crate"), crates.collect());
    assert!(read(Path::new("docs/ARCHITECTURE.md")).contains("(architecture.svg)"));
}
