use super::*;

/// The code of an injected interrupt and of an injected exception, as compiled in Debian's QEMU 10.0 and 11.1.
const INTERRUPT_10: &str = "89b310d7ffffc783e43300000000000048c783e8330000ffffffff\
    f6059aa73c01020f856c010000ba010000004889dfe877a60600f60580a73c01020f8465feffff8b";
const INTERRUPT_11: &str = "89b350c2ffffc783843400000000000048c78388340000ffffffff\
    f6050c405801020f85c1000000ba010000004889dfe879c80700f605f23f5801020f846dfeffff8b";
const EXCEPTION: &str = "89a350c2ffffc783843400000000000048c78388340000ffffffff\
    f6056b3f580102753f4889efe83120c7ff4489e6488d3d48c42d0031c081e600080000e87a7b2800";

/// `cpu_clear_ignne` from its call on, as compiled there.
const FLAGS_10: &str = "e8065f140081a0742c00007fffffff4883c40831c031d231";
const FLAGS_11: &str = "e812300c0081a0a44100007fffffff4883c40831c031d231";
/// An atomic `and` with the same number, of a part that has nothing to do with it.
const ATOMIC: &str = "0f1f4000f081a35c0c00007fffffffe997fdffff";

fn bytes(hex: &str) -> Vec<u8> {
    hex.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn program(parts: &[&str]) -> Vec<u8> {
    let mut all = vec![0x90; 100];
    for part in parts {
        all.extend(bytes(part));
        all.extend([0x90; 100]);
    }
    all
}

#[test]
fn what_is_at_fault_is_left_out_and_nothing_else() {
    for (interrupt, flags) in [(INTERRUPT_10, FLAGS_10), (INTERRUPT_11, FLAGS_11)] {
        let before = program(&[interrupt, EXCEPTION, ATOMIC, flags]);
        let mut after = before.clone();
        assert_eq!(mend(&mut after), []);
        let (store, and) = (100, before.len() - 100 - flags.len() / 2 + CALL);
        let mut expected = before;
        expected[store..store + STORE].copy_from_slice(&NOP);
        expected[and..and + LONG_NOP.len()].copy_from_slice(&LONG_NOP);
        assert!(after == expected);
        assert_eq!(
            mend(&mut after),
            [Fault::Injection, Fault::SharedFlags],
            "a mended program has nothing to mend"
        );
    }
}

#[test]
fn what_is_in_doubt_stays_as_it_is() {
    let other_base = INTERRUPT_11.replacen("c78384", "c78684", 1);
    for parts in
        [&[EXCEPTION, ATOMIC] as &[&str], &[INTERRUPT_10, INTERRUPT_11, FLAGS_10, FLAGS_11], &[&other_base]]
    {
        let before = program(parts);
        let mut after = before.clone();
        assert_eq!(mend(&mut after), [Fault::Injection, Fault::SharedFlags]);
        assert_eq!(before, after);
    }
}

#[test]
fn one_fault_is_mended_without_the_other() {
    let mut code = program(&[FLAGS_11]);
    assert_eq!(mend(&mut code), [Fault::Injection]);
    assert_eq!(code[105..115], LONG_NOP);
}
