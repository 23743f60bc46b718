//! No module imports itself through its neighbours. Only children of one folder are compared: a front page (`mod.rs`) knows its children,
//! and they know it.

use std::collections::{BTreeMap, BTreeSet};

use super::{report, sources};

/// Known circles, by folder. Entries may only be removed.
const KNOWN: &[(&str, &[&str])] = &[];

/// The names from the root of the crate to a module.
type Module = Vec<String>;
/// The imports among the children of one folder.
type Graph = BTreeMap<String, BTreeSet<String>>;

fn module(path: &str) -> Module {
    let names = path.trim_end_matches(".rs").split('/').map(str::to_owned);
    names.filter(|name| !matches!(name.as_str(), "mod" | "lib" | "main")).collect()
}

/// Collects the paths of a tree of imports: `a::{B, c::D}` is `a::B` and `a::c::D`. Returns the remaining text.
fn paths<'t>(mut text: &'t str, before: &[String], found: &mut Vec<Module>) -> &'t str {
    let mut path = before.to_vec();
    loop {
        text = text.trim_start();
        if let Some(mut inner) = text.strip_prefix('{') {
            loop {
                inner = paths(inner, &path, found).trim_start();
                let Some(next) = inner.strip_prefix(',') else {
                    return inner.strip_prefix('}').unwrap_or(inner);
                };
                inner = next;
            }
        }
        let end = text.find(|letter: char| !letter.is_alphanumeric() && letter != '_');
        let (name, rest) = text.split_at(end.unwrap_or(text.len()));
        path.extend((!name.is_empty()).then(|| name.to_owned()));
        // The text after a leaf's name, such as `as Other`, is irrelevant.
        let Some(next) = rest.strip_prefix("::") else {
            found.push(path);
            let end = rest.find([',', '}', ';', '\n']).unwrap_or(rest.len());
            return rest.split_at(end).1;
        };
        text = next;
    }
}

/// Returns the paths elsewhere in the crate that a module names.
fn named(text: &str, module: &Module) -> Vec<Module> {
    let mut found = Vec::new();
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let text = lines.collect::<Vec<_>>().join("\n");
    let parent = module.split_last().map_or(&[][..], |(_, parent)| parent);
    for (start, base) in [("crate::", &[][..]), ("super::", parent)] {
        for (at, _) in text.match_indices(start) {
            paths(text.split_at(at + start.len()).1, base, &mut found);
        }
    }
    found
}

/// Returns the children of each folder with their imports.
fn graphs() -> BTreeMap<Module, Graph> {
    let sources = sources();
    let texts: BTreeMap<Module, &str> = sources
        .iter()
        .filter(|source| !source.is_test())
        .map(|source| (module(&source.path), source.production()))
        .collect();
    let mut graphs: BTreeMap<Module, Graph> = BTreeMap::new();
    for (from, text) in &texts {
        for path in named(text, from) {
            let known = (1..=path.len()).rev().find(|len| texts.contains_key(&path[..*len]));
            let Some(to) = known.map(|len| &path[..len]) else { continue };
            let common = from.iter().zip(to).take_while(|(one, other)| one == other).count();
            // The import table covers the folders of the root.
            if let (1.., Some(one), Some(other)) = (common, from.get(common), to.get(common)) {
                let graph = graphs.entry(from[..common].to_vec()).or_default();
                graph.entry(one.clone()).or_default().insert(other.clone());
            }
        }
    }
    graphs
}

/// Returns everything reachable from a child, including itself only if a circle leads back.
fn reached<'g>(graph: &'g Graph, from: &'g str) -> BTreeSet<&'g str> {
    let (mut found, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(name) = open.pop() {
        let next = graph.get(name).into_iter().flatten().map(String::as_str);
        open.extend(next.filter(|name| found.insert(*name)));
    }
    found
}

/// Returns the circles of a folder, each as the set of its members.
fn circles(graph: &Graph) -> BTreeSet<Vec<&str>> {
    let names = graph.keys().map(String::as_str);
    let on_circles = names.filter(|name| reached(graph, name).contains(name));
    on_circles
        .map(|name| {
            let ahead = reached(graph, name).into_iter();
            ahead.filter(|other| reached(graph, other).contains(name)).collect()
        })
        .collect()
}

#[test]
fn no_folder_has_an_import_circle_inside_itself() {
    let (mut broken, mut left) = (Vec::new(), vec![false; KNOWN.len()]);
    for (folder, graph) in graphs() {
        let folder = folder.join("/");
        for circle in circles(&graph) {
            let is_known = |(known, names): &(&str, &[&str])| {
                *known == folder && circle.iter().all(|name| names.contains(name))
            };
            match KNOWN.iter().position(is_known) {
                Some(index) => left[index] = true,
                None => {
                    broken.push(format!("src/{folder}: {} import each other", circle.join(", ")));
                }
            }
        }
    }
    let gone = KNOWN.iter().zip(left).filter(|(_, is_left)| !is_left);
    broken.extend(gone.map(|((folder, names), _)| {
        format!("src/{folder}: {} is a circle no more; take it off the list", names.join(", "))
    }));
    report(&broken);
}

#[test]
fn an_import_is_found_however_it_is_written() {
    let text = "use super::{a::B, c::{self, D as E}, f};\nfn g() -> crate::h::I { super::j::k() }\n// super::l\n";
    let found = named(text, &vec!["top".to_owned(), "own".to_owned()]);
    let mut found: Vec<_> = found.iter().map(|path| path.join("::")).collect();
    found.sort();
    let expected = ["h::I", "top::a::B", "top::c::D", "top::c::self", "top::f", "top::j::k"];
    assert_eq!(found, expected);
    let graph = |edges: &[(&str, &str)]| {
        let mut graph = Graph::new();
        for (from, to) in edges {
            graph.entry((*from).to_owned()).or_default().insert((*to).to_owned());
        }
        graph
    };
    assert!(circles(&graph(&[("a", "b"), ("a", "c"), ("b", "c")])).is_empty());
    let round = graph(&[("a", "b"), ("b", "c"), ("c", "b"), ("c", "d")]);
    assert_eq!(circles(&round), BTreeSet::from([vec!["b", "c"]]));
}
