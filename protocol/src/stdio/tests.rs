use super::*;

#[test]
fn a_header_survives_the_wire() {
    for stream in [Stream::Stdin, Stream::Stdout, Stream::Stderr, Stream::Tty] {
        let header = Header { token: "0123abcd".parse().unwrap(), stream };
        assert_eq!(header.to_string().parse::<Header>(), Ok(header));
    }
}

#[test]
fn a_bad_header_is_refused() {
    for line in
        ["", "stdio", "stdio t", "stdio t out", "stdio ../x stdin", "stdio t stdin x", "STDIO t stdin"]
    {
        assert_eq!(line.parse::<Header>(), Err(HeaderError), "{line:?}");
    }
}
