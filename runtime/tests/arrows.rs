//! Tests that arrows point only down: in no crate may the modules of one folder, or those at the top, use each other in
//! a circle.
//!
//! A path in the source (`crate::a::b::Name`, `super::c`) is an arrow from the file's module to the module that it
//! leads to. Re-exports are followed. In each folder an arrow counts between the two children that it connects. Arrows
//! between a module and its own children are not checked, and test modules may use every module.
//!
//! The other tests here check that no file is too long, and that the files and sections that texts name are there.
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

const CRATES: [&str; 11] = [
    "schema",
    "runtime/base",
    "runtime/socketio",
    "runtime/websocket",
    "runtime/bus",
    "runtime/keys",
    "runtime/store",
    "runtime/presence",
    "runtime",
    "handlers",
    "loadtest",
];

/// The maximum number of lines of a file. A longer file has more than one purpose.
const MAX_LINES: usize = 400;

/// The path of a module below the crate.
type Module = Vec<String>;

/// For each folder, and for each of its children: the children that this child uses, each with the place of the use.
type Arrows = BTreeMap<Module, BTreeMap<String, BTreeMap<String, String>>>;

#[derive(Default)]
struct Source {
    /// The paths in the text, as they are written.
    paths: Vec<Module>,
    /// The names that the module re-exports, with the path that each leads to.
    exports: BTreeMap<String, Module>,
}

#[test]
fn no_crate_has_a_circle_of_modules() {
    let mut circles = BTreeMap::new();
    for name in CRATES {
        let sources = read(&workspace().join(name).join("src"));
        for (folder, arrows) in arrows(&sources) {
            let path = [&[name.to_owned(), "src".to_owned()], &folder[..]].concat().join("/");
            circles.extend(circle(&arrows).map(|circle| (path, circle)));
        }
    }
    assert!(circles.is_empty(), "modules use each other in a circle: {circles:#?}");
}

#[test]
fn every_file_that_the_architecture_names_is_there() {
    let runtime = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(runtime.join("ARCHITECTURE.md")).expect("the architecture");
    let files: Vec<_> = text.split('`').filter(|quoted| quoted.ends_with(".rs")).collect();
    let missing: Vec<_> = files.iter().filter(|file| !runtime.join(file).is_file()).collect();
    assert!(files.len() > 40 && missing.is_empty(), "not there: {missing:?}");
}

#[test]
fn no_file_has_too_many_lines() {
    let long: Vec<_> = files().filter(|(_, text)| text.lines().count() > MAX_LINES).map(|(path, _)| path).collect();
    assert!(long.is_empty(), "more than {MAX_LINES} lines: {long:?}");
}

#[test]
fn every_section_of_the_protocol_that_a_file_names_is_there() {
    let contract = fs::read_to_string(workspace().join("schema/PROTOCOL.md")).expect("the contract");
    let mut named = BTreeMap::<String, PathBuf>::new();
    for (path, text) in files() {
        let sections = text.split("PROTOCOL ").skip(1).map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next());
        named
            .extend(sections.flatten().filter(|number| !number.is_empty()).map(|number| (number.into(), path.clone())));
    }
    assert!(named.len() >= 10, "{named:?}");
    named.retain(|number, _| !contract.contains(&format!("<a id=\"{number}\"></a>{number}. ")));
    assert!(named.is_empty(), "schema/PROTOCOL.md has no section of this number: {named:?}");
}

#[test]
fn a_circle_is_found_behind_a_re_export() {
    let sources = [
        ("", "mod a; mod b; pub use b::{Low, c::Deep as High};"),
        ("a", "use crate::High; /* crate::a */ fn f() { \"crate::b\"; }"),
        ("b", "mod c; use std::fmt; fn g() -> super::a::A {}"),
        ("b/c", "#[cfg(test)] mod tests { use crate::a::A; }"),
    ];
    let sources: BTreeMap<Module, Source> = sources
        .into_iter()
        .map(|(module, text)| {
            (module.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect(), parse(text))
        })
        .collect();
    let arrows = arrows(&sources);
    assert_eq!(arrows.keys().collect::<Vec<_>>(), [&Module::new()]);
    assert_eq!(circle(&arrows[&Module::new()]).map(|circle| circle.len()), Some(2));
}

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace")
}

/// Returns every Rust file of the workspace, with its text.
fn files() -> impl Iterator<Item = (PathBuf, String)> {
    let mut folders = ["schema", "runtime", "handlers", "loadtest"].map(|name| workspace().join(name)).to_vec();
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() && !path.ends_with("target") && !path.ends_with("node_modules") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.into_iter().map(|path| {
        let text = fs::read_to_string(&path).expect("a source");
        (path, text)
    })
}

/// Returns the modules of a crate.
fn read(src: &Path) -> BTreeMap<Module, Source> {
    let mut sources = BTreeMap::<Module, Source>::new();
    let mut folders = vec![src.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if let Some(module) = module(path.strip_prefix(src).expect("inside")) {
                let source = parse(&fs::read_to_string(&path).expect("a source"));
                let known = sources.entry(module).or_default();
                known.paths.extend(source.paths);
                known.exports.extend(source.exports);
            }
        }
    }
    sources
}

/// Returns the module of a file, or `None` for tests and for files that are not Rust.
fn module(path: &Path) -> Option<Module> {
    let file = PathBuf::from(path.to_str()?.strip_suffix(".rs")?);
    let mut module: Module = file.iter().map(|part| part.to_str().expect("UTF-8").to_owned()).collect();
    if module.iter().any(|part| part == "tests") {
        return None;
    }
    if matches!(module.last().map(String::as_str), Some("mod" | "lib" | "main")) {
        module.pop();
    }
    Some(module)
}

fn parse(text: &str) -> Source {
    let tokens = tokens(text);
    let mut source = Source::default();
    let mut at = 0;
    while at < tokens.len() {
        let rest = &tokens[at..];
        if rest.starts_with(&["#", "[", "cfg", "(", "test", ")", "]", "mod"].map(String::from)) {
            let mut depth = 0;
            // This skips to the end of the module, which may be here or in a separate file.
            while at < tokens.len() {
                depth += i32::from(tokens[at] == "{") - i32::from(tokens[at] == "}");
                at += 1;
                if depth == 0 && matches!(tokens[at - 1].as_str(), "}" | ";") {
                    break;
                }
            }
        } else if rest[0] == "use" {
            let public = at > 0 && matches!(tokens[at - 1].as_str(), "pub" | ")");
            at += 1;
            let mut leaves = Vec::new();
            tree(&tokens, &mut at, &[], &mut leaves);
            for (name, path) in leaves {
                if public {
                    source.exports.insert(name, path);
                } else {
                    source.paths.push(path);
                }
            }
        } else if matches!(rest[0].as_str(), "crate" | "super" | "self") && rest.get(1).is_some_and(|next| next == "::")
        {
            let mut leaves = Vec::new();
            tree(&tokens, &mut at, &[], &mut leaves);
            source.paths.extend(leaves.into_iter().map(|(_, path)| path));
        } else {
            at += 1;
        }
    }
    source
}

/// Reads a path, or a tree of paths in braces. Gives each path with the name that it gets.
fn tree(tokens: &[String], at: &mut usize, prefix: &[String], leaves: &mut Vec<(String, Module)>) {
    let mut path = prefix.to_vec();
    loop {
        let Some(token) = tokens.get(*at) else { return };
        *at += 1;
        if token == "{" {
            while tokens.get(*at).is_some_and(|token| token != "}") {
                tree(tokens, at, &path, leaves);
                if tokens.get(*at).is_some_and(|token| token == ",") {
                    *at += 1;
                }
            }
            *at += 1;
            return;
        }
        if token == "self" && !path.is_empty() {
            // `a::{self}` is `a`.
        } else {
            path.push(token.clone());
        }
        if tokens.get(*at).is_none_or(|token| token != "::") {
            break;
        }
        *at += 1;
    }
    let mut name = path.last().cloned().unwrap_or_default();
    if tokens.get(*at).is_some_and(|token| token == "as") {
        name = tokens.get(*at + 1).cloned().unwrap_or_default();
        *at += 2;
    }
    leaves.push((name, path));
}

/// Returns the words, `::` and single characters of a text, without comments and literals.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    let skip = |text: &str, end: &str| text.find(end).map_or(text.len(), |found| found + end.len());
    while let Some(first) = rest.chars().next() {
        let word = rest.find(|letter: char| !letter.is_alphanumeric() && letter != '_').unwrap_or(rest.len());
        let hashes = rest.strip_prefix('r').map(|raw| raw.len() - raw.trim_start_matches('#').len());
        let length = if rest.starts_with("//") {
            skip(rest, "\n")
        } else if rest.starts_with("/*") {
            skip(rest, "*/")
        } else if let Some(hashes) = hashes.filter(|hashes| rest[1 + hashes..].starts_with('"')) {
            2 + hashes + skip(&rest[2 + hashes..], &format!("\"{}", "#".repeat(hashes)))
        } else if first == '"' {
            let mut escaped = false;
            let end = rest[1..].find(|letter| {
                let ends = letter == '"' && !escaped;
                escaped = letter == '\\' && !escaped;
                ends
            });
            end.map_or(rest.len(), |end| end + 2)
        } else if rest.starts_with("'\\") {
            3 + skip(&rest[3..], "'")
        } else if first == '\'' && rest.chars().nth(2) == Some('\'') {
            rest.chars().take(3).map(char::len_utf8).sum()
        } else if word > 0 {
            tokens.push(rest[..word].to_owned());
            word
        } else if rest.starts_with("::") {
            tokens.push("::".to_owned());
            2
        } else {
            if !first.is_whitespace() {
                tokens.push(first.to_string());
            }
            first.len_utf8()
        };
        rest = &rest[length..];
    }
    tokens
}

fn arrows(sources: &BTreeMap<Module, Source>) -> Arrows {
    let mut arrows = Arrows::new();
    for (from, source) in sources {
        for path in &source.paths {
            let Some(to) = target(sources, from, path, 0) else { continue };
            let common = from.iter().zip(&to).take_while(|(one, other)| one == other).count();
            if let (Some(user), Some(used)) = (from.get(common), to.get(common)) {
                let place = format!("{} uses {}", from.join("::"), path.join("::"));
                let folder = arrows.entry(from[..common].to_vec()).or_default();
                folder.entry(user.clone()).or_default().insert(used.clone(), place);
            }
        }
    }
    arrows
}

/// Returns the module that a path leads to, or `None` if the path leads to another crate.
fn target(sources: &BTreeMap<Module, Source>, from: &Module, path: &[String], depth: usize) -> Option<Module> {
    let (mut module, mut path) = match path.first()?.as_str() {
        "crate" => (Module::new(), &path[1..]),
        "self" => (from.clone(), &path[1..]),
        "super" => (from.clone(), path),
        first if sources.contains_key(&[&from[..], &[first.to_owned()]].concat()) => (from.clone(), path),
        _ => return None,
    };
    while path.first().is_some_and(|part| part == "super") {
        module.pop();
        path = &path[1..];
    }
    while let Some((part, rest)) = path.split_first() {
        let inner = [&module[..], std::slice::from_ref(part)].concat();
        if sources.contains_key(&inner) {
            (module, path) = (inner, rest);
        } else {
            let export = sources.get(&module).and_then(|source| source.exports.get(part)).filter(|_| depth < 8);
            return export.and_then(|export| target(sources, &module, export, depth + 1)).or(Some(module));
        }
    }
    Some(module)
}

/// Returns a circle, arrow by arrow.
fn circle(arrows: &BTreeMap<String, BTreeMap<String, String>>) -> Option<Vec<String>> {
    let mut open: BTreeSet<&String> = arrows.keys().collect();
    // A child that uses no remaining child is in no circle.
    while let Some(done) =
        open.iter().copied().find(|module| arrows[*module].keys().all(|used| used == *module || !open.contains(used)))
    {
        open.remove(done);
    }
    let mut way = vec![*open.first()?];
    loop {
        let last = way[way.len() - 1];
        let next = arrows[last].keys().find(|used| *used != last && open.contains(used))?;
        if let Some(start) = way.iter().position(|module| *module == next) {
            way.push(next);
            return Some(way[start..].windows(2).map(|pair| arrows[pair[0]][pair[1]].clone()).collect());
        }
        way.push(next);
    }
}
