use super::super::ROOT;
use super::*;

#[test]
fn a_directory_names_its_scope_and_slice() {
    let scope = |path: &str| Scope::at(&Path::new(ROOT).join(path), ROOT.as_ref());
    let expected = |slice: &str, unit: &str| Some(Scope { slice: slice.into(), unit: unit.into() });
    assert_eq!(
        scope("machine.slice/machine-a.slice/libpod-web.scope"),
        expected("machine-a.slice", "libpod-web.scope")
    );
    assert_eq!(scope("web.scope"), expected("-.slice", "web.scope"));
    assert_eq!(scope("bulkhead/web"), None);
}
