use super::*;

fn list(text: &str) -> CpuList {
    CpuList::try_from(text.to_owned()).unwrap()
}

#[test]
fn a_list_is_written_as_it_was_read() {
    for text in ["0", "0-2,7", "3,1", "0-65535"] {
        assert_eq!(list(text).to_string(), text);
    }
    assert_eq!(list("0-1\n").to_string(), "0-1");
    assert_eq!(list("2-2").to_string(), "2");
}

#[test]
fn the_numbers_of_a_list_are_those_of_its_ranges() {
    assert_eq!(list("0-2,7\n").numbers().collect::<Vec<_>>(), [0, 1, 2, 7]);
}

#[test]
fn what_is_no_list_is_refused() {
    for text in
        ["", " ", ",", "0,", "a", "-1", "+1", "1-", "2-1", "0-1-2", "0x1", "65536", "0:1", "99999999999"]
    {
        assert!(CpuList::try_from(text.to_owned()).is_err(), "{text:?}");
    }
    let long = vec!["1"; PARTS_MAX + 1].join(",");
    assert!(CpuList::try_from(long).is_err());
}

#[test]
fn the_first_number_beyond_another_list_is_found() {
    assert_eq!(list("0-1").first_beyond(&list("0-3")), None);
    assert_eq!(list("0,5-6").first_beyond(&list("0-5")), Some(6));
}

#[test]
fn each_number_is_counted_once() {
    let counts = ["0", "4-5", "0-2,7", "1,1,0-3,2-5", "5-9,0-7,3", "0-65535"];
    assert_eq!(counts.map(|text| list(text).count()), [1, 2, 4, 6, 10, 65_536]);
}
