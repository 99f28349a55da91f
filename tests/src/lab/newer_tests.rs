use super::*;

#[test]
fn trees_that_were_made_for_the_same_packages_are_not_fetched_again() {
    let cache = tempfile::tempdir().unwrap();
    for suite in Suite::ALL {
        let tree = tree_in(cache.path(), suite);
        fs::create_dir(&tree).unwrap();
        fs::write(tree.join(MADE_FOR), wanted()).unwrap();
    }
    prepare(cache.path()).unwrap();
    assert_eq!(fs::read_dir(cache.path()).unwrap().count(), Suite::ALL.len());
}

#[test]
fn what_was_not_to_be_had_is_named_with_the_way_around_it() {
    let source =
        Error::Tool { command: "apt-get".to_owned(), status: "100".to_owned(), output: String::new() };
    let error = Error::Newer { suite: "trixie", source: Box::new(source) };
    assert!(error.to_string().starts_with("have containerd, docker and podman of Debian trixie"), "{error}");
    assert!(error.hint().unwrap().contains("--without-engines"));
}
