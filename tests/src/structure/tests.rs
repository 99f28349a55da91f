//! The checks on small sources.

use std::{io, path::Path};

use super::{
    dependencies::names_word,
    graph::{Allowed, Graph, complaints},
    licences::{Package, allowed, refused},
    source::{Crate, SourceError},
};

fn read(files: &[(&str, &str)]) -> Result<Crate, SourceError> {
    Crate::read(Path::new("lib.rs"), |path| {
        let found = files.iter().find(|(name, _)| Path::new(name) == path);
        found.map(|(_, text)| (*text).to_owned()).ok_or_else(|| io::ErrorKind::NotFound.into())
    })
}

fn check(files: &[(&str, &str)], allowed: &[Allowed]) -> Vec<String> {
    let source = read(files).expect("read the sources");
    complaints(&[Graph::new("small", &source)], allowed)
}

/// Two siblings: `one` imports `two`, and `two` has this text.
fn two_is(text: &str) -> Vec<String> {
    check(&[("lib.rs", "mod one; mod two;"), ("one.rs", "use crate::two::Two;"), ("two.rs", text)], &[])
}

#[test]
fn imports_in_one_direction_are_fine() {
    let deep = ("two/mod.rs", "mod three; use crate::four::Four; pub struct Two;");
    let files = [
        ("lib.rs", "mod one; mod two; mod four;"),
        ("one.rs", "use crate::{two::{self, three}, four::*};"),
        deep,
        ("two/three.rs", "use super::Two; use crate::four;"),
        ("four.rs", "use std::io; use ::one::One;"),
    ];
    assert_eq!(check(&files, &[]), [""; 0]);
}

#[test]
fn a_cycle_is_told_with_the_file_and_line_of_each_import() {
    let told = two_is("pub struct Two;\n\nuse crate::one::One;");
    let expected = "small: these import each other in a circle: one, two
    one -> two  one.rs:1  two::Two
    two -> one  two.rs:3  one::One";
    assert_eq!(told, [expected]);
}

#[test]
fn every_way_to_write_an_import_counts() {
    let ways = [
        "use super::one;",
        "use super::{one::One};",
        "use crate::one::*;",
        "use self::super::one::One as Other;",
        "pub use crate::one::One;",
        "fn f() { use crate::one::One; }",
        "fn f() { crate::one::f() }",
        "fn f(it: &super::one::One) {}",
        "impl crate::one::Trait for Two {}",
        "fn f() { println!(\"{}\", crate::one::f()) }",
        "fn f() { vec![Some(super::one::F)] }",
        "fn f() { crate::one::call!() }",
        "mod inner { use super::super::one::One; }",
        "#[cfg(not(test))] use crate::one::One;",
        "#[cfg(any(test, unix))] use crate::one::One;",
        "struct Two { one: Vec<crate::one::One> }",
    ];
    for way in ways {
        assert_eq!(two_is(way).len(), 1, "{way}");
    }
}

#[test]
fn what_is_compiled_for_tests_alone_does_not_count() {
    let ways = [
        "#[cfg(test)] mod tests;",
        "#[cfg(test)] mod tests { use crate::one::One; }",
        "#[cfg(test)] use crate::one::One;",
        "#[cfg(all(test, unix))] use crate::one::One;",
        "#[test] fn f() { crate::one::f() }",
        "impl Two { #[cfg(test)] fn f() { crate::one::f() } }",
        "fn f() { #[cfg(test)] let one = crate::one::f(); }",
        "struct Two { #[cfg(test)] one: crate::one::One }",
        "// use crate::one::One;",
        "fn f() -> &'static str { \"crate::one::One\" }",
    ];
    for way in ways {
        assert_eq!(two_is(way), [""; 0], "{way}");
    }
}

#[test]
fn cycles_deeper_down_are_found_where_the_two_paths_part() {
    let files = [
        ("lib.rs", "mod top;"),
        ("top.rs", "mod one; mod two; use self::one::One;"),
        ("top/one.rs", "mod inner;"),
        ("top/one/inner.rs", "use crate::top::two::deep::Deep; use super::super::Top;"),
        ("top/two/mod.rs", "mod deep;"),
        ("top/two/deep.rs", "use super::super::one;"),
    ];
    let told = check(&files, &[]);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("top::one, top::two"), "{told:?}");
    assert!(told[0].contains("top/one/inner.rs:1  top::two::deep::Deep"), "{told:?}");
}

#[test]
fn a_name_that_the_parent_hands_on_counts_as_its_origins() {
    let files = [
        ("lib.rs", "mod one; mod two; pub use one::One; use std::io;"),
        ("one.rs", "use crate::two::Two; use crate::io;"),
        ("two.rs", "fn f(it: crate::One) {}"),
    ];
    assert_eq!(check(&files, &[]).len(), 1);
}

#[test]
fn separate_cycles_are_told_separately() {
    let files = [
        ("lib.rs", "mod a; mod b; mod c; mod d; mod e;"),
        ("a.rs", "use crate::b::B; use crate::c::C;"),
        ("b.rs", "use crate::a::A;"),
        ("c.rs", "use crate::d::D;"),
        ("d.rs", "use crate::e::E;"),
        ("e.rs", "use crate::c::C;"),
    ];
    let told = check(&files, &[]);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].contains("circle: a, b\n") && told[1].contains("circle: c, d, e\n"), "{told:?}");
}

#[test]
fn an_allowed_import_makes_no_cycle_and_must_be_needed() {
    let allowed = |from, to| [Allowed { target: "small", from, to, reason: "it is small" }];
    let files = [("lib.rs", "mod one; mod two;"), ("one.rs", "use crate::two::Two;"), ("two.rs", "")];
    let told = check(&files, &allowed("one", "two"));
    assert_eq!(
        told,
        ["small: one -> two is allowed (it is small), but makes no cycle: take it off the list"]
    );
    let files = [files[0], files[1], ("two.rs", "use crate::one::One;")];
    assert_eq!(check(&files, &allowed("two", "one")), [""; 0]);
    assert_eq!(check(&files, &allowed("two", "three")).len(), 2);
}

#[test]
fn modules_are_found_where_the_compiler_finds_them() {
    let files = [
        ("lib.rs", "mod one { mod inner; } #[path = \"elsewhere/two.rs\"] mod two;"),
        ("one/inner.rs", "mod most; use crate::two::Two;"),
        ("one/inner/most.rs", ""),
        ("elsewhere/two.rs", "mod beside; use crate::one::One;"),
        ("elsewhere/beside.rs", ""),
    ];
    assert_eq!(check(&files, &[]).len(), 1);
    let error = read(&[("lib.rs", "mod lost;")]).expect_err("read a crate with a lost module");
    assert!(error.to_string().contains("lost/mod.rs"), "{error}");
    read(&[("lib.rs", "mod {")]).expect_err("parse what is not Rust");
}

#[test]
fn a_dependency_counts_as_used_when_code_names_it() {
    assert!(names_word("use serde_json::json;", "serde_json"));
    assert!(names_word("let a = toml::from_str(text);", "toml"));
    assert!(!names_word("// as toml does", "toml"));
    assert!(!names_word("let my_toml = 1;", "toml"));
}

#[test]
fn a_dependency_with_another_licence_or_source_is_refused() {
    let allowed = allowed("[licenses]\nallow = [\"MIT\", \"Apache-2.0\"]\n");
    let check = |license: Option<&str>, source: Option<&str>| {
        let (license, source) = (license.map(str::to_owned), source.map(str::to_owned));
        refused(&[Package { name: "small".into(), version: "1.0.0".into(), license, source }], &allowed)
    };
    for good in ["MIT", "MIT OR GPL-3.0", "MIT/Apache-2.0", "(MIT OR Zlib) AND Apache-2.0"] {
        assert_eq!(check(Some(good), Some("registry+somewhere")), [""; 0], "{good}");
        assert_eq!(check(Some(good), None), [""; 0], "{good}");
    }
    for bad in ["GPL-3.0", "MIT AND GPL-3.0", "Apache-2.0 WITH LLVM-exception", "whatever"] {
        assert_eq!(check(Some(bad), None), [format!("small 1.0.0 is under {bad}")]);
    }
    assert_eq!(check(None, None), ["small 1.0.0 names no licence"]);
    assert_eq!(check(Some("MIT"), Some("git+somewhere")), ["small 1.0.0 is not from a registry"]);
}
