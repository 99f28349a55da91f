use super::*;

fn ended(code: i32, said: &str) -> End {
    judge(Ok(Ran { exit: Exit::Code(code), said: said.to_owned() })).0
}

#[test]
fn ends_are_told_apart() {
    assert_eq!(ended(0, ""), End::Good);
    assert_eq!(ended(1, "bulkhead: run soak-1: the sandbox died: the guest reset itself"), End::Reset);
    assert_eq!(ended(1, "bulkhead: run soak-1: boot sandbox: no memory"), End::Died);
    let silent = Error::Deadline { after: Duration::from_secs(1), console: String::new() };
    assert_eq!(judge(Err(silent)).0, End::Silent);
    assert_eq!(judge(Err(Error::Died { console: String::new() })).0, End::Lab);
}

#[test]
fn figures_are_one_line_with_the_median_of_the_good() {
    let mut figures = Figures::default();
    for (number, end) in
        [End::Good, End::Good, End::Good, End::Reset, End::Silent, End::Lab].iter().enumerate()
    {
        let took = Duration::from_secs(5 + number as u64);
        figures.add(&Boot { number: number as u32, end: *end, took, message: String::new() });
    }
    assert!(!figures.flawless());
    assert_eq!(
        figures.to_string(),
        "5 boots: 3 good, 1 reset, 1 silent, 0 died; labs that died: 1; median 6.0 s a boot"
    );
}
