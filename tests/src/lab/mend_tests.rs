use super::*;

/// The code of an injected interrupt and of an injected exception, as compiled in Debian's QEMU 10.0 and 11.1.
const INTERRUPT_10: &str = "89b310d7ffffc783e43300000000000048c783e8330000ffffffff\
    f6059aa73c01020f856c010000ba010000004889dfe877a60600f60580a73c01020f8465feffff8b";
const INTERRUPT_11: &str = "89b350c2ffffc783843400000000000048c78388340000ffffffff\
    f6050c405801020f85c1000000ba010000004889dfe879c80700f605f23f5801020f846dfeffff8b";
const EXCEPTION: &str = "89a350c2ffffc783843400000000000048c78388340000ffffffff\
    f6056b3f580102753f4889efe83120c7ff4489e6488d3d48c42d0031c081e600080000e87a7b2800";

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
fn the_store_of_an_injected_interrupt_is_left_out_and_nothing_else() {
    for interrupt in [INTERRUPT_10, INTERRUPT_11] {
        let before = program(&[interrupt, EXCEPTION]);
        let mut after = before.clone();
        assert!(mend(&mut after));
        let changed: Vec<_> = (0..before.len()).filter(|at| before[*at] != after[*at]).collect();
        assert!(changed.iter().all(|at| (100..106).contains(at)), "{changed:?}");
        assert_eq!(after[100..106], NOP);
        assert!(!mend(&mut after), "a mended program has nothing to mend");
    }
}

#[test]
fn a_program_in_doubt_stays_as_it_is() {
    let other_base = INTERRUPT_11.replacen("c78384", "c78684", 1);
    for parts in [&[EXCEPTION] as &[&str], &[INTERRUPT_10, INTERRUPT_11], &[&other_base]] {
        let before = program(parts);
        let mut after = before.clone();
        assert!(!mend(&mut after));
        assert_eq!(before, after);
    }
}
