use super::*;

#[test]
fn every_setting_stands_in_the_table_once_and_in_its_place() {
    for (index, setting) in Setting::all().enumerate() {
        assert_eq!((setting as usize, setting.row().0), (index, setting));
    }
    let files: std::collections::BTreeSet<_> = Setting::all().map(Setting::file).collect();
    assert_eq!(files.len(), SETTINGS.len());
    assert!(SETTINGS.iter().all(|(.., most, own)| own < most));
}

#[test]
fn a_value_is_bounded_by_what_linux_takes_and_left_out_when_a_guest_has_it_anyway() {
    let mut tuning = Tuning::default();
    tuning.raise(NrOpen, u64::MAX);
    tuning.raise(MaxMapCount, 65_530);
    tuning.raise(PidMax, 65_536);
    let raised: Vec<_> = tuning.raised().collect();
    assert_eq!(raised, [(NrOpen, 2_147_483_584), (PidMax, 65_536)]);
}

#[test]
fn it_is_read_as_it_was_written_and_bounded_again() {
    let mut tuning = Tuning { overcommit: Overcommit::Limit(1024), ..Tuning::default() };
    tuning.raise(MaxMapCount, 262_144);
    let json = serde_json::to_string(&tuning).unwrap();
    assert_eq!(serde_json::from_str::<Tuning>(&json).unwrap(), tuning);
    let forged = r#"{"raise":{"pid-max":18446744073709551615},"overcommit":"always"}"#;
    let read: Tuning = serde_json::from_str(forged).unwrap();
    assert_eq!(read.raised().collect::<Vec<_>>(), [(PidMax, 1 << 22)]);
    assert!(serde_json::from_str::<Tuning>(r#"{"raise":{"core-pattern":1},"overcommit":"always"}"#).is_err());
}
