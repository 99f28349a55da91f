//! The modules of one crate, and what each of them imports: `use` trees, paths in code, and paths in macro calls.
//!
//! A path counts when it begins with `crate`, `self` or `super`. Others name a child module, or something that an import
//! brought, which counted there.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use proc_macro2::{Span, TokenStream, TokenTree};
use syn::{
    Attribute, ImplItem, Item, Meta, Stmt, TraitItem, UseTree,
    punctuated::Punctuated,
    visit::{self, Visit},
};

/// A module as its names from the crate's root, which itself is empty.
pub(super) type ModulePath = Vec<String>;

#[derive(Debug, thiserror::Error)]
pub(super) enum SourceError {
    #[error("read module {module}: none of {tried:?}")]
    Missing { module: String, tried: Vec<PathBuf> },
    #[error("read {}: {source}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("parse {}: {source}", .path.display())]
    Parse { path: PathBuf, source: syn::Error },
}

/// One mention of something in the same crate.
#[derive(Debug, Clone)]
pub(super) struct Reference {
    pub(super) file: PathBuf,
    pub(super) line: usize,
    /// The module that mentions it.
    pub(super) from: ModulePath,
    /// What it mentions, from the crate's root: modules, then names in them.
    pub(super) path: Vec<String>,
}

/// One crate's modules without its tests.
#[derive(Debug, Default)]
pub(super) struct Crate {
    pub(super) modules: BTreeMap<ModulePath, Names>,
    pub(super) references: Vec<Reference>,
}

/// What a module's imports bring into it.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Where a name comes from, as a path from the crate's root.
    pub(super) imported: BTreeMap<String, Vec<String>>,
    /// The modules of which it imports everything.
    pub(super) globs: Vec<Vec<String>>,
}

impl Crate {
    /// Reads the crate whose root is this file, with `load` for the text of each file.
    pub(super) fn read(root: &Path, load: impl Fn(&Path) -> io::Result<String>) -> Result<Self, SourceError> {
        let mut source = Self::default();
        let text = load(root).map_err(|source| SourceError::Read { path: root.to_owned(), source })?;
        let directory = root.parent().unwrap_or(Path::new("")).to_owned();
        let file = File { path: root.to_owned(), directory, module: Vec::new() };
        source.read_file(file, &text, &load)?;
        Ok(source)
    }

    fn read_file(
        &mut self,
        file: File,
        text: &str,
        load: &impl Fn(&Path) -> io::Result<String>,
    ) -> Result<(), SourceError> {
        let parsed =
            syn::parse_file(text).map_err(|source| SourceError::Parse { path: file.path.clone(), source })?;
        let mut walk = Walk { module: file.module.clone(), file, source: self, declared: Vec::new() };
        walk.enter(&parsed.items);
        let declared = walk.declared;
        for module in declared {
            let found = module.files.iter().find_map(|path| Some((path, load(path).ok()?)));
            let Some((path, text)) = found else {
                let name = module.module.join("::");
                return Err(SourceError::Missing { module: name, tried: module.files });
            };
            // The children of `mod.rs` lie beside it, those of any other file in the directory of its name.
            let directory = if path.ends_with("mod.rs") || module.beside {
                path.parent().unwrap_or(Path::new("")).to_owned()
            } else {
                path.with_extension("")
            };
            let file = File { path: path.clone(), directory, module: module.module };
            self.read_file(file, &text, load)?;
        }
        Ok(())
    }
}

/// A file, the module that it is, and where the files of its child modules lie.
struct File {
    path: PathBuf,
    directory: PathBuf,
    module: ModulePath,
}

/// A module in a file of its own.
struct Declared {
    module: ModulePath,
    files: Vec<PathBuf>,
    /// Whether its children lie beside it, as those of a file named by `#[path]` do.
    beside: bool,
}

struct Walk<'source> {
    file: File,
    /// The module that the walk is in: the file's, or one written out in it.
    module: ModulePath,
    source: &'source mut Crate,
    declared: Vec<Declared>,
}

impl Walk<'_> {
    /// Walks through the items of the module it is in.
    fn enter(&mut self, items: &[Item]) {
        // Declarations first: an import may name a child that is declared further down.
        self.source.modules.entry(self.module.clone()).or_default();
        for item in items {
            if let Item::Mod(child) = item
                && !only_for_tests(&child.attrs)
            {
                self.source.modules.entry(self.child(&child.ident)).or_default();
            }
        }
        for item in items {
            self.visit_item(item);
        }
    }

    fn child(&self, name: &syn::Ident) -> ModulePath {
        let mut path = self.module.clone();
        path.push(name.to_string());
        path
    }

    /// A path from the crate's root: none when it leaves the crate, or begins with a name of unknown origin.
    fn absolute(&self, segments: &[String]) -> Option<Vec<String>> {
        let mut path = match segments.first()?.as_str() {
            "crate" => Vec::new(),
            "self" | "super" => self.module.clone(),
            _ => {
                let child = self.module.iter().chain(&segments[..1]).cloned().collect::<Vec<_>>();
                if !self.source.modules.contains_key(&child) {
                    return None;
                }
                return Some(self.module.iter().chain(segments).cloned().collect());
            }
        };
        let mut rest = segments;
        while let [first, others @ ..] = rest
            && ["crate", "self", "super"].contains(&first.as_str())
        {
            if first == "super" {
                path.pop()?;
            }
            rest = others;
        }
        path.extend_from_slice(rest);
        Some(path)
    }

    fn mention(&mut self, segments: &[String], span: Span) {
        let begins = segments.first().map(String::as_str);
        if segments.len() > 1
            && matches!(begins, Some("crate" | "self" | "super"))
            && let Some(path) = self.absolute(segments)
        {
            self.source.references.push(Reference {
                file: self.file.path.clone(),
                line: span.start().line,
                from: self.module.clone(),
                path,
            });
        }
    }

    fn import(&mut self, tree: &UseTree, before: &mut Vec<String>) {
        match tree {
            UseTree::Path(path) => {
                before.push(path.ident.to_string());
                self.import(&path.tree, before);
                before.pop();
            }
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.import(tree, before)),
            UseTree::Name(name) => self.bring(before, &name.ident, &name.ident),
            UseTree::Rename(name) => self.bring(before, &name.ident, &name.rename),
            UseTree::Glob(glob) => {
                self.mention(before, glob.star_token.spans[0]);
                if let Some(path) = self.absolute(before) {
                    let names = self.source.modules.entry(self.module.clone()).or_default();
                    names.globs.push(path);
                }
            }
        }
    }

    /// One name of a `use`, and what it is called here.
    fn bring(&mut self, before: &[String], name: &syn::Ident, called: &syn::Ident) {
        let mut segments = before.to_vec();
        if name != "self" {
            segments.push(name.to_string());
        }
        self.mention(&segments, name.span());
        let called = if called == "self" { segments.last().cloned() } else { Some(called.to_string()) };
        if let (Some(path), Some(called)) = (self.absolute(&segments), called) {
            let names = self.source.modules.entry(self.module.clone()).or_default();
            names.imported.insert(called, path);
        }
    }

    /// The paths in the tokens of a macro call: names joined by `::`.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let (mut colons, mut span) = (0, Span::call_site());
        for token in tokens {
            match token {
                TokenTree::Punct(punct) if punct.as_char() == ':' && !path.is_empty() && colons < 2 => {
                    colons += 1;
                }
                TokenTree::Ident(name) if colons == 2 => {
                    path.push(name.to_string());
                    colons = 0;
                }
                other => {
                    self.mention(&path, span);
                    (path, colons) = (Vec::new(), 0);
                    match other {
                        TokenTree::Ident(name) => (path, span) = (vec![name.to_string()], name.span()),
                        TokenTree::Group(group) => self.tokens(group.stream()),
                        TokenTree::Punct(_) | TokenTree::Literal(_) => {}
                    }
                }
            }
        }
        self.mention(&path, span);
    }
}

impl<'ast> Visit<'ast> for Walk<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        if !only_for_tests(item_attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item(&mut self, item: &'ast ImplItem) {
        let attributes = match item {
            ImplItem::Const(it) => &it.attrs,
            ImplItem::Fn(it) => &it.attrs,
            ImplItem::Type(it) => &it.attrs,
            ImplItem::Macro(it) => &it.attrs,
            _ => return,
        };
        if !only_for_tests(attributes) {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_trait_item(&mut self, item: &'ast TraitItem) {
        let attributes = match item {
            TraitItem::Const(it) => &it.attrs,
            TraitItem::Fn(it) => &it.attrs,
            TraitItem::Type(it) => &it.attrs,
            TraitItem::Macro(it) => &it.attrs,
            _ => return,
        };
        if !only_for_tests(attributes) {
            visit::visit_trait_item(self, item);
        }
    }

    fn visit_field(&mut self, field: &'ast syn::Field) {
        if !only_for_tests(&field.attrs) {
            visit::visit_field(self, field);
        }
    }

    fn visit_stmt(&mut self, statement: &'ast Stmt) {
        if !matches!(statement, Stmt::Local(local) if only_for_tests(&local.attrs)) {
            visit::visit_stmt(self, statement);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        let module = self.child(&item.ident);
        let name = item.ident.to_string();
        if let Some((_, items)) = &item.content {
            let outer = std::mem::replace(&mut self.module, module);
            self.enter(items);
            self.module = outer;
        } else if let Some(path) = written_path(&item.attrs) {
            let beside = self.file.path.parent().unwrap_or(Path::new(""));
            self.declared.push(Declared { module, files: vec![beside.join(path)], beside: true });
        } else {
            // A module written out in this file has a directory of its own for its children.
            let inner = &self.module[self.file.module.len()..];
            let directory = inner.iter().fold(self.file.directory.clone(), |path, name| path.join(name));
            let files = vec![directory.join(format!("{name}.rs")), directory.join(name).join("mod.rs")];
            self.declared.push(Declared { module, files, beside: false });
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if item.leading_colon.is_none() {
            self.import(&item.tree, &mut Vec::new());
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if let Some(first) = path.segments.first() {
            let segments: Vec<_> = path.segments.iter().map(|it| it.ident.to_string()).collect();
            self.mention(&segments, first.ident.span());
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.tokens(call.tokens.clone());
        visit::visit_macro(self, call);
    }
}

fn item_attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(it) => &it.attrs,
        Item::Enum(it) => &it.attrs,
        Item::ExternCrate(it) => &it.attrs,
        Item::Fn(it) => &it.attrs,
        Item::ForeignMod(it) => &it.attrs,
        Item::Impl(it) => &it.attrs,
        Item::Macro(it) => &it.attrs,
        Item::Mod(it) => &it.attrs,
        Item::Static(it) => &it.attrs,
        Item::Struct(it) => &it.attrs,
        Item::Trait(it) => &it.attrs,
        Item::TraitAlias(it) => &it.attrs,
        Item::Type(it) => &it.attrs,
        Item::Union(it) => &it.attrs,
        Item::Use(it) => &it.attrs,
        _ => &[],
    }
}

/// `#[path = "..."]`
fn written_path(attributes: &[Attribute]) -> Option<String> {
    attributes.iter().find(|it| it.path().is_ident("path")).and_then(|it| match &it.meta {
        Meta::NameValue(syn::MetaNameValue {
            value: syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(path), .. }),
            ..
        }) => Some(path.value()),
        _ => None,
    })
}

/// Whether what has these attributes is compiled for tests alone.
fn only_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("test")
            || (attribute.path().is_ident("cfg")
                && attribute.parse_args::<Meta>().is_ok_and(|condition| needs_test(&condition)))
    })
}

/// Whether a condition of `cfg` holds in tests alone.
fn needs_test(condition: &Meta) -> bool {
    let Meta::List(list) = condition else { return condition.path().is_ident("test") };
    let Ok(parts) = list.parse_args_with(Punctuated::<Meta, syn::Token![,]>::parse_terminated) else {
        return false;
    };
    match list.path.get_ident().map(ToString::to_string).as_deref() {
        Some("all") => parts.iter().any(needs_test),
        Some("any") => !parts.is_empty() && parts.iter().all(needs_test),
        _ => false,
    }
}
