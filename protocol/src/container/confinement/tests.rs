use super::*;

fn program(length: usize) -> FilterProgram {
    (0..length * FilterProgram::INSTRUCTION).map(|n| n as u8).collect::<Vec<_>>().try_into().unwrap()
}

#[test]
fn a_program_is_the_same_after_its_way_through_json() {
    let program = program(limits::FILTER);
    let json = serde_json::to_string(&program).unwrap();
    assert_eq!(serde_json::from_str::<FilterProgram>(&json).unwrap(), program);
    assert_eq!(program.instructions().next().unwrap(), [0, 1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn an_empty_program_and_one_beyond_the_kernels_limit_are_refused() {
    assert_eq!(FilterProgram::try_from(Vec::new()), Err(FilterError::Length { length: 0 }));
    let long = vec![0; (limits::FILTER + 1) * 8];
    assert_eq!(FilterProgram::try_from(long), Err(FilterError::Length { length: limits::FILTER + 1 }));
    assert_eq!(FilterProgram::try_from(vec![0; 12]), Err(FilterError::Fraction(12)));
}

#[test]
fn anything_but_pairs_of_hexadecimal_digits_is_refused() {
    for text in ["0", "00000000000000000", "000000000000000g", "+100000000000000"] {
        assert_eq!(FilterProgram::try_from(text.to_owned()), Err(FilterError::Digits), "{text}");
    }
    assert_eq!(FilterProgram::try_from("00".to_owned()), Err(FilterError::Fraction(1)));
}
