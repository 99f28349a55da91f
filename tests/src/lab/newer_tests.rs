use super::*;

#[test]
fn a_tree_that_was_made_for_the_same_packages_is_not_fetched_again() {
    let cache = tempfile::tempdir().unwrap();
    let tree = tree_in(cache.path());
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join(MADE_FOR), PACKAGES.join(" ")).unwrap();
    prepare(cache.path()).unwrap();
    assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 1);
}

#[test]
fn what_was_not_to_be_had_is_named_with_the_way_around_it() {
    let source =
        Error::Tool { command: "apt-get".to_owned(), status: "100".to_owned(), output: String::new() };
    let error = Error::Newer { suite: SUITE, source: Box::new(source) };
    assert!(error.to_string().starts_with("have containerd and docker of Debian trixie"), "{error}");
    assert!(error.hint().unwrap().contains("--without-engines"));
}
