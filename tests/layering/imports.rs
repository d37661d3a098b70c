//! Which file of the library names what another one defines.
//!
//! A file imports another one when its code, tests left out, names what that one defines, by a `use` line or by a path.
//! What a file passes on by `pub use` belongs to the file that defines it: a child that names `super::Item` imports the
//! sibling which defines `Item`, and its parent only where the parent itself does. A `mod` line and a `pub use` import
//! nothing, so a `mod.rs` that only lists its files is above and below nobody; one with code is a file like any other,
//! and so is `x.rs` beside `x/`. Methods are not seen: whoever calls one has the type, which has a file.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt::Debug;
use std::slice;

use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};

/// The path of a module from the root, which is empty itself.
pub(super) type Module = Vec<String>;

/// Which imports which.
pub(super) type Edges<T> = BTreeMap<T, BTreeSet<T>>;

/// The files of a library, by their modules.
pub(super) struct Library(HashMap<Module, File>);

#[derive(Default)]
struct File {
    children: Vec<String>,
    uses: Vec<Use>,
    /// Paths of more than one word.
    paths: Vec<Vec<String>>,
    /// Every other word, and the first one of each path.
    words: HashSet<String>,
}

struct Use {
    path: Vec<String>,
    name: String,
    is_passed_on: bool,
}

impl Library {
    /// The root and all that its `mod` lines lead to, but tests; `text` returns the text of a module.
    pub(super) fn read(text: impl Fn(&[String]) -> String) -> Self {
        let (mut files, mut left) = (HashMap::new(), vec![Module::new()]);
        while let Some(module) = left.pop() {
            let tokens: TokenStream =
                text(&module).parse().unwrap_or_else(|error| panic!("{module:?}: {error}"));
            let mut file = File::default();
            file.read(&tokens.into_iter().collect::<Vec<_>>());
            left.extend(
                file.children.iter().map(|child| [module.as_slice(), slice::from_ref(child)].concat()),
            );
            files.insert(module, file);
        }
        Self(files)
    }

    /// Which file imports which. The root only lists the modules.
    pub(super) fn files(&self) -> Edges<Module> {
        let named = self.0.iter().filter(|(module, _)| !module.is_empty());
        named.map(|(module, file)| (module.clone(), self.imports_of(module, file))).collect()
    }

    /// Which module at the root imports which.
    pub(super) fn modules(&self) -> Edges<String> {
        let mut modules = Edges::new();
        for (file, imports) in self.files() {
            let of_others = imports.iter().map(|import| &import[0]).filter(|import| **import != file[0]);
            modules.entry(file[0].clone()).or_default().extend(of_others.cloned());
        }
        modules
    }

    fn imports_of(&self, module: &Module, file: &File) -> BTreeSet<Module> {
        let is_used = |line: &&Use| !line.is_passed_on || file.words.contains(&line.name);
        let used = file.uses.iter().filter(is_used).filter_map(|line| self.absolute(module, &line.path));
        // A module that is imported whole counts by what is named of it.
        let used = used.filter(|path| !self.0.contains_key(path));
        let named =
            file.paths.iter().filter_map(|path| match file.uses.iter().find(|line| line.name == path[0]) {
                Some(line) => Some([self.absolute(module, &line.path)?.as_slice(), &path[1..]].concat()),
                None => self.absolute(module, path),
            });
        let defining = used.chain(named).filter_map(|path| self.defining(path));
        defining.filter(|other| other != module && !other.is_empty()).collect()
    }

    /// The path from the root, unless it leads to another crate.
    fn absolute(&self, module: &Module, path: &[String]) -> Option<Module> {
        let ups = path.iter().take_while(|word| *word == "super").count();
        match path[0].as_str() {
            "crate" => Some(path[1..].to_vec()),
            "self" => Some([module.as_slice(), &path[1..]].concat()),
            "super" => Some([&module[..module.len() - ups], &path[ups..]].concat()),
            child if self.0[module].children.iter().any(|known| known == child) => {
                Some([module.as_slice(), path].concat())
            }
            _ => None,
        }
    }

    /// The module whose file defines what is at `path`; `None` where it comes from another crate.
    fn defining(&self, mut path: Module) -> Option<Module> {
        // Each time it follows one line that passes it on.
        loop {
            let depth = (0..=path.len()).rev().find(|&depth| self.0.contains_key(&path[..depth]))?;
            let (module, rest) = (path[..depth].to_vec(), &path[depth..]);
            let line =
                rest.first().and_then(|word| self.0[&module].uses.iter().find(|line| line.name == *word));
            let Some(line) = line else { return Some(module) };
            path = [self.absolute(&module, &line.path)?.as_slice(), &rest[1..]].concat();
        }
    }
}

impl File {
    fn read(&mut self, tokens: &[TokenTree]) {
        let mut at = 0;
        let mut is_public = false;
        while at < tokens.len() {
            let rest = &tokens[at..];
            at += match rest {
                [TokenTree::Punct(hash), TokenTree::Group(attribute), ..]
                    if hash.as_char() == '#' && is_of_tests(&attribute.stream()) =>
                {
                    2 + length_of_item(&rest[2..])
                }
                [TokenTree::Ident(word), TokenTree::Ident(name), TokenTree::Punct(end), ..]
                    if word == "mod" && end.as_char() == ';' =>
                {
                    is_public = false;
                    self.children.push(name.to_string());
                    3
                }
                [TokenTree::Ident(word), TokenTree::Group(_), ..] if word == "pub" => {
                    is_public = true;
                    2
                }
                [TokenTree::Ident(word), ..] if word == "pub" => {
                    is_public = true;
                    1
                }
                // `use<'a>` is no line, but a bound.
                [TokenTree::Ident(word), next, ..] if word == "use" && !is(next, '<') => {
                    let length = rest.iter().position(|token| is(token, ';')).expect("a use line ends");
                    self.add_uses(&rest[1..length], Vec::new(), is_public);
                    is_public = false;
                    length
                }
                [TokenTree::Ident(_), ..] => {
                    is_public = false;
                    let (path, length) = path_at(rest);
                    self.words.insert(path[0].clone());
                    if path.len() > 1 {
                        self.paths.push(path);
                    }
                    length
                }
                [TokenTree::Group(group), ..] => {
                    self.read(&group.stream().into_iter().collect::<Vec<_>>());
                    1
                }
                _ => 1,
            };
        }
    }

    /// Adds what the tree behind `use` names, below `path`.
    fn add_uses(&mut self, tree: &[TokenTree], mut path: Vec<String>, is_passed_on: bool) {
        let mut name = None;
        for (place, token) in tree.iter().enumerate() {
            match token {
                TokenTree::Ident(word) if word == "as" => {
                    name = tree.get(place + 1).map(ToString::to_string);
                    break;
                }
                TokenTree::Ident(word) if word == "self" && !path.is_empty() => {}
                TokenTree::Ident(word) => path.push(word.to_string()),
                TokenTree::Group(group) => {
                    let parts: Vec<TokenTree> = group.stream().into_iter().collect();
                    for part in parts.split(|token| is(token, ',')).filter(|part| !part.is_empty()) {
                        self.add_uses(part, path.clone(), is_passed_on);
                    }
                    return;
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
        }
        let name = name.unwrap_or_else(|| path.last().expect("a use line names something").clone());
        self.uses.push(Use { path, name, is_passed_on });
    }
}

fn is(token: &TokenTree, punct: char) -> bool {
    matches!(token, TokenTree::Punct(found) if found.as_char() == punct)
}

/// Whether an attribute leaves what follows to tests.
fn is_of_tests(attribute: &TokenStream) -> bool {
    let text = attribute.to_string().replace(' ', "");
    text == "cfg(test)" || text.starts_with("cfg(all(test,")
}

/// The tokens of one item, or of what else an attribute may stand before.
fn length_of_item(tokens: &[TokenTree]) -> usize {
    let is_block =
        |token: &TokenTree| matches!(token, TokenTree::Group(group) if group.delimiter() == Delimiter::Brace);
    let is_end = |token: &TokenTree| is_block(token) || is(token, ';');
    tokens.iter().position(is_end).map_or(tokens.len(), |place| place + 1)
}

/// The path that the tokens begin with, and how many of them it takes.
fn path_at(tokens: &[TokenTree]) -> (Vec<String>, usize) {
    let mut path = vec![tokens[0].to_string()];
    let mut length = 1;
    while let [TokenTree::Punct(first), TokenTree::Punct(second), TokenTree::Ident(word), ..] =
        &tokens[length..]
        && (first.as_char(), first.spacing(), second.as_char()) == (':', Spacing::Joint, ':')
    {
        path.push(word.to_string());
        length += 3;
    }
    (path, length)
}

/// The floor of each: one above the highest that it imports. Or a circle among them.
pub(super) fn floors<T: Clone + Debug + Ord>(edges: &Edges<T>) -> Result<BTreeMap<T, usize>, Vec<T>> {
    let mut floors = BTreeMap::new();
    while floors.len() < edges.len() {
        let is_placed = |of: &T| floors.contains_key(of);
        let next: Vec<(T, usize)> = edges
            .iter()
            .filter(|(one, below)| !is_placed(one) && below.iter().all(is_placed))
            .map(|(one, below)| (one.clone(), 1 + below.iter().map(|of| floors[of]).max().unwrap_or(0)))
            .collect();
        if next.is_empty() {
            let one = edges.keys().find(|one| !is_placed(one)).expect("some are left");
            return Err(circle(edges, &floors, one));
        }
        floors.extend(next);
    }
    Ok(floors)
}

/// A circle that what is left over leads into, from `one` on; the first is the last.
fn circle<T: Clone + Ord>(edges: &Edges<T>, placed: &BTreeMap<T, usize>, one: &T) -> Vec<T> {
    let mut way = vec![one.clone()];
    loop {
        let last = way.last().expect("it has a beginning");
        let next = edges[last].iter().find(|of| !placed.contains_key(of)).expect("or it would be placed");
        let begin = way.iter().position(|of| of == next);
        way.push(next.clone());
        if let Some(begin) = begin {
            return way.split_off(begin);
        }
    }
}
