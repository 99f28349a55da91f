use super::*;

const AARCH64: &str = "enabled\ninterpreter /usr/bin/qemu-aarch64-static\nflags: OCF\noffset 0\n\
    magic 7f454c460201010000000000000000000200b700\nmask ffffffffffffff00fffffffffffffffffeffffff\n";

#[test]
fn the_kernels_description_of_a_handler_is_read() {
    let (format, interpreter) = parse("qemu-aarch64", AARCH64).unwrap();
    assert_eq!(interpreter, Path::new("/usr/bin/qemu-aarch64-static"));
    let registration = format.registration("/i");
    assert!(registration.starts_with(r":qemu-aarch64:M:0:\x7f\x45\x4c\x46\x02"), "{registration}");
    assert!(registration.ends_with(r"\xfe\xff\xff\xff:/i:OCF"), "{registration}");
    let (format, _) = parse("jar", "enabled\ninterpreter /j\nflags: F\nextension .jar\n").unwrap();
    assert_eq!(format.registration("/i"), ":jar:E::jar::/i:F");
}

#[test]
fn a_handler_that_a_guest_cannot_have_says_why() {
    let refusal = |text: &str| chain(&parse("x", text).unwrap_err());
    assert_eq!(refusal(&AARCH64.replace("enabled", "disabled")), "the host's handler is disabled");
    let unflagged = refusal(&AARCH64.replace("OCF", "OC"));
    assert_eq!(unflagged, "the flags are not of P, O, C and F, or F is not among them");
    for text in ["", "enabled\n", &AARCH64.replace("7f45", "7g45"), &AARCH64.replace("offset 0", "offset -1")]
    {
        assert_eq!(refusal(text), "the host's handler is described as no kernel does it", "{text:?}");
    }
    assert_eq!(refusal(&AARCH64.replace("mask ff", "mask ")), "the mask is not as long as the magic");
    assert!(matches!(parse("x", &"x".repeat(FILE_MAX + 1)), Err(ForeignError::Unknown)));
}

#[test]
fn an_interpreter_must_be_where_the_handler_says() {
    let dir = tempfile::tempdir().unwrap();
    let interpreter = dir.path().join("interpreter");
    let describe = |path: &Path| {
        let text = AARCH64.replace("/usr/bin/qemu-aarch64-static", &path.display().to_string());
        fs::write(dir.path().join("aarch64"), text).unwrap();
        one(dir.path(), "aarch64")
    };
    assert!(matches!(describe(&interpreter), Err(ForeignError::Interpreter { .. })));
    fs::write(&interpreter, "").unwrap();
    let found = describe(&interpreter).unwrap();
    assert_eq!(found.interpreter, fs::canonicalize(&interpreter).unwrap());
    assert!(matches!(describe(dir.path()), Err(ForeignError::Interpreter { .. })));
    assert!(matches!(one(dir.path(), "missing"), Err(ForeignError::Missing)));
}
