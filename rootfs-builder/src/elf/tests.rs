use super::*;

const PT_LOAD: u32 = 1;

/// A header and the given segments (type, content), laid out as a linker would.
pub(crate) fn program(segments: &[(u32, &[u8])]) -> Vec<u8> {
    let mut file = vec![0; HEADER_SIZE];
    file[..6].copy_from_slice(b"\x7fELF\x02\x01");
    file[16..18].copy_from_slice(&ET_DYN.to_le_bytes());
    file[18..20].copy_from_slice(&EM_X86_64.to_le_bytes());
    file[32..40].copy_from_slice(&(HEADER_SIZE as u64).to_le_bytes());
    file[54..56].copy_from_slice(&(PROGRAM_HEADER_SIZE as u16).to_le_bytes());
    file[56..58].copy_from_slice(&(segments.len() as u16).to_le_bytes());
    let mut contents = Vec::new();
    let start = HEADER_SIZE + segments.len() * PROGRAM_HEADER_SIZE;
    for (kind, content) in segments {
        let mut header = vec![0; PROGRAM_HEADER_SIZE];
        header[..4].copy_from_slice(&kind.to_le_bytes());
        header[8..16].copy_from_slice(&((start + contents.len()) as u64).to_le_bytes());
        file.extend(header);
        contents.extend_from_slice(content);
    }
    file.extend(contents);
    file
}

#[test]
fn a_program_without_interpreter_is_accepted() {
    assert_eq!(check_static(&program(&[(PT_LOAD, b"code")])), Ok(()));
}

#[test]
fn a_dynamically_linked_program_is_refused_by_its_interpreters_name() {
    let file = program(&[(PT_LOAD, b"code"), (PT_INTERP, b"/lib64/ld.so\0")]);
    assert_eq!(check_static(&file), Err(ElfError::Dynamic { interpreter: "/lib64/ld.so".to_owned() }));
}

#[cfg(not(target_feature = "crt-static"))]
#[test]
fn this_test_program_is_dynamic_and_refused() {
    let file = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    assert!(matches!(check_static(&file), Err(ElfError::Dynamic { .. })));
}

#[test]
fn an_interpreter_outside_the_file_is_still_refused() {
    let mut file = program(&[(PT_INTERP, b"/lib64/ld.so\0")]);
    file[HEADER_SIZE + 8..HEADER_SIZE + 16].copy_from_slice(&u64::MAX.to_le_bytes());
    assert_eq!(check_static(&file), Err(ElfError::Dynamic { interpreter: String::new() }));
}

#[test]
fn scripts_empty_files_and_32_bit_programs_are_not_programs() {
    assert_eq!(check_static(b"#!/bin/sh\n"), Err(ElfError::NotElf64));
    assert_eq!(check_static(b""), Err(ElfError::NotElf64));
    let mut file = program(&[(PT_LOAD, b"")]);
    file[4] = 1;
    assert_eq!(check_static(&file), Err(ElfError::NotElf64));
}

#[test]
fn a_program_for_another_machine_is_refused() {
    let mut file = program(&[(PT_LOAD, b"")]);
    file[18] = 183; // EM_AARCH64
    assert_eq!(check_static(&file), Err(ElfError::NotX86Program { machine: 183, kind: ET_DYN }));
}

#[test]
fn program_headers_that_lie_are_refused_without_a_panic() {
    let good = program(&[(PT_LOAD, b"code"), (PT_LOAD, b"data")]);
    let with = |at: usize, bytes: &[u8]| {
        let mut file = good.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        file
    };
    for file in [
        with(32, &u64::MAX.to_le_bytes()),                  // offset overflows
        with(32, &1_000_000_u64.to_le_bytes()),             // offset beyond the end
        with(56, &0_u16.to_le_bytes()),                     // none
        with(56, &u16::MAX.to_le_bytes()),                  // too many
        with(54, &1_u16.to_le_bytes()),                     // a size of its own
        good[..HEADER_SIZE + PROGRAM_HEADER_SIZE].to_vec(), // cut off
    ] {
        assert_eq!(check_static(&file), Err(ElfError::BadProgramHeaders));
    }
}
