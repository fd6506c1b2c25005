//! Who may know whom: the table of modules in `docs/ARCHITECTURE.md` is the rule, the `crate::` paths of the sources
//! are held to it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Concrete adapters: only the composition root names them.
const ADAPTERS: &[&str] = &["log::memory", "log::redis", "quota::redis", "repository::sqlite", "repository::postgres"];

/// Module → the paths that it may import; `None`: all.
type Rules = BTreeMap<String, Option<BTreeSet<String>>>;

/// The words in backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Reads the table `| module | what | may import |`.
fn rules() -> Rules {
    let page = std::fs::read_to_string(root().join("docs/ARCHITECTURE.md")).unwrap();
    let table = page.split("| module | what | may import |").nth(1).expect("the table of modules");
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    rows.map(|row| {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let module = quoted(cells[1]).next().unwrap_or_else(|| panic!("no module in {row}"));
        let allowed = match cells[3] {
            "all" => None,
            "nothing" => Some(BTreeSet::new()),
            list => Some(quoted(list).map(str::to_owned).collect()),
        };
        assert!(allowed.as_ref().is_none_or(|set| !set.is_empty() || cells[3] == "nothing"), "what does {row} allow?");
        (module.to_owned(), allowed)
    })
    .collect()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "tests") {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The source without comments and without its tests, which may use what they like.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// Every path behind `crate::`, with its groups spelt out: `a::{b, c::{d, e}}` is `a::b`, `a::c::d`, `a::c::e`; and
/// every path of a crate of the workspace.
fn imports(code: &str) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        expand("", &mut code[at + "crate::".len()..].chars().peekable(), &mut paths);
    }
    for (at, _) in code.match_indices("tandem_") {
        if !code[..at].ends_with(|before: char| before.is_alphanumeric() || "_\"".contains(before)) {
            expand("", &mut code[at..].chars().peekable(), &mut paths);
        }
    }
    paths
}

fn expand(prefix: &str, rest: &mut std::iter::Peekable<std::str::Chars<'_>>, paths: &mut BTreeSet<String>) {
    let mut path = prefix.to_owned();
    while let Some(&next) = rest.peek() {
        match next {
            '{' => {
                rest.next();
                loop {
                    while rest.next_if(|next| next.is_whitespace() || *next == ',').is_some() {}
                    if rest.next_if_eq(&'}').is_some() || rest.peek().is_none() {
                        return;
                    }
                    expand(&path, rest, paths);
                }
            }
            next if next.is_alphanumeric() || next == '_' || next == ':' => {
                path.push(next);
                rest.next();
            }
            // `x as y`: y is nobody's path.
            ' ' if path != prefix && rest.clone().skip(1).take(3).eq("as ".chars()) => {
                while rest.next_if(|next| *next != ',' && *next != '}' && *next != ';').is_some() {}
            }
            _ => break,
        }
    }
    let path = path.trim_end_matches(':').trim_end_matches("::self");
    if !path.is_empty() {
        paths.insert(path.to_owned());
    }
}

/// The row that holds for a file: the one of the innermost module that has one.
fn module_of(path: &Path, rules: &Rules) -> String {
    let relative = path.strip_prefix(root()).unwrap().with_extension("");
    let mut parts = relative.components().map(|part| part.as_os_str().to_str().unwrap());
    match (parts.next(), parts.next()) {
        (Some("crates"), Some(name)) => name.replace('-', "_"),
        (_, Some(module)) => match parts.next().map(|inner| format!("{module}::{inner}")) {
            Some(inner) if rules.contains_key(&inner) => inner,
            _ => module.to_owned(),
        },
        _ => panic!("{} is no source", path.display()),
    }
}

/// The crates of the workspace, as paths name them.
fn crates() -> BTreeSet<String> {
    let entries = std::fs::read_dir(root().join("crates")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap().replace('-', "_")).collect()
}

fn starts(path: &str, with: &str) -> bool {
    path == with || path.strip_prefix(with).is_some_and(|rest| rest.starts_with("::"))
}

fn breaches(module: &str, paths: &BTreeSet<String>, rules: &Rules) -> Vec<String> {
    let Some(allowed) = rules.get(module) else { return vec![format!("`{module}` is not in the table")] };
    let Some(allowed) = allowed else { return Vec::new() };
    let others = paths.iter().filter(|path| !starts(path, module));
    let known = others.filter(|path| rules.contains_key(path.split("::").next().unwrap_or_default()));
    let fine = |path: &str| {
        // An adapter must be named as such: `log` allows the trait, not whoever implements it.
        let adapter = |path: &str| ADAPTERS.iter().any(|adapter| starts(path, adapter));
        allowed.iter().any(|allowed| starts(path, allowed) && (adapter(allowed) || !adapter(path)))
    };
    known.filter(|path| !fine(path)).map(|path| format!("`{module}` imports `{path}`")).collect()
}

#[test]
fn every_import_is_in_the_table_of_the_architecture() {
    let rules = rules();
    let (mut files, mut found) = (Vec::new(), BTreeSet::new());
    sources(&root().join("src"), &mut files);
    for name in crates() {
        sources(&root().join("crates").join(name.replace('_', "-")).join("src"), &mut files);
    }
    let inner = |path: &PathBuf| !path.ends_with("src/main.rs") && !path.ends_with("src/lib.rs");
    for path in files.iter().filter(|path| inner(path)) {
        let module = module_of(path, &rules);
        let mut paths = imports(&code(&std::fs::read_to_string(path).unwrap()));
        if crates().contains(&module) {
            // Its own `crate::` paths are no modules of the server.
            paths.retain(|path| path.starts_with("tandem_"));
        }
        for breach in breaches(&module, &paths, &rules) {
            found.insert(format!("{breach} in {}", path.strip_prefix(root()).unwrap().display()));
        }
    }
    assert!(files.len() > 50, "the sources were found");
    assert!(found.is_empty(), "not in the table of docs/ARCHITECTURE.md:\n{}", Vec::from_iter(found).join("\n"));
}

#[test]
fn the_table_names_every_module_and_nothing_else() {
    let library = code(&std::fs::read_to_string(root().join("src/lib.rs")).unwrap());
    let declared = library.lines().map(|line| line.strip_prefix("pub ").unwrap_or(line));
    let crates = crates();
    let modules = declared.filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';'));
    let modules: BTreeSet<_> = modules.chain(crates.iter().map(String::as_str)).collect();
    let rules = rules();
    let whole = |name: &&str| !name.contains("::");
    assert_eq!(rules.keys().map(String::as_str).filter(whole).collect::<BTreeSet<_>>(), modules);
    for (module, allowed) in &rules {
        for path in allowed.iter().flatten() {
            let first = path.split("::").next().unwrap_or_default();
            assert!(modules.contains(first), "`{module}` may import `{path}`, which is nothing here");
        }
    }
}

#[test]
fn no_crate_depends_on_the_server() {
    for name in crates() {
        let manifest = root().join("crates").join(name.replace('_', "-")).join("Cargo.toml");
        let manifest = std::fs::read_to_string(manifest).unwrap();
        assert!(!manifest.lines().any(|line| line.starts_with("tandem ") || line.starts_with("tandem=")), "{name}");
    }
}

#[test]
fn what_must_never_be_imported_is_not_in_the_table() {
    let rules = rules();
    let modules: Vec<_> = rules.keys().filter(|name| !name.contains("::")).map(String::as_str).collect();
    let but = |few: &[&str]| modules.iter().filter(|name| !few.contains(name)).copied().collect::<Vec<_>>();
    for (module, never) in [
        ("domain", but(&["domain"])),
        ("room", but(&["room", "domain"])),
        ("commit", but(&["commit", "domain"])),
        ("repository", vec!["log"]),
        ("redis", vec!["log", "cluster", "quota"]),
        ("hub", vec!["redis", "repository", "transport"]),
    ] {
        for other in never {
            let path = BTreeSet::from([format!("{other}::Anything")]);
            assert!(!breaches(module, &path, &rules).is_empty(), "`{module}` may import `{other}`");
        }
    }
    for (module, allowed) in rules.iter().filter(|(module, _)| *module != "app") {
        let adapter = allowed.iter().flatten().find(|path| ADAPTERS.iter().any(|adapter| starts(path, adapter)));
        assert_eq!(adapter, None, "`{module}` may import an adapter");
    }
}

#[test]
fn a_breach_is_seen() {
    let rules = rules();
    let breach = |module: &str, code: &str| !breaches(module, &imports(code), &rules).is_empty();
    assert!(breach("room", "use crate::clock::Clock;"));
    assert!(breach("room", "use crate::{domain::Head, log::Commit};"));
    assert!(breach("domain", "fn f() { crate::telemetry::names() }"));
    assert!(breach("transport", "use crate::session::run;"));
    assert!(breach("hub", "use crate::log::{Log, memory::MemoryLog};"));
    assert!(breach("log", "use crate::redis::RedisLink;"));
    assert!(!breach("log::redis", "use crate::redis::RedisLink;"));
    assert!(breach("http", "use crate::hub::Hub;"));
    assert!(breach("tandem_quic", "fn f(session: tandem_webtransport::Session) {}"));
    assert!(breach("hub", "use tandem_quic::QuicListener;"));
    assert!(!breach("transport", "use tandem_quic::QuicListener;"));
    assert!(!breach("transport", "use crate::session::transport::{Frame, Transport as T};"));
    assert!(!breach("hub", "use crate::log::{Log, Commit};\nuse crate::room::{self, Room};"));
    assert!(!breach("app", "use crate::log::memory::MemoryLog;"));
}
