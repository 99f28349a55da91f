use super::*;

fn header(family: Family, port: u16) -> Header {
    let container = "web".parse().unwrap();
    Header::Loopback(LoopbackPort { container, family, port: port.try_into().unwrap() })
}

#[test]
fn a_header_is_read_as_it_was_written() {
    for (header, line) in [
        (header(Family::V4, 80), "loopback web v4 80\n"),
        (header(Family::V6, u16::MAX), "loopback web v6 65535\n"),
        (Header::Socket(0), "socket 0\n"),
        (Header::Socket(u64::MAX), "socket 18446744073709551615\n"),
    ] {
        assert_eq!(header.to_string(), line);
        assert_eq!(line.parse(), Ok(header.clone()));
        assert_eq!(line.trim_end().parse(), Ok(header));
    }
}

#[test]
fn the_longest_header_fits_into_a_line() {
    let container = "c".repeat(128).parse().unwrap();
    let port = u16::MAX.try_into().unwrap();
    let header = Header::Loopback(LoopbackPort { container, family: Family::V4, port });
    assert!(header.to_string().len() <= crate::limits::LINE);
}

#[test]
fn anything_else_is_refused() {
    for line in [
        "",
        "\n",
        "loopback web v4\n",
        "loopback web v4 80 \n",
        "loopback web v4 80\n\n",
        "loopback web v5 80\n",
        "loopback web v4 0\n",
        "loopback web v4 65536\n",
        "loopback web v4 +80\n",
        "loopback web v4 80x\n",
        "loopback  v4 80\n",
        "loopback ../web v4 80\n",
        "stdio web v4 80\n",
        "socket\n",
        "socket -1\n",
        "socket +1\n",
        "socket 18446744073709551616\n",
        "socket 1 2\n",
    ] {
        assert_eq!(line.parse::<Header>(), Err(HeaderError), "{line:?}");
    }
}

#[test]
fn each_family_has_its_loopback_address() {
    let port = 80.try_into().unwrap();
    assert_eq!(Family::V4.address(port).to_string(), "127.0.0.1:80");
    assert_eq!(Family::V4.other().address(port).to_string(), "[::1]:80");
    assert_eq!(Family::V6.other(), Family::V4);
}
