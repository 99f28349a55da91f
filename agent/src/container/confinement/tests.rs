use super::*;

#[test]
fn an_instruction_is_read_as_the_kernel_lays_it_out() {
    let bytes: Vec<u8> = vec![0x06, 0, 1, 2, 0, 0, 0xff, 0x7f];
    let program = FilterProgram::try_from(bytes).unwrap();
    let read = program.instructions().filter_map(instruction).next().unwrap();
    assert_eq!((read.code, read.jt, read.jf, read.k), (0x06, 1, 2, 0x7fff_0000));
}
