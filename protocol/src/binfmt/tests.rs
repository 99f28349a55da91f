use super::*;

fn magic(offset: u8, magic: &[u8], mask: Option<&[u8]>) -> Start {
    Start::Magic { offset, magic: magic.to_vec(), mask: mask.map(<[u8]>::to_vec) }
}

#[test]
fn a_format_is_registered_as_the_kernel_wants_it() {
    let start = magic(1, b"EL\xff", Some(b"\xff\xfe\0"));
    let format = Format::new("qemu-aarch64", start, "OCF").unwrap();
    assert_eq!(format.registration("/i"), r":qemu-aarch64:M:1:\x45\x4c\xff:\xff\xfe\x00:/i:OCF");
    let unmasked = Format::new("m", magic(0, b"a", None), "F").unwrap();
    assert_eq!(unmasked.registration("/i"), r":m:M:0:\x61::/i:F");
    let named = Format::new("jar", Start::Extension("jar".into()), "FP").unwrap();
    assert_eq!(named.registration("/i"), ":jar:E::jar::/i:FP");
}

#[test]
fn what_the_kernel_would_take_for_something_else_is_no_format() {
    let start = || magic(0, b"a", None);
    for name in ["", "..", "register", "a:b", "a/b", "a\nb", &"a".repeat(65)] {
        assert_eq!(Format::new(name, start(), "F"), Err(FormatError::Name), "{name:?}");
    }
    assert_eq!(Format::new("a", Start::Extension("a:b".into()), "F"), Err(FormatError::Name));
    for start in [magic(0, b"", None), magic(200, &[0; 57], None)] {
        assert_eq!(Format::new("a", start, "F"), Err(FormatError::Magic));
    }
    assert_eq!(Format::new("a", magic(0, b"ab", Some(b"a")), "F"), Err(FormatError::Mask));
    for flags in ["", "OC", "FX", "FFFFF"] {
        assert_eq!(Format::new("a", start(), flags), Err(FormatError::Flags), "{flags:?}");
    }
}

#[test]
fn a_format_from_elsewhere_is_checked_as_well() {
    let good = Format::new("a", magic(0, b"a", None), "F").unwrap();
    let json = serde_json::to_string(&good).unwrap();
    assert_eq!(serde_json::from_str::<Format>(&json).unwrap(), good);
    assert!(serde_json::from_str::<Format>(&json.replace("\"a\"", "\"a:b\"")).is_err());
}

#[test]
fn the_longest_format_fits_into_a_registration() {
    let bytes = [0xff; 256];
    let format = Format::new(&"a".repeat(64), magic(0, &bytes, None), "POCF").unwrap();
    // MAX_REGISTER_LENGTH of the kernel.
    assert!(format.registration("/run/share/@binfmt/63/interpreter").len() <= 1920);
}
